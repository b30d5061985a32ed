"""Count n-grams: a stream of word ids in, the count of each n-gram out; both may exceed the memory.

Order by order. The n-grams of order k - 1 are numbered; parallel to the stream of words runs the stream of
the numbers of the (k - 1)-grams that end at each word. An n-gram of order k is then one 64-bit key: the
number of its first k - 1 words, and its last word. The keys, sorted and counted, are the next level of the
trie, which is sorted by parent, then by word. A block of keys is sorted at a time; the sorted runs are merged
in parts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.errors import DataError
from asr.lm.ngram.disk import DiskArrays
from asr.lm.ngram.trie import BOS_ID, MAX_NODES, first_not_below

__all__ = ["Level", "count", "occurrences"]

_BLOCK = 1 << 24  # keys sorted, or merged, at a time
_MAX_WORDS = 2**32 - 1  # uint32 counts


@dataclass(frozen=True)
class Level:
    """All n-grams of one order, sorted by the number of their first words, then by their last word.

    Attributes:
        word: (n,) int32, the last word.
        count: (n,) uint32, how often the n-gram occurs.
        begin: (number of n-grams of the order below + 1,) int32; those that extend n-gram i of the order
            below are begin[i] to begin[i + 1] - 1. For the first order it is [0, n].
    """

    word: NDArray[np.int32]
    count: NDArray[np.uint32]
    begin: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.word)


def count(
    words: NDArray[np.int32],
    n_words: int,
    order: int,
    disk: DiskArrays,
    progress: Callable[[float], None] = lambda _: None,
) -> list[Level]:
    """Count the n-grams of order 1 to `order`, none of which spans two sentences.

    Args:
        words: (positions,) ids; each sentence begins with 1 (`<s>`) and ends with 2 (`</s>`).
        n_words: number of different ids.
        order: length of the longest n-grams.
        disk: where the result and all large arrays are stored.
        progress: called now and then with the passes over `words` that are done, of 2 * order - 2.

    Returns:
        A level for each order.

    Raises:
        DataError: there are more n-grams, or words, than the arrays can number.
    """
    if len(words) > _MAX_WORDS:
        raise DataError(f"more than {_MAX_WORDS:,} words and sentence ends. No more can be counted.")
    totals = occurrences(words, n_words).astype(np.uint32)
    levels = [Level(np.arange(n_words, dtype=np.int32), totals, np.array([0, n_words], np.int32))]
    numbers = words  # of the n-gram that ends at each word; a 1-gram's number is its word's id
    for n in range(2, order + 1):
        done = 2 * n - 4
        runs = _sorted_runs(words, numbers, disk, _offset(progress, done))
        levels.append(_merge(runs, len(levels[-1]), disk))
        del runs
        if sum(map(len, levels)) > MAX_NODES:
            raise DataError(
                f"more than {MAX_NODES:,} different n-grams up to order {n}. That is the most "
                "that a model can hold. Lower --order, or take less text."
            )
        progress(2 * n - 3)
        if n < order:
            numbers = _renumber(words, numbers, levels[-1], disk)
    return levels


def occurrences(words: NDArray[np.int32], n_words: int) -> NDArray[np.int64]:
    """(n_words,) how often each id occurs."""
    totals = np.zeros(n_words, np.int64)
    for _, _, block in _blocks(words):
        totals += np.bincount(block, minlength=n_words)
    return totals


def _offset(progress: Callable[[float], None], done: int) -> Callable[[float], None]:
    return lambda passes: progress(done + passes)


def _blocks(words: NDArray[np.int32]) -> Iterator[tuple[int, int, NDArray[np.int32]]]:
    """First and last position + 1 of each block of the text, and its words."""
    for first in range(0, len(words), _BLOCK):
        stop = min(first + _BLOCK, len(words))
        yield first, stop, words[first:stop]


def _sorted_runs(
    words: NDArray[np.int32], numbers: NDArray[np.int32], disk: DiskArrays, progress: Callable[[float], None]
) -> list[tuple[NDArray[np.uint64], NDArray[np.uint32]]]:
    """Keys and their counts, sorted, for each block of the text."""
    runs = []
    for first, stop, block in _blocks(words):
        keys = np.empty(len(block), np.uint64)
        before = numbers[first - 1] if first else np.int32(-1)
        keys = keys[: _make_keys(block, numbers[first:stop], int(before), keys)]
        keys.sort()
        counts = np.empty(len(keys), np.uint32)
        size = _count_equal(keys, counts)
        run = disk.zeros(size, np.uint64), disk.zeros(size, np.uint32)
        run[0][:], run[1][:] = keys[:size], counts[:size]
        runs.append(run)
        disk.release_memory()
        progress(stop / len(words))
    return runs


def _merge(
    runs: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]], n_parents: int, disk: DiskArrays
) -> Level:
    """One level from sorted runs, part by part, each of which fits in memory."""
    total = sum(len(keys) for keys, _ in runs)
    parts = max(1, -(-total // _BLOCK))
    sample = np.sort(np.concatenate([keys[:: max(1, _BLOCK // 4096)] for keys, _ in runs]))
    splits = [sample[len(sample) * part // parts] for part in range(1, parts)]
    bounds = [[0, *np.searchsorted(keys, splits).tolist(), len(keys)] for keys, _ in runs]
    names = disk.new_path(), disk.new_path()
    begin = disk.zeros(n_parents + 1, np.int32)
    with open(names[0], "wb") as word_file, open(names[1], "wb") as count_file:
        for part in range(parts):
            pieces = [
                (
                    np.array(keys[bound[part] : bound[part + 1]]),
                    np.array(counts[bound[part] : bound[part + 1]]),
                )
                for (keys, counts), bound in zip(runs, bounds, strict=True)
            ]
            while len(pieces) > 1:  # in pairs, neighbours first, so that each key is moved log2(runs) times
                pieces = [
                    _merge_two(*pieces[i], *pieces[i + 1]) if i + 1 < len(pieces) else pieces[i]
                    for i in range(0, len(pieces), 2)
                ]
            for keys, counts in pieces:
                word_file.write((keys & np.uint64(0xFFFFFFFF)).astype(np.int32).data)
                count_file.write(counts.data)
                _count_children(keys, begin)
            disk.release_memory()
    np.cumsum(begin, out=begin)
    return Level(disk.load(names[0], np.int32), disk.load(names[1], np.uint32), begin)


def _renumber(
    words: NDArray[np.int32], numbers: NDArray[np.int32], level: Level, disk: DiskArrays
) -> NDArray[np.int32]:
    """The numbers of the n-grams of `level` that end at each word; -1 where the sentence is too short."""
    longer = disk.zeros(len(words), np.int32)
    for first, stop, block in _blocks(words):
        before = numbers[first - 1] if first else np.int32(-1)
        longer[first:stop] = _find(block, numbers[first:stop], int(before), level.word, level.begin)
        disk.release_memory()
    return longer


@kernel
def _make_keys(
    words: NDArray[np.int32], numbers: NDArray[np.int32], before: int, keys: NDArray[np.uint64]
) -> int:
    """Write the key of each n-gram of a block into `keys` (at least one per word); how many there are.

    Args:
        words: (positions,) last words.
        numbers: (positions,) numbers of the (n - 1)-grams that end there; -1: the sentence is too short.
        before: the number before the block; -1: none.
        keys: (positions,) output.
    """
    written = 0
    for i in range(len(words)):
        parent = numbers[i - 1] if i else before
        if parent >= 0 and words[i] != BOS_ID:
            keys[written] = np.uint64(parent) << np.uint64(32) | np.uint64(words[i])
            written += 1
    return written


@kernel
def _count_equal(keys: NDArray[np.uint64], counts: NDArray[np.uint32]) -> int:
    """Move each different key of `keys` (sorted) to its front and write its count; how many there are."""
    size = 0
    for i in range(len(keys)):
        if i and keys[i] == keys[size - 1]:
            counts[size - 1] += 1
        else:
            keys[size] = keys[i]
            counts[size] = 1
            size += 1
    return size


@kernel
def _merge_two(
    keys: NDArray[np.uint64],
    counts: NDArray[np.uint32],
    other_keys: NDArray[np.uint64],
    other_counts: NDArray[np.uint32],
) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """Two sorted runs as one; the counts of keys that are in both are added."""
    merged = np.empty(len(keys) + len(other_keys), np.uint64)
    totals = np.empty(len(keys) + len(other_keys), np.uint32)
    i, j, size = 0, 0, 0
    while i < len(keys) or j < len(other_keys):
        if j == len(other_keys) or (i < len(keys) and keys[i] < other_keys[j]):
            merged[size], totals[size] = keys[i], counts[i]
            i += 1
        elif i == len(keys) or other_keys[j] < keys[i]:
            merged[size], totals[size] = other_keys[j], other_counts[j]
            j += 1
        else:
            merged[size], totals[size] = keys[i], counts[i] + other_counts[j]
            i += 1
            j += 1
        size += 1
    return merged[:size].copy(), totals[:size].copy()


@kernel
def _count_children(keys: NDArray[np.uint64], begin: NDArray[np.int32]) -> None:
    """Add 1 to begin[parent + 1] for each key."""
    for key in keys:
        begin[np.int64(key >> np.uint64(32)) + 1] += 1


@kernel
def _find(
    words: NDArray[np.int32],
    numbers: NDArray[np.int32],
    before: int,
    level_word: NDArray[np.int32],
    begin: NDArray[np.int32],
) -> NDArray[np.int32]:
    """(positions,) the number of the n-gram that ends at each word of a block, as `_make_keys` builds it."""
    found = np.full(len(words), -1, np.int32)
    for i in range(len(words)):
        parent = numbers[i - 1] if i else before
        if parent >= 0 and words[i] != BOS_ID:
            found[i] = first_not_below(level_word, begin[parent], begin[parent + 1], words[i])
    return found
