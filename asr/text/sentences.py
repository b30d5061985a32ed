"""Running English text as the sentences of a language model: one a line, words only, as they are spoken.

Paragraphs are split where a full stop and a capital letter meet, numbers become words, accents go, and the
rules of `normalize.english` are applied. A sentence with anything but letters then is left out.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from asr.errors import SettingsError
from asr.text.normalize import english

__all__ = ["runs", "sentences", "split_sentences"]

_BORDER = re.compile(r"(?<=[.!?])[\"')\u201d\u2019]*\s+(?=[\"'(\u201c\u2018]?[A-Z])")
_ABBREVIATION = re.compile(
    r"(?:^|\W)(?:Mrs?|Ms|Dr|St|Jr|Sr|Prof|Gen|Col|Capt|Lt|vs|e\.g|i\.e|ca?|cf|U\.S|[A-Z])\.$"
)
_WORDS = re.compile("[a-z' ]+")
# an ordinal, a decade or a whole number, but no part of another number, of a time, a sum or a name
_NUMBER = re.compile(
    r"(?<![\w.,:/$\u20ac\u00a3-])(\d{1,3}(?:,\d{3})+|[1-9]\d{0,8}|0)(s|st|nd|rd|th)?(?![\w:/]|[.,-]\d|-[a-z])"
)
_RANGE = re.compile("(?<=\\d)\u2013(?=\\d)")
_SPOKEN = {"Mr.": "mister", "Mrs.": "missus", "Dr.": "doctor", "e.g.": "for example", "i.e.": "that is"}
_ABBREVIATED = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, _SPOKEN)) + ")")


def split_sentences(paragraph: str) -> Iterator[str]:
    """The sentences of a paragraph as written; a full stop after a title or an initial ends none."""
    sentence = ""
    for piece in _BORDER.split(paragraph):
        sentence = f"{sentence} {piece}" if sentence else piece
        if not _ABBREVIATION.search(sentence):
            yield sentence
            sentence = ""
    if sentence:
        yield sentence


def sentences(paragraphs: Iterable[str], lengths: range = range(3, 61)) -> Iterator[str]:
    """Sentences of text for a language model, each once.

    Args:
        paragraphs: text as written; a sentence does not go on in the next one.
        lengths: in words; others are left out.

    Yields:
        Lower case a-z, apostrophe and space.

    Raises:
        SettingsError: num2words is not installed.
    """
    number_words, seen = _number_words(), set()
    for paragraph in paragraphs:
        for written in split_sentences(paragraph):
            spoken = _ABBREVIATED.sub(lambda match: _SPOKEN[match[0]], written)
            spoken = _NUMBER.sub(number_words, _RANGE.sub(" to ", spoken))
            spoken = "".join(c for c in unicodedata.normalize("NFKD", spoken) if not unicodedata.combining(c))
            sentence = english(spoken)
            if _WORDS.fullmatch(sentence) and len(sentence.split()) in lengths and sentence not in seen:
                seen.add(sentence)
                yield sentence


def runs(text: str, length: int = 8) -> set[tuple[str, ...]]:
    """The runs of words of a text by which it is known again in another: the whole, and all of a length."""
    words = tuple(text.split())
    return {words, *(words[first : first + length] for first in range(len(words) - length + 1))}


def _number_words() -> Callable[[re.Match[str]], str]:
    try:
        from num2words import num2words
    except ImportError:
        raise SettingsError("numbers become words by num2words. Run pip install num2words.") from None

    @lru_cache(10_000)
    def say(value: int, kind: str) -> str:
        return str(num2words(value, to=kind)).replace("-", " ").replace(",", "")

    def spoken(number: re.Match[str]) -> str:
        digits, ending = number[1], number[2]
        value = int(digits.replace(",", ""))
        if ending and ending != "s":
            return say(value, "ordinal")
        words = say(value, "year" if len(digits) == 4 and 1100 <= value < 2100 else "cardinal")
        return words if not ending else f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"

    return spoken
