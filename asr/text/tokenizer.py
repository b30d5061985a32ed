"""Text as token ids: what every tokenizer can do, and the simplest one, whose tokens are characters.

Id 0 is the CTC blank, always and everywhere; the symbols have the ids 1..n. Nothing is ever deleted in
silence: a character that a tokenizer cannot write is an error, or, where the caller says "drop", something
that the caller counts with `unknown_characters` and reports.

A decoder asks the tokenizer what its tokens are (`units`), what each one writes (`pieces`) and where the
words are (`words`); it never guesses.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from asr.errors import DataError, ModelError, SettingsError

__all__ = [
    "BLANK",
    "CharTokenizer",
    "Piece",
    "Tokenizer",
    "Units",
    "check_ids",
    "check_unknown",
    "cut_words",
    "describe_unknown",
    "read_symbols",
]

BLANK = 0  # id of the CTC blank in every tokenizer and every model of this package

Units = Literal["characters", "bpe", "phones"]


class Piece(NamedTuple):
    """What a token adds to the text: first a space, where it begins a word, then its letters.

    A space among characters begins a word and has no letters; a BPE piece may do both.
    """

    text: str  # its letters, without spaces; may be empty
    begins_word: bool  # whether the word before is complete, and these letters are the first of the next one


class Tokenizer(Protocol):
    """Transcripts in, token ids out, and back.

    With characters and BPE, `decode(encode(text)) == text` for every text without unknown characters. Phones
    are not text: `decode` gives their names, and which words they are only a lexicon can tell.
    """

    @property
    def units(self) -> Units:
        """What the tokens are."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """(n,) names of the tokens, each once; symbol i has the id i + 1."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, the blank included: the width of the model's output."""

    @property
    def pieces(self) -> tuple[Piece, ...] | None:
        """(vocab_size,) what each id writes, the blank nothing; None where tokens do not write text."""

    def unknown_characters(self, text: str) -> "Counter[str]":
        """How often each character that cannot be encoded occurs in `text`; empty when all can."""

    def encode(
        self, text: str, *, utterance: str = "", unknown: Literal["error", "drop"] = "error"
    ) -> list[int]:
        """Token ids of a transcript, never the blank.

        Args:
            text: the transcript, normalised as those that the tokenizer has learned from.
            utterance: the id to name in an error message.
            unknown: what a character that cannot be encoded does. "drop" leaves it out of the result; the
                caller counts such characters with `unknown_characters` and reports them.

        Raises:
            DataError: a character is unknown and `unknown` is "error"; names utterance and all unknown
                characters.
            SettingsError: `unknown` is neither "error" nor "drop".
        """

    def decode(self, ids: Sequence[int]) -> str:
        """What these token ids write: text, or the names of phones with spaces between them.

        Args:
            ids: (tokens,) ids in 1..n, already collapsed (no blanks).

        Raises:
            ModelError: an id is the blank or lies outside the symbols.
        """

    def words(self, ids: Sequence[int]) -> list[slice] | None:
        """Where the words are among these token ids.

        The slices leave out what only parts words; `decode` of a slice is the word.

        Args:
            ids: (tokens,) ids in 1..n.

        Returns:
            The words in order, none of them empty; None where the tokens alone give no words (phones).
        """

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The token ids of a word alone, the usual ones first; none if it cannot be spelled.

        Args:
            word: without spaces.
        """

    def to_json(self) -> str:
        """One line of ASCII JSON that `tokenizer_from_json` reads back; a saved model carries it."""


@dataclass(frozen=True)
class CharTokenizer:
    """An alphabet: every character of the training transcripts is a token; see `Tokenizer`.

    The symbols stand in code-point order, so that the same transcripts give the same alphabet whatever their
    order. A space is a symbol like any other.

    Attributes:
        symbols: (n,) single characters, each once; symbol i has the id i + 1.

    Raises:
        DataError: no symbol at all, a symbol that is not one character, or a symbol that stands twice.
    """

    symbols: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)
    _pieces: tuple[Piece, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.symbols:
            raise DataError(
                "the alphabet is empty. At least one character was expected. Check the transcripts."
            )
        wrong = [symbol for symbol in self.symbols if len(symbol) != 1]
        if wrong:
            raise DataError(f"the alphabet holds {wrong[0]!r}. Each symbol must be exactly one character.")
        ids = {symbol: number for number, symbol in enumerate(self.symbols, start=BLANK + 1)}
        if len(ids) < len(self.symbols):
            twice = next(symbol for symbol, count in Counter(self.symbols).items() if count > 1)
            raise DataError(
                f"the alphabet holds {twice!r} more than once. Each symbol must stand in it once."
            )
        pieces = [Piece("", True) if symbol == " " else Piece(symbol, False) for symbol in self.symbols]
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_pieces", (Piece("", False), *pieces))

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "CharTokenizer":
        """The alphabet of these transcripts: every character that occurs, in code-point order.

        Args:
            texts: transcripts as they will be encoded, that is, already normalised.

        Raises:
            DataError: the transcripts hold no character at all.
        """
        symbols: set[str] = set()
        for text in texts:
            symbols.update(text)
        if not symbols:
            raise DataError(
                "no alphabet can be learned: the transcripts hold not one character. "
                "Text was expected. Check the manifest's `text` fields and the normalizer."
            )
        return cls(tuple(sorted(symbols)))

    @property
    def units(self) -> Units:
        """Characters."""
        return "characters"

    @property
    def vocab_size(self) -> int:
        """Number of ids, the blank included: the width of the model's output."""
        return len(self.symbols) + 1

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """(vocab_size,) what each id writes."""
        return self._pieces

    def unknown_characters(self, text: str) -> "Counter[str]":
        """How often each character outside the alphabet occurs in `text`; empty when all are known."""
        return Counter(character for character in text if character not in self._ids)

    def encode(
        self, text: str, *, utterance: str = "", unknown: Literal["error", "drop"] = "error"
    ) -> list[int]:
        """Token ids of a transcript, one a character; see `Tokenizer.encode`."""
        check_unknown(unknown)
        ids = self._ids
        if unknown == "error":
            try:
                return [ids[character] for character in text]
            except KeyError:
                raise DataError(describe_unknown(self, text, utterance)) from None
        return [ids[character] for character in text if character in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids; what `encode` made of a text gives exactly that text back."""
        check_ids(ids, self)
        return "".join([self.symbols[number - 1] for number in ids])

    def words(self, ids: Sequence[int]) -> list[slice]:
        """What stands between spaces, without empty pieces."""
        return cut_words(ids, self._pieces)

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The word's characters; none if one of them is unknown."""
        return (tuple(self.encode(word)),) if word and not self.unknown_characters(word) else ()

    def to_json(self) -> str:
        """One line of ASCII JSON that `tokenizer_from_json` reads back; a saved model carries it."""
        return json.dumps({"type": self.units, "symbols": list(self.symbols)})

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "CharTokenizer":
        """The tokenizer of the JSON object that `to_json` wrote.

        Raises:
            ModelError: the record is damaged.
        """
        symbols = read_symbols(record)
        try:
            return cls(symbols)
        except DataError as error:
            raise ModelError(f"the stored tokenizer is damaged: {error}") from None


# What the tokenizers share.


def cut_words(ids: Sequence[int], pieces: Sequence[Piece]) -> list[slice]:
    """Where the words are, by what each id writes; see `Tokenizer.words`."""
    words = []
    begin = 0
    for position, number in enumerate(ids):
        piece = pieces[number]
        if piece.begins_word:
            if position > begin:
                words.append(slice(begin, position))
            begin = position if piece.text else position + 1
    if len(ids) > begin:
        words.append(slice(begin, len(ids)))
    return words


def check_unknown(unknown: str) -> None:
    """Refuse a misspelt `unknown`, which would otherwise drop in silence.

    Raises:
        SettingsError: it is neither "error" nor "drop".
    """
    if unknown not in ("error", "drop"):
        raise SettingsError(f'unknown must be "error" or "drop". Got {unknown!r}.')


def check_ids(ids: Sequence[int], tokenizer: Tokenizer) -> None:
    """Refuse ids that are no symbol's: Python would read a negative one from the end.

    Raises:
        ModelError: an id is the blank or lies outside the symbols.
    """
    last = len(tokenizer.symbols)
    for number in ids:
        if not 1 <= number <= last:
            raise ModelError(
                f"token id {number} has no symbol. Ids from 1 to {last} were expected (0 is the CTC "
                "blank, which collapsing removes). Check that model and tokenizer belong together."
            )


def describe_unknown(tokenizer: Tokenizer, text: str, utterance: str) -> str:
    """The message about a transcript that cannot be encoded: utterance, unknown characters, remedies."""
    found = ", ".join(
        f"{character!r} (U+{ord(character):04X}) x {count}"
        for character, count in sorted(tokenizer.unknown_characters(text).items())
    )
    known = sorted({character for piece in tokenizer.pieces or () for character in piece.text})
    if any(piece.begins_word for piece in tokenizer.pieces or ()):
        known.insert(0, " ")
    where = f"utterance {utterance}" if utterance else f"transcript {text[:80]!r}"
    listed = f"The {len(known)} known ones are {''.join(known)!r}. " if known else ""
    return (
        f"{where}: characters outside the alphabet: {found}. {listed}"
        "Correct the transcript, choose a normalizer that writes these characters otherwise, "
        "or have them left out and counted (--text.unknown drop)."
    )


def read_symbols(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The symbols in a stored tokenizer.

    Raises:
        ModelError: there is no list of strings.
    """
    symbols = record.get("symbols")
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise ModelError("the stored tokenizer has no list of symbols. The model file may be damaged.")
    return tuple(symbols)
