"""Tokenizer: transcripts in, token ids out, and back; what characters, BPE and phones have in common.

Id 0 is the CTC blank, always and everywhere; the symbols have the ids 1..n. Nothing is deleted in silence: a
character that a tokenizer cannot write is an error, or, where the caller passes "drop", something that the
caller counts with `unknown_characters` and reports.

A decoder reads from the tokenizer what its tokens are (`units`), what each one writes (`pieces`) and where
the words are (`words`); it never guesses.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from asr.errors import DataError, ModelError, SettingsError

if TYPE_CHECKING:  # it needs numpy, which scoring two text files does not
    from asr.text.token_lists import TokenLists

__all__ = [
    "BLANK",
    "Piece",
    "TextTokenizer",
    "Tokenizer",
    "Units",
    "check_ids",
    "check_unknown",
    "cut_words",
    "read_symbols",
    "tokenizer_from_json",
]

BLANK = 0  # id of the CTC blank in every tokenizer and every model of this package

Units = Literal["characters", "bpe", "phones"]


class Piece(NamedTuple):
    """What a token adds to the text: a space if it begins a word, then its letters.

    A space among characters begins a word and has no letters; a BPE piece may do both.
    """

    text: str  # its letters, without spaces; may be empty
    begins_word: bool  # whether it ends the previous word, and its letters are the first of the next one


class Tokenizer(Protocol):
    """Transcripts in, token ids out, and back.

    With characters and BPE, `decode(encode(text)) == text` for every text without unknown characters. Phones
    are not text: `decode` gives their names, and only a lexicon turns them into words.
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
        """(vocab_size,) what each id writes, the blank nothing; None if tokens do not write text."""

    def unknown_characters(self, text: str) -> "Counter[str]":
        """How often each character that cannot be encoded occurs in `text`; empty when all can."""

    def encode(
        self, text: str, *, utterance: str = "", unknown: Literal["error", "drop"] = "error"
    ) -> list[int]:
        """Token ids of a transcript, never the blank.

        Args:
            text: the transcript, normalised as the texts that the tokenizer has learned from.
            utterance: its id, for an error message.
            unknown: "error": a character that cannot be encoded is an error; "drop": it is left out, and the
                caller counts such characters with `unknown_characters` and reports them.

        Raises:
            DataError: a character is unknown and `unknown` is "error"; names utterance and all unknown
                characters.
            SettingsError: `unknown` is neither "error" nor "drop".
        """

    def encode_all(self, texts: Sequence[str]) -> "TokenLists | None":
        """What `encode` gives for each of many transcripts; None if it is an error for one of them."""

    def decode(self, ids: Sequence[int]) -> str:
        """What these token ids write: text, or the names of phones with spaces between them.

        Args:
            ids: (tokens,) ids in 1..n, already collapsed (no blanks).

        Raises:
            ModelError: an id is the blank or outside the symbols.
        """

    def words(self, ids: Sequence[int]) -> list[slice] | None:
        """Where the words are among these token ids.

        The slices leave out what only separates words; `decode` of a slice is the word.

        Args:
            ids: (tokens,) ids in 1..n.

        Returns:
            The words in order, none of them empty; None if the tokens alone give no words (phones).
        """

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The token ids of a word alone, the usual ones first; none if it cannot be spelled.

        Args:
            word: without spaces.
        """

    def to_json(self) -> str:
        """One line of ASCII JSON that `tokenizer_from_json` reads back; a saved model carries it."""


def tokenizer_from_json(text: str) -> Tokenizer:
    """The tokenizer in a saved model, of whichever kind it is.

    Args:
        text: what `Tokenizer.to_json` wrote.

    Raises:
        ModelError: the text is not such a record, or of an unknown kind.
    """
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ModelError(
            f"the stored tokenizer is not JSON ({error}). The model file may be damaged."
        ) from None
    kind = record.get("type") if isinstance(record, dict) else None
    # Imported here: each kind builds on this module, and a model of characters needs neither of the others.
    if kind == "characters":
        from asr.text.characters import CharTokenizer

        return CharTokenizer.from_record(record)
    if kind == "bpe":
        from asr.text.bpe import BpeTokenizer

        return BpeTokenizer.from_record(record)
    if kind == "phones":
        from asr.text.phones import PhoneTokenizer

        return PhoneTokenizer.from_record(record)
    raise ModelError(
        f"the stored tokenizer is of type {kind!r}. Expected characters, bpe or phones. "
        "The model may come from a newer version of this package."
    )


# What the tokenizers share.


class TextTokenizer:
    """Base of the tokenizers whose tokens write text: characters and BPE.

    Attributes:
        symbols: (n,) names of the tokens, each once; symbol i has the id i + 1.
    """

    symbols: tuple[str, ...]
    _pieces: tuple[Piece, ...]
    _alphabet: frozenset[str]  # the characters that can be encoded

    @property
    def vocab_size(self) -> int:
        """Number of ids, the blank included: the width of the model's output."""
        return len(self.symbols) + 1

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """(vocab_size,) what each id writes."""
        return self._pieces

    def unknown_characters(self, text: str) -> "Counter[str]":
        """How often each character that cannot be encoded occurs in `text`; empty when all can."""
        return Counter(character for character in text if character not in self._alphabet)

    def encode(
        self, text: str, *, utterance: str = "", unknown: Literal["error", "drop"] = "error"
    ) -> list[int]:
        """Token ids of a transcript.

        Raises:
            DataError: a character is unknown and `unknown` is "error".
            SettingsError: `unknown` is misspelt, or a library that encodes is not installed.
        """
        check_unknown(unknown)
        if not self._alphabet.issuperset(text):
            if unknown == "error":
                raise DataError(self._describe_unknown(text, utterance))
            text = "".join(character for character in text if character in self._alphabet)
        return self._encode(text)

    def encode_all(self, texts: Sequence[str]) -> "TokenLists | None":
        """Token ids of many transcripts; None if one has an unknown character."""
        from asr.text.token_lists import TokenLists  # see above

        if not self._alphabet.issuperset(chain.from_iterable(texts)):
            return None
        return TokenLists.of([self._encode(text) for text in texts])

    def _encode(self, text: str) -> list[int]:
        """Token ids of a text without unknown characters."""
        raise NotImplementedError

    def words(self, ids: Sequence[int]) -> list[slice]:
        """From each token that begins a word to the next; a space alone belongs to no word."""
        return cut_words(ids, self._pieces)

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The word's tokens; none if one of its characters is unknown."""
        return (tuple(self.encode(word)),) if word and self._alphabet.issuperset(word) else ()

    def _describe_unknown(self, text: str, utterance: str) -> str:
        """The message about a transcript that cannot be encoded: utterance, unknown characters, remedies."""
        found = ", ".join(
            f"{character!r} (U+{ord(character):04X}) x {count}"
            for character, count in sorted(self.unknown_characters(text).items())
        )
        alphabet = sorted({character for piece in self._pieces for character in piece.text})
        if any(piece.begins_word for piece in self._pieces):
            alphabet.insert(0, " ")
        where = f"utterance {utterance}" if utterance else f"transcript {text[:80]!r}"
        listed = f"The {len(alphabet)} known ones are {''.join(alphabet)!r}. " if alphabet else ""
        return (
            f"{where}: characters outside the alphabet: {found}. {listed}"
            "Correct the transcript, choose a normalizer that writes these characters otherwise, "
            "or have them left out and counted (--text.unknown drop)."
        )


def cut_words(ids: Sequence[int], pieces: Sequence[Piece]) -> list[slice]:
    """`Tokenizer.words` of token ids, from what each id writes."""
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
        ModelError: an id is the blank or outside the symbols.
    """
    last = len(tokenizer.symbols)
    for number in ids:
        if not 1 <= number <= last:
            raise ModelError(
                f"token id {number} has no symbol. Ids from 1 to {last} were expected (0 is the CTC "
                "blank, which collapsing removes). Check that model and tokenizer belong together."
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
