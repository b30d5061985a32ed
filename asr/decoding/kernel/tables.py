"""From tokenizer, settings and models to the arrays that the compiled search reads."""

import math

import numpy as np
from numpy.typing import NDArray

from asr.decoding.config import BeamConfig
from asr.decoding.hotwords import HotWords
from asr.decoding.kernel.fusion import Tables
from asr.decoding.kernel.lexicon_tree import LexiconTree, best_below
from asr.decoding.kernel.search import Pruning
from asr.decoding.vocabulary import Letters, Vocabulary
from asr.errors import ModelError
from asr.text.tokenizer import BLANK

__all__ = ["bias_of", "build_pruning", "build_tables"]

_PRIOR_FLOOR = 0.01  # the least prior, as a share of 1 / vocab

_NO_TREE = LexiconTree(
    child_start=np.array([1, 1], dtype=np.int32),
    letter=np.array([-1], dtype=np.int32),
    word_start=np.zeros(2, dtype=np.int32),
    words=np.zeros(0, dtype=np.int32),
    depth=np.zeros(1, dtype=np.int32),
)


def build_pruning(config: BeamConfig, vocab: int) -> Pruning:
    """What the search may leave out, as the kernel takes it."""
    return Pruning(
        beam_threshold=config.beam_threshold,
        token_threshold=config.token_threshold,
        token_top=min(config.token_top or vocab, vocab),
        blank_skip=math.log(config.blank_skip) if config.blank_skip < 1 else math.inf,
        recombine=config.recombine,
        lattice_threshold=config.lattice_threshold,
    )


def build_tables(
    letters: Letters,
    config: BeamConfig,
    *,
    bias: NDArray[np.float64],
    vocabulary: Vocabulary | None,
    scores: NDArray[np.float64] | None,
    lm_kind: int,
    symbol: NDArray[np.int32],
    hot: HotWords | None,
    word_boost: NDArray[np.float64] | None,
) -> Tables:
    """What scores a prefix.

    Args:
        letters: what the tokens are made of.
        config: weights.
        bias: (vocab,) float64 nats, see `bias_of`.
        vocabulary: the words, if the search knows any.
        scores: (words,) float64: the language model's log-probabilities without context, for the look-ahead.
        lm_kind: see `fusion`.
        symbol: int32: the language model's ids of the words, or of the letters and the space.
        hot: what finds hot words by their letters.
        word_boost: (words,) float64: nats of hot words that are not found by their letters.
    """
    tree = vocabulary.tree if vocabulary else _NO_TREE
    boosts = np.zeros(len(vocabulary.words) if vocabulary else 0) if word_boost is None else word_boost
    ahead = np.zeros(len(tree.letter) + 1)  # the last is for INSIDE
    if vocabulary and scores is not None:
        weight = config.weights.lm_weight
        ahead[:-1] = best_below(tree, (weight * scores if weight > 0 else 0.0) + boosts)
    hot = hot or HotWords(np.zeros((1, len(letters.numbers) + 1), dtype=np.int32), np.zeros(1), np.zeros(1))
    within, end = _gains(ahead, letters, config, vocabulary is not None, hot, boosts)
    most = int(np.diff(tree.word_start).max()) + 1
    return Tables(
        scale=float(config.weights.acoustic_scale),
        bias=bias,
        begins=np.array(letters.begins, dtype=np.bool_),
        letter_start=np.cumsum([0, *map(len, letters.tokens)], dtype=np.int32),
        letters=np.array([number for token in letters.tokens for number in token], dtype=np.int32),
        separated=letters.separated,
        vocabulary=vocabulary is not None,
        unknown=config.unknown_words == "allow",
        child_start=tree.child_start,
        letter=tree.letter,
        word_start=tree.word_start,
        words=tree.words,
        depth=np.append(tree.depth, np.int32(0)),
        ahead=ahead,
        gain_within=within,
        gain_end=end,
        word_bonus=float(config.weights.word_bonus),
        unknown_penalty=float(config.weights.unknown_penalty),
        unknown_letter_penalty=float(config.weights.unknown_letter_penalty),
        word_boost=boosts,
        hot_next=hot.following,
        hot_value=hot.advance,
        hot_gain=hot.gain,
        lm_kind=lm_kind,
        lm_weight=float(config.weights.lm_weight),
        symbol=symbol,
        most_proposals=most,
    )


def bias_of(vocab: int, config: BeamConfig, priors: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(vocab,) float64 nats added to the scaled log-probabilities.

    A prior below a hundredth of the uniform one counts as that: dividing by the mean posterior of a token
    that was hardly ever seen would make it thousands of times too likely.

    Args:
        vocab: the model's width.
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
                f"prior-weight is {config.weights.prior_weight:g}, but there are no priors. The tokens' mean "
                "probabilities were expected. Give them, or set --prior-weight 0."
            )
        if priors.shape != (vocab,) or not (priors > 0).all():
            raise ModelError(
                f"priors are of shape {priors.shape}, the least is {priors.min(initial=math.inf):g}. "
                f"({vocab},) probabilities above 0 were expected, one a token, the blank first."
            )
        floored = np.maximum(priors, _PRIOR_FLOOR / vocab)
        bias -= config.weights.acoustic_scale * config.weights.prior_weight * np.log(floored)
    bias[BLANK] += math.log(config.weights.blank_scale)
    return bias


def _gains(
    ahead: NDArray[np.float64],
    letters: Letters,
    config: BeamConfig,
    known: bool,
    hot: HotWords,
    boosts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The most by which a token within a word, and one that ends it, can raise a mass, by node of the tree.

    No language model gives more than 0 nats, so a word gains at most what the look-ahead had taken, its bonus
    and its boost.
    """
    penalty = max(0.0, config.weights.unknown_penalty) if known and config.unknown_words == "allow" else 0.0
    end = -ahead + config.weights.word_bonus + boosts.max(initial=0.0) + 2 * penalty + max(0.0, ahead[0])
    end[0] = max(end[0], penalty - ahead[0], 0.0)  # where no word has begun, none is rewarded
    within = np.zeros(len(ahead))
    if known and config.unknown_words == "allow":
        within = np.maximum(
            within, -ahead + config.weights.unknown_penalty
        )  # a word that leaves the vocabulary
    if not letters.separated:
        within = np.maximum(within, end)
    step = float((hot.advance[hot.following[:, :-1]] - hot.advance[:, None]).max(initial=0.0))
    longest = max(map(len, letters.tokens))
    letter_gain = min(step * longest, float(hot.advance.max()))
    end_gain = (
        float((hot.gain - hot.advance + hot.advance[hot.following[:, -1]]).max(initial=0.0)) + letter_gain
    )
    return np.exp(within + letter_gain), np.exp(end + end_gain)
