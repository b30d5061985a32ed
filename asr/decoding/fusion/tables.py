"""The arrays that the compiled search reads: prepared resources with the weights of a config."""

import math

import numpy as np
from numpy.typing import NDArray

from asr.decoding.config import BeamConfig
from asr.decoding.fusion.hotwords import HotWords
from asr.decoding.fusion.prepared import PreparedResources
from asr.decoding.fusion.vocabulary import Letters
from asr.decoding.kernel.lexicon_tree import LexiconTree, best_below
from asr.decoding.kernel.proposals import ScoreTables
from asr.errors import ModelError
from asr.text.tokenizer import BLANK

__all__ = ["build_bias", "build_tables"]

_PRIOR_FLOOR = 0.01  # the least prior, as a fraction of 1 / vocab

_NO_TREE = LexiconTree(
    child_start=np.array([1, 1], dtype=np.int32),
    letter=np.array([-1], dtype=np.int32),
    word_start=np.zeros(2, dtype=np.int32),
    words=np.zeros(0, dtype=np.int32),
    depth=np.zeros(1, dtype=np.int32),
    log_prob=np.zeros(0),
)


def build_tables(
    prepared: PreparedResources, config: BeamConfig, priors: NDArray[np.float64] | None
) -> ScoreTables:
    """What scores a prefix with these weights.

    Args:
        prepared: language model, vocabulary and hot words.
        config: weights.
        priors: (vocab,) float64 probabilities, see `build_bias`.

    Raises:
        ModelError: the priors do not fit.
    """
    letters, vocabulary, scores = prepared.letters, prepared.vocabulary, prepared.scores
    tree = vocabulary.tree if vocabulary else _NO_TREE
    boosts = np.zeros(len(vocabulary.words) if vocabulary else 0)
    if prepared.word_boost is not None:
        boosts += prepared.word_boost
    # To the language model each of these is <unk>, as likely as all unknown words together.
    if prepared.out_of_lm is not None:
        boosts += config.weights.unknown_penalty * prepared.out_of_lm
    # A pronunciation's probability is, with the language model's, part of that of the text before the audio.
    spelling_log_prob = tree.log_prob
    look_ahead = np.zeros(len(tree.letter) + 1)  # the last is for OUT_OF_TREE
    if vocabulary and scores is not None:
        weight = config.weights.lm_weight
        spelling_log_prob = weight * tree.log_prob
        of_words = (weight * scores if weight > 0 else 0.0) + boosts
        look_ahead[:-1] = best_below(tree, of_words[tree.words] + spelling_log_prob)
    hot_words = prepared.hot_words or HotWords(
        np.zeros((1, len(letters.numbers) + 1), dtype=np.int32), np.zeros(1), np.zeros(1)
    )
    within, end = _gains(look_ahead, letters, config, vocabulary is not None, hot_words, boosts)
    max_proposals = int(np.diff(tree.word_start).max()) + 1
    return ScoreTables(
        scale=float(config.weights.acoustic_scale),
        bias=build_bias(len(letters.tokens), config, priors),
        begins_word=np.array(letters.begins_word, dtype=np.bool_),
        letter_start=np.cumsum([0, *map(len, letters.tokens)], dtype=np.int32),
        letters=np.array([number for token in letters.tokens for number in token], dtype=np.int32),
        separated=letters.separated,
        has_vocabulary=vocabulary is not None,
        allow_unknown=config.unknown_words == "allow",
        child_start=tree.child_start,
        letter=tree.letter,
        word_start=tree.word_start,
        words=tree.words,
        spelling_log_prob=spelling_log_prob,
        depth=np.append(tree.depth, np.int32(0)),
        look_ahead=look_ahead,
        gain_within=within,
        gain_end=end,
        word_bonus=float(config.weights.word_bonus),
        unknown_penalty=float(config.weights.unknown_penalty),
        unknown_letter_penalty=float(config.weights.unknown_letter_penalty),
        word_boost=boosts,
        hot_next=hot_words.next_state,
        hot_advance=hot_words.advance,
        hot_gain=hot_words.gain,
        lm_kind=prepared.lm_kind,
        lm_weight=float(config.weights.lm_weight),
        lm_ids=prepared.lm_ids,
        max_proposals=max_proposals,
    )


def build_bias(vocab: int, config: BeamConfig, priors: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(vocab,) float64 nats added to the scaled log-probabilities.

    A prior below a hundredth of the uniform one counts as that: dividing by the mean posterior of a
    token that almost never occurred would make it thousands of times too likely.

    Args:
        vocab: number of tokens, blank included.
        config: weights.
        priors: (vocab,) float64 probabilities, blank included; needed where prior_weight is not 0.

    Raises:
        ModelError: priors are missing, of the wrong shape, or not all above 0.

    Source: the floor of priors in Kaldi's nnet-forward (`--prior-floor`), here relative to a uniform prior.
    """
    bias = np.zeros(vocab)
    if config.weights.prior_weight > 0:
        if priors is None:
            raise ModelError(
                f"--prior-weight is {config.weights.prior_weight:g}, but there are no priors. The tokens' "
                "mean probabilities were expected. Give them, or set --prior-weight 0."
            )
        if priors.shape != (vocab,) or not (priors > 0).all():
            raise ModelError(
                f"priors are of shape {priors.shape}, the least is {priors.min(initial=math.inf):g}. "
                f"({vocab},) probabilities above 0 were expected, one per token, the blank first."
            )
        floored = np.maximum(priors, _PRIOR_FLOOR / vocab)
        bias -= config.weights.acoustic_scale * config.weights.prior_weight * np.log(floored)
    bias[BLANK] += math.log(config.weights.blank_scale)
    return bias


def _gains(
    look_ahead: NDArray[np.float64],
    letters: Letters,
    config: BeamConfig,
    has_vocabulary: bool,
    hot_words: HotWords,
    boosts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The greatest factors by which a token can multiply a probability, by node of the lexicon tree.

    No language model gives more than 0 nats, so a word gains at most what the look-ahead had taken, its
    bonus and its boost.

    Args:
        look_ahead: (nodes + 1,) float64 nats.
        letters: what the tokens are made of.
        config: weights.
        has_vocabulary: whether words come from the tree.
        hot_words: the automaton that finds hot words by their letters.
        boosts: (words,) float64 nats: see `ScoreTables.word_boost`.

    Returns:
        Both (nodes + 1,) float64: of tokens within a word, and of tokens that end one.
    """
    penalty = (
        max(0.0, config.weights.unknown_penalty)
        if has_vocabulary and config.unknown_words == "allow"
        else 0.0
    )
    end = (
        -look_ahead
        + config.weights.word_bonus
        + boosts.max(initial=0.0)
        + 2 * penalty
        + max(0.0, look_ahead[0])
    )
    end[0] = max(end[0], penalty - look_ahead[0], 0.0)  # where no word has begun, none is rewarded
    within = np.zeros(len(look_ahead))
    if has_vocabulary and config.unknown_words == "allow":
        within = np.maximum(
            within, -look_ahead + config.weights.unknown_penalty
        )  # a word that leaves the vocabulary
    if not letters.separated:
        within = np.maximum(within, end)
    step = float(
        (hot_words.advance[hot_words.next_state[:, :-1]] - hot_words.advance[:, None]).max(initial=0.0)
    )
    longest = max(map(len, letters.tokens))
    letter_gain = min(step * longest, float(hot_words.advance.max()))
    end_gain = (
        float(
            (hot_words.gain - hot_words.advance + hot_words.advance[hot_words.next_state[:, -1]]).max(
                initial=0.0
            )
        )
        + letter_gain
    )
    return np.exp(within + letter_gain), np.exp(end + end_gain)
