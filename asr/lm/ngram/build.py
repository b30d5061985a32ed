"""Build an n-gram model: texts are read, counted, smoothed, pruned and saved, with progress."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError, SettingsError
from asr.lm.interface import Unit
from asr.lm.ngram.count import count, occurrences
from asr.lm.ngram.disk import DiskArrays
from asr.lm.ngram.model import NgramModel
from asr.lm.ngram.prune import prune_entropy
from asr.lm.ngram.smooth import estimate
from asr.lm.ngram.symbols import SymbolTable
from asr.lm.ngram.trie import BOS, EOS, RESERVED, UNK, UNK_ID, UnpackedNgrams
from asr.lm.text_files import read_blocks
from asr.progress import Progress, clock
from asr.text.normalize import normalize
from asr.text.scripts import is_unspaced

__all__ = ["MAX_ORDER", "NgramConfig", "build", "read_vocabulary", "select_vocabulary"]

log = logging.getLogger("asr")

MAX_ORDER = 12
_RESERVED = len(RESERVED)
_BLOCK = 1 << 22
_FEW_WORDS = 5  # a sentence, its two borders included: fewer, and it was not cut into words
_REPORT_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """The settings of an n-gram model.

    Attributes:
        order: length of the longest n-grams.
        unit: words or characters.
        cutoffs: for each order, the highest count of n-grams that are removed: 0 for words, then for 2-grams
            and so on; the last number also applies to the higher orders.
        entropy: n-grams that change the perplexity by less than this, relatively, are removed; 0: none.
        vocabulary: None: every word of the text; a number: that many words, the most frequent ones; a file:
            the words in it. Every other word is `<unk>`.
        normalizer: rules for the text, see `text.normalize`.

    Raises:
        SettingsError: a number is out of range.
    """

    order: int = 3
    unit: Unit = "word"
    cutoffs: tuple[int, ...] = ()
    entropy: float = 0.0
    vocabulary: Path | int | None = None
    normalizer: str = "verbatim"

    def __post_init__(self) -> None:
        if not 1 <= self.order <= MAX_ORDER:
            raise SettingsError(
                f"--order is {self.order}. A number from 1 to {MAX_ORDER} was expected: 3 or 4 for words, "
                "6 to 10 for characters."
            )
        cutoffs = self.cutoffs
        if cutoffs and (cutoffs[0] != 0 or list(cutoffs) != sorted(cutoffs)):
            raise SettingsError(
                f"--prune is {' '.join(map(str, cutoffs))}. A 0 for words, then numbers that do not fall "
                "were expected, such as 0 0 1. To have fewer words, use --vocabulary."
            )
        if len(cutoffs) > self.order:
            raise SettingsError(
                f"--prune has {len(cutoffs)} numbers, but --order is {self.order}. Take some away."
            )
        if not 0 <= self.entropy < 1:
            raise SettingsError(
                f"--prune-entropy is {self.entropy}. 0, or a small number such as 1e-8, was expected."
            )
        normalize("", self.normalizer)  # raises if there are no such rules
        if isinstance(self.vocabulary, int) and self.vocabulary < 1:
            raise SettingsError(
                f"--vocabulary is {self.vocabulary}. A number of words, or a file, was expected."
            )


def build(
    texts: Sequence[Path], config: NgramConfig, output: Path, temporary: Path | None = None
) -> NgramModel:
    """Train a model on text files and save it.

    Args:
        texts: see `text_files`; `-` is the standard input.
        config: what kind of model.
        output: the model's file; ARPA if it ends in .arpa or .arpa.gz.
        temporary: folder for large intermediate files, about 20 bytes per word and order; None: the system's.

    Returns:
        The model, as saved.

    Raises:
        DataError: a text cannot be read, or there is no text at all.
        OSError: a file cannot be written.
    """
    progress = _Progress(texts, config.order)
    with DiskArrays(temporary) as disk:
        symbols, stream = SymbolTable(config.unit), disk.new_path()
        with open(stream, "wb") as file:
            for block, _, _ in read_blocks(texts, progress.reading):
                # Not `tofile`, which loses the end without an error where the disk is full.
                file.write(symbols.encode(_normalized(block, config.normalizer)).data)
        if not symbols.sentences:
            raise DataError(
                f"no text in {', '.join(map(str, texts))}. Lines with at least one word were expected."
            )
        if symbols.empty_lines:
            log.info("lines without text, skipped: %d", symbols.empty_lines)
        words = disk.load(stream, np.int32)
        names = _renumber_in_place(words, symbols.names(), config.vocabulary)
        log.info("%d sentences, %d %ss, %d different", symbols.sentences, len(words) - 2 * symbols.sentences,
                  config.unit, len(names) - _RESERVED)  # fmt: skip
        if config.unit == "word" and len(words) < _FEW_WORDS * symbols.sentences and is_unspaced(names):
            log.warning(
                "most words are in a script without spaces between words, %.1f a line: sentences are no "
                "words. Train a model of characters (--unit character --order 6), or have a tool for the "
                "language put spaces between the words first.",
                len(words) / symbols.sentences - 2,
            )
        levels = count(words, len(names), config.order, disk, progress.counting)
        progress.smoothing()
        cutoffs = config.cutoffs or (0,)
        cutoffs += (cutoffs[-1],) * (config.order - len(cutoffs))
        arrays, counts, followed = estimate(levels, cutoffs, disk)
        if config.entropy:
            arrays, counts = prune_entropy(arrays, counts, followed, config.entropy, disk)
        NgramModel.from_unpacked(UnpackedNgrams(arrays, tuple(names), counts, config.unit)).save(output)
    return NgramModel.load(output, config.unit)


def _normalized(block: bytes, rules: str) -> bytes:
    """A block of whole lines by the rules."""
    if rules == "verbatim" and block.isascii():
        return block  # already NFC; white space is folded when it is encoded
    lines = block.decode().split("\n")
    return "\n".join(normalize(line, rules) for line in lines).encode()


def _renumber_in_place(
    words: NDArray[np.int32], names: list[str], vocabulary: Path | int | None
) -> list[str]:
    """Renumber a stream of ids, frequent words first, others than those of the vocabulary as `<unk>`.

    Args:
        words: (positions,) ids; changed in place.
        names: (ids,) the word of each.
        vocabulary: see `NgramConfig`.

    Returns:
        The words of the new ids.

    Raises:
        DataError: the text has a reserved word, or the vocabulary cannot be read.
    """
    for name in (BOS, EOS):
        if name in names[_RESERVED:]:
            raise DataError(
                f"the text has the word {name}, which is reserved for the border of a sentence. Take it out."
            )
    totals = occurrences(words, len(names))
    ranked = _RESERVED + np.argsort(-totals[_RESERVED:], kind="stable")
    ids = [word_id for word_id in ranked.tolist() if names[word_id] != UNK]
    ranks, unseen = select_vocabulary([names[word_id] for word_id in ids], vocabulary)
    ids = [ids[rank] for rank in ranks]
    renumbered = np.full(len(names), UNK_ID, np.int32)
    renumbered[:_RESERVED] = np.arange(_RESERVED)
    renumbered[ids] = _RESERVED + np.arange(len(ids))
    for first in range(0, len(words), _BLOCK):
        words[first : first + _BLOCK] = renumbered[words[first : first + _BLOCK]]
    unknown = int(totals[renumbered == UNK_ID].sum())
    if unknown:
        log.info("%d words (%.2f %%) are <unk>", unknown, 100 * unknown / totals[_RESERVED:].sum())
    return [*names[:_RESERVED], *(names[word_id] for word_id in ids), *unseen]


def select_vocabulary(
    ranked: Sequence[str], vocabulary: Path | int | None
) -> tuple[Sequence[int], Sequence[str]]:
    """Which words a vocabulary keeps; with them the space, which every alphabet has.

    Args:
        ranked: words, the most frequent or probable first.
        vocabulary: None: all of them; a number: that many, the first ones; a file: the words in it.

    Returns:
        The indices of those that stay; the words of the file that are not among `ranked`, sorted.

    Raises:
        DataError: the file cannot be read, or holds no word.
        SettingsError: the number is below 1.
    """
    if vocabulary is None:
        return range(len(ranked)), ()
    if isinstance(vocabulary, int):
        if vocabulary < 1:
            raise SettingsError(f"--vocabulary is {vocabulary}. A number of words, or a file, was expected.")
        return [rank for rank, word in enumerate(ranked) if rank < vocabulary or word == " "], ()
    wanted = read_vocabulary(vocabulary)
    stay = [rank for rank, word in enumerate(ranked) if word in wanted or word == " "]
    return stay, sorted(wanted.difference(ranked))


def read_vocabulary(path: Path) -> set[str]:
    """The first word of each line of a file.

    Raises:
        DataError: the file cannot be read, or holds no word.
    """
    words: set[str] = set()
    for block, _, _ in read_blocks([path]):
        words.update(line.split()[0] for line in block.decode().splitlines() if line.strip())
    words.difference_update((UNK, BOS, EOS))
    if not words:
        raise DataError(f"{path} holds no word. One word per line was expected.")
    return words


class _Progress:
    """Transient log lines: the current pass, how much of the work is done, and the time left."""

    def __init__(self, texts: Sequence[Path], order: int) -> None:
        self._sizes = {path: path.stat().st_size for path in texts if path.is_file()}
        self._order = order
        self._reported = 0.0
        # passes: reading 1, counting 2 order - 2, smoothing order + 1: about equally long
        self._progress = Progress("n-grams", 3 * order)

    def reading(self, path: Path, position: int) -> None:
        before = 0
        for other, size in self._sizes.items():
            if other == path:
                break
            before += size
        total = sum(self._sizes.values())
        self._report("reading", (before + position) / total if total else 0.0)

    def counting(self, passes: float) -> None:
        self._report(f"counting {int(passes) // 2 + 2}-grams", 1 + passes)

    def smoothing(self) -> None:
        self._report("smoothing", 2 * self._order - 1)

    def _report(self, what: str, passes: float) -> None:
        now = time.monotonic()
        if now - self._reported < _REPORT_EVERY_S:
            return
        self._reported = now
        done = passes / self._progress.total
        left = f", about {clock(self._progress.left_s(passes))} left" if done > 0.02 else ""
        log.info("%s: %d %% of all%s", what, 100 * done, left, extra={"transient": True})
