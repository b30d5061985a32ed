"""Scripts that are written without spaces between words, such as Chinese, Japanese, Thai, Khmer and Burmese.

A space in such text separates phrases, or was put in by a tool that cuts words, each tool differently. So
errors are counted in characters there, and spaces are not compared. Korean, Vietnamese and Tibetan (whose
syllables have a mark between them) are not among these scripts.

Source: Unicode Standard 16.0, table 9-1 and annex 14 (class SA, "complex context", and ideographs).
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

__all__ = ["close_up", "is_unspaced", "join_words", "split_words"]

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\ua980-\ua9df"  # Javanese
    "\u3001-\u303f\uff01-\uff0f\uff1a-\uff20\uff5b-\uff65"  # their punctuation, which has its own width
    "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f"  # Hiragana, Katakana, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "\ua000-\ua4cf"  # Yi
)
_RUN = re.compile(f"[{_UNSPACED}]+")
_SPACE = re.compile(f"(?<=[{_UNSPACED}]) +(?=[{_UNSPACED}])")


def close_up(text: str) -> str:
    """The text without spaces between two characters of these scripts; beside other letters they stay."""
    return text if text.isascii() else _SPACE.sub("", text)


def is_unspaced(texts: Iterable[str]) -> bool:
    """Whether these texts are in such a script: more than half of their characters, spaces aside, are."""
    unspaced = total = 0
    for text in texts:
        total += len(text) - text.count(" ")
        if not text.isascii():
            unspaced += sum(map(len, _RUN.findall(text)))
    return 2 * unspaced > total


def split_words(text: str) -> list[str]:
    """The words between spaces; in these scripts each character is one, with its marks and punctuation."""
    words = text.split()
    return words if text.isascii() else [part for word in words for part in _parts().findall(word)]


def join_words(words: Iterable[str]) -> str:
    """The words with spaces between them, but none between characters of these scripts."""
    return close_up(" ".join(words))


@cache
def _parts() -> re.Pattern[str]:
    """A character of these scripts with marks and punctuation around it, or a run of others."""
    kinds: dict[str, str] = {"M": "", "P": ""}
    for character in map(chr, range(0x21, 0xFFFF)):
        kind = unicodedata.category(character)[0]
        if kind in kinds:
            kinds[kind] += re.escape(character)
    marks, points = kinds.values()
    return re.compile(f"[{points}]*[{_UNSPACED}][{marks}]*[{points}]*|[^{_UNSPACED}]+")
