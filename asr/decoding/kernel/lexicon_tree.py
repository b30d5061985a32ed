"""A vocabulary as a tree of letters, which the beam search descends as it writes.

A letter is what spelling is made of: a character where tokens write text, however they cut it (BPE), a phone
where they do not. Nodes are numbered breadth first, so that the children of a node are neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel

__all__ = ["LexiconTree", "best_below", "build_tree"]


@dataclass(frozen=True, eq=False)
class LexiconTree:
    """A tree of n nodes; node 0 is the root.

    Attributes:
        child_start: (n + 1,) int32: the children of node i are child_start[i] to child_start[i + 1] - 1.
        letter: (n,) int32: what leads to the node, ascending among siblings; -1 for the root.
        word_start: (n + 1,) int32: the words of node i are those of `words` from word_start[i] on.
        words: (spellings,) int32 word numbers: more than one at a node where they are spelled or
            sound alike.
        depth: (n,) int32: letters from the root to the node.
        log_prob: (spellings,) float64 nats, at most 0: of each spelling of `words` among those of its word.
    """

    child_start: NDArray[np.int32]
    letter: NDArray[np.int32]
    word_start: NDArray[np.int32]
    words: NDArray[np.int32]
    depth: NDArray[np.int32]
    log_prob: NDArray[np.float64]


def build_tree(
    spellings: Sequence[tuple[int, Sequence[int]]], log_probs: Sequence[float] | None = None
) -> LexiconTree:
    """The tree of these words.

    Args:
        spellings: word number and letters (none of them negative, at least one), each pair once.
        log_probs: (spellings,) nats, at most 0; None for 0.
    """
    given = log_probs if log_probs is not None else [0.0] * len(spellings)
    ordered = sorted(
        (tuple(letters), word, log_prob) for (word, letters), log_prob in zip(spellings, given, strict=True)
    )
    lengths = np.array([len(letters) for letters, _, _ in ordered], dtype=np.int64)
    flat = np.array([letter for letters, _, _ in ordered for letter in letters], dtype=np.int32)
    most = len(flat) + 1  # nodes, where no two spellings begin alike
    parent, letter = np.zeros(most, np.int64), np.full(most, -1, np.int32)
    depth, last = np.zeros(most, np.int32), np.zeros(len(lengths), np.int64)
    path = np.zeros(lengths.max(initial=0) + 1, np.int64)
    nodes = _insert(flat, lengths, path, parent, letter, depth, last)
    parent, letter, depth = parent[:nodes], letter[:nodes], depth[:nodes]
    # In depth-first order the nodes of one depth are sorted by what they spell; so this is breadth-first.
    order = np.argsort(depth, kind="stable")
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    ends = number[last]
    by_node = np.argsort(ends, kind="stable")
    return LexiconTree(
        child_start=_starts(number[parent[1:]], len(order), 1),
        letter=letter[order],
        word_start=_starts(ends, len(order), 0),
        words=np.array([word for _, word, _ in ordered], dtype=np.int32)[by_node],
        depth=depth[order],
        log_prob=np.array([log_prob for _, _, log_prob in ordered], dtype=np.float64)[by_node],
    )


def best_below(tree: LexiconTree, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best score of the words at or below each node: (n,) float64, -inf where there is none.

    Args:
        tree: of n nodes.
        scores: (spellings,) float64, of those of `tree.words`.
    """
    best = np.full(len(tree.letter), -np.inf)
    _climb(tree.child_start, tree.word_start, scores, best)
    return best


def _starts(owners: NDArray[np.int64], nodes: int, first: int) -> NDArray[np.int32]:
    """(nodes + 1,) int32: where what belongs to each node begins in a list sorted by node.

    Args:
        owners: (n,) the node of each element of the list.
        nodes: how many there are.
        first: the index of the list's first element.
    """
    counts = np.bincount(owners, minlength=nodes)
    return (first + np.concatenate([[0], np.cumsum(counts)])).astype(np.int32)


@kernel(allocates=False)
def _insert(
    flat: NDArray[np.int32],
    lengths: NDArray[np.int64],
    path: NDArray[np.int64],
    parent: NDArray[np.int64],
    letter: NDArray[np.int32],
    depth: NDArray[np.int32],
    last: NDArray[np.int64],
) -> int:
    """Fill in the nodes of a tree, depth first.

    Args:
        flat: int32 letters of the sorted spellings, one after another.
        lengths: (spellings,) int64 letters of each.
        path: (longest spelling + 1,) int64, 0: overwritten by the nodes along a spelling.
        parent: (at least nodes,) int64, 0: gets the parent of each node.
        letter: (at least nodes,) int32, -1: gets the letter that leads to each node.
        depth: (at least nodes,) int32, 0: gets the depth of each node.
        last: (spellings,) int64: gets the node at the end of each.

    Returns:
        How many nodes there are.
    """
    nodes, begin, reached = 1, 0, 0
    for spelling in range(lengths.shape[0]):
        length = lengths[spelling]
        shared = 0
        while shared < reached and shared < length and letter[path[shared + 1]] == flat[begin + shared]:
            shared += 1
        for index in range(shared, length):
            parent[nodes], letter[nodes], depth[nodes] = path[index], flat[begin + index], index + 1
            path[index + 1] = nodes
            nodes += 1
        reached = length
        last[spelling] = path[reached]
        begin += reached
    return nodes


@kernel(allocates=False)
def _climb(
    child_start: NDArray[np.int32],
    word_start: NDArray[np.int32],
    scores: NDArray[np.float64],
    best: NDArray[np.float64],
) -> None:
    """Raise each node's best score to that of its words and of its children.

    Args:
        child_start: (nodes + 1,) int32, see `LexiconTree`.
        word_start: (nodes + 1,) int32, likewise.
        scores: (spellings,) float64, of the words node by node.
        best: (nodes,) float64: changed in place.
    """
    for node in range(best.shape[0] - 1, -1, -1):
        for spelling in range(word_start[node], word_start[node + 1]):
            best[node] = max(best[node], scores[spelling])
        for child in range(child_start[node], child_start[node + 1]):
            best[node] = max(best[node], best[child])
