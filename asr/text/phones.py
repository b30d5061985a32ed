"""Phones as token ids: transcripts go through a pronunciation lexicon.

The tokens say how words sound, not which words they are: without a lexicon in the decoder, what is recognised
is a row of phones, and the error rate is one of phones.

A word is pronounced as the lexicon says, else as CMUdict says if its 39 phones are the lexicon's, else by
`letter_to_sound`, learned from one of the two. Each word that was spelled by that model is counted and
reported by `report_guesses`.
"""

import base64
import json
import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from asr.errors import DataError, ModelError
from asr.text.lexicon import Lexicon, Spelling, cmudict, parse_lexicon
from asr.text.tokenizer import Tokenizer, Units, check_ids, check_unknown, read_symbols

__all__ = ["PhoneTokenizer", "report_guesses"]

log = logging.getLogger("asr")

_ENOUGH = 2000  # words from which letter-to-sound can be learned
_NAMED = 5  # words that a message spells out

Beyond = Literal["cmudict", "lexicon", "nothing"]


@dataclass(frozen=True)
class PhoneTokenizer:
    """Pronunciations; see `Tokenizer`.

    Attributes:
        symbols: (n,) phones, each once; symbol i has the id i + 1.
        lexicon: words that somebody has pronounced: those of the given lexicon, and of CMUdict those that
            training has heard.
        guessed: words of the training transcripts that letter-to-sound has pronounced.
        beyond: how other words are pronounced: by CMUdict and letter-to-sound learned from it, by
            letter-to-sound learned from `lexicon`, or not at all.

    Raises:
        DataError: no phone at all, one that stands twice, or a pronunciation with others.
    """

    symbols: tuple[str, ...]
    lexicon: Lexicon = field(compare=False, repr=False)
    guessed: Mapping[str, Spelling] = field(default_factory=dict, repr=False)
    beyond: Beyond = "cmudict"
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)
    _made: dict[str, tuple[Spelling, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ids = {symbol: number for number, symbol in enumerate(self.symbols, start=1)}
        if not ids or len(ids) < len(self.symbols):
            raise DataError(
                f"the phones {' '.join(self.symbols)!r}: each was expected once, and at least one."
            )
        used = {*self.lexicon.symbols, *(phone for one in self.guessed.values() for phone in one)}
        if strange := sorted(used - ids.keys()):
            raise DataError(f"{self.lexicon.name}: {strange[0]!r} is none of the phones {self.symbols}.")
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_made", {word: (one,) for word, one in self.guessed.items()})

    @classmethod
    def from_texts(cls, texts: Iterable[str], lexicon: Lexicon | None = None) -> "PhoneTokenizer":
        """The phones of a lexicon, and the pronunciations of the words of these transcripts.

        Args:
            texts: transcripts as they will be encoded, that is, already normalised.
            lexicon: pronunciations that go before CMUdict; None for CMUdict alone.

        Raises:
            DataError: the transcripts hold no word.
        """
        words = {word for text in texts for word in text.split()}
        if not words:
            raise DataError(
                "no phones can be learned: the transcripts hold not one word. "
                "Text was expected. Check the manifest's `text` fields and the normalizer."
            )
        beyond: Beyond = "cmudict"
        if lexicon is not None and not set(lexicon.symbols) <= set(cmudict().symbols):
            beyond = "lexicon" if len(lexicon.entries) >= _ENOUGH else "nothing"
        if beyond != "cmudict" and lexicon is not None:
            source = cls(lexicon.symbols, lexicon, beyond=beyond)
            entries, name = dict(lexicon.entries), lexicon.name
        else:
            name = lexicon.name if lexicon is not None else cmudict().name
            entries = dict(lexicon.entries) if lexicon is not None else {}
            source = cls(cmudict().symbols, Lexicon(entries, name))
            entries = {**entries, **{word: said for word in sorted(words) if (said := source._look_up(word))}}
        outside = sorted(word for word in words if not source._look_up(word))
        guessed = {word: said[0] for word in outside if (said := source.pronunciations(word))}
        return cls(source.symbols, Lexicon(entries, name), guessed, beyond)

    @property
    def units(self) -> Units:
        """Phones."""
        return "phones"

    @property
    def vocab_size(self) -> int:
        """Number of ids, the blank included: the width of the model's output."""
        return len(self.symbols) + 1

    @property
    def pieces(self) -> None:
        """None: phones are not text."""
        return None

    def pronunciations(self, word: str) -> tuple[Spelling, ...]:
        """How a word is pronounced, the usual way first; none if neither lexicon nor letter-to-sound can."""
        if found := self._look_up(word):
            return found
        if word not in self._made:
            made: tuple[Spelling, ...] = ()
            if word and not self._unknown_letters(word):
                phones = self._source.letter_to_sound.pronounce(word.lower())
                made = (phones,) if phones else ()
            self._made[word] = made
        return self._made[word]

    def is_guess(self, word: str) -> bool:
        """Whether a word stands in no lexicon, so that letter-to-sound has to pronounce it."""
        return word in self.guessed or not self._look_up(word)

    def unknown_characters(self, text: str) -> "Counter[str]":
        """How often each character occurs in `text` that stands in no lexicon's word and makes no sound.

        All characters of a word count that cannot be pronounced for another reason.
        """
        unknown: Counter[str] = Counter()
        for word in text.split():
            if not self.pronunciations(word):
                unknown.update(self._unknown_letters(word) or word)
        return unknown

    def encode(
        self, text: str, *, utterance: str = "", unknown: Literal["error", "drop"] = "error"
    ) -> list[int]:
        """Ids of the first pronunciation of each word; see `Tokenizer.encode`.

        With "drop", a word with unknown characters is pronounced as if it had none.
        """
        check_unknown(unknown)
        phones: list[str] = []
        for word in text.split():
            said = self.pronunciations(word)
            if not said and unknown == "error":
                where = f"utterance {utterance}" if utterance else f"transcript {text[:80]!r}"
                raise DataError(
                    f"{where}: no pronunciation for {word!r}: {self._reason(word)} Correct the transcript, "
                    f"add the word to a lexicon (--text.lexicon), or have the characters left out and "
                    f"counted (--text.unknown drop)."
                )
            if not said and (strange := self._unknown_letters(word)):
                said = self.pronunciations("".join(letter for letter in word if letter not in strange))
            phones += said[0] if said else ()
        return [self._ids[phone] for phone in phones]

    def decode(self, ids: Sequence[int]) -> str:
        """The names of these phones, with spaces between them."""
        check_ids(ids, self)
        return " ".join([self.symbols[number - 1] for number in ids])

    def words(self, ids: Sequence[int]) -> None:
        """None: phones alone give no words."""
        return None

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The ids of all pronunciations of a word."""
        return tuple(tuple(self._ids[phone] for phone in one) for one in self.pronunciations(word))

    def to_json(self) -> str:
        """One line of ASCII JSON that `tokenizer_from_json` reads back; a saved model carries it."""
        return json.dumps(
            {
                "type": self.units,
                "symbols": list(self.symbols),
                "beyond": self.beyond,
                "name": self.lexicon.name,
                "lexicon": _pack("\n".join(self.lexicon.lines())),
                "guessed": _pack("\n".join(Lexicon({w: (p,) for w, p in self.guessed.items()}, "").lines())),
            }
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "PhoneTokenizer":
        """The tokenizer of the JSON object that `to_json` wrote.

        Raises:
            ModelError: the record is damaged.
        """
        try:
            name, beyond = str(record["name"]), record["beyond"]
            if beyond not in ("cmudict", "lexicon", "nothing"):
                raise ValueError(f"beyond is {beyond!r}")
            lexicon, guessed = (_unpack(record[key], name) for key in ("lexicon", "guessed"))
            first = {word: several[0] for word, several in guessed.entries.items()}
            return cls(read_symbols(record), lexicon, first, beyond)
        except (DataError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise ModelError(f"the stored tokenizer is damaged: {type(error).__name__}: {error}") from None

    @property
    def _source(self) -> Lexicon:
        """What letter-to-sound is learned from."""
        return cmudict() if self.beyond == "cmudict" else self.lexicon

    def _look_up(self, word: str) -> tuple[Spelling, ...]:
        found = self.lexicon.spellings(word)
        if found or word in self.guessed or self.beyond != "cmudict":
            return found
        return cmudict().spellings(word)

    def _unknown_letters(self, word: str) -> str:
        """The letters of a word that stand in the way of its pronunciation; all where there is no model."""
        if self.beyond == "nothing":
            return word
        model = self._source.letter_to_sound
        return "".join(letter for letter in word if model.unknown(letter.lower()))

    def _reason(self, word: str) -> str:
        if self.beyond == "nothing":
            return (
                f"{self.lexicon.name} does not have it, and is too small ({len(self.lexicon.entries)} words; "
                f"{_ENOUGH} are needed) to learn letter-to-sound from."
            )
        strange = self._unknown_letters(word)
        named = ", ".join(f"{letter!r} (U+{ord(letter):04X})" for letter in strange)
        return f"no word of {self._source.name} has {named}." if strange else "it has no sound."


def report_guesses(tokenizer: Tokenizer, texts: Iterable[str], kind: str) -> None:
    """Say how many words of transcripts stand in no lexicon, and how letter-to-sound pronounces some.

    Args:
        tokenizer: any; all but phones have nothing to report.
        texts: normalised transcripts.
        kind: what the message calls them.
    """
    if not isinstance(tokenizer, PhoneTokenizer):
        return
    words = Counter(word for text in texts for word in text.split())
    guesses = Counter({word: count for word, count in words.items() if tokenizer.is_guess(word)})
    if not guesses:
        return
    named = "; ".join(
        f"{word} = {' '.join(said[0]) if (said := tokenizer.pronunciations(word)) else 'nothing'}"
        for word, _ in guesses.most_common(_NAMED)
    )
    log.warning(
        "%d of %d different words of %s transcripts (%d of all %d) stand in no lexicon and are pronounced by "
        "letter-to-sound, which is wrong for one new word in four: %s%s. Name a lexicon that has them with "
        "--text.lexicon.",
        len(guesses), len(words), kind, guesses.total(), words.total(), named,
        "; ..." if len(guesses) > _NAMED else "",
    )  # fmt: skip


def _pack(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _unpack(packed: str, name: str) -> Lexicon:
    text = zlib.decompress(base64.b64decode(packed, validate=True)).decode()
    return parse_lexicon(text.split("\n"), name) if text else Lexicon({}, name)
