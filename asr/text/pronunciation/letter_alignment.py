"""Letters aligned with phones: each letter of a word has no, one or two, found over all words of a lexicon.

A *chunk* is what one letter has: chunk 0 is no phone, then comes each phone, then each pair of phones.
Expectation-maximisation counts over all alignments of all words; afterwards each word gets its best one.

Source: Bisani, Ney, "Joint-sequence models for grapheme-to-phoneme conversion", Speech Communication 50,
2008, with letters one by one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel

__all__ = ["Floats", "Ints", "align", "chunk_of", "count_chunks", "phones_of"]

_ITERATIONS = 8  # of expectation-maximisation; more change nothing
_INITIAL_PAIR = 0.01  # initial weight of two phones a letter, which few have ("x"); of none or one: 1

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def count_chunks(phone_count: int) -> int:
    """Number of different chunks of this many phones."""
    return 1 + phone_count + phone_count**2


def phones_of(chunk: int, phones: Sequence[str]) -> tuple[str, ...]:
    """The phones of a chunk, that is, of one letter: 0 is none, then each phone, then each pair of phones."""
    if chunk == 0:
        return ()
    if chunk <= len(phones):
        return (phones[chunk - 1],)
    first, second = divmod(chunk - 1 - len(phones), len(phones))
    return (phones[first], phones[second])


@kernel
def chunk_of(phones: Ints, begin: int, taken: int, phone_count: int) -> int:
    """The chunk of `taken` (0 to 2) phones from `begin` on, numbered as in `phones_of`."""
    if taken == 0:
        return 0
    if taken == 1:
        return int(1 + phones[begin])
    return int(1 + phone_count + phones[begin] * phone_count + phones[begin + 1])


def align(letters: Ints, letter_bounds: Ints, phones: Ints, phone_bounds: Ints) -> Ints:
    """(letters,) the chunk of phones that each letter is aligned with, numbered as in `phones_of`."""
    phone_count = int(phones.max()) + 1
    weights = np.ones((int(letters.max()) + 1, count_chunks(phone_count)))
    weights[:, 1 + phone_count :] = _INITIAL_PAIR
    longest = 2 * int(np.diff(letter_bounds).max()) + 1
    tables = np.zeros((2, longest, longest))
    flat = (letters, letter_bounds, phones, phone_bounds, phone_count)
    for _ in range(_ITERATIONS):
        probs = weights / weights.sum(axis=1, keepdims=True)
        weights = np.zeros_like(probs)
        _count_sounds(*flat, probs, tables, weights)
    costs = -np.log(np.maximum(weights / weights.sum(axis=1, keepdims=True), 1e-300))
    chunks = np.zeros(len(letters), dtype=np.int64)
    _find_paths(*flat, costs, tables, chunks)
    return chunks


# The kernels are plain loops over arrays that their callers allocate, which numba compiles fastest.


@kernel
def _count_sounds(
    letters: Ints, letter_bounds: Ints, phones: Ints, phone_bounds: Ints, phone_count: int,
    probs: Floats, tables: Floats, counts: Floats,
) -> None:  # fmt: skip
    """Add to `counts` the expected number of times that each letter is aligned with each chunk.

    Args:
        letters: (all letters,) ids, of all words in a row.
        letter_bounds: (words + 1,) where each word begins in `letters`.
        phones: (all phones,) ids.
        phone_bounds: (words + 1,) where each word begins in `phones`.
        phone_count: number of different phones.
        probs: (alphabet, chunks) probability of each chunk for each letter.
        tables: (2, longest + 1, longest + 1) scratch: forward and backward probabilities.
        counts: (alphabet, chunks) output.
    """
    forward, backward = tables[0], tables[1]
    for word in range(len(letter_bounds) - 1):
        x, n = letter_bounds[word], letter_bounds[word + 1] - letter_bounds[word]
        y, m = phone_bounds[word], phone_bounds[word + 1] - phone_bounds[word]
        for i in range(n + 1):
            for j in range(m + 1):
                forward[i, j] = backward[i, j] = 0.0
        forward[0, 0] = backward[n, m] = 1.0
        for i in range(n):
            for j in range(m + 1):
                for taken in range(min(3, m + 1 - j)):
                    chunk = chunk_of(phones, y + j, taken, phone_count)
                    forward[i + 1, j + taken] += forward[i, j] * probs[letters[x + i], chunk]
        total = max(forward[n, m], 1e-300)
        for i in range(n - 1, -1, -1):
            for j in range(m + 1):
                for taken in range(min(3, m + 1 - j)):
                    chunk = chunk_of(phones, y + j, taken, phone_count)
                    value = probs[letters[x + i], chunk] * backward[i + 1, j + taken]
                    backward[i, j] += value
                    counts[letters[x + i], chunk] += forward[i, j] * value / total


@kernel
def _find_paths(
    letters: Ints, letter_bounds: Ints, phones: Ints, phone_bounds: Ints, phone_count: int,
    costs: Floats, tables: Floats, chunks: Ints,
) -> None:  # fmt: skip
    """Write into `chunks` (all letters,) the chunk of each letter on the best path of its word.

    The first five arguments are those of `_count_sounds`; `costs` (alphabet, chunks) are negative
    log-probabilities in nats; `tables` (2, longest + 1, longest + 1) is scratch: costs of the best paths, and
    how many phones the last letter of each one has.
    """
    cost, taken_last = tables[0], tables[1]
    for word in range(len(letter_bounds) - 1):
        x, n = letter_bounds[word], letter_bounds[word + 1] - letter_bounds[word]
        y, m = phone_bounds[word], phone_bounds[word + 1] - phone_bounds[word]
        for i in range(n + 1):
            for j in range(m + 1):
                cost[i, j] = np.inf
        cost[0, 0] = 0.0
        for i in range(n):
            for j in range(m + 1):
                for taken in range(min(3, m + 1 - j)):
                    value = cost[i, j] + costs[letters[x + i], chunk_of(phones, y + j, taken, phone_count)]
                    # Either letter of "ll" may be silent at the same cost: always take the same one.
                    if value < cost[i + 1, j + taken] - 1e-9:
                        cost[i + 1, j + taken] = value
                        taken_last[i + 1, j + taken] = taken
        j = m
        for i in range(n, 0, -1):
            taken = int(taken_last[i, j])
            j -= taken
            chunks[x + i - 1] = chunk_of(phones, y + j, taken, phone_count)
