"""Entropy pruning: remove the n-grams that change the model least.

An n-gram is removed if the perplexity of the model would grow by less than a threshold, each n-gram
considered by itself, from the highest order down; a prefix of an n-gram that stays also stays. Back-off
weights are recomputed.

The probability of a context is its relative frequency in the training text, not the product of the model's
probabilities: with Kneser-Ney smoothing, whose lower orders do not estimate how often a word occurs, that
product misleads.

Source: Stolcke (1998), Entropy-based pruning of backoff language models, section 3 (equations 3 to 5); for
relative frequencies: Chelba et al. (2010), Study on interaction between entropy pruning and Kneser-Ney
smoothing.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.lm.ngram.disk import DiskArrays
from asr.lm.ngram.trie import NgramArrays, advance_unpacked, link

__all__ = ["keep", "prune_entropy", "set_backoffs"]

_TINY = 1e-5  # below this, a remaining probability is rounding error


def prune_entropy(
    arrays: NgramArrays, counts: tuple[int, ...], followed: NDArray[Any], threshold: float, disk: DiskArrays
) -> tuple[NgramArrays, tuple[int, ...]]:
    """A model without the n-grams that change its perplexity by less than a threshold.

    Args:
        arrays: the model.
        counts: how many n-grams it has of each order.
        followed: (contexts,) how often each node below the highest order was followed by a word.
        threshold: relative increase of the perplexity, such as 1e-8; words always stay.
        disk: where the result is stored.

    Returns:
        The new model's arrays, and the number of its n-grams of each order.
    """
    starts = np.cumsum([0, 1, *counts])  # of each order, the root's being 0
    kept = np.ones(len(arrays.word), np.bool_)
    for n in range(len(counts), 1, -1):
        _mark_kept(arrays, followed, kept, int(starts[n - 1]), int(starts[n]), threshold)
    return keep(arrays, counts, kept, disk)


def keep(
    arrays: NgramArrays, counts: tuple[int, ...], kept: NDArray[np.bool_], disk: DiskArrays
) -> tuple[NgramArrays, tuple[int, ...]]:
    """A model of some of the n-grams of another, with back-off weights of its own.

    Args:
        arrays: the model.
        counts: how many n-grams it has of each order.
        kept: (nodes,) which ones stay; the root does, and the prefix of each that does.
        disk: where the result is stored.

    Returns:
        The new model's arrays, and the number of its n-grams of each order.
    """
    nodes, inner = len(arrays.word), len(arrays.backoff)
    starts = np.cumsum([0, 1, *counts])  # of each order, the root's being 0
    numbers = disk.zeros(nodes + 1, np.int32)
    np.cumsum(kept, out=numbers[1:])
    sizes = tuple(int(numbers[starts[n + 1]] - numbers[starts[n]]) for n in range(1, len(counts) + 1))
    new_nodes, new_inner = int(numbers[nodes]), int(numbers[inner])
    pruned = NgramArrays(
        disk.zeros(new_nodes, np.int32), disk.zeros(new_nodes, np.float32), disk.zeros(new_nodes, np.int32),
        disk.zeros(new_inner, np.float32), disk.zeros(new_inner + 1, np.int32),
    )  # fmt: skip
    _compact(arrays, kept, numbers, pruned)
    link(pruned)
    set_backoffs(pruned)
    return pruned, sizes


@kernel
def _remaining(arrays: NgramArrays, parent: int) -> tuple[float, float]:
    """The probability of all words that are no child of a context: after it, and after its suffix."""
    rest, rest_low = 1.0, 1.0
    for node in range(arrays.begin[parent], arrays.begin[parent + 1]):
        rest -= math.exp(arrays.log_prob[node])
        rest_low -= math.exp(advance_unpacked(arrays, arrays.suffix[parent], arrays.word[node])[0])
    return rest, rest_low


@kernel
def _mark_kept(
    arrays: NgramArrays,
    followed: NDArray[np.int64],
    kept: NDArray[np.bool_],
    first: int,
    stop: int,
    threshold: float,
) -> None:
    """Write whether each child of the nodes from `first` to `stop` - 1 is kept.

    Args:
        arrays: the model.
        followed: (contexts,) how often each one was followed by a word.
        kept: (nodes,) output; true before.
        first: the first of these nodes.
        stop: the node after the last of them.
        threshold: relative increase of the perplexity.
    """
    inner = len(arrays.backoff)
    for parent in range(first, stop):
        begin, end = arrays.begin[parent], arrays.begin[parent + 1]
        rest, rest_low = _remaining(arrays, parent)
        rest, rest_low = max(rest, 1e-12), max(rest_low, 1e-12)
        context_prob = followed[parent] / followed[0]
        for node in range(begin, end):
            if node < inner:
                needed = False
                for child in range(arrays.begin[node], arrays.begin[node + 1]):
                    needed = needed or kept[child]
                if needed:
                    continue
            log_prob = arrays.log_prob[node]
            log_low, _ = advance_unpacked(arrays, arrays.suffix[parent], arrays.word[node])
            prob, prob_low = math.exp(log_prob), math.exp(log_low)
            old = math.log(rest / rest_low)
            new = math.log((rest + prob) / (rest_low + prob_low))
            change = -context_prob * (prob * (log_low + new - log_prob) + rest * (new - old))
            kept[node] = math.expm1(change) >= threshold


@kernel
def _compact(
    arrays: NgramArrays, kept: NDArray[np.bool_], numbers: NDArray[np.int32], pruned: NgramArrays
) -> None:
    """Write the kept nodes into `pruned`; `numbers` (nodes + 1,) counts the kept ones before each node."""
    pruned.begin[0] = 1
    for node in range(len(arrays.word)):
        if kept[node]:
            to = numbers[node]
            pruned.word[to] = arrays.word[node]
            pruned.log_prob[to] = arrays.log_prob[node]
            if node < len(arrays.backoff):
                pruned.begin[to + 1] = numbers[arrays.begin[node + 1]]
                childless = numbers[arrays.begin[node]] == numbers[arrays.begin[node + 1]]
                pruned.backoff[to] = 0.0 if childless else arrays.backoff[node]


@kernel
def set_backoffs(arrays: NgramArrays) -> None:
    """Set back-off weights with which the probabilities after each context sum to 1; lower orders first.

    Contexts whose n-grams leave nothing, or hardly anything, to other words keep theirs, but not more than
    they have left.
    """
    for parent in range(1, len(arrays.backoff)):
        if arrays.begin[parent] == arrays.begin[parent + 1]:
            continue
        rest, rest_low = _remaining(arrays, parent)
        if rest_low > _TINY:
            most = math.log(max(rest, _TINY) / rest_low)
            arrays.backoff[parent] = most if rest > _TINY else min(arrays.backoff[parent], most)
