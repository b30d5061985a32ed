"""The prefixes of a beam search as a tree in one array, and the beam, which points into it.

A prefix is a node: the path from the root spells its tokens. Everything that follows from the prefix alone
(words, language model state, fused scores) is computed once, when the node is made, and kept while the node
lives. So a prefix that leaves the beam and returns is not scored again, and the beam never holds two copies
of one prefix.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel

__all__ = [
    "EMPTY_PREFIX",
    "NODE",
    "NONE",
    "N_NODES",
    "N_PREFIXES",
    "OOV_WORD",
    "OUT_OF_TREE",
    "TREE_ROOT",
    "Beam",
    "Merges",
    "compact",
    "new_beam",
    "new_merges",
    "shared_prefix",
    "spell",
]

NONE = -1  # no node, no word, no index
EMPTY_PREFIX = 0  # in the arena
TREE_ROOT = 0  # in a lexicon tree: no symbol of a word yet
# Instead of a node of the lexicon tree: within a word that the tree does not hold. It is what a search for a
# child returns, NONE, and as an index it is the last element of the arrays by node.
OUT_OF_TREE = NONE
OOV_WORD = -2  # instead of a word's id: a word outside the vocabulary

N_NODES, N_PREFIXES = 0, 1  # the elements of `Beam.sizes`

# One cache line. Numba reads the fields by name.
NODE = np.dtype(
    [
        ("parent", np.int32),  # the prefix without its last token
        ("token", np.int32),  # the last token; the root has the blank
        ("child", np.int32),  # the newest prefix that is one token longer
        ("sibling", np.int32),  # the next older child of the same parent
        ("beam_index", np.int32),  # index in the beam, or NONE
        ("word", np.int32),  # the word that this token completed: its id, OOV_WORD or NONE
        ("tree_node", np.int32),  # node of the lexicon tree, or OUT_OF_TREE
        ("lm_state", np.int32),  # state of the language model
        ("hot_state", np.int32),  # state of the hot words
        ("padding", np.int32),
        ("factor", np.float64),  # exp(fused_score - that of the parent)
        # nats: the score of this prefix without its acoustics, look-ahead included
        ("fused_score", np.float64),
        ("lm_log_prob", np.float64),  # of the complete words (or characters), unweighted, nats
    ]
)


class Merges(NamedTuple):
    """Prefixes that recombination has dropped, each with the prefix that continues instead.

    Attributes:
        kept: (capacity,) int32: the node that continues.
        dropped: (capacity,) int32: the node that was dropped for it.
        log_ratio: (capacity,) float64: log of the dropped prefix's probability over the other's, nats, at
            most 0.
        size: (1,) int64: how many there are, the oldest first.
    """

    kept: NDArray[np.int32]
    dropped: NDArray[np.int32]
    log_ratio: NDArray[np.float64]
    size: NDArray[np.int64]


class Beam(NamedTuple):
    """The state of a search between two steps; the kernels change it in place.

    Attributes:
        nodes: (capacity,) NODE: the arena.
        node: (beam_size,) int32: the prefixes of the beam.
        blank_prob: (beam_size,) float64: probability of each prefix's paths that end in a blank, fused scores
            included, times exp(-log_scale).
        nonblank_prob: (beam_size,) float64: likewise of the paths that end in its last token.
        sizes: (2,) int64: how many nodes the arena holds (N_NODES), how many prefixes the beam (N_PREFIXES).
        log_scale: (1,) float64: nats; keeps the probabilities within a float64's range.
    """

    nodes: NDArray[Any]
    node: NDArray[np.int32]
    blank_prob: NDArray[np.float64]
    nonblank_prob: NDArray[np.float64]
    sizes: NDArray[np.int64]
    log_scale: NDArray[np.float64]


def new_beam(beam_size: int, capacity: int, lm_state: int = 0, look_ahead: float = 0.0) -> Beam:
    """A beam that holds the empty prefix only, with probability 1.

    Args:
        beam_size: most prefixes after a step.
        capacity: nodes that the arena has room for, at least 1.
        lm_state: the language model's, before the first word.
        look_ahead: nats that the empty prefix is given in advance.
    """
    beam = Beam(
        nodes=np.zeros(capacity, dtype=NODE),
        node=np.zeros(beam_size, dtype=np.int32),
        blank_prob=np.zeros(beam_size),
        nonblank_prob=np.zeros(beam_size),
        sizes=np.ones(2, dtype=np.int64),
        log_scale=np.zeros(1),
    )
    root = beam.nodes[EMPTY_PREFIX]
    for name in ("parent", "child", "sibling", "word"):
        root[name] = NONE
    root["lm_state"] = lm_state
    root["factor"] = 1.0
    root["fused_score"] = look_ahead
    beam.blank_prob[0] = 1.0
    beam.log_scale[0] = look_ahead
    return beam


def new_merges(capacity: int) -> Merges:
    """No merges yet.

    Args:
        capacity: how many can be recorded; 0 records none.
    """
    return Merges(
        kept=np.zeros(capacity, np.int32),
        dropped=np.zeros(capacity, np.int32),
        log_ratio=np.zeros(capacity),
        size=np.zeros(1, np.int64),
    )


@kernel(allocates=False, inline=True)
def _mark(nodes: NDArray[Any], node: int, new_index: NDArray[np.int32]) -> None:
    """Mark a prefix, and the prefixes that it begins with, as needed.

    Args:
        nodes: the arena.
        node: the prefix.
        new_index: (nodes,) int32: 0 where a node is needed, NONE elsewhere; changed in place.
    """
    while node != NONE and new_index[node] == NONE:
        new_index[node] = 0
        parent, token = nodes[node].parent, nodes[node].token
        if parent != NONE:  # what one token can mean stays together: the search makes all of it or none
            other = nodes[parent].child
            while other != NONE:
                if nodes[other].token == token:
                    new_index[other] = 0
                other = nodes[other].sibling
        node = parent


@kernel(allocates=False)
def compact(beam: Beam, merges: Merges, nodes: NDArray[Any], new_index: NDArray[np.int32]) -> None:
    """Copy the prefixes that are needed (the beam, its prefixes, what merged into these) into another arena.

    The order of nodes stays, so that the search continues as it would have.

    Args:
        beam: its `nodes` are only read; its other arrays then refer to the new arena.
        merges: those into prefixes that are not needed are removed.
        nodes: (capacity,) NODE, with enough room.
        new_index: (nodes,) int32, all NONE: gets the new index of each node, NONE if it is not copied.
    """
    for index in range(beam.sizes[N_PREFIXES]):
        _mark(beam.nodes, beam.node[index], new_index)
    # A path takes its merges from the last to the first, so one pass in this order sees all that it needs.
    for merge in range(merges.size[0] - 1, -1, -1):
        if new_index[merges.kept[merge]] != NONE:
            _mark(beam.nodes, merges.dropped[merge], new_index)
    used = 0
    for old in range(beam.sizes[N_NODES]):
        if new_index[old] == NONE:
            continue
        nodes[used] = beam.nodes[old]
        new_index[old] = used
        nodes[used].child = NONE
        nodes[used].sibling = NONE
        parent = beam.nodes[old].parent
        if parent != NONE:
            parent = new_index[parent]  # parents come before their children
            nodes[used].parent = parent
            nodes[used].sibling = nodes[parent].child
            nodes[parent].child = used
        used += 1
    kept = 0
    for merge in range(merges.size[0]):
        if new_index[merges.kept[merge]] != NONE:
            merges.kept[kept] = new_index[merges.kept[merge]]
            merges.dropped[kept] = new_index[merges.dropped[merge]]
            merges.log_ratio[kept] = merges.log_ratio[merge]
            kept += 1
    merges.size[0] = kept
    for index in range(beam.sizes[N_PREFIXES]):
        beam.node[index] = new_index[beam.node[index]]
    beam.sizes[N_NODES] = used


@kernel
def shared_prefix(beam: Beam) -> int:
    """The longest prefix that all of the beam begin with: the index of its node.

    Args:
        beam: the search.
    """
    shared = beam.node[0]
    for index in range(1, beam.sizes[N_PREFIXES]):
        other = beam.node[index]
        while shared != other:
            # children come after their parents
            if shared > other:
                shared = beam.nodes[shared].parent
            else:
                other = beam.nodes[other].parent
    return int(shared)


@kernel
def spell(nodes: NDArray[Any], node: int, after: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The tokens of a prefix, and the word that each completed (an id, OOV_WORD or NONE).

    Args:
        nodes: the arena.
        node: the prefix.
        after: a prefix of it, whose tokens are left out; EMPTY_PREFIX for all.

    Returns:
        Both (tokens,) int32.
    """
    length = 0
    at = node
    while at != after:
        length += 1
        at = nodes[at].parent
    tokens = np.empty(length, np.int32)
    words = np.empty(length, np.int32)
    at = node
    for position in range(length - 1, -1, -1):
        tokens[position] = nodes[at].token
        words[position] = nodes[at].word
        at = nodes[at].parent
    return tokens, words
