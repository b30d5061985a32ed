"""Which prefixes make the next beam: recombination of those that continue alike, and pruning to its size."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import N_PREFIXES, NONE, Beam, Merges
from asr.decoding.kernel.proposals import PROPOSAL

__all__ = ["StepBuffers", "keep_best", "new_buffers", "recombine", "select_beam"]

_MAX_COMPARED = 6  # prefixes that a prefix is compared with before it is kept as it is


class StepBuffers(NamedTuple):
    """Memory that each step overwrites: the candidates for the next beam, and what was computed for them.

    Probabilities are scaled as those of the beam (`Beam.log_scale`).

    Attributes:
        node: (capacity,) int32: the candidates, as nodes of the arena.
        blank_prob: (capacity,) float64: probability of each candidate's paths that end in a blank.
        nonblank_prob: (capacity,) float64: of those that end in its last token.
        total_prob: (capacity,) float64: the sum of both.
        token_prob: (vocab,) float64: the tokens' scaled and biased probabilities at a step.
        token_step: (vocab,) int64: the step for which `token_prob` holds.
        tokens: (vocab,) int32: the tokens that are tried, the most probable first.
        child: (vocab,) int32: the newest child by each token of the prefix that is extended.
        child_stamp: (vocab,) int64: the running number of the prefix for which `child` holds; the blank's
            element counts.
        proposals: (max_proposals,) PROPOSAL: see `propose`.
        hash_index: (slots,) int32, slots a power of 2: a hash table of indices of candidates.
        hash_step: (slots,) int64: the step for which an entry holds.
    """

    node: NDArray[np.int32]
    blank_prob: NDArray[np.float64]
    nonblank_prob: NDArray[np.float64]
    total_prob: NDArray[np.float64]
    token_prob: NDArray[np.float64]
    token_step: NDArray[np.int64]
    tokens: NDArray[np.int32]
    child: NDArray[np.int32]
    child_stamp: NDArray[np.int64]
    proposals: NDArray[Any]
    hash_index: NDArray[np.int32]
    hash_step: NDArray[np.int64]


def new_buffers(beam_size: int, vocab: int, max_proposals: int) -> StepBuffers:
    """Buffers for the steps of one utterance.

    Args:
        beam_size: most prefixes after a step.
        vocab: number of tokens, blank included.
        max_proposals: see `ScoreTables`.
    """
    capacity = 2 * beam_size + 16
    slots = 1 << (2 * capacity).bit_length()
    return StepBuffers(
        node=np.empty(capacity, np.int32),
        blank_prob=np.empty(capacity),
        nonblank_prob=np.empty(capacity),
        total_prob=np.empty(capacity),
        token_prob=np.empty(vocab),
        token_step=np.empty(vocab, np.int64),
        tokens=np.empty(vocab, np.int32),
        child=np.empty(vocab, np.int32),
        child_stamp=np.zeros(vocab, np.int64),
        proposals=np.empty(max_proposals, PROPOSAL),
        hash_index=np.empty(slots, np.int32),
        hash_step=np.empty(slots, np.int64),
    )


@kernel(allocates=False, inline=True)
def _dominates(beam: Beam, buffers: StepBuffers, candidate: int, other: int) -> bool:
    """Whether one candidate is at least as probable as another, which can gain nothing from its parent.

    Args:
        beam: of the step before.
        buffers: hold the candidates.
        candidate: index of a candidate.
        other: index of another one.
    """
    return bool(
        buffers.blank_prob[candidate] >= buffers.blank_prob[other]
        and buffers.nonblank_prob[candidate] >= buffers.nonblank_prob[other]
        and beam.nodes[beam.nodes[buffers.node[other]].parent].beam_index == NONE
    )


@kernel(allocates=False, inline=True)
def recombine(
    beam: Beam, merges: Merges, threshold_nats: float, buffers: StepBuffers, count: int, step: int
) -> int:
    """Drop each candidate that can continue only as another one and is no more probable.

    How the probabilities of two candidates develop depends on their last token, node of the lexicon tree and
    states of language model and hot words alone. It is approximate: the parent of the dropped prefix
    could return to the beam and give it more, and prefixes in the beam that it begins get nothing from it any
    more.

    Args:
        beam: of the step before.
        merges: records what is dropped within `threshold_nats`, if it has room for any.
        threshold_nats: nats below the step's best candidate.
        buffers: hold the candidates.
        count: how many candidates there are.
        step: index of the step.

    Returns:
        How many candidates are left.
    """
    nodes = beam.nodes
    record = merges.log_ratio.shape[0] > 0
    floor = 0.0  # probability below which a merge is not recorded
    if record:
        for index in range(count):
            floor = max(floor, buffers.total_prob[index])
        floor *= math.exp(-threshold_nats)
    mask = buffers.hash_index.shape[0] - 1
    kept = 0
    for index in range(count):
        node = nodes[buffers.node[index]]
        token, tree_node = int(node.token), int(node.tree_node)
        lm_state, hot_state = int(node.lm_state), int(node.hot_state)
        key = ((lm_state * 31337 + tree_node) * 7919 + token * 131 + hot_state) & 0x7FFFFFFFFFFF
        slot = (key ^ (key >> 17)) & mask
        target = kept
        compared = 0
        winner, loser = 0, NONE  # indices of two candidates that merge
        while buffers.hash_step[slot] == step and compared < _MAX_COMPARED:
            compared += 1
            other = buffers.hash_index[slot]
            rival = nodes[buffers.node[other]]
            if (
                rival.lm_state == lm_state
                and rival.tree_node == tree_node
                and rival.token == token
                and rival.hot_state == hot_state
            ):
                if _dominates(beam, buffers, other, index):
                    target = NONE
                    winner, loser = int(other), index
                    break
                if _dominates(beam, buffers, index, other):
                    target = int(other)
                    winner, loser = index, int(other)
                    break
            slot = (slot + 1) & mask
        if record and loser != NONE and buffers.total_prob[loser] >= floor:
            _record_merge(merges, buffers, winner, loser)
        if target == NONE:
            continue
        if target == kept:
            buffers.hash_step[slot] = step  # after many rivals the newest replaces the last one
            buffers.hash_index[slot] = kept
            kept += 1
        buffers.node[target] = buffers.node[index]
        buffers.blank_prob[target] = buffers.blank_prob[index]
        buffers.nonblank_prob[target] = buffers.nonblank_prob[index]
        buffers.total_prob[target] = buffers.total_prob[index]
    return kept


@kernel(allocates=False, inline=True)
def _record_merge(merges: Merges, buffers: StepBuffers, winner: int, loser: int) -> None:
    """Record that one candidate stands for another one, unless that has no probability."""
    if not buffers.total_prob[loser] > 0.0:
        return
    merge = merges.size[0]
    merges.kept[merge] = buffers.node[winner]
    merges.dropped[merge] = buffers.node[loser]
    merges.log_ratio[merge] = math.log(buffers.total_prob[loser] / buffers.total_prob[winner])
    merges.size[0] = merge + 1


@kernel(allocates=False, inline=True)
def select_beam(beam: Beam, buffers: StepBuffers, count: int, beam_threshold_nats: float) -> bool:
    """Make the best candidates the next beam, scaled so that the best of them has probability 1.

    Args:
        beam: changed in place.
        buffers: hold the candidates.
        count: how many candidates there are.
        beam_threshold_nats: nats below the best candidate.

    Returns:
        False, and the beam is left without prefixes, where no candidate has a probability above 0.
    """
    nodes = beam.nodes
    beam_size = beam.node.shape[0]
    for index in range(beam.sizes[N_PREFIXES]):
        nodes[beam.node[index]].beam_index = NONE
    if count > beam_size:
        keep_best(buffers, count, beam_size)
        count = beam_size
    best = 0.0
    for index in range(count):
        best = max(best, buffers.total_prob[index])
    if not best > 0.0:
        return False
    floor = best * math.exp(-beam_threshold_nats)
    kept = 0
    for index in range(count):
        if buffers.total_prob[index] < floor or buffers.total_prob[index] == 0.0:
            continue
        node = buffers.node[index]
        beam.node[kept] = node
        beam.blank_prob[kept] = buffers.blank_prob[index] / best
        beam.nonblank_prob[kept] = buffers.nonblank_prob[index] / best
        nodes[node].beam_index = kept
        kept += 1
    beam.sizes[N_PREFIXES] = kept
    beam.log_scale[0] += math.log(best)
    return True


@kernel(allocates=False)
def keep_best(buffers: StepBuffers, count: int, beam_size: int) -> None:
    """Bring the most probable candidates to the front, the least of them last (quickselect).

    Args:
        buffers: hold the candidates, reordered in place.
        count: how many candidates there are.
        beam_size: how many of them are brought to the front.
    """
    low, high = 0, count - 1
    while low < high:
        pivot = buffers.total_prob[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while buffers.total_prob[left] > pivot:
                left += 1
            while buffers.total_prob[right] < pivot:
                right -= 1
            if left <= right:
                _swap(buffers, left, right)
                left += 1
                right -= 1
        if beam_size - 1 <= right:
            high = right
        elif beam_size - 1 >= left:
            low = left
        else:
            return


@kernel(allocates=False, inline=True)
def _swap(buffers: StepBuffers, left: int, right: int) -> None:
    """Exchange two candidates, given by their indices."""
    node, blank_prob, nonblank_prob = buffers.node, buffers.blank_prob, buffers.nonblank_prob
    node[left], node[right] = node[right], node[left]
    blank_prob[left], blank_prob[right] = blank_prob[right], blank_prob[left]
    nonblank_prob[left], nonblank_prob[right] = nonblank_prob[right], nonblank_prob[left]
    total_prob = buffers.total_prob
    total_prob[left], total_prob[right] = total_prob[right], total_prob[left]
