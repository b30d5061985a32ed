"""Alternatives of a beam search: the prefixes at its end, and those that recombination has dropped.

Recombination drops a prefix B for a prefix A that can continue in the same ways and is at least as probable.
So for each text that begins with A there is one that begins with B instead. Together the prefixes and their
merges are a lattice, and `paths` walks it, best first; in a path, later merges are to the right of earlier
ones.

A path's estimate is the score of the text that it differs from plus the log-ratios of the merges, none of
them above 0. So no path is estimated above the search's best, and the best text does not depend on nbest.
What is fused (language model, bonuses, penalties) is exact, because A and B share their state. The acoustic
part of the estimate is not: it takes the ratio at the step of the merge for that of the sums over all later
steps. So estimates choose the texts, and `BeamSearch.finish` computes their scores.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decoding.kernel.arena import EMPTY_PREFIX, NONE, Merges

__all__ = ["FinalPrefixes", "Lattice", "Path", "paths"]

_NO_LIMIT = 1 << 62

_Variant = tuple[float, int, int]  # negative nats, merge (or end), node that it leads into


@dataclass(frozen=True, eq=False)
class FinalPrefixes:
    """How the prefixes of the beam end.

    Attributes:
        node: (ends,) int32: the prefix.
        word: (ends,) int32: the word that the end completes (an id, OOV_WORD or NONE).
        score: (ends,) float64 nats: of the search.
        fused_score: (ends,) float64: the part of it that is not acoustic, nats.
        lm_log_prob: (ends,) float64 nats: of the whole text by the language model, unweighted.
    """

    node: NDArray[np.int32]
    word: NDArray[np.int32]
    score: NDArray[np.float64]
    fused_score: NDArray[np.float64]
    lm_log_prob: NDArray[np.float64]


class Lattice(NamedTuple):
    """What a search leaves behind.

    Attributes:
        nodes: (nodes,) NODE: the arena.
        merges: into its nodes.
        final_prefixes: how the prefixes of the beam end.
    """

    nodes: NDArray[Any]
    merges: Merges
    final_prefixes: FinalPrefixes


@dataclass(frozen=True)
class Path:
    """One way through the lattice.

    Attributes:
        estimate: nats; the search's score where the path takes no merge.
        nodes: (tokens,) of the arena, one a token.
        end: index of the end.
        tokens: (tokens,) ids.
        words: (tokens + 1,) the word that each token completed (an id, OOV_WORD or NONE), then the one that
            the end completed.
        fused_score: nats: the part of the score that is not acoustic.
        lm_log_prob: log-probability of the language model, unweighted.
    """

    estimate: float
    nodes: list[int]
    end: int
    tokens: list[int]
    words: list[int]
    fused_score: float
    lm_log_prob: float


@dataclass(frozen=True)
class _PartialPath:
    """A path whose left part, a prefix of the arena, may still be exchanged."""

    estimate: float
    fused_score: float
    lm_log_prob: float
    head: int  # the node at the end of the left part
    limit: int  # only merges before this one can still be taken, so that no path goes in circles
    # to the right of the head: after the first node, up to the second; then the next pair
    tail: "tuple[tuple[int, int], Any] | None"
    end: int


def paths(lattice: Lattice) -> Iterator[Path]:
    """The paths of a lattice, by falling estimates; among equals in the order of the final prefixes.

    Args:
        lattice: of a search.
    """
    builder = _PathBuilder(lattice)
    scores = lattice.final_prefixes.score
    order = np.argsort(-scores, kind="stable")
    # A path and what it can become by one merge more: of these only the best that was not taken yet is in the
    # heap.
    heap: list[tuple[float, int, _PartialPath | None, list[_Variant], int]] = []
    pushed = 0  # breaks ties in the order of arrival

    def push(path: _PartialPath | None, variants: list[_Variant], index: int) -> None:
        nonlocal pushed
        if index < len(variants):
            pushed += 1
            estimate = (path.estimate if path else 0.0) - variants[index][0]
            heapq.heappush(heap, (-estimate, pushed, path, variants, index))

    push(None, [(-float(scores[end]), int(end), NONE) for end in order], 0)
    while heap:
        _, _, path, variants, index = heapq.heappop(heap)
        _, merge_or_end, node = variants[index]
        push(path, variants, index + 1)
        path = builder.exchange(path, merge_or_end, node) if path else builder.begin(merge_or_end)
        yield builder.spell(path)
        push(path, builder.variants(path), 0)


class _PathBuilder:
    """A lattice whose merges are found by the node that they lead into."""

    def __init__(self, lattice: Lattice) -> None:
        self._nodes, merges, self._final = lattice
        count = int(merges.size[0])
        self._dropped: list[int] = merges.dropped[:count].tolist()
        self._log_ratio: list[float] = merges.log_ratio[:count].tolist()
        self._into: dict[int, list[int]] = {}
        for merge, kept in enumerate(merges.kept[:count].tolist()):
            self._into.setdefault(kept, []).append(merge)

    @cached_property
    def _parent(self) -> list[int]:
        """The parent of each node, as a list, since single elements of arrays are slow to read."""
        parents: list[int] = self._nodes["parent"].tolist()
        return parents

    def begin(self, end: int) -> _PartialPath:
        """The path that takes no merge to one of the ends."""
        final = self._final
        return _PartialPath(
            estimate=float(final.score[end]),
            fused_score=float(final.fused_score[end]),
            lm_log_prob=float(final.lm_log_prob[end]),
            head=int(final.node[end]),
            limit=_NO_LIMIT,
            tail=None,
            end=end,
        )

    def variants(self, path: _PartialPath) -> list[_Variant]:
        """The merges that the path can take to the left of all others, best first."""
        if not self._dropped:
            return []
        applied = [merge for merge in self._into.get(path.head, ()) if merge < path.limit]
        found = [(-self._log_ratio[merge], merge, path.head) for merge in applied]
        node = self._parent[path.head]
        while node != NONE:
            # dropped prefixes whose exchange at this node would spell a text that was spelled already
            shorter = {self._parent[self._dropped[merge]] for merge in applied}
            applied = [merge for merge in self._into.get(node, ()) if merge < path.limit]
            found += [
                (-self._log_ratio[merge], merge, node)
                for merge in applied
                if self._dropped[merge] not in shorter
            ]
            node = self._parent[node]
        return sorted(found)

    def exchange(self, path: _PartialPath, merge: int, kept: int) -> _PartialPath:
        """The path with its beginning, up to a node, exchanged for a prefix that merged into this node."""
        nodes, dropped = self._nodes, self._dropped[merge]
        return _PartialPath(
            estimate=path.estimate + self._log_ratio[merge],
            fused_score=path.fused_score + float(nodes["fused_score"][dropped] - nodes["fused_score"][kept]),
            lm_log_prob=path.lm_log_prob + float(nodes["lm_log_prob"][dropped] - nodes["lm_log_prob"][kept]),
            head=dropped,
            limit=merge,
            tail=path.tail if kept == path.head else ((kept, path.head), path.tail),
            end=path.end,
        )

    def spell(self, path: _PartialPath) -> Path:
        """The whole path."""
        pieces = [(path.head, EMPTY_PREFIX)]
        tail = path.tail
        while tail is not None:
            (before, node), tail = tail
            pieces.append((node, before))
        indices: list[int] = []  # from the last to the first
        for node, before in reversed(pieces):
            while node != before:
                indices.append(node)
                node = self._parent[node]
        indices.reverse()
        tokens: list[int] = self._nodes["token"][indices].tolist()
        words: list[int] = self._nodes["word"][indices].tolist()
        words.append(int(self._final.word[path.end]))
        return Path(path.estimate, indices, path.end, tokens, words, path.fused_score, path.lm_log_prob)
