"""Entropy pruning: leave out the n-grams that change the model least.

An n-gram is left out when the perplexity of the model would grow by less than a threshold, each n-gram
considered by itself, from the highest order down; an n-gram that others begin with stays. Back-off weights
are computed anew.

The probability of a context is its share of the training text, not the product of the model's probabilities:
with Kneser-Ney smoothing, whose lower orders are no estimate of how often a word occurs, that product
misleads.

Source: Stolcke (1998), Entropy-based pruning of backoff language models, section 3 (equations 3 to 5); Chelba
et al. (2010), Study on interaction between entropy pruning and Kneser-Ney smoothing, for why the shares.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.lm.ngram.disk import DiskArrays
from asr.lm.ngram.trie import NgramArrays, advance, link

__all__ = ["prune_entropy"]

_TINY = 1e-5  # below this, what is left of the probability is rounding


def prune_entropy(
    arrays: NgramArrays, counts: tuple[int, ...], followed: NDArray[Any], threshold: float, disk: DiskArrays
) -> tuple[NgramArrays, tuple[int, ...]]:
    """A model without the n-grams that change its perplexity by less than a threshold.

    Args:
        arrays: the model.
        counts: how many n-grams it has of each order.
        followed: (contexts,) how often each node below the highest order was followed by a word.
        threshold: relative increase of the perplexity, such as 1e-8; words always stay.
        disk: where the result lies.

    Returns:
        the new model's arrays, and its n-grams of each order.
    """
    nodes, inner = len(arrays.word), len(arrays.backoff)
    starts = np.cumsum([0, 1, *counts])  # of each order, the root's being 0
    kept = np.ones(nodes, np.bool_)
    for n in range(len(counts), 1, -1):
        _choose(arrays, followed, kept, int(starts[n - 1]), int(starts[n]), threshold)
    numbers = disk.zeros(nodes + 1, np.int32)
    np.cumsum(kept, out=numbers[1:])
    sizes = tuple(int(numbers[starts[n + 1]] - numbers[starts[n]]) for n in range(1, len(counts) + 1))
    left, left_inner = int(numbers[nodes]), int(numbers[inner])
    pruned = NgramArrays(
        disk.zeros(left, np.int32), disk.zeros(left, np.float32), disk.zeros(left, np.int32),
        disk.zeros(left_inner, np.float32), disk.zeros(left_inner + 1, np.int32),
    )  # fmt: skip
    _compact(arrays, kept, numbers, pruned)
    link(pruned)
    _weigh(pruned)
    return pruned, sizes


@kernel
def _left(arrays: NgramArrays, parent: int) -> tuple[float, float]:
    """What the n-grams of a context leave to all other words: of its probability, and of the order below."""
    left, left_low = 1.0, 1.0
    for node in range(arrays.begin[parent], arrays.begin[parent + 1]):
        left -= math.exp(arrays.log_prob[node])
        left_low -= math.exp(advance(arrays, arrays.suffix[parent], arrays.word[node])[0])
    return left, left_low


@kernel
def _choose(
    arrays: NgramArrays,
    followed: NDArray[np.int64],
    kept: NDArray[np.bool_],
    first: int,
    stop: int,
    threshold: float,
) -> None:
    """Mark what goes among the children of the nodes from `first` to `stop` - 1."""
    inner = len(arrays.backoff)
    for parent in range(first, stop):
        begin, end = arrays.begin[parent], arrays.begin[parent + 1]
        left, left_low = _left(arrays, parent)
        left, left_low = max(left, 1e-12), max(left_low, 1e-12)
        share = followed[parent] / followed[0]
        for node in range(begin, end):
            if node < inner:
                needed = False
                for child in range(arrays.begin[node], arrays.begin[node + 1]):
                    needed = needed or kept[child]
                if needed:
                    continue
            log_prob = arrays.log_prob[node]
            log_low, _ = advance(arrays, arrays.suffix[parent], arrays.word[node])
            prob, prob_low = math.exp(log_prob), math.exp(log_low)
            old = math.log(left / left_low)
            new = math.log((left + prob) / (left_low + prob_low))
            change = -share * (prob * (log_low + new - log_prob) + left * (new - old))
            kept[node] = math.expm1(change) >= threshold


@kernel
def _compact(
    arrays: NgramArrays, kept: NDArray[np.bool_], numbers: NDArray[np.int32], pruned: NgramArrays
) -> None:
    pruned.begin[0] = 1
    for node in range(len(arrays.word)):
        if kept[node]:
            to = numbers[node]
            pruned.word[to] = arrays.word[node]
            pruned.log_prob[to] = arrays.log_prob[node]
            if node < len(arrays.backoff):
                pruned.begin[to + 1] = numbers[arrays.begin[node + 1]]
                alone = numbers[arrays.begin[node]] == numbers[arrays.begin[node + 1]]
                pruned.backoff[to] = 0.0 if alone else arrays.backoff[node]


@kernel
def _weigh(arrays: NgramArrays) -> None:
    """Back-off weights with which the probabilities after each context sum to 1; lower orders first."""
    for parent in range(1, len(arrays.backoff)):
        left, left_low = _left(arrays, parent)
        if arrays.begin[parent] < arrays.begin[parent + 1] and left > _TINY and left_low > _TINY:
            arrays.backoff[parent] = math.log(left / left_low)
