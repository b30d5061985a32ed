"""Characters as tokens: the alphabet is every character of the training transcripts."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError, ModelError
from asr.text.token_lists import TokenLists
from asr.text.tokenizer import BLANK, Piece, TextTokenizer, Units, check_ids, read_symbols

__all__ = ["CharTokenizer"]

_CODE_POINTS = 0x110000  # of Unicode
_BLOCK = 2000  # transcripts looked at together: their arrays fit into a processor's cache


@dataclass(frozen=True)
class CharTokenizer(TextTokenizer):
    """An alphabet: every character of the training transcripts is a token; a `Tokenizer`.

    The symbols are in code-point order, so that the same transcripts in any order give the same alphabet. A
    space is a symbol like any other.

    Attributes:
        symbols: (n,) single characters, each once; symbol i has the id i + 1.

    Raises:
        DataError: no symbol, a symbol that is not one character, or one that occurs twice.
    """

    symbols: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)
    _alphabet: frozenset[str] = field(init=False, repr=False, compare=False)
    _pieces: tuple[Piece, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.symbols:
            raise DataError(
                "the alphabet is empty. At least one character was expected. Check the transcripts."
            )
        invalid = [symbol for symbol in self.symbols if len(symbol) != 1]
        if invalid:
            raise DataError(f"the alphabet holds {invalid[0]!r}. Each symbol must be exactly one character.")
        ids = {symbol: number for number, symbol in enumerate(self.symbols, start=BLANK + 1)}
        if len(ids) < len(self.symbols):
            duplicate = next(symbol for symbol, count in Counter(self.symbols).items() if count > 1)
            raise DataError(f"the alphabet holds {duplicate!r} more than once. Each symbol must occur once.")
        pieces = [Piece("", True) if symbol == " " else Piece(symbol, False) for symbol in self.symbols]
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_alphabet", frozenset(ids))
        object.__setattr__(self, "_pieces", (Piece("", False), *pieces))

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "CharTokenizer":
        """The alphabet of these transcripts: every character that occurs, in code-point order.

        Args:
            texts: transcripts as they will be encoded, that is, already normalised.

        Raises:
            DataError: the transcripts hold no character at all.
        """
        iterator = iter(texts)
        seen = np.zeros(_CODE_POINTS, dtype=np.bool_)
        ascii_seen = b""
        while block := list(islice(iterator, _BLOCK)):
            text = "".join(block)
            if text.isascii():  # a fifth of the time: what is known is removed at once
                ascii_seen = bytes({*ascii_seen, *text.encode().translate(None, ascii_seen)})
            else:
                seen[_code_points(block)] = True
        seen[list(ascii_seen)] = True
        symbols = [chr(code) for code in np.flatnonzero(seen)]
        if not symbols:
            raise DataError(
                "no alphabet can be learned: the transcripts hold not one character. "
                "Text was expected. Check the manifest's `text` fields and the normalizer."
            )
        return cls(tuple(symbols))

    @property
    def units(self) -> Units:
        """Characters."""
        return "characters"

    def _encode(self, text: str) -> list[int]:
        return [self._ids[character] for character in text]

    def encode_all(self, texts: Sequence[str]) -> TokenLists | None:
        """Token ids of many transcripts, in one look-up; None if one has an unknown character."""
        table = np.zeros(_CODE_POINTS, dtype=np.int32)
        for symbol, number in self._ids.items():
            table[ord(symbol)] = number
        ids = table[_code_points(texts)]
        if not ids.all():
            return None
        return TokenLists(ids, np.fromiter(map(len, texts), np.int64, len(texts)))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids; `decode(encode(text))` is the text."""
        check_ids(ids, self)
        return "".join([self.symbols[number - 1] for number in ids])

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


def _code_points(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Of all characters, one text after the other."""
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
