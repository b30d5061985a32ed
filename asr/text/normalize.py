"""Text normalisation: the named rules that are applied to transcripts before training and scoring.

A word error rate depends on the rules that were applied to reference and hypothesis before words were
counted. So the rule sets are few, have names, and the name is stored with each score and each saved model.
Every rule set is idempotent: normalising twice changes nothing.

    verbatim   as written: Unicode NFC, every run of white space one space, none at the ends
    lower      verbatim, in lower case
    english    English words without case and punctuation, digits unchanged; see `english`
    words      the same for any language: & and % stay, since their words depend on it
"""

import re
import unicodedata
from collections.abc import Callable, Mapping

from asr.errors import SettingsError

__all__ = ["NORMALIZERS", "english", "lower", "normalize", "verbatim", "words"]

# Characters that are used as an apostrophe in real transcripts. They are replaced before NFKC, which would
# turn the acute accent into a space and a combining mark.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u00b4`\u2018\u2019\u201b\u02bc\u02bb\u2032\uff07", "'"))

# Marks that separate two words even without a space: "and/or", "10:30", "well,no".
_SEPARATORS = frozenset("/\\\u2044\u2212,:;\u2026")

# A number in groups of three, such as 12,345,678. Other digits with commas are a list: 1,2,3 or 1999,2000.
# The whole run of digits and marks decides, so 1,2,300 is a list, too.
_GROUPED_NUMBER = re.compile(r"(?<!\d)(?<!\d[.,:])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_ELLIPSIS = re.compile(r"\.{2,}")
_DOUBLE_APOSTROPHES = re.compile(r"'{2,}")
_STRAY_APOSTROPHE = re.compile(r"(?<![^\W\d_])'(?![^\W\d_])")
# NFKC writes free-standing accents, such as the diaeresis or a double underline, as a space and one of these.
_STRAY_ACCENT = re.compile(r"(?<!\S)[\u0300-\u036f]+")
_STRAY_POINT = re.compile(r"(?<!\d)\.|\.(?!\d)")


class _Marks(dict[int, str]):
    """A table for `str.translate` that classifies each character once, by its Unicode category."""

    def __init__(self, spoken: Mapping[str, str]) -> None:
        """Start empty.

        Args:
            spoken: marks that are words, with these words.
        """
        super().__init__()
        self._spoken = spoken

    def __missing__(self, code: int) -> str:
        mark = chr(code)
        category = unicodedata.category(mark)
        if mark in "'.":  # what becomes of these depends on their neighbours: see `english`
            replacement = mark
        elif mark in self._spoken:
            replacement = self._spoken[mark]
        elif category in ("Pd", "Pc") or mark in _SEPARATORS or mark == "\u200b":
            replacement = " "
        elif category.startswith("P") or category in ("Sk", "Cf") or mark in "|~":
            replacement = ""
        else:
            replacement = mark
        self[code] = replacement
        return replacement


_ENGLISH_MARKS = _Marks({"&": " and ", "%": " percent "})
_WORD_MARKS = _Marks({"&": "&", "%": "%"})


def _join_groups(number: re.Match[str]) -> str:
    return number[0].replace(",", "")


def _fold_spaces(text: str) -> str:
    return " ".join(text.split())


def verbatim(text: str) -> str:
    """The text as written, in one Unicode form: NFC, each run of white space one space, none at the ends."""
    return _fold_spaces(unicodedata.normalize("NFC", text))


def lower(text: str) -> str:
    """`verbatim`, in lower case. No mark is removed."""
    return verbatim(unicodedata.normalize("NFC", text).lower())


def english(text: str) -> str:
    """English words without case and punctuation.

    - NFKC (full-width letters, ligatures and the like become plain ones), lower case
    - typographic apostrophes become '; an apostrophe stays where a letter touches it ("don't", "dogs'",
      "'tis", and, because they look the same, a quotation in single quotes), and is removed elsewhere ("5'",
      "''so''")
    - hyphens, dashes, slashes, underscores, commas, colons, semicolons and ellipses become spaces; the
      commas of a number in groups of three are removed (1,000 -> 1000), a point between digits stays (3.5)
    - every other punctuation mark is removed, joining the parts of its word ("U.S.A." -> "usa"), and so are
      |, ~, free-standing accents and invisible format characters
    - & -> and, % -> percent; digits and other symbols ($, +, =, emoji) stay as they are, because deleting a
      sign that was read aloud would hide an error
    """
    return _without_marks(text, _ENGLISH_MARKS)


def words(text: str) -> str:
    """The rules of `english` for any language: & and % stay as they are."""
    return _without_marks(text, _WORD_MARKS)


def _without_marks(text: str, marks: _Marks) -> str:
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).translate(_APOSTROPHES)
    text = unicodedata.normalize("NFKC", text.lower())
    # A pattern is tried at every character: most texts do not have the one that it is about.
    if "," in text:
        text = _GROUPED_NUMBER.sub(_join_groups, text)
    if ".." in text:
        text = _ELLIPSIS.sub(" ", text)
    text = text.translate(marks)
    if "." in text:
        text = _STRAY_POINT.sub("", text)
    if "'" in text:
        text = _STRAY_APOSTROPHE.sub("", _DOUBLE_APOSTROPHES.sub("", text))
    if not text.isascii():
        text = _STRAY_ACCENT.sub("", text)
    return _fold_spaces(unicodedata.normalize("NFKC", text))


NORMALIZERS: dict[str, Callable[[str], str]] = {
    "verbatim": verbatim, "lower": lower, "english": english, "words": words,
}  # fmt: skip
"""The rule sets by the name that settings, scores and saved models use."""


def normalize(text: str, name: str) -> str:
    """Apply the rule set called `name`.

    Raises:
        SettingsError: there is no rule set of that name; the message lists those that exist.
    """
    try:
        rules = NORMALIZERS[name]
    except KeyError:
        raise SettingsError(
            f"normalizer must be one of {', '.join(NORMALIZERS)}. Got {name!r}. Choose one of these names."
        ) from None
    return rules(text)
