r"""ARPA files of n-gram models: text with base-10 logarithms, read as KenLM reads it.

    \data\
    ngram 1=5
    ngram 2=7

    \1-grams:
    -1.2041  the  -0.3010
    ...
    \end\

The prefix of every n-gram must be an n-gram (its back-off is needed); a suffix may be missing, as
after SRILM's pruning. A missing back-off is 0. `<s>` and `</s>` must be there; a missing
`<unk>` has the probability 1e-100, which is logged. A logarithm of -inf is -99, as SRILM writes that of 0.
In a character model the space is written as the word `<space>`.
"""

import gzip
import io
import logging
import math
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.errors import ModelError
from asr.files import atomic_path
from asr.lm.interface import Unit
from asr.lm.ngram.other_formats import HEAD_SIZE, other_format
from asr.lm.ngram.trie import (
    BOS,
    EOS,
    LOG10_ZERO,
    MAX_NODES,
    RESERVED,
    UNK,
    NgramArrays,
    UnpackedNgrams,
    child_of,
    link,
)
from asr.lm.text_files import COMPRESSION_ERRORS, decompressed

__all__ = ["SPACE", "read", "write"]

SPACE = "<space>"

log = logging.getLogger("asr")

_LN10 = math.log(10)
_MISSING_UNKNOWN = -100.0  # log10; KenLM's default
_COUNT = re.compile(rb"ngram\s+(\d+)\s*=\s*(\d+)\s*")
_BLOCK = 1 << 16
_MAX_PREAMBLE = 1 << 16  # bytes of text before the header; a file with more is not ARPA


def read(path: Path) -> UnpackedNgrams:
    """Read an ARPA file, plain or compressed with gzip, xz or bzip2.

    Raises:
        ModelError: no such file, or not sound ARPA; the message has the line.
    """
    try:
        with open(path, "rb") as raw:
            file = decompressed(raw)
            if other := other_format(file.peek(HEAD_SIZE)[:HEAD_SIZE], path):
                raise ModelError(other)
            return _Reader(path, file).read()
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist. A language model was expected.") from None
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder. A language model, .bin or .arpa, was expected.") from None
    except COMPRESSION_ERRORS as error:
        raise ModelError(f"{path} is damaged: {error}. Copy or make the file again.") from None


class _Section(NamedTuple):
    """The n-grams of one order, as the file has them.

    Attributes:
        grams: (n-grams, order) int32 ids of their words.
        log10_probs: (n-grams,) float32.
        log10_backoffs: (n-grams,) float32; 0 where there is none.
        lines: (n-grams,) int32 line of each.
    """

    grams: NDArray[np.int32]
    log10_probs: NDArray[np.float32]
    log10_backoffs: NDArray[np.float32]
    lines: NDArray[np.int32]


class _Reader:
    """One pass over the lines; `number` counts the lines read, for messages."""

    def __init__(self, path: Path, file: Iterable[bytes]) -> None:
        self.path, self.number = path, 0
        self.lines = self._lines(file)

    def _lines(self, file: Iterable[bytes]) -> Iterator[bytes]:
        """The lines that are not blank, without white space at their ends."""
        for raw in file:
            self.number += 1
            line = raw.strip()
            if line:
                yield line

    def fail(self, what: str, number: int = 0) -> NoReturn:
        """Raise an error with the file and the line, by default the last one read."""
        raise ModelError(f"{self.path} line {number or self.number}: {what}")

    def expect(self, wanted: str) -> bytes:
        """The next line, which must exist."""
        line = next(self.lines, None)
        if line is None and not self.number:
            raise ModelError(f"{self.path} is empty. A language model in ARPA format was expected.")
        if line is None:
            self.fail(f"the file ends where {wanted} was expected. It was cut short; copy or make it again.")
        return line

    def read(self) -> UnpackedNgrams:
        """The whole model."""
        counts, line = self.read_counts()
        order = len(counts)
        arrays = NgramArrays(
            np.full(1, -1, np.int32), np.zeros(1, np.float32), np.zeros(0, np.int32), np.zeros(1, np.float32),
            np.ones(1, np.int32),
        )  # fmt: skip
        ids: dict[bytes, int] = {}
        words: list[str] = []
        first = 0  # node of the first n-gram of the order
        for n in range(1, order + 1):
            if line != rb"\%d-grams:" % n:
                self.fail(rf"found {_shown(line)} where \{n}-grams: was expected.")
            section, line = self.read_section(n, order, counts[n - 1], ids)
            if n == 1:
                words = self.name_words(ids)
                section, counts[0] = self.sort_unigrams(words, ids, section), len(words)
            first_parent, first = first, len(arrays.word)
            arrays = self.add_order(arrays, section, first_parent, n == order)
        if line != rb"\end" + b"\\":
            self.fail(rf"found {_shown(line)} where \end\ was expected.")
        after = next(self.lines, None)  # at the end of a compressed file, its checksum has been verified
        if after is not None:
            self.fail(rf"found {_shown(after)} after \end\. Nothing was expected there.")
        arrays = arrays._replace(suffix=np.zeros(len(arrays.word), np.int32))
        link(arrays)
        unit: Unit = "word"
        if SPACE in words and all(len(word) == 1 or word in (*RESERVED, SPACE) for word in words):
            unit = "character"
            words[words.index(SPACE)] = " "
        return UnpackedNgrams(arrays, tuple(words), tuple(counts), unit)

    def read_counts(self) -> tuple[list[int], bytes]:
        """The number of n-grams of each order, from the header, and the first line after it."""
        line = first = self.expect(r"\data" + "\\").removeprefix(b"\xef\xbb\xbf")
        number, skipped = self.number, 0
        while line != rb"\data" + b"\\":  # text before the header is skipped
            if other := other_format(line + b"\n", self.path):
                raise ModelError(other)
            skipped += len(line)
            following = next(self.lines, None) if skipped < _MAX_PREAMBLE else None
            if following is None:
                self.fail(
                    rf"found {_shown(first)} where \data\ was expected. This is no language model in ARPA "
                    "format.",
                    number,
                )
            line = following
        counts: list[int] = []
        while True:
            line = self.expect(r"\1-grams:")
            if not line.startswith(b"ngram"):
                break
            match = _COUNT.fullmatch(line)
            if match is None or int(match[1]) != len(counts) + 1:
                self.fail(f"found {_shown(line)} where `ngram {len(counts) + 1}=COUNT` was expected.")
            counts.append(int(match[2]))
        if not counts:
            self.fail("no line `ngram 1=COUNT` in the header.")
        if sum(counts) > MAX_NODES:
            self.fail(f"{sum(counts):,} n-grams. At most {MAX_NODES:,} were expected. Prune the model.")
        return counts, line

    def read_section(self, n: int, order: int, count: int, ids: dict[bytes, int]) -> tuple[_Section, bytes]:
        """The `count` n-grams of order n, and the line after them; unigrams get `ids`, not `grams`."""
        grams, log10_probs, log10_backoffs, lines = array("i"), array("f"), array("f"), array("i")
        second_end = 0  # 1 after a second </s>, which a tutorial that many follow adds; not kept
        while True:
            line = self.expect(rf"\{n + 1}-grams:" if n < order else r"\end" + "\\")
            fields = line.split()
            if line.startswith(b"\\") and len(fields) == 1:
                break
            if len(lines) + second_end == count:
                self.fail(rf"more {n}-grams than the {count:,} that the header (\data\) declares.")
            if not n + 1 <= len(fields) <= n + 2:
                self.fail(
                    f"{_shown(line)}: a log10 probability, {n} words and, at most, a back-off were expected."
                )
            log10_prob = self.number_of(fields[0], "log10 probability")
            if log10_prob > 0:
                self.fail(f"the log10 probability {_shown(fields[0])} is positive. 0 or less was expected.")
            backoff = self.number_of(fields[-1], "back-off") if len(fields) == n + 2 else 0.0
            if n == order and backoff != 0:
                self.fail(f"the back-off {_shown(fields[-1])}. The n-grams of the highest order have none.")
            if n == 1:
                word = UNK.encode() if fields[1] == b"<UNK>" else fields[1]
                if word == EOS.encode() and word in ids and not second_end:
                    log.warning(
                        "%s line %d: </s> is already in line %d. The first is used, as KenLM does. A copied "
                        "line of <s> is not needed: delete it, and count one 1-gram less in the header.",
                        self.path, self.number, lines[ids[word]],
                    )  # fmt: skip
                    second_end = 1
                    continue
                if ids.setdefault(word, len(lines)) != len(lines):
                    self.fail(f"the 1-gram {_shown(word)} occurs twice.")
            else:
                try:
                    grams.extend([ids[word] for word in fields[1 : n + 1]])
                except KeyError as error:
                    self.fail(f"the word {_shown(error.args[0])} is not among the 1-grams.")
            log10_probs.append(log10_prob)
            log10_backoffs.append(backoff)
            lines.append(self.number)
        if len(lines) + second_end < count:
            self.fail(rf"{len(lines) + second_end:,} {n}-grams, but the header (\data\) declares {count:,}.")
        section = _Section(
            np.array(grams, np.int32).reshape(-1, n),
            np.array(log10_probs, np.float32),
            np.array(log10_backoffs, np.float32),
            np.array(lines, np.int32),
        )
        return section, line

    def number_of(self, field: bytes, what: str) -> float:
        """A finite number from its text; `what` is its name in the message."""
        try:
            number = float(field)
        except ValueError:
            number = math.nan
        if number == -math.inf:
            return LOG10_ZERO
        if not math.isfinite(number):
            self.fail(f"found {_shown(field)} where a {what} was expected: a finite number or -inf.")
        return number

    def name_words(self, ids: dict[bytes, int]) -> list[str]:
        """The words in the order of their ids, which begin with <unk>, <s> and </s>."""
        for border, where in ((BOS, "beginning"), (EOS, "end")):
            if border.encode() not in ids:
                capitals = border.upper().encode() in ids
                remedy = f" Write {border} for {border.upper()}." if capitals else ""
                self.fail(
                    f"there is no 1-gram {border}, which marks the {where} of a sentence. It was "
                    f"expected.{remedy}"
                )
        if UNK.encode() not in ids:
            log.warning(
                "%s: there is no 1-gram <unk>: unknown words have the log10 probability %g, as in KenLM.",
                self.path, _MISSING_UNKNOWN,
            )  # fmt: skip
        words = []
        for spelled in ids:
            try:
                words.append(spelled.decode())
            except UnicodeDecodeError:
                self.fail(f"the 1-gram {_shown(spelled)} is not UTF-8. Convert the file, say with iconv.")
        return [*RESERVED, *(word for word in words if word not in RESERVED)]

    def sort_unigrams(self, words: list[str], ids: dict[bytes, int], section: _Section) -> _Section:
        """The unigrams in the order of `words`; `ids` becomes that order too."""
        rows = [ids.get(word.encode(), -1) for word in words]  # -1: a missing <unk>, the last element
        ids.update((word.encode(), index) for index, word in enumerate(words))
        return _Section(
            np.arange(len(words), dtype=np.int32)[:, None],
            np.append(section.log10_probs, np.float32(_MISSING_UNKNOWN))[rows],
            np.append(section.log10_backoffs, np.float32(0))[rows],
            section.lines,
        )

    def add_order(self, arrays: NgramArrays, section: _Section, first: int, highest: bool) -> NgramArrays:
        """The trie with the next order, whose n-grams become children of the nodes from `first` on."""
        grams, lines = section.grams, section.lines
        n = grams.shape[1]
        parents = np.full(len(grams), -1, np.int32)
        _find_parents(arrays.word, arrays.begin, grams, parents)
        if n > 1 and parents.min(initial=0) < 0:
            row = int(np.flatnonzero(parents < 0)[0])
            self.fail(
                f"the first {n - 1} words of this {n}-gram are no {n - 1}-gram of the model. They were "
                "expected to be one, because its back-off is needed.",
                int(lines[row]),
            )
        keys = parents.astype(np.int64) << 32 | grams[:, -1]
        rows = np.argsort(keys, kind="stable")
        keys = keys[rows]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            row, other = int(rows[twice[0] + 1]), int(rows[twice[0]])
            self.fail(f"this {n}-gram is already in line {lines[other]}.", int(lines[row]))
        old = len(arrays.word)
        bounds = np.searchsorted(keys >> 32, np.arange(first, old) + 1) + old
        backoffs = section.log10_backoffs[:0] if highest else section.log10_backoffs[rows]
        return NgramArrays(
            np.concatenate([arrays.word, grams[rows, -1]]),
            np.concatenate([arrays.log_prob, section.log10_probs[rows] * np.float32(_LN10)]),
            arrays.suffix,
            np.concatenate([arrays.backoff, backoffs * np.float32(_LN10)]),
            np.concatenate([arrays.begin, bounds]).astype(np.int32),
        )


@kernel
def _find_parents(
    word: NDArray[np.int32], begin: NDArray[np.int32], grams: NDArray[np.int32], parents: NDArray[np.int32]
) -> None:
    """Write parents (n-grams,): the node of all words but the last of each one, -1 if there is none."""
    for row in range(len(grams)):
        node = 0
        for column in range(grams.shape[1] - 1):
            node = child_of(word, begin, node, grams[row, column])
            if node < 0:
                break
        parents[row] = node


def write(path: Path, unpacked: UnpackedNgrams) -> None:
    """Write an ARPA file, compressed if its name ends in .gz; the same model gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    arrays, words, counts, unit = unpacked
    spelled = [SPACE if word == " " and unit == "character" else word for word in words]
    with atomic_path(path) as temporary, open(temporary, "wb") as raw:
        # Without the time and the file's name, so that equal models are equal files.
        compressed = gzip.GzipFile("", "wb", 6, raw, mtime=0) if str(path).endswith(".gz") else raw
        with io.TextIOWrapper(io.BufferedWriter(compressed, 1 << 20), "utf-8", newline="\n") as file:
            file.write("\\data\\\n")
            file.writelines(f"ngram {n}={count}\n" for n, count in enumerate(counts, start=1))
            for n in range(1, len(counts) + 1):
                file.write(f"\n\\{n}-grams:\n")
                for block in _in_blocks(_families(arrays, spelled, n)):
                    file.writelines(_lines(arrays, spelled, block, n < len(counts)))
            file.write("\n\\end\\\n")


_Family = tuple[str, int, int]  # words of a context, a space after each; first child; child after the last


def _in_blocks(families: Iterator[_Family]) -> Iterator[list[_Family]]:
    """Families in blocks, because many small slices of arrays are slow."""
    block: list[_Family] = []
    for family in families:
        block.append(family)
        if family[2] - block[0][1] >= _BLOCK:
            yield block
            block = []
    yield block


def _lines(arrays: NgramArrays, words: list[str], families: list[_Family], inner: bool) -> Iterator[str]:
    """The lines of a block of n-grams; with back-off weights if they are contexts (`inner`)."""
    if not families:
        return
    nodes = slice(families[0][1], families[-1][2])
    ids, log_probs = arrays.word[nodes].tolist(), _log10(arrays.log_prob[nodes])
    backoffs = _log10(arrays.backoff[nodes]) if inner else []
    for context, begin, end in families:
        for i in range(begin - nodes.start, end - nodes.start):
            if inner:
                yield f"{log_probs[i]:.7g}\t{context}{words[ids[i]]}\t{backoffs[i]:.7g}\n"
            else:
                yield f"{log_probs[i]:.7g}\t{context}{words[ids[i]]}\n"


def _log10(nats: NDArray[np.float32]) -> list[float]:
    """Natural logarithms to base 10; the logarithm of 0 becomes -99 exactly."""
    logs = nats / _LN10
    values: list[float] = np.where(np.abs(logs - LOG10_ZERO) < 1e-4, LOG10_ZERO, logs).tolist()
    return values


def _families(arrays: NgramArrays, words: list[str], n: int) -> Iterator[_Family]:
    """The contexts of n-grams of order n, with their children."""
    if n == 1:
        yield "", int(arrays.begin[0]), int(arrays.begin[1])
        return
    for context, first, stop in _families(arrays, words, n - 1):
        bounds = arrays.begin[first : stop + 1].tolist()
        for word_id, begin, end in zip(arrays.word[first:stop].tolist(), bounds, bounds[1:], strict=False):
            if begin < end:
                yield f"{context}{words[word_id]} ", begin, end


def _shown(field: bytes) -> str:
    return repr(field[:60].decode(errors="replace"))
