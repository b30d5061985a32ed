"""Smooth counts into an n-gram model: interpolated modified Kneser-Ney, and count cut-offs.

The numbers are those of KenLM's lmplz: one `<s>` begins a sentence; n-grams that begin with it keep their
counts at every order, all others below the highest order are counted by how many different words precede
them; unigrams are interpolated with a uniform distribution over all words but `<s>`; the probability of
n-grams that cut-offs remove goes to the back-off weight, and discounts are estimated before that.

Source: Chen & Goodman (1999), An empirical study of smoothing techniques for language modeling, section 3 and
equation 26 (discounts); Heafield et al. (2013), Scalable modified Kneser-Ney language model estimation.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.lm.ngram.count import Level
from asr.lm.ngram.disk import DiskArrays
from asr.lm.ngram.trie import BOS_ID, LOG_ZERO, NgramArrays, first_not_below, link

__all__ = ["FALLBACK", "discounts", "estimate"]

log = logging.getLogger("asr")

FALLBACK = (0.5, 1.0, 1.5)  # discounts for too little text; those of lmplz's --discount_fallback


class _Order(NamedTuple):
    """The counted n-grams of one order.

    Attributes:
        word: (n,) int32, as the next two of the order's `Level`.
        counts: (n,) uint32 plain counts.
        begin: (parents + 1,) int32 first n-gram of each parent.
        adjusted: (n,) uint32 adjusted counts.
        suffix: (n,) int32 indices in the order below of the n-grams without their first word.
        kept: (n + 1,) int32, see `_kept`.
        first: node of the first of them.
    """

    word: NDArray[np.int32]
    counts: NDArray[np.uint32]
    begin: NDArray[np.int32]
    adjusted: NDArray[np.uint32]
    suffix: NDArray[np.int32]
    kept: NDArray[np.int32]
    first: int


class _LowerOrder(NamedTuple):
    """The order below, smoothed: the root below unigrams.

    Attributes:
        probs: (n-grams,) float32 probabilities.
        kept: (n-grams + 1,) int32, see `_kept`.
        first: node of the first of them.
    """

    probs: NDArray[np.float32]
    kept: NDArray[np.int32]
    first: int


def discounts(counts: NDArray[np.uint32]) -> tuple[float, float, float] | None:
    """The discounts of n-grams seen once, twice, and three times or more.

    Args:
        counts: (n,) adjusted counts of all n-grams of an order.

    Returns:
        D1, D2, D3+; None where the counts of counts allow no estimate.

    Source: Chen & Goodman (1999), equation 26.
    """
    t = [0, *(int(np.count_nonzero(counts == k)) for k in range(1, 5))]
    if not (t[1] and t[2] and t[3]):
        return None
    y = t[1] / (t[1] + 2 * t[2])
    found = [k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3)]
    return (found[0], found[1], found[2]) if all(0 <= d <= k for k, d in enumerate(found, 1)) else None


def estimate(
    levels: Sequence[Level], cutoffs: Sequence[int], disk: DiskArrays
) -> tuple[NgramArrays, tuple[int, ...], NDArray[Any]]:
    """The smoothed model of counted n-grams.

    Args:
        levels: what `count.count` returns.
        cutoffs: for each order the highest count that is removed; 0 first (words are not removed), never
            falling.
        disk: where the result and all large arrays are stored.

    Returns:
        The model's arrays; the number of n-grams of each order; and for each node below the highest order how
        often it was followed by a word.
    """
    order = len(levels)
    suffixes = _suffixes(levels, disk)
    kept = [_kept(level, cutoff, disk) for level, cutoff in zip(levels, cutoffs, strict=True)]
    counts = tuple(int(numbers[-1]) for numbers in kept)
    nodes, inner = 1 + sum(counts), 1 + sum(counts[:-1])
    arrays = NgramArrays(
        disk.zeros(nodes, np.int32), disk.zeros(nodes, np.float32), disk.zeros(nodes, np.int32),
        disk.zeros(inner, np.float32), disk.zeros(inner + 1, np.int32),
    )  # fmt: skip
    followed = disk.zeros(inner, np.int64)
    arrays.word[0], arrays.begin[0] = -1, 1
    uniform = 1 / (counts[0] - 1)  # over all words but <s>
    lower = _LowerOrder(np.full(1, uniform, np.float32), np.array([0, 1], np.int32), first=0)
    first = 1
    for n, level in enumerate(levels, start=1):
        adjusted = _adjusted(level, suffixes[n] if n < order else None, disk)
        if n == 1:
            adjusted[BOS_ID] = 0
        taken = discounts(adjusted)
        if taken is None and len(level):
            taken = FALLBACK
            log.warning(
                "Too little text, or too few symbols, to estimate the discounts of %d-grams: %s are used.",
                n,
                ", ".join(f"{d:g}" for d in FALLBACK),
            )
        probs = disk.zeros(len(level), np.float32)
        counted = _Order(level.word, level.count, level.begin, adjusted, suffixes[n - 1], kept[n - 1], first)
        _smooth(arrays, followed, counted, lower, np.array(taken or FALLBACK), probs)
        lower = _LowerOrder(probs, kept[n - 1], first)
        first += counts[n - 1]
        disk.release_memory()
    arrays.log_prob[1 + BOS_ID] = LOG_ZERO  # never predicted
    arrays.backoff[0] = 0.0  # the empty context has no shorter one
    link(arrays)
    disk.release_memory()
    return arrays, counts, followed


def _suffixes(levels: Sequence[Level], disk: DiskArrays) -> list[NDArray[np.int32]]:
    """For each order, the numbers (in the order below) of the n-grams without their first word."""
    suffixes: list[NDArray[np.int32]] = [disk.zeros(len(levels[0]), np.int32)]
    for n in range(1, len(levels)):
        suffixes.append(disk.zeros(len(levels[n]), np.int32))
        below = levels[n - 1]
        _link_level(levels[n].word, levels[n].begin, suffixes[n - 1], below.word, below.begin, suffixes[n])
        disk.release_memory()
    return suffixes


def _kept(level: Level, cutoff: int, disk: DiskArrays) -> NDArray[np.int32]:
    """(n + 1,) how many n-grams before each one are kept; the last value is the number of all kept ones."""
    numbers = disk.zeros(len(level) + 1, np.int32)
    if cutoff:
        np.cumsum(level.count > cutoff, out=numbers[1:])
    else:
        numbers[:] = np.arange(len(numbers), dtype=np.int32)
    return numbers


def _adjusted(level: Level, suffixes: NDArray[np.int32] | None, disk: DiskArrays) -> NDArray[np.uint32]:
    """(n,) how many different words precede each n-gram; its count at the highest order and after `<s>`."""
    if suffixes is None:
        return level.count
    adjusted = disk.zeros(len(level), np.uint32)
    _count_into(suffixes, level.count, adjusted)
    return adjusted


@kernel
def _count_into(
    suffixes: NDArray[np.int32], counts: NDArray[np.uint32], adjusted: NDArray[np.uint32]
) -> None:
    """Write adjusted counts (n,) of one order.

    Args:
        suffixes: (longer n-grams,) the n-gram that each one of the order above ends with.
        counts: (n,) plain counts.
        adjusted: (n,) zeros; output.
    """
    for suffix in suffixes:
        adjusted[suffix] += 1
    for i in range(len(adjusted)):
        if adjusted[i] == 0:  # nothing comes before `<s>`
            adjusted[i] = counts[i]


@kernel
def _link_level(
    word: NDArray[np.int32],
    begin: NDArray[np.int32],
    below_suffix: NDArray[np.int32],
    below_word: NDArray[np.int32],
    below_begin: NDArray[np.int32],
    suffix: NDArray[np.int32],
) -> None:
    """Write suffix (n,): for each n-gram of a level its number without the first word, in the order below.

    The arrays of the level and of the one below are those of `Level`; `below_suffix` is this function's
    result for the order below.
    """
    for parent in range(len(begin) - 1):
        context = below_suffix[parent]
        low, stop = below_begin[context], below_begin[context + 1]
        for i in range(begin[parent], begin[parent + 1]):
            low = first_not_below(below_word, low, stop, word[i])
            suffix[i] = low


@kernel
def _smooth(
    arrays: NgramArrays,
    followed: NDArray[np.int64],
    order: _Order,
    lower: _LowerOrder,
    discount: NDArray[np.float64],
    probs: NDArray[np.float32],
) -> None:
    """Write one order: log-probabilities of its n-grams, back-off weights and children of their contexts.

    Args:
        arrays: the model; output.
        followed: (contexts,) how often a word follows each context; output.
        order: its n-grams.
        lower: the order below, their contexts.
        discount: (3,) D1, D2, D3+.
        probs: (n,) output: probabilities.
    """
    begin, adjusted, kept = order.begin, order.adjusted, order.kept
    for parent in range(len(begin) - 1):
        total, gamma, times = 0.0, 0.0, 0
        for i in range(begin[parent], begin[parent + 1]):
            total += adjusted[i]
            times += order.counts[i]
            if kept[i] == kept[i + 1]:
                gamma += adjusted[i]
            elif adjusted[i]:
                gamma += discount[min(adjusted[i], 3) - 1]
        gamma = gamma / total if total else 1.0
        for i in range(begin[parent], begin[parent + 1]):
            if kept[i] == kept[i + 1]:
                continue
            discounted = (adjusted[i] - discount[min(adjusted[i], 3) - 1]) / total if adjusted[i] else 0.0
            probs[i] = discounted + gamma * lower.probs[order.suffix[i]]
            node = order.first + kept[i]
            arrays.word[node] = order.word[i]
            arrays.log_prob[node] = max(math.log(probs[i]), LOG_ZERO)
        if lower.kept[parent] < lower.kept[parent + 1]:
            node = lower.first + lower.kept[parent]
            # discounts of exactly 0 leave no probability for other words
            arrays.backoff[node] = max(math.log(gamma), LOG_ZERO)
            arrays.begin[node + 1] = order.first + kept[begin[parent + 1]]
            followed[node] = times
