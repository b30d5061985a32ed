"""The words of a vocabulary as a tree of letters, which the search walks down as it writes.

A letter is what spelling is made of: a character where tokens write text, however they cut it (BPE), a phone
where they do not. Nodes stand in breadth-first order, so that the children of a node are neighbours.
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
        words: (spellings,) int32 word numbers: several at a node where words are spelled or sound alike.
        depth: (n,) int32: letters from the root to the node.
    """

    child_start: NDArray[np.int32]
    letter: NDArray[np.int32]
    word_start: NDArray[np.int32]
    words: NDArray[np.int32]
    depth: NDArray[np.int32]


def build_tree(spellings: Sequence[tuple[int, Sequence[int]]]) -> LexiconTree:
    """The tree of these words.

    Args:
        spellings: word number and letters (none of them negative, at least one), each pair once.
    """
    ordered = sorted((tuple(letters), word) for word, letters in spellings)
    lengths = np.array([len(letters) for letters, _ in ordered], dtype=np.int64)
    flat = np.array([letter for letters, _ in ordered for letter in letters], dtype=np.int32)
    parent, letter, depth, last = _insert(flat, lengths)
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
        words=np.array([word for _, word in ordered], dtype=np.int32)[by_node],
        depth=depth[order],
    )


def best_below(tree: LexiconTree, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best score of the words at or below each node: (n,) float64, -inf where there is none.

    Args:
        tree: of n nodes.
        scores: (words,) float64, one a word number.
    """
    best = np.full(len(tree.letter), -np.inf)
    _climb(tree.child_start, tree.word_start, scores[tree.words], best)
    return best


def _starts(owners: NDArray[np.int64], nodes: int, first: int) -> NDArray[np.int32]:
    """(nodes + 1,) where each node's own begin, if they stand in the order of the nodes."""
    counts = np.bincount(owners, minlength=nodes)
    return (first + np.concatenate([[0], np.cumsum(counts)])).astype(np.int32)


@kernel
def _insert(
    flat: NDArray[np.int32], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Parent, letter and depth of each node, depth first, and the node of each of the sorted spellings."""
    most = len(flat) + 1
    parent, letter = np.zeros(most, np.int64), np.empty(most, np.int32)
    depth, last = np.zeros(most, np.int32), np.zeros(len(lengths), np.int64)
    longest = 0
    for length in lengths:
        longest = max(longest, length)
    path = np.zeros(longest + 1, np.int64)  # nodes of the spelling before
    letter[0] = -1
    nodes, begin, reached = 1, 0, 0
    for spelling in range(len(lengths)):
        shared = 0
        while shared < min(reached, lengths[spelling]) and letter[path[shared + 1]] == flat[begin + shared]:
            shared += 1
        for place in range(shared, lengths[spelling]):
            parent[nodes], letter[nodes], depth[nodes] = path[place], flat[begin + place], place + 1
            path[place + 1] = nodes
            nodes += 1
        reached = lengths[spelling]
        last[spelling] = path[reached]
        begin += reached
    return parent[:nodes], letter[:nodes], depth[:nodes], last


@kernel
def _climb(
    child_start: NDArray[np.int32],
    word_start: NDArray[np.int32],
    scores: NDArray[np.float64],
    best: NDArray[np.float64],
) -> None:
    for node in range(len(best) - 1, -1, -1):
        for place in range(word_start[node], word_start[node + 1]):
            best[node] = max(best[node], scores[place])
        for child in range(child_start[node], child_start[node + 1]):
            best[node] = max(best[node], best[child])
