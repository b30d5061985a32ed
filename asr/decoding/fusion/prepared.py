"""Language model, vocabulary and hot words prepared for a tokenizer, for any weights."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.decoding.config import BeamConfig
from asr.decoding.fusion.hotwords import HotwordAutomaton, build_hotwords, check_hotwords
from asr.decoding.fusion.lm_queries import PythonLmStates
from asr.decoding.fusion.vocabulary import (
    SearchVocabulary,
    SpellingAlphabet,
    build_vocabulary,
    spelling_alphabet,
)
from asr.decoding.kernel.proposals import CHARACTER_LM, NO_LM, PYTHON_LM, WORD_LM
from asr.errors import SettingsError
from asr.lm.alphabet import check_lm_fits_tokenizer
from asr.lm.interface import LanguageModel, Unit
from asr.lm.ngram.model import NgramModel
from asr.lm.ngram.packed import PackedNgrams, empty, word_log_probs
from asr.lm.ngram.trie import RESERVED
from asr.text.lexicon import Lexicon
from asr.text.tokenizer import Tokenizer

__all__ = ["PreparedResources", "prepare_resources"]

log = logging.getLogger("asr")

_BATCH = 4096  # words that a language model scores at once


@dataclass(frozen=True, eq=False)
class PreparedResources:
    """Decoding resources as a search needs them, for any weights.

    Attributes:
        alphabet: what the tokens are made of.
        vocabulary: the words of the search, or None.
        unigram_log_probs: (words,) float64 nats: the words' log-probabilities by the language model without
            context, or None without one of words.
        out_of_lm: (words,) bool: words of a lexicon that the language model of words does not know, hot words
            aside; or None without such a lexicon. Each costs the penalty for unknown words.
        lm: the language model, or None.
        lm_kind: NO_LM, WORD_LM, CHARACTER_LM or PYTHON_LM, see `kernel.proposals`.
        ngrams: of the n-gram model; empty for others.
        word_lm_ids: (words,) int32: ids of the words in an n-gram model of words; empty for others.
        symbol_lm_ids: (symbols + 1,) int32: ids of the symbols and, last, of the space in an n-gram model of
            characters; empty for others.
        hotword_automaton: finds hot words by their symbols, where tokens show where words end.
        word_boost: (words,) float64 nats: of hot words, where they do not.
    """

    alphabet: SpellingAlphabet
    vocabulary: SearchVocabulary | None
    unigram_log_probs: NDArray[np.float64] | None
    out_of_lm: NDArray[np.bool_] | None
    lm: LanguageModel[Any] | None
    lm_kind: int
    ngrams: PackedNgrams
    word_lm_ids: NDArray[np.int32]
    symbol_lm_ids: NDArray[np.int32]
    hotword_automaton: HotwordAutomaton | None
    word_boost: NDArray[np.float64] | None

    @property
    def start_state(self) -> int:
        """The language model's state before the first word, as the compiled search numbers it."""
        return self.lm.start_state if isinstance(self.lm, NgramModel) else 0

    @property
    def end_id(self) -> int:
        """The n-gram model's id of a text's end; -1 for others."""
        return self.lm.end_id if isinstance(self.lm, NgramModel) else -1

    def python_lm_states(self) -> PythonLmStates | None:
        """The language model in a new search, where it is called from Python; else None."""
        if self.lm is None or self.lm_kind != PYTHON_LM:
            return None
        return PythonLmStates(self.lm, self.alphabet, self.vocabulary)


def prepare_resources(
    tokenizer: Tokenizer,
    lm: LanguageModel[Any] | None,
    lexicon: Lexicon | None,
    hotwords: Mapping[str, float],
    config: BeamConfig,
) -> PreparedResources:
    """Prepare what is fused.

    The vocabulary is that of the lexicon; without one, that of a language model of words; and, where unknown
    words are allowed, the hot words.

    Args:
        tokenizer: the model's.
        lm: any language model, or None.
        lexicon: words with their spellings, or None.
        hotwords: nats of each hot word.
        config: whether words outside the vocabulary are allowed.

    Raises:
        SettingsError: the parts do not fit each other: alphabets, a vocabulary that cannot be spelled, hot
            words that cannot be written.
        DataError: the lexicon spells with symbols that the tokenizer lacks.
    """
    alphabet = spelling_alphabet(tokenizer)
    if lm is not None and (lexicon is None or lm.unit == "character"):
        check_lm_fits_tokenizer(lm, tokenizer)  # a lexicon may spell words with other symbols
    word_lm = lm if lm is not None and lm.unit == "word" else None
    lm_words = None
    if word_lm is not None:
        lm_words = tuple(word for word in word_lm.words if word not in RESERVED)
    vocabulary = _vocabulary_of(lm_words, lexicon, hotwords, tokenizer, alphabet, config)
    words = vocabulary.words if vocabulary else ()
    if lexicon is not None and lm_words:
        _check_lexicon(words, lm_words, lexicon)
    lm_kind = NO_LM if lm is None else PYTHON_LM
    if isinstance(lm, NgramModel):
        lm_kind = WORD_LM if lm.unit == "word" else CHARACTER_LM
    word_lm_ids = _lm_ids(lm, "word", words)
    automaton, word_boost = _find_hotwords(hotwords, alphabet, vocabulary, config)
    return PreparedResources(
        alphabet=alphabet,
        vocabulary=vocabulary,
        unigram_log_probs=None if word_lm is None else _score_words(word_lm, words, word_lm_ids),
        out_of_lm=_out_of_lm(words, lm_words, hotwords) if lexicon is not None and lm_words else None,
        lm=lm,
        lm_kind=lm_kind,
        ngrams=lm.ngrams if isinstance(lm, NgramModel) else empty(),
        word_lm_ids=word_lm_ids,
        symbol_lm_ids=_lm_ids(lm, "character", [*alphabet.ids, " "]),
        hotword_automaton=automaton,
        word_boost=word_boost,
    )


def _vocabulary_of(
    lm_words: Sequence[str] | None,
    lexicon: Lexicon | None,
    hotwords: Mapping[str, float],
    tokenizer: Tokenizer,
    alphabet: SpellingAlphabet,
    config: BeamConfig,
) -> SearchVocabulary | None:
    """The words that the search can write, or None where there is no limit, see `prepare_resources`.

    Args:
        lm_words: those of a language model of words, or None without one.
        lexicon: as there, like the other arguments.
        hotwords: nats of each hot word.
        tokenizer: the model's.
        alphabet: its symbols.
        config: whether words outside the vocabulary are allowed.

    Raises:
        SettingsError: unknown words are forbidden and there are no known ones, or none can be spelled.
        DataError: the lexicon spells with symbols that the tokenizer lacks.
    """
    words = lexicon.entries if lexicon is not None else lm_words
    if words is not None:
        return build_vocabulary(
            _with_hotwords(words, hotwords, alphabet, config), tokenizer, alphabet, lexicon
        )
    if config.unknown_words == "forbid":
        raise SettingsError(
            "--beam.unknown-words is forbid, but there is no vocabulary. A language model of words or a "
            "lexicon was expected."
        )
    return None


def _with_hotwords(
    words: Iterable[str], hotwords: Mapping[str, float], alphabet: SpellingAlphabet, config: BeamConfig
) -> tuple[str, ...]:
    """The vocabulary and the hot words, which cost no penalty for unknown words."""
    if config.unknown_words == "forbid" or not alphabet.separated:
        return tuple(words)  # hot words outside it are refused later
    return tuple(dict.fromkeys((*words, *(word for phrase in hotwords for word in phrase.split()))))


def _check_lexicon(words: Sequence[str], lm_words: Sequence[str], lexicon: Lexicon) -> None:
    """Refuse a lexicon in another case than the language model; log how many words the model does not have.

    Raises:
        SettingsError: the cases differ.
    """
    names = frozenset(lm_words)
    missing = [word for word in words if word not in names]
    if not missing:
        return
    for case, other, change in (("upper", "lower", str.lower), ("lower", "upper", str.upper)):
        if 2 * len(missing) > len(words) and 2 * sum(change(word) in names for word in missing) > len(
            missing
        ):
            raise SettingsError(
                f"{lexicon.name} is in {case} case, the language model in {other} case: {len(missing)} of "
                f"{len(words)} words, such as {missing[0]!r}, are unknown to it. Write the "
                "lexicon's words as the language model's."
            )
    log.info(
        "%d of %d words of %s are unknown to the language model, such as %s: each costs --unknown-penalty",
        len(missing),
        len(words),
        lexicon.name,
        missing[0],
    )


def _lm_ids(lm: LanguageModel[Any] | None, unit: Unit, names: Sequence[str]) -> NDArray[np.int32]:
    """(n,) ids of words or symbols in an n-gram model of this unit, 0 for unknown ones; empty for others."""
    if not isinstance(lm, NgramModel) or lm.unit != unit:
        return np.zeros(0, np.int32)
    return np.array([lm.ids.get(name, 0) for name in names], np.int32)


def _out_of_lm(
    words: Sequence[str], lm_words: Sequence[str], hotwords: Mapping[str, float]
) -> NDArray[np.bool_]:
    """`PreparedResources.out_of_lm` of the words of a vocabulary."""
    expected = {*lm_words, *(word for phrase in hotwords for word in phrase.split())}
    return np.array([word not in expected for word in words], dtype=np.bool_)


def _score_words(
    lm: LanguageModel[Any], words: tuple[str, ...], lm_ids: NDArray[np.int32]
) -> NDArray[np.float64]:
    """(words,) nats without context or, where a model needs one, at the beginning of a text."""
    if isinstance(lm, NgramModel):
        return word_log_probs(lm.ngrams, lm_ids)
    parts = []
    for first in range(0, len(words), _BATCH):
        batch = words[first : first + _BATCH]
        parts.append(lm.score([lm.start()] * len(batch), batch)[0])
    return np.concatenate(parts)


def _find_hotwords(
    boosts: Mapping[str, float],
    alphabet: SpellingAlphabet,
    vocabulary: SearchVocabulary | None,
    config: BeamConfig,
) -> tuple[HotwordAutomaton | None, NDArray[np.float64] | None]:
    """`PreparedResources.hotword_automaton` and `PreparedResources.word_boost`; both None without hot words.

    Raises:
        SettingsError: a hot word cannot be written or found.
    """
    if not boosts:
        return None, None
    check_hotwords(boosts)
    word_ids = {word: index for index, word in enumerate(vocabulary.words)} if vocabulary else {}
    if vocabulary and (config.unknown_words == "forbid" or not alphabet.separated):
        for phrase in boosts:
            for word in phrase.split():
                if word not in word_ids:
                    allowed = (
                        "allow unknown words"
                        if alphabet.separated
                        else "for a model that ships let `asr adapt MODEL --words FILE -o DIR` pronounce it"
                    )
                    raise SettingsError(
                        f"hotwords: {word!r} is not in the vocabulary of {len(word_ids)} words, and "
                        f"others cannot be written. Add it to the lexicon, or {allowed}."
                    )
    if alphabet.separated:
        return build_hotwords(boosts, alphabet.ids), None
    if vocabulary is None:
        raise SettingsError(
            "hotwords: the model's tokens do not show where words end. A lexicon was expected with hot words."
        )
    boost = np.zeros(len(word_ids))
    for phrase, nats in boosts.items():
        if phrase not in word_ids:
            raise SettingsError(
                f"hotwords: {phrase!r} is more than one word. One was expected, because the model's "
                "tokens do not show where words end."
            )
        boost[word_ids[phrase]] = nats
    return None, boost
