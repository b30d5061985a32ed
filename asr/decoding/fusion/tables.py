"""The arrays that the compiled search reads: prepared resources with the weights of a config."""

import math

import numpy as np
from numpy.typing import NDArray

from asr.decoding.config import BeamConfig
from asr.decoding.fusion.hotwords import HotwordAutomaton
from asr.decoding.fusion.prepared import PreparedResources
from asr.decoding.fusion.vocabulary import SpellingAlphabet
from asr.decoding.kernel.lexicon_tree import LexiconTree, best_below
from asr.decoding.kernel.proposals import ScoreTables
from asr.errors import ModelError
from asr.text.tokenizer import BLANK

__all__ = ["build_bias", "build_tables"]

_PRIOR_FLOOR = 0.01  # the least prior, as a fraction of 1 / vocab

_NO_TREE = LexiconTree(
    child_start=np.array([1, 1], dtype=np.int32),
    symbol=np.array([-1], dtype=np.int32),
    word_start=np.zeros(2, dtype=np.int32),
    words=np.zeros(0, dtype=np.int32),
    depth=np.zeros(1, dtype=np.int32),
    log_prob=np.zeros(0),
)


def build_tables(prepared: PreparedResources, config: BeamConfig) -> ScoreTables:
    """What scores a prefix with these weights.

    Args:
        prepared: language model, vocabulary and hot words.
        config: weights and priors.

    Raises:
        ModelError: the priors do not fit.
    """
    alphabet, vocabulary = prepared.alphabet, prepared.vocabulary
    unigram_log_probs = prepared.unigram_log_probs
    tree = vocabulary.tree if vocabulary else _NO_TREE
    boosts = np.zeros(len(vocabulary.words) if vocabulary else 0)
    if prepared.word_boost is not None:
        boosts += prepared.word_boost
    # To the language model each of these is <unk>, as likely as all unknown words together.
    if prepared.out_of_lm is not None:
        boosts += config.weights.unknown_penalty * prepared.out_of_lm
    # A pronunciation's probability is, with the language model's, part of that of the text before the audio.
    spelling_log_prob = tree.log_prob
    look_ahead = np.zeros(len(tree.symbol) + 1)  # the last is for OUT_OF_TREE
    if vocabulary and unigram_log_probs is not None:
        weight = config.weights.lm_weight
        spelling_log_prob = weight * tree.log_prob
        of_words = (weight * unigram_log_probs if weight > 0 else 0.0) + boosts
        look_ahead[:-1] = best_below(tree, of_words[tree.words] + spelling_log_prob)
    automaton = prepared.hotword_automaton or HotwordAutomaton(
        np.zeros((1, len(alphabet.ids) + 1), dtype=np.int32), np.zeros(1), np.zeros(1)
    )
    max_gain_within, max_gain_word_end = _max_gains(
        look_ahead, alphabet, config, vocabulary is not None, automaton, boosts
    )
    max_proposals = int(np.diff(tree.word_start).max()) + 1
    return ScoreTables(
        scale=float(config.weights.acoustic_scale),
        bias=build_bias(len(alphabet.token_symbols), config),
        begins_word=np.array(alphabet.begins_word, dtype=np.bool_),
        symbol_start=np.cumsum([0, *map(len, alphabet.token_symbols)], dtype=np.int32),
        symbols=np.array([symbol for token in alphabet.token_symbols for symbol in token], dtype=np.int32),
        separated=alphabet.separated,
        has_vocabulary=vocabulary is not None,
        allow_unknown=config.unknown_words == "allow",
        child_start=tree.child_start,
        symbol=tree.symbol,
        word_start=tree.word_start,
        words=tree.words,
        spelling_log_prob=spelling_log_prob,
        depth=np.append(tree.depth, np.int32(0)),
        look_ahead=look_ahead,
        max_gain_within=max_gain_within,
        max_gain_word_end=max_gain_word_end,
        word_bonus=float(config.weights.word_bonus),
        unknown_penalty=float(config.weights.unknown_penalty),
        unknown_letter_penalty=float(config.weights.unknown_letter_penalty),
        word_boost=boosts,
        hot_next=automaton.next_state,
        hot_advance=automaton.advance,
        hot_gain=automaton.gain,
        lm_kind=prepared.lm_kind,
        lm_weight=float(config.weights.lm_weight),
        word_lm_ids=prepared.word_lm_ids,
        symbol_lm_ids=prepared.symbol_lm_ids,
        max_proposals=max_proposals,
    )


def build_bias(vocab: int, config: BeamConfig) -> NDArray[np.float64]:
    """(vocab,) float64 nats added to the scaled log-probabilities.

    A prior below a hundredth of the uniform one counts as that: dividing by the mean posterior of a
    token that almost never occurred would make it thousands of times too likely.

    Args:
        vocab: number of tokens, blank included.
        config: weights and priors.

    Raises:
        ModelError: priors are missing, of the wrong shape, or not all above 0.

    Source: the floor of priors in Kaldi's nnet-forward (`--prior-floor`), here relative to a uniform prior.
    """
    bias = np.zeros(vocab)
    if config.weights.prior_weight > 0:
        priors = np.array(config.priors)
        if not len(priors):
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


def _max_gains(
    look_ahead: NDArray[np.float64],
    alphabet: SpellingAlphabet,
    config: BeamConfig,
    has_vocabulary: bool,
    automaton: HotwordAutomaton,
    boosts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The greatest factors by which a token can multiply a probability, by node of the lexicon tree.

    No language model gives more than 0 nats, so a word gains at most what the look-ahead had taken, its
    bonus and its boost.

    Args:
        look_ahead: (nodes + 1,) float64 nats.
        alphabet: what the tokens are made of.
        config: weights.
        has_vocabulary: whether words come from the tree.
        automaton: finds hot words by their symbols.
        boosts: (words,) float64 nats: see `ScoreTables.word_boost`.

    Returns:
        Both (nodes + 1,) float64: of tokens within a word, and of tokens that end one.
    """
    writes_unknown = has_vocabulary and config.unknown_words == "allow"
    penalty = max(0.0, config.weights.unknown_penalty) if writes_unknown else 0.0
    word_end = (
        -look_ahead  # that of the prefix, taken back
        + config.weights.word_bonus  # of the word that ends
        + boosts.max(initial=0.0)  # its `word_boost`
        + 2 * penalty  # `unknown_penalty` of it and of the next one
        + max(0.0, look_ahead[0])  # that of the next prefix: in the tree at most the root's, out of it 0
    )
    word_end[0] = max(word_end[0], penalty - look_ahead[0], 0.0)  # where no word has begun, none is rewarded
    within = np.zeros(len(look_ahead))
    if writes_unknown:
        within = np.maximum(within, -look_ahead + config.weights.unknown_penalty)  # it leaves the vocabulary
    if not alphabet.separated:
        within = np.maximum(within, word_end)
    hot_next, hot_advance = automaton.next_state, automaton.advance
    of_a_symbol = float((hot_advance[hot_next[:, :-1]] - hot_advance[:, None]).max(initial=0.0))
    longest = max(map(len, alphabet.token_symbols))
    hot_within = min(of_a_symbol * longest, float(hot_advance.max()))  # `hot_advance` of the token's symbols
    # `hot_gain` of what is complete, its advance taken back, and the advance of what begins after it
    of_an_end = float((automaton.gain - hot_advance + hot_advance[hot_next[:, -1]]).max(initial=0.0))
    return np.exp(within + hot_within), np.exp(word_end + (of_an_end + hot_within))
