"""Characters as token ids: the alphabet of a model, learned from its training transcripts.

Id 0 is the CTC blank, always and everywhere; the symbols have the ids 1..n in code-point order, so the same
transcripts give the same alphabet whatever their order. A space is a symbol like any other. Nothing is ever
deleted in silence: a character outside the alphabet is an error, or, where the caller says "drop", something
that the caller counts with `unknown_characters` and reports.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from asr.errors import DataError, ModelError, SettingsError

__all__ = ["BLANK", "CharTokenizer"]

BLANK = 0  # id of the CTC blank in every tokenizer and every model of this package

_KIND = "characters"  # leaves room in saved models for other tokenizers


@dataclass(frozen=True)
class CharTokenizer:
    """An alphabet, and the two ways through it.

    Attributes:
        symbols: (n,) single characters, each once; symbol i has the id i + 1.

    Raises:
        DataError: no symbol at all, a symbol that is not one character, or a symbol that stands twice.
    """

    symbols: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

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
        object.__setattr__(self, "_ids", ids)

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
    def vocab_size(self) -> int:
        """Number of ids, the blank included: the width of the model's output."""
        return len(self.symbols) + 1

    def unknown_characters(self, text: str) -> "Counter[str]":
        """How often each character outside the alphabet occurs in `text`; empty when all are known."""
        return Counter(character for character in text if character not in self._ids)

    def encode(
        self, text: str, *, utterance: str = "", unknown: Literal["error", "drop"] = "error"
    ) -> list[int]:
        """Token ids of a transcript, one a character, never the blank.

        Args:
            text: the transcript, normalised as the alphabet's texts were.
            utterance: the id to name in an error message.
            unknown: what a character outside the alphabet does. "drop" leaves it out of the result; the
                caller counts such characters with `unknown_characters` and reports them.

        Raises:
            DataError: a character is unknown and `unknown` is "error"; names utterance and all unknown
                characters.
            SettingsError: `unknown` is neither "error" nor "drop".
        """
        if unknown not in ("error", "drop"):
            raise SettingsError(f'unknown must be "error" or "drop". Got {unknown!r}.')
        ids = self._ids
        if unknown == "error":
            try:
                return [ids[character] for character in text]
            except KeyError:
                raise DataError(self._describe_unknown(text, utterance)) from None
        return [ids[character] for character in text if character in ids]

    def _describe_unknown(self, text: str, utterance: str) -> str:
        found = ", ".join(
            f"{character!r} (U+{ord(character):04X}) x {count}"
            for character, count in sorted(self.unknown_characters(text).items())
        )
        where = f"utterance {utterance}" if utterance else f"transcript {text[:80]!r}"
        return (
            f"{where}: characters outside the alphabet: {found}. "
            f"The {len(self.symbols)} known ones are {''.join(self.symbols)!r}. "
            "Correct the transcript, choose a normalizer that writes these characters otherwise, "
            "or have them left out and counted (--text.unknown drop)."
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these token ids; what `encode` made of a text gives exactly that text back.

        Args:
            ids: (tokens,) ids in 1..n, already collapsed (no blanks).

        Raises:
            ModelError: an id is the blank or lies outside the alphabet.
        """
        last = len(self.symbols)
        for number in ids:
            if not 1 <= number <= last:
                raise ModelError(
                    f"token id {number} has no character. Ids from 1 to {last} were expected (0 is the CTC "
                    "blank, which collapsing removes). Check that model and tokenizer belong together."
                )
        return "".join([self.symbols[number - 1] for number in ids])

    def to_json(self) -> str:
        """One line of ASCII JSON that `from_json` reads back; a saved model carries it."""
        return json.dumps({"type": _KIND, "symbols": list(self.symbols)})

    @classmethod
    def from_json(cls, text: str) -> "CharTokenizer":
        """The tokenizer that `to_json` wrote.

        Raises:
            ModelError: the text is not such a record.
        """
        try:
            record = json.loads(text)
        except ValueError as error:
            raise ModelError(
                f"the stored tokenizer is not JSON ({error}). The model file may be damaged."
            ) from None
        kind = record.get("type") if isinstance(record, dict) else None
        if kind != _KIND:
            raise ModelError(
                f"the stored tokenizer is of type {kind!r}. {_KIND!r} was expected. "
                "The model may come from a newer version of this package."
            )
        symbols = record.get("symbols")
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise ModelError("the stored tokenizer has no list of symbols. The model file may be damaged.")
        try:
            return cls(tuple(symbols))
        except DataError as error:
            raise ModelError(f"the stored tokenizer is damaged: {error}") from None
