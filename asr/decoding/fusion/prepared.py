"""Language model, vocabulary and hot words prepared for a tokenizer, for any weights."""

import logging
from collections.abc import Iterable, Mapping
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
from asr.lm.interface import LanguageModel
from asr.lm.ngram.model import NgramModel
from asr.lm.ngram.packed import PackedNgrams, empty, word_log_probs
from asr.lm.ngram.trie import BOS, EOS, UNK
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
        lm_ids: (words,) int32: the n-gram model's ids of the words; or (symbols + 1,) of the symbols and the
            space.
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
    lm_ids: NDArray[np.int32]
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
    lm_words = _words_of(lm)
    listed: Any = lm  # the interface names no words, most models do
    if hasattr(lm, "words") and (lexicon is None or listed.unit == "character"):
        check_lm_fits_tokenizer(listed, tokenizer)  # a lexicon may spell words with other symbols
    vocabulary = None
    if lexicon is not None:
        words = _with_hotwords(lexicon.entries, hotwords, alphabet, config)
        vocabulary = build_vocabulary(words, tokenizer, alphabet, lexicon)
    elif lm is not None and lm.unit == "word":
        vocabulary = build_vocabulary(
            _with_hotwords(lm_words, hotwords, alphabet, config), tokenizer, alphabet, None
        )
    elif config.unknown_words == "forbid":
        raise SettingsError(
            "--beam.unknown-words is forbid, but there is no vocabulary. A language model of words or a "
            "lexicon was expected."
        )
    if vocabulary is None and lm is not None and tokenizer.pieces is None:
        raise SettingsError(
            "a language model of characters cannot be used with phones. Use one of words, or a lexicon."
        )
    lm_kind = NO_LM if lm is None else PYTHON_LM
    if isinstance(lm, NgramModel):
        lm_kind = WORD_LM if lm.unit == "word" else CHARACTER_LM
    symbols = [*alphabet.ids, " "] if lm is not None and lm.unit == "character" else []
    if lm is not None and lm.unit == "word" and vocabulary is not None:
        symbols = list(vocabulary.words)
        _check_lexicon(symbols, lm_words, lexicon)
    lm_ids = np.zeros(1, dtype=np.int32)
    if isinstance(lm, NgramModel):
        lm_ids = np.array([lm.ids.get(name, 0) for name in symbols], dtype=np.int32)
    unigram_log_probs = None
    if lm is not None and lm.unit == "word" and vocabulary is not None:
        unigram_log_probs = _score_words(lm, vocabulary.words, lm_ids)
    out_of_lm = None
    if lexicon is not None and unigram_log_probs is not None and lm_words and vocabulary is not None:
        known = {*lm_words, *(word for phrase in hotwords for word in phrase.split())}
        out_of_lm = np.array([word not in known for word in vocabulary.words], dtype=np.bool_)
    automaton, word_boost = _find_hotwords(hotwords, alphabet, vocabulary, config)
    return PreparedResources(
        alphabet=alphabet,
        vocabulary=vocabulary,
        unigram_log_probs=unigram_log_probs,
        out_of_lm=out_of_lm,
        lm=lm,
        lm_kind=lm_kind,
        ngrams=lm.ngrams if isinstance(lm, NgramModel) else empty(),
        lm_ids=lm_ids,
        hotword_automaton=automaton,
        word_boost=word_boost,
    )


def _with_hotwords(
    words: Iterable[str], hotwords: Mapping[str, float], alphabet: SpellingAlphabet, config: BeamConfig
) -> tuple[str, ...]:
    """The vocabulary and the hot words, which cost no penalty for unknown words."""
    if config.unknown_words == "forbid" or not alphabet.separated:
        return tuple(words)  # hot words outside it are refused later
    return tuple(dict.fromkeys((*words, *(word for phrase in hotwords for word in phrase.split()))))


def _words_of(lm: LanguageModel[Any] | None) -> tuple[str, ...]:
    """The words of a language model of words, without its special ones."""
    if lm is None or lm.unit != "word":
        return ()
    words = getattr(lm, "words", ())
    return tuple(word for word in words if word not in (UNK, BOS, EOS))


def _check_lexicon(words: list[str], lm_words: tuple[str, ...], lexicon: Lexicon | None) -> None:
    """Refuse a lexicon in another case than the language model; log how many words the model does not have.

    Raises:
        SettingsError: the cases differ.
    """
    if lexicon is None or not lm_words:
        return
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
    numbers = {word: number for number, word in enumerate(vocabulary.words)} if vocabulary else {}
    if vocabulary and (config.unknown_words == "forbid" or not alphabet.separated):
        for phrase in boosts:
            for word in phrase.split():
                if word not in numbers:
                    raise SettingsError(
                        f"hotwords: {word!r} is not in the vocabulary of {len(numbers)} words, and "
                        "others cannot be written. Add it to the lexicon, or allow unknown words."
                    )
    if alphabet.separated:
        return build_hotwords(boosts, alphabet.ids), None
    if vocabulary is None:
        raise SettingsError(
            "hotwords: the model's tokens do not show where words end. A lexicon was expected with hot words."
        )
    boost = np.zeros(len(numbers))
    for phrase, nats in boosts.items():
        if phrase not in numbers:
            raise SettingsError(
                f"hotwords: {phrase!r} is more than one word. One was expected, because the model's "
                "tokens do not show where words end."
            )
        boost[numbers[phrase]] = nats
    return None, boost
