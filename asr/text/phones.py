"""Phones as tokens: transcripts go through a pronunciation lexicon.

The tokens are how words sound, not which words they are: without a lexicon in the decoder, a hypothesis is a
sequence of phones, and its error rate is a phone error rate.

A word's pronunciation comes from the given lexicon, else from CMUdict if its 39 phones are those of the
lexicon, else from `pronunciation.letter_to_sound`, learned from one of the two. Each word of the last kind is
counted and reported by `report_guesses`.
"""

import base64
import json
import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from asr.errors import FEW, DataError, ModelError, first_few
from asr.text.lexicon import Lexicon, Spelling, cmudict, parse_lexicon
from asr.text.pronunciation.pronouncer import Pronouncer, pronounce_words
from asr.text.token_lists import TokenLists
from asr.text.tokenizer import Tokenizer, Units, check_ids, check_unknown, read_symbols

__all__ = ["MIN_WORDS", "PhoneTokenizer", "report_guesses"]

log = logging.getLogger("asr")

MIN_WORDS = 2000  # of a lexicon from which letter-to-sound is learned

Fallback = Literal["cmudict", "lexicon", "nothing"]
"""How a word that is not in the lexicon is pronounced, see `PhoneTokenizer`."""


@dataclass(frozen=True)
class PhoneTokenizer:
    """Words as their pronunciations; a `Tokenizer`.

    Attributes:
        symbols: (n,) phones, each once; symbol i has the id i + 1.
        lexicon: pronunciations of the given lexicon, and those of CMUdict for the words of the training
            transcripts.
        guessed: words of the training transcripts with pronunciations by letter-to-sound.
        fallback: how other words are pronounced: by CMUdict and letter-to-sound learned from it, by
            letter-to-sound learned from `lexicon`, or not at all.

    Raises:
        DataError: no phone, one that occurs twice, or a pronunciation with other phones.
    """

    symbols: tuple[str, ...]
    lexicon: Lexicon = field(compare=False, repr=False)
    guessed: Mapping[str, Spelling] = field(default_factory=dict, repr=False)
    fallback: Fallback = "cmudict"
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)
    _pronounced: dict[str, tuple[Spelling, ...]] = field(init=False, repr=False, compare=False)
    _packed: dict[str, str] = field(init=False, repr=False, compare=False)  # lexica as in `to_json`

    def __post_init__(self) -> None:
        ids = {symbol: number for number, symbol in enumerate(self.symbols, start=1)}
        if not ids or len(ids) < len(self.symbols):
            raise DataError(
                f"the phones {' '.join(self.symbols)!r}: each was expected once, and at least one."
            )
        used = {*self.lexicon.symbols, *(phone for one in self.guessed.values() for phone in one)}
        if foreign := sorted(used - ids.keys()):
            raise DataError(f"{self.lexicon.name}: {foreign[0]!r} is none of the phones {self.symbols}.")
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_pronounced", {word: (one,) for word, one in self.guessed.items()})
        object.__setattr__(self, "_packed", {})

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], lexicon: Lexicon | None = None, pronouncer: Pronouncer | None = None
    ) -> "PhoneTokenizer":
        """The phones of a lexicon, and the pronunciations of the words of these transcripts.

        Args:
            texts: transcripts as they will be encoded, that is, already normalised.
            lexicon: pronunciations that take precedence over CMUdict; None for CMUdict alone.
            pronouncer: pronounces the words of the transcripts that neither has; None for letter-to-sound. A
                word with letters that it has not learned is left to letter-to-sound.

        Raises:
            DataError: the transcripts hold no word, or the pronouncer writes other phones.
        """
        words = {word for text in texts for word in text.split()}
        if not words:
            raise DataError(
                "no phones can be learned: the transcripts hold not one word. "
                "Text was expected. Check the manifest's `text` fields and the normalizer."
            )
        fallback: Fallback = "cmudict"
        if lexicon is not None and not set(lexicon.symbols) <= set(cmudict().symbols):
            fallback = "lexicon" if len(lexicon.entries) >= MIN_WORDS else "nothing"
        if fallback != "cmudict" and lexicon is not None:
            source = cls(lexicon.symbols, lexicon, fallback=fallback)
            entries, name = dict(lexicon.entries), lexicon.name
        else:
            name = lexicon.name if lexicon is not None else cmudict().name
            entries = dict(lexicon.entries) if lexicon is not None else {}
            source = cls(cmudict().symbols, Lexicon(entries, name))
            entries = {
                **entries,
                **{word: found for word in sorted(words) if (found := source._look_up(word))},
            }
        outside = sorted(word for word in words if not source._look_up(word))
        guessed = _pronounce(outside, pronouncer, source.symbols) if pronouncer else {}
        guessed |= {
            word: found[0]
            for word in outside
            if word not in guessed and (found := source.pronunciations(word))
        }
        log_probs = lexicon.log_probs if lexicon is not None else {}
        return cls(source.symbols, Lexicon(entries, name, log_probs), guessed, fallback)

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
        """The pronunciations of a word, the usual one first; none if it has none, even by letter-to-sound."""
        if found := self._look_up(word):
            return found
        if word not in self._pronounced:
            pronunciations: tuple[Spelling, ...] = ()
            if word and not self._unknown_letters(word):
                phones = self.source.letter_to_sound.pronounce(word.lower())
                pronunciations = (phones,) if phones else ()
            self._pronounced[word] = pronunciations
        return self._pronounced[word]

    def is_guess(self, word: str) -> bool:
        """Whether a word is not in the lexicon, so that letter-to-sound pronounces it."""
        return word in self.guessed or not self._look_up(word)

    def unknown_characters(self, text: str) -> "Counter[str]":
        """How often each character occurs in `text` that no word of the lexicon has.

        Of a word that cannot be pronounced for another reason, all characters count.
        """
        unknown: Counter[str] = Counter()
        for word in text.split():
            if not self.pronunciations(word):
                unknown.update(self._unknown_letters(word) or word)
        return unknown

    def encode(
        self, text: str, *, utterance: str = "", unknown: Literal["error", "drop"] = "error"
    ) -> list[int]:
        """Ids of the first pronunciation of each word.

        With "drop", a word with unknown characters is pronounced without them.
        """
        check_unknown(unknown)
        phones: list[str] = []
        for word in text.split():
            found = self.pronunciations(word)
            if not found and unknown == "error":
                where = f"utterance {utterance}" if utterance else f"transcript {text[:80]!r}"
                raise DataError(
                    f"{where}: no pronunciation for {word!r}: {self._reason(word)} Correct the transcript, "
                    f"add the word to a lexicon (--text.lexicon), or have the characters left out and "
                    f"counted (--text.unknown drop)."
                )
            if not found and (dropped := self._unknown_letters(word)):
                found = self.pronunciations("".join(letter for letter in word if letter not in dropped))
            phones += found[0] if found else ()
        return [self._ids[phone] for phone in phones]

    def encode_all(self, texts: Sequence[str]) -> TokenLists | None:
        """Ids of many transcripts; None if a word has no pronunciation."""
        try:
            return TokenLists.of([self.encode(text) for text in texts])
        except DataError:
            return None

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
        if not self._packed:
            guessed = Lexicon({word: (one,) for word, one in self.guessed.items()}, "")
            for key, lexicon in (("lexicon", self.lexicon), ("guessed", guessed)):
                self._packed[key] = _pack("\n".join(lexicon.lines()))
        return json.dumps(
            {
                "type": self.units,
                "symbols": list(self.symbols),
                "beyond": self.fallback,
                "name": self.lexicon.name,
                **self._packed,
            }
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "PhoneTokenizer":
        """The tokenizer of the JSON object that `to_json` wrote.

        Raises:
            ModelError: the record is damaged.
        """
        try:
            name, fallback = str(record["name"]), record["beyond"]  # the stored name of `fallback`
            if fallback not in ("cmudict", "lexicon", "nothing"):
                raise ValueError(f"beyond is {fallback!r}")
            lexicon, guessed = (_unpack(record[key], name) for key in ("lexicon", "guessed"))
            guesses = {word: spellings[0] for word, spellings in guessed.entries.items()}
            tokenizer = cls(read_symbols(record), lexicon, guesses, fallback)
            tokenizer._packed.update(lexicon=record["lexicon"], guessed=record["guessed"])
            return tokenizer
        except (DataError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise ModelError(f"the stored tokenizer is damaged: {type(error).__name__}: {error}") from None

    @property
    def source(self) -> Lexicon:
        """The lexicon that letter-to-sound is learned from."""
        return cmudict() if self.fallback == "cmudict" else self.lexicon

    def _look_up(self, word: str) -> tuple[Spelling, ...]:
        """The pronunciations of a word in the lexica, without letter-to-sound."""
        found = self.lexicon.spellings(word)
        if found or word in self.guessed or self.fallback != "cmudict":
            return found
        return cmudict().spellings(word)

    def _unknown_letters(self, word: str) -> str:
        """The letters of a word that letter-to-sound does not know; all of them if there is no such model."""
        if self.fallback == "nothing":
            return word
        model = self.source.letter_to_sound
        return "".join(letter for letter in word if model.unknown(letter.lower()))

    def _reason(self, word: str) -> str:
        """Why a word has no pronunciation, for a message."""
        if self.fallback == "nothing":
            return (
                f"{self.lexicon.name} does not have it, and is too small ({len(self.lexicon.entries)} words; "
                f"{MIN_WORDS} are needed) to learn letter-to-sound from."
            )
        letters = self._unknown_letters(word)
        named = ", ".join(f"{letter!r} (U+{ord(letter):04X})" for letter in letters)
        return f"no word of {self.source.name} has {named}." if letters else "its letters are silent."


def _pronounce(words: Sequence[str], pronouncer: Pronouncer, symbols: Sequence[str]) -> dict[str, Spelling]:
    """The pronunciations of the words whose letters a pronouncer has learned.

    Raises:
        DataError: it writes other phones than these symbols.
    """
    found = {
        one.word: one.pronunciations[0].phones
        for one in pronounce_words(pronouncer, words)
        if one.pronunciations and not one.unknown
    }
    for word, phones in found.items():
        if foreign := [phone for phone in phones if phone not in symbols]:
            raise DataError(
                f"the pronouncer writes {word!r} with {foreign[0]!r}, which is none of the phones "
                f"{' '.join(symbols[:50])}. Use one that was trained on the same lexicon."
            )
    return found


def report_guesses(tokenizer: Tokenizer, texts: Iterable[str], kind: str) -> None:
    """Warn how many words of transcripts are not in the lexicon, with some of their pronunciations.

    Args:
        tokenizer: any; all but phones have nothing to report.
        texts: normalised transcripts.
        kind: the name of the transcripts in the message, such as "training".
    """
    if not isinstance(tokenizer, PhoneTokenizer):
        return
    words = Counter(word for text in texts for word in text.split())
    guesses = Counter({word: count for word, count in words.items() if tokenizer.is_guess(word)})
    if not guesses:
        return
    named = [
        f"{word} = {' '.join(found[0]) if (found := tokenizer.pronunciations(word)) else 'nothing'}"
        for word, _ in guesses.most_common(FEW)
    ]
    log.warning(
        "%s: %d of %d different words (%d of all %d) are not in the lexicon. Letter-to-sound pronounces "
        "them, up to one in four wrongly: %s. Add them with --text.lexicon.",
        f"{kind} transcripts", len(guesses), len(words), guesses.total(), words.total(),
        first_few(named, separator="; ", total=len(guesses)),
    )  # fmt: skip


def _pack(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _unpack(packed: str, name: str) -> Lexicon:
    text = zlib.decompress(base64.b64decode(packed, validate=True)).decode()
    return parse_lexicon(text.split("\n"), name) if text else Lexicon({}, name)
