"""Confidence of a word: its posterior in the search's lattice, and that of its tokens in the model's output.

A path through the lattice begins at an end of the beam, and each merge that it takes exchanges its beginning.
So ends and merges are the states of an acyclic graph, and one pass each way over them gives the probability
of every node. The nodes of a word in different paths count as one word where the alignment of the two parts
that a merge exchanges, or of two ends, pairs them.

The two posteriors know different things: the lattice which other words the search has seen, the output how
well each sound fits. Their geometric mean is better than either, see docs/decoding.md.

Source: Wessel et al. 2001, "Confidence measures for large vocabulary continuous speech recognition" (word
    posteriors of a lattice, with scaled scores); Xu et al. 2011, "Minimum Bayes risk decoding and system
    combination based on a recursion for edit distance" (words that are aligned, not timed).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.hypothesis import Word
from asr.decoding.kernel.arena import NONE, ROOT, Merges
from asr.decoding.lattice import Ends, Path

__all__ = ["LatticePosteriors", "with_posteriors"]

# Factor on scores: steps are not independent, so that posteriors of unscaled scores are too close to 0 and 1.
# Chosen on the dev set of the shipped model; 0.3 to 0.5 do about as well.
SCALE = 0.4
LEAST = 0.05  # merges and ends that are less probable than the best path by this factor are left out
_ALIGNED = 64  # words of a part that are aligned, those next to the merge


class _Graph(NamedTuple):
    """The lattice as the kernels take it, and their memory.

    Attributes:
        nodes: (nodes,) NODE: the arena.
        kept: (merges,) int32: the node that each merge leads into.
        dropped: (merges,) int32: the node that it exchanges that one for.
        ratio: (merges,) float64: the scaled ratio of their probabilities, at most 1.
        first: (nodes,) int32: a merge into each node, or NONE.
        following: (merges,) int32: the next merge into the same node, or NONE.
        found: (merges,) int32: overwritten by `_find_merges`.
        end_node: (ends,) int32: the nodes of the ends.
        right: (merges,) float64: 0; gets the sum over what paths have to the right of each and itself.
        left: (merges,) float64: gets the sum over what they have to the left of it.
        end_prob: (ends,) float64: scaled probability of each end's path, the best one's being 1.
        label: (nodes + ends,) int32: the word that a node or an end completes, or NONE.
        prob: (nodes + ends,) float64: 0; gets the probability of each node and end.
        same: (nodes + ends,) int32: a number in each; gets the one that stands for all of the same word.
        in_best: (nodes + ends,) bool: False; gets whether it is on the best path. Its words stay different.
        parts: (2, aligned) int32: overwritten.
        common: (aligned + 1, aligned + 1) int32: the first row and column are 0; the rest is overwritten.
    """

    nodes: NDArray[Any]
    kept: NDArray[np.int32]
    dropped: NDArray[np.int32]
    ratio: NDArray[np.float64]
    first: NDArray[np.int32]
    following: NDArray[np.int32]
    found: NDArray[np.int32]
    right: NDArray[np.float64]
    left: NDArray[np.float64]
    end_node: NDArray[np.int32]
    end_prob: NDArray[np.float64]
    label: NDArray[np.int32]
    prob: NDArray[np.float64]
    same: NDArray[np.int32]
    in_best: NDArray[np.bool_]
    parts: NDArray[np.int32]
    common: NDArray[np.int32]


class LatticePosteriors:
    """The posterior of each word in the lattice of a search with a language model of words.

    Without one there are a hundred times as many merges, of which the model's output decides alone.

    Args:
        nodes: (nodes,) NODE: the arena.
        merges: into its nodes.
        ends: of the search.
        scale: factor on scores.
        least: merges and ends that are less probable than the best path by this factor are left out.
    """

    def __init__(
        self,
        nodes: NDArray[Any],
        merges: Merges,
        ends: Ends,
        scale: float = SCALE,
        least: float = LEAST,
    ) -> None:
        count, numbers = int(merges.size[0]), len(nodes) + len(ends.node)
        label = np.full(numbers, NONE, np.int32)
        label[: len(nodes)] = nodes["word"]
        label[len(nodes) :] = ends.word
        ratio = np.exp(scale * merges.log_ratio[:count])
        likely = ratio >= least
        count = int(likely.sum())
        graph = _Graph(
            nodes=nodes,
            kept=merges.kept[: len(likely)][likely],
            dropped=merges.dropped[: len(likely)][likely],
            ratio=ratio[likely],
            first=np.full(len(nodes), NONE, np.int32),
            following=np.empty(count, np.int32),
            found=np.empty(count, np.int32),
            right=np.zeros(count),
            left=np.zeros(count),
            end_node=ends.node,
            end_prob=np.exp(scale * (ends.score - ends.score.max())),
            label=label,
            prob=np.zeros(numbers),
            same=np.arange(numbers, dtype=np.int32),
            in_best=np.zeros(numbers, np.bool_),
            parts=np.empty((2, _ALIGNED), np.int32),
            common=np.zeros((_ALIGNED + 1, _ALIGNED + 1), np.int32),
        )
        _forward_backward(graph, int(np.argmax(ends.score)), least)
        self._label, self._same, self._count = label, graph.same, len(nodes)
        words = label != NONE
        self._probs = np.bincount(graph.same[words], graph.prob[words], minlength=numbers)

    def of(self, path: Path) -> list[float]:
        """(words,) the posterior of each word of a path, in order; too high in others than the best path.

        Only the best path's words are kept apart from each other where they are paired over other paths.
        """
        numbers = np.array([*path.nodes, self._count + path.end])
        numbers = numbers[self._label[numbers] != NONE]
        # Rounded, so that the order of sums, which depends on the arena's size, does not show.
        probs: list[float] = np.clip(self._probs[self._same[numbers]], 0.0, 1.0).round(9).tolist()
        return probs


def with_posteriors(words: Sequence[Word], posteriors: Sequence[float]) -> tuple[Word, ...]:
    """Words whose confidences are those of lattice and output together.

    Args:
        words: with the mean posteriors of their tokens in the model's output.
        posteriors: (words,) in the lattice.
    """
    return tuple(
        replace(word, confidence=math.sqrt(word.confidence * posterior))
        for word, posterior in zip(words, posteriors, strict=True)
    )


@kernel(allocates=False)
def _find_merges(graph: _Graph, head: int, limit: int) -> int:
    """The merges that a path can take to the left of all that it has taken; as `lattice` lists its paths.

    Args:
        graph: gets them in `found`.
        head: node at the end of the part that may still be exchanged.
        limit: the merges have to be before this one.

    Returns:
        How many.
    """
    nodes, dropped, first, following = graph.nodes, graph.dropped, graph.first, graph.following
    count = 0
    below, node = NONE, head
    while node != NONE:
        merge = int(first[node])
        while merge != NONE:
            if merge < limit:
                spelled = False  # by a merge into the node below
                other = int(first[below]) if below != NONE else NONE
                while other != NONE:
                    if other < limit and nodes[dropped[other]].parent == dropped[merge]:
                        spelled = True
                    other = int(following[other])
                if not spelled:
                    graph.found[count] = merge
                    count += 1
            merge = int(following[merge])
        below, node = node, int(nodes[node].parent)
    return count


@kernel(allocates=False, inline=True)
def _stands_for(same: NDArray[np.int32], number: int) -> int:
    """The number that stands for all of the same word."""
    while same[number] != number:
        number = int(same[number])
    return number


@kernel(allocates=False)
def _pair_words(graph: _Graph, one: int, other: int) -> None:
    """Pair what two prefixes have in common, in the same order, after all that both begin with.

    Args:
        graph: gets the pairs in `same`.
        one: a node, or the number of an end.
        other: likewise; its words are counted as those of `one`.
    """
    nodes, label, same, parts, common = graph.nodes, graph.label, graph.same, graph.parts, graph.common
    size = nodes.shape[0]
    rows, columns = 0, 0  # of each part how many words, the last one first
    while one != other:
        if one > other:  # a node comes after its parent, an end after all nodes
            if label[one] != NONE and rows < parts.shape[1]:
                parts[0, rows] = one
                rows += 1
            one = int(nodes[one].parent) if one < size else int(graph.end_node[one - size])
        else:
            if label[other] != NONE and columns < parts.shape[1]:
                parts[1, columns] = other
                columns += 1
            other = int(nodes[other].parent) if other < size else int(graph.end_node[other - size])
    for row in range(rows - 1, -1, -1):  # the longest common subsequence from here on
        common[row, columns] = 0
    for column in range(columns + 1):
        common[rows, column] = 0
    for row in range(rows - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            if label[parts[0, row]] == label[parts[1, column]]:
                common[row, column] = common[row + 1, column + 1] + 1
            else:
                common[row, column] = max(common[row + 1, column], common[row, column + 1])
    row, column = 0, 0
    while row < rows and column < columns:
        if label[parts[0, row]] == label[parts[1, column]]:
            first, second = _stands_for(same, int(parts[0, row])), _stands_for(same, int(parts[1, column]))
            if not graph.in_best[second]:
                same[second] = first
            elif not graph.in_best[first]:
                same[first] = second
            row, column = row + 1, column + 1
        elif common[row + 1, column] >= common[row, column + 1]:
            row += 1
        else:
            column += 1


@kernel(allocates=False)
def _forward_backward(graph: _Graph, best: int, least: float) -> None:
    """Compute `graph.prob` and `graph.same`.

    Args:
        graph: its `prob`, `same`, `first` and `following` are filled.
        best: the end of the best path.
        least: states less probable than the best path by this factor are left out.
    """
    nodes, kept, dropped, ratio, prob = graph.nodes, graph.kept, graph.dropped, graph.ratio, graph.prob
    right, left = graph.right, graph.left
    count, size, ends = kept.shape[0], nodes.shape[0], graph.end_node.shape[0]
    for merge in range(count):
        graph.following[merge] = graph.first[kept[merge]]
        graph.first[kept[merge]] = merge
    graph.in_best[size + best] = True
    node = int(graph.end_node[best])
    while node != NONE:
        graph.in_best[node] = True
        node = int(nodes[node].parent)
    for end in range(ends):
        if graph.end_prob[end] < least:
            continue
        for index in range(_find_merges(graph, int(graph.end_node[end]), count)):
            right[graph.found[index]] += graph.end_prob[end] * ratio[graph.found[index]]
        if end != best:
            _pair_words(graph, size + best, size + end)
    for merge in range(count - 1, -1, -1):
        if right[merge] >= least:
            for index in range(_find_merges(graph, int(dropped[merge]), merge)):
                right[graph.found[index]] += right[merge] * ratio[graph.found[index]]
            _pair_words(graph, int(kept[merge]), int(dropped[merge]))
    evidence = 0.0  # the sum over all paths
    for state in range(count + ends):  # merges, then ends
        head, limit, weight = 0, count, 0.0
        if state < count:
            head, limit, weight = int(dropped[state]), state, right[state]
        else:
            head, weight = int(graph.end_node[state - count]), graph.end_prob[state - count]
        if weight < least:
            continue
        total = 1.0
        for index in range(_find_merges(graph, head, limit)):
            merge = int(graph.found[index])
            if right[merge] >= least:
                total += ratio[merge] * left[merge]
                prob[kept[merge]] -= weight * ratio[merge] * left[merge]  # these paths leave the node out
        prob[head] += weight * total
        if state < count:
            left[state] = total
        else:
            prob[size + state - count] = weight * total
            evidence += weight * total
    for node in range(size - 1, ROOT, -1):  # a child comes after its parent
        prob[nodes[node].parent] += prob[node]
    for number in range(size + ends):
        prob[number] /= evidence
        graph.same[number] = _stands_for(graph.same, number)
