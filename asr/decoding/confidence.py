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
from asr.decoding.kernel.arena import EMPTY_PREFIX, NONE
from asr.decoding.lattice import Lattice, Path

__all__ = ["LatticePosteriors", "with_posteriors"]

# Factor on scores: steps are not independent, so that posteriors of unscaled scores are too close to 0 and 1.
# Chosen on the dev set of the shipped model; 0.3 to 0.5 do about as well.
POSTERIOR_SCALE = 0.4
# Merges and ends that are less probable than the best path by this factor are left out.
MIN_RELATIVE_PROB = 0.05
_ALIGNED = 64  # words of a part that are aligned, those next to the merge


# Records, because numba takes long to compile a function of many arrays. It reads the fields by name.
_MERGE = np.dtype(
    [
        ("kept", np.int32),  # the node that the merge leads into
        ("dropped", np.int32),  # the node that it exchanges that one for
        ("following", np.int32),  # the next merge into the same node, or NONE
        ("ratio", np.float64),  # the scaled ratio of their probabilities, at most 1
        ("right", np.float64),  # the sum over what paths have to the right of the merge and itself
        ("left", np.float64),  # the sum over what they have to the left of it
    ]
)
_STATE = np.dtype(
    [
        ("label", np.int32),  # the word that a node or an end completes, or NONE
        ("first", np.int32),  # a merge into the node, or NONE
        ("representative", np.int32),  # the state that stands for all of the same word
        ("in_best", np.int32),  # whether it is on the best path, whose words stay different
        ("prob", np.float64),  # of the node or end
    ]
)
_END = np.dtype(
    [
        ("node", np.int32),
        ("prob", np.float64),  # scaled probability of the end's path, the best one's being 1
    ]
)


class _Graph(NamedTuple):
    """The lattice as the kernels take it, and their memory.

    Attributes:
        nodes: (nodes,) NODE: the arena.
        merges: (merges,) _MERGE.
        states: (nodes + ends,) _STATE: the nodes, then the ends.
        ends: (ends,) _END.
        merge_stack: (merges,) int32: what `_find_merges` finds; overwritten.
        parts: (2, aligned) int32: overwritten.
        common: (aligned + 1, aligned + 1) int32: overwritten.
    """

    nodes: NDArray[Any]
    merges: NDArray[Any]
    states: NDArray[Any]
    ends: NDArray[Any]
    merge_stack: NDArray[np.int32]
    parts: NDArray[np.int32]
    common: NDArray[np.int32]


class LatticePosteriors:
    """The posterior of each word in the lattice of a search with a language model of words.

    Without one there are a hundred times as many merges, of which the model's output decides alone.

    Args:
        lattice: of the search.
        scale: factor on scores.
        min_relative_prob: merges and ends that are less probable than the best path by this factor are left
            out.
    """

    def __init__(
        self,
        lattice: Lattice,
        scale: float = POSTERIOR_SCALE,
        min_relative_prob: float = MIN_RELATIVE_PROB,
    ) -> None:
        nodes, merges, final = lattice
        size = len(nodes)
        states = np.zeros(size + len(final.node), _STATE)
        states["label"][:size], states["label"][size:] = nodes["word"], final.word
        states["first"] = NONE
        states["representative"] = np.arange(len(states))
        ratio = np.exp(scale * merges.log_ratio[: int(merges.size[0])])
        likely = ratio >= min_relative_prob
        taken = np.zeros(int(likely.sum()), _MERGE)
        taken["kept"] = merges.kept[: len(likely)][likely]
        taken["dropped"] = merges.dropped[: len(likely)][likely]
        taken["ratio"] = ratio[likely]
        ends = np.empty(len(final.node), _END)
        ends["node"], ends["prob"] = final.node, np.exp(scale * (final.score - final.score.max()))
        graph = _Graph(
            nodes=nodes,
            merges=taken,
            states=states,
            ends=ends,
            merge_stack=np.empty(len(taken), np.int32),
            parts=np.empty((2, _ALIGNED), np.int32),
            common=np.empty((_ALIGNED + 1, _ALIGNED + 1), np.int32),
        )
        _forward_backward(graph, int(np.argmax(final.score)), min_relative_prob)
        self._label, self._representative, self._count = states["label"], states["representative"], size
        words = states["label"] != NONE
        self._probs = np.bincount(
            states["representative"][words], states["prob"][words], minlength=len(states)
        )

    def of(self, path: Path) -> list[float]:
        """(words,) the posterior of each word of a path, in order; too high in others than the best path.

        Only the best path's words are kept apart from each other where they are paired over other paths.
        """
        states = np.array([*path.nodes, self._count + path.end])
        states = states[self._label[states] != NONE]
        # Rounded, so that the order of sums, which depends on the arena's size, does not show.
        probs: list[float] = np.clip(self._probs[self._representative[states]], 0.0, 1.0).round(9).tolist()
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


@kernel(allocates=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _find_merges(graph: _Graph, head: int, limit: int) -> int:
    """The merges that a path can take to the left of all that it has taken; as `lattice` lists its paths.

    Args:
        graph: gets them in `merge_stack`.
        head: node at the end of the part that may still be exchanged.
        limit: the merges have to be before this one.

    Returns:
        How many.
    """
    nodes, merges, states = graph.nodes, graph.merges, graph.states
    count = 0
    below, node = NONE, head
    while node != NONE:
        merge = states[node].first
        while merge != NONE:
            if merge < limit:
                spelled = False  # by a merge into the node below
                other = states[below].first if below != NONE else NONE
                while other != NONE:
                    if other < limit and nodes[merges[other].dropped].parent == merges[merge].dropped:
                        spelled = True
                    other = merges[other].following
                if not spelled:
                    graph.merge_stack[count] = merge
                    count += 1
            merge = merges[merge].following
        below, node = node, nodes[node].parent
    return count


@kernel(allocates=False, inline=True)
def _find_representative(states: NDArray[Any], state: int) -> int:
    """The state that stands for all of the same word (union-find).

    Args:
        states: (nodes + ends,) _STATE.
        state: index of one of them.
    """
    while states[state].representative != state:
        state = states[state].representative
    return state


@kernel(allocates=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _pair_words(graph: _Graph, state: int, other: int) -> None:
    """Pair what two prefixes have in common, in the same order, after all that both begin with.

    Args:
        graph: gets the pairs in `states.representative`.
        state: index of a node or an end among the states.
        other: of another; its words are counted as those of `state`.
    """
    nodes, states, parts, common = graph.nodes, graph.states, graph.parts, graph.common
    size = nodes.shape[0]
    rows, columns = 0, 0  # of each part how many words, the last one first
    while state != other:
        if state > other:  # a node comes after its parent, an end after all nodes
            if states[state].label != NONE and rows < parts.shape[1]:
                parts[0, rows] = state
                rows += 1
            state = nodes[state].parent if state < size else graph.ends[state - size].node
        else:
            if states[other].label != NONE and columns < parts.shape[1]:
                parts[1, columns] = other
                columns += 1
            other = nodes[other].parent if other < size else graph.ends[other - size].node
    for row in range(rows - 1, -1, -1):  # the longest common subsequence from here on
        common[row, columns] = 0
    for column in range(columns + 1):
        common[rows, column] = 0
    for row in range(rows - 1, -1, -1):
        for column in range(columns - 1, -1, -1):
            if states[parts[0, row]].label == states[parts[1, column]].label:
                common[row, column] = common[row + 1, column + 1] + 1
            else:
                common[row, column] = common[row, column + 1]
                if common[row + 1, column] > common[row, column]:
                    common[row, column] = common[row + 1, column]
    row, column = 0, 0
    while row < rows and column < columns:
        if states[parts[0, row]].label == states[parts[1, column]].label:
            first = _find_representative(states, parts[0, row])
            second = _find_representative(states, parts[1, column])
            if states[second].in_best == 0:
                states[second].representative = first
            elif states[first].in_best == 0:
                states[first].representative = second
            row, column = row + 1, column + 1
        elif common[row + 1, column] >= common[row, column + 1]:
            row += 1
        else:
            column += 1


@kernel(allocates=False)
def _forward_backward(graph: _Graph, best: int, min_relative_prob: float) -> None:
    """Compute `prob` and `representative` of all states.

    Args:
        graph: its `states` and `merges` are filled.
        best: the end of the best path.
        min_relative_prob: states less probable than the best path by this factor are left out.
    """
    _link_merges(graph)
    _mark_best(graph, best)
    _sum_right(graph, min_relative_prob)
    _pair_all(graph, best, min_relative_prob)
    evidence = _sum_left(graph, min_relative_prob)
    _sum_prefixes(graph, evidence)


@kernel(allocates=False, inline=True)
def _link_merges(graph: _Graph) -> None:
    """List the merges into each node."""
    merges, states = graph.merges, graph.states
    for merge in range(merges.shape[0]):
        kept = merges[merge].kept
        merges[merge].following = states[kept].first
        states[kept].first = merge


@kernel(allocates=False, inline=True)
def _mark_best(graph: _Graph, best: int) -> None:
    """Set `in_best` along the path to the end `best`."""
    nodes, states = graph.nodes, graph.states
    states[nodes.shape[0] + best].in_best = 1
    node = graph.ends[best].node
    while node != NONE:
        states[node].in_best = 1
        node = nodes[node].parent


@kernel(allocates=False, inline=True)
def _sum_right(graph: _Graph, min_relative_prob: float) -> None:
    """Compute `right` of all merges, from the ends to the beginning."""
    merges, ends = graph.merges, graph.ends
    count = merges.shape[0]
    for end in range(ends.shape[0]):
        if ends[end].prob >= min_relative_prob:
            for index in range(_find_merges(graph, ends[end].node, count)):
                merge = graph.merge_stack[index]
                merges[merge].right += ends[end].prob * merges[merge].ratio
    for merge in range(count - 1, -1, -1):
        if merges[merge].right >= min_relative_prob:
            for index in range(_find_merges(graph, merges[merge].dropped, merge)):
                other = graph.merge_stack[index]
                merges[other].right += merges[merge].right * merges[other].ratio


@kernel(allocates=False, inline=True)
def _pair_all(graph: _Graph, best: int, min_relative_prob: float) -> None:
    """Pair the words of each end with the best one's, and those of the parts that each merge exchanges."""
    merges, ends, size = graph.merges, graph.ends, graph.nodes.shape[0]
    for end in range(ends.shape[0]):
        if end != best and ends[end].prob >= min_relative_prob:
            _pair_words(graph, size + best, size + end)
    for merge in range(merges.shape[0] - 1, -1, -1):
        if merges[merge].right >= min_relative_prob:
            _pair_words(graph, merges[merge].kept, merges[merge].dropped)


@kernel(allocates=False, inline=True)
def _sum_left(graph: _Graph, min_relative_prob: float) -> float:
    """Compute `left` of all merges, and of each node the sum over the paths that part from others there.

    Returns:
        The sum over all paths.
    """
    merges, states = graph.merges, graph.states
    count, size, ends = merges.shape[0], graph.nodes.shape[0], graph.ends.shape[0]
    evidence = 0.0
    for state in range(count + ends):  # merges, then ends
        head, limit, weight = 0, count, 0.0
        if state < count:
            head, limit, weight = merges[state].dropped, state, merges[state].right
        else:
            head, weight = graph.ends[state - count].node, graph.ends[state - count].prob
        if weight < min_relative_prob:
            continue
        total = 1.0
        for index in range(_find_merges(graph, head, limit)):
            merge = graph.merge_stack[index]
            if merges[merge].right >= min_relative_prob:
                total += merges[merge].ratio * merges[merge].left
                # these paths leave the node out
                states[merges[merge].kept].prob -= weight * merges[merge].ratio * merges[merge].left
        states[head].prob += weight * total
        if state < count:
            merges[state].left = total
        else:
            states[size + state - count].prob = weight * total
            evidence += weight * total
    return evidence


@kernel(allocates=False, inline=True)
def _sum_prefixes(graph: _Graph, evidence: float) -> None:
    """Add to each node what the paths through its children have; then divide by the sum over all paths."""
    nodes, states = graph.nodes, graph.states
    for node in range(nodes.shape[0] - 1, EMPTY_PREFIX, -1):  # a child comes after its parent
        states[nodes[node].parent].prob += states[node].prob
    for state in range(states.shape[0]):
        states[state].prob /= evidence
        states[state].representative = _find_representative(states, state)
