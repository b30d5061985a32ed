"""Text normalisation: the named rules that are applied to transcripts before training and scoring.

A word error rate depends on the rules that were applied to reference and hypothesis before words were
counted. So the rule sets are few, have names, and the name is stored with each score and each saved model.
Every rule set is idempotent: normalising twice changes nothing.

    verbatim   as written: Unicode NFC, every run of white space one space, none at the ends
    lower      verbatim, in lower case
    english    English words without case and punctuation, digits unchanged; see `english`
    words      the same for any language: & and % stay, since their words depend on it

A name may end in a language, such as `words:tr` or `lower:az`: its code in ISO 639. Rules that differ:

    tr az                     I is the capital of ı, and İ that of i (lower and words)
    ar fa ur ps ckb ug sd     marks of short vowels and the stretching stroke are left out (words)
    he                        points and accents are left out (words)

Other languages need none: small letters and their place in a word (ς in Greek, ß in German) are as Unicode
has them.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache

from asr.errors import SettingsError
from asr.text.scripts import close_up

__all__ = ["NORMALIZERS", "english", "in_language", "lower", "normalize", "verbatim", "words"]

# Characters that are used as an apostrophe in real transcripts. They are replaced before NFKC, which would
# turn the acute accent into a space and a combining mark.
_APOSTROPHES = str.maketrans(dict.fromkeys("\u00b4`\u2018\u2019\u201b\u02bc\u02bb\u2032\uff07", "'"))

# Marks that separate two words even without a space: "and/or", "10:30", "well,no". After these come Arabic's
# comma, semicolon and full stop, the dandas of India, Ethiopic's spaces and marks, Tibetan's, and those of
# Chinese and Japanese.
_SEPARATORS = frozenset(
    "/\\\u2044\u2212,:;\u2026\u060c\u061b\u06d4\u0964\u0965\u1361\u1362\u1363\u1364\u1365\u1366\u1367\u1368"
    "\u0f0b\u0f0c\u0f0d\u0f0e\u3001\u3002\u30fb"
)

# A number in groups of three, such as 12,345,678. Other digits with commas are a list: 1,2,3 or 1999,2000.
# The whole run of digits and marks decides, so 1,2,300 is a list, too.
_GROUPED_NUMBER = re.compile(r"(?<!\d)(?<!\d[.,:])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_ELLIPSIS = re.compile(r"\.{2,}")
_DOUBLE_APOSTROPHES = re.compile(r"'{2,}")
_STRAY_APOSTROPHE = re.compile(r"(?<![^\W\d_])'(?![^\W\d_])")
# NFKC writes free-standing accents, such as the diaeresis or a double underline, as a space and one of these.
_STRAY_ACCENT = re.compile(r"(?<!\S)[\u0300-\u036f]+")
_STRAY_POINT = re.compile(r"(?<!\d)\.|\.(?!\d)")
_STRAY_DOT = re.compile(r"(?<!l)\u00b7|\u00b7(?!l)")  # Catalan's l·l is not ll
# A joiner is part of a word between letters of Arabic's script (Persian), of India, Burma and Cambodia.
_JOINED = "[\u0620-\u109f\u1780-\u17ff]"
_STRAY_JOINER = re.compile(f"(?<!{_JOINED})[\u200c\u200d]|[\u200c\u200d](?!{_JOINED})")

_CODE = re.compile("[a-z]{2,3}")
_ENGLISH = frozenset({"en", "eng"})
_DOTLESS_I = frozenset({"tr", "tur", "az", "aze", "azj"})
_ARABIC_MARKS = re.compile(
    "[\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]"
)
_HEBREW_MARKS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_OPTIONAL_MARKS = {
    **dict.fromkeys(
        ("ar", "ara", "fa", "fas", "ur", "urd", "ps", "pus", "ckb", "ug", "uig", "sd", "snd"), _ARABIC_MARKS
    ),
    **dict.fromkeys(("he", "heb"), _HEBREW_MARKS),
}


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
        if mark in "'.\u00b7\u200c\u200d":  # what becomes of these depends on their neighbours
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


def verbatim(text: str, language: str = "") -> str:
    """The text as written, in one Unicode form: NFC, each run of white space one space, none at the ends."""
    return _fold_spaces(unicodedata.normalize("NFC", text))


def lower(text: str, language: str = "") -> str:
    """`verbatim`, in lower case. No mark is removed."""
    return verbatim(_small(unicodedata.normalize("NFC", text), language))


def english(text: str, language: str = "en") -> str:
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
    return _without_marks(text, _ENGLISH_MARKS, language)


def words(text: str, language: str = "") -> str:
    """The rules of `english` for any language: & and % stay as they are.

    - marks of other scripts that stand between words without a space become spaces, as the comma does
    - spaces between characters of a script that is written without them are removed: see `close_up`
    - Catalan's l·l stays, and so do joiners where they are part of a word (Persian, languages of India)
    """
    return close_up(_without_marks(text, _WORD_MARKS, language))


def _small(text: str, language: str) -> str:
    """The text in small letters, as the language has them."""
    if language in _DOTLESS_I:
        text = text.replace("\u0130", "i").replace("I", "\u0131")
    return text.lower()


def _without_marks(text: str, marks: _Marks, language: str) -> str:
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).translate(_APOSTROPHES)
    text = unicodedata.normalize("NFKC", _small(text, language))
    if language in _OPTIONAL_MARKS:
        text = _OPTIONAL_MARKS[language].sub("", text)
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
        text = _STRAY_ACCENT.sub("", _STRAY_JOINER.sub("", _STRAY_DOT.sub("", text)))
    return _fold_spaces(unicodedata.normalize("NFKC", text))


NORMALIZERS: dict[str, Callable[[str, str], str]] = {
    "verbatim": verbatim, "lower": lower, "english": english, "words": words,
}  # fmt: skip
"""The rule sets by the name that settings, scores and saved models use."""


def normalize(text: str, name: str) -> str:
    """Apply the rule set called `name`, such as "words" or, for a language, "words:tr".

    Raises:
        SettingsError: there is no rule set of that name; the message lists those that exist.
    """
    rules, language = _parse(name)
    return rules(text, language)


def in_language(name: str, language: str) -> str:
    """The name of a rule set for a language; of `english`, for another language, that of `words`.

    Args:
        name: of a rule set, without a language.
        language: its code; "" for the rule set as it is.

    Raises:
        SettingsError: there is no such rule set, or that is no code.
    """
    if language and name == "english":
        name = name if language in _ENGLISH else "words"
    full = name if not language or name == "english" else f"{name}:{language}"
    _parse(full)
    return full


@lru_cache(maxsize=64)
def _parse(name: str) -> tuple[Callable[[str, str], str], str]:
    """The rules and the language that a name stands for."""
    base, colon, language = name.partition(":")
    if base not in NORMALIZERS:
        raise SettingsError(
            f"normalizer must be one of {', '.join(NORMALIZERS)}. Got {name!r}. Choose one of these names."
        )
    if colon and not _CODE.fullmatch(language):
        raise SettingsError(
            f"{language!r} is no language. Expected a code of ISO 639, such as tr for Turkish. Got it in "
            f"{name!r}; correct it."
        )
    if language and base == "english" and language not in _ENGLISH:
        raise SettingsError(
            f"the rules english are for English, not for {language!r}. Choose words:{language} or "
            f"lower:{language}."
        )
    return NORMALIZERS[base], language
