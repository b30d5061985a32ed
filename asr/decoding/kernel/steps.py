"""The steps of prefix beam search: prefixes continue, new ones are made, the best are kept; compiled.

Probabilities are no logarithms: each step multiplies and adds, and what is kept is scaled by the best, so
that nothing under- or overflows. The probability of a prefix holds its fused scores (language model, bonuses)
as a factor, so that ranking needs no logarithm either.

Source: Graves, "Sequence transduction with recurrent neural networks", 2012, and Hannun et al., "First-pass
large vocabulary continuous speech recognition using bi-directional recurrent DNNs", 2014, algorithm 1.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import N_NODES, N_PREFIXES, NONE, Beam, Merges
from asr.decoding.kernel.prefixes import add_prefix, advance_lm
from asr.decoding.kernel.proposals import PYTHON_LM, ScoreTables, propose
from asr.decoding.kernel.recombination import StepBuffers, keep_best, recombine, select_beam
from asr.lm.ngram.packed import PackedNgrams

__all__ = [
    "ARENA_FULL", "DONE", "MERGES_FULL", "NO_TEXT", "PENDING", "Pending", "Pruning", "advance_beam",
]  # fmt: skip

# How the search of some steps ends: all are taken; arena or merges have no room for what the step makes; a
# language model in Python has to score first; nothing has a probability above 0.
DONE, ARENA_FULL, MERGES_FULL, PENDING, NO_TEXT = range(5)


class Pruning(NamedTuple):
    """What the search leaves out; the fields of `BeamConfig` as the kernel takes them."""

    beam_threshold_nats: float
    token_threshold_nats: float
    token_top: int  # never 0
    blank_skip_log_prob: float  # inf: never
    recombine: bool
    lattice_threshold_nats: float


class Pending(NamedTuple):
    """Prefixes that a language model in Python has to score before the step can be taken.

    Attributes:
        proposals: (capacity,) PROPOSAL: see `propose`.
        size: (1,) int64: how many there are.
    """

    proposals: NDArray[Any]
    size: NDArray[np.int64]


@kernel(allocates=False)
def advance_beam(
    log_probs: NDArray[np.float64],
    begin: int,
    beam: Beam,
    merges: Merges,
    pruning: Pruning,
    tables: ScoreTables,
    lm: PackedNgrams,
    pending: Pending,
    buffers: StepBuffers,
) -> tuple[int, int]:
    """Take the beam through the steps of an utterance.

    Nothing that could have been in the next beam is left out but by `pruning` and the beam's size. A prefix's
    probability is the sum over the paths that lead through prefixes of the beam alone.

    Args:
        log_probs: (steps, vocab) float64, as the model gives them.
        begin: the first step to take.
        beam: changed in place.
        merges: gets the prefixes that recombination drops, where it has room for any.
        pruning: what may be left out.
        tables: what scores the prefixes.
        lm: the n-gram model; without one, anything.
        pending: gets the proposals of a language model in Python.
        buffers: overwritten.

    Returns:
        DONE, ARENA_FULL, MERGES_FULL, PENDING or NO_TEXT; the first step that was not taken, the one after
        which nothing has a probability above 0 where there is NO_TEXT.
    """
    beam_size = beam.node.shape[0]
    for token in range(log_probs.shape[1]):
        buffers.token_step[token] = NONE
    for slot in range(buffers.hash_step.shape[0]):
        buffers.hash_step[slot] = NONE
    for step in range(begin, log_probs.shape[0]):
        count, best, worst = _continue_prefixes(log_probs, step, beam, tables, buffers)
        if log_probs[step, 0] <= pruning.blank_skip_log_prob:
            floor = best * math.exp(-pruning.beam_threshold_nats)
            if count == beam_size:
                floor = max(floor, worst)
            tried = _choose_tokens(log_probs, step, floor, pruning, beam, tables, buffers)
            if tried > 0:
                status, count = _extend_prefixes(tried, floor, beam, tables, lm, buffers, count, pending)
                if status != DONE:
                    return status, step
                if pruning.recombine and count > beam.sizes[N_PREFIXES]:
                    capacity = merges.log_ratio.shape[0]
                    if capacity > 0 and merges.size[0] + count > capacity:
                        return MERGES_FULL, step
                    count = recombine(beam, merges, pruning.lattice_threshold_nats, buffers, count, step)
        if not select_beam(beam, buffers, count, pruning.beam_threshold_nats):
            return NO_TEXT, step
    return DONE, int(log_probs.shape[0])


@kernel(allocates=False, inline=True)
def _continue_prefixes(
    log_probs: NDArray[np.float64], step: int, beam: Beam, tables: ScoreTables, buffers: StepBuffers
) -> tuple[int, float, float]:
    """The prefixes of the beam continue: by a blank, by their last token again, or from one token less.

    Args:
        log_probs: (steps, vocab) float64 nats.
        step: index of the step.
        beam: of the step before.
        tables: what scores the prefixes.
        buffers: get the candidates.

    Returns:
        How many candidates; the probability of the best and of the worst.
    """
    nodes = beam.nodes
    best, worst = 0.0, math.inf
    blank_emission = math.exp(tables.scale * log_probs[step, 0] + tables.bias[0])
    for index in range(beam.sizes[N_PREFIXES]):
        node = beam.node[index]
        token = nodes[node].token
        blank = (beam.blank_prob[index] + beam.nonblank_prob[index]) * blank_emission
        nonblank = 0.0
        if token != 0:
            nonblank = beam.nonblank_prob[index]
            parent = nodes[node].parent
            parent_index = nodes[parent].beam_index
            if parent_index != NONE:
                # a token that is repeated needs a blank between
                incoming = beam.blank_prob[parent_index]
                if nodes[parent].token != token:
                    incoming += beam.nonblank_prob[parent_index]
                nonblank += incoming * nodes[node].factor
            if buffers.token_step[token] != step:
                buffers.token_step[token] = step
                buffers.token_prob[token] = math.exp(
                    tables.scale * log_probs[step, token] + tables.bias[token]
                )
            nonblank *= buffers.token_prob[token]
        total = blank + nonblank
        buffers.node[index] = node
        buffers.blank_prob[index] = blank
        buffers.nonblank_prob[index] = nonblank
        buffers.total_prob[index] = total
        best = max(best, total)
        worst = min(worst, total)
    return beam.sizes[N_PREFIXES], best, worst


@kernel(allocates=False, inline=True)
def _choose_tokens(
    log_probs: NDArray[np.float64],
    step: int,
    floor: float,
    pruning: Pruning,
    beam: Beam,
    tables: ScoreTables,
    buffers: StepBuffers,
) -> int:
    """Which tokens may start new prefixes at this step, the most probable first.

    Args:
        log_probs: (steps, vocab) float64 nats.
        step: index of the step.
        floor: probability below which a new prefix is not kept.
        pruning: what may be left out.
        beam: of the step before.
        tables: what scores the prefixes.
        buffers: get `tokens` and their probabilities.

    Returns:
        How many tokens.
    """
    vocab = log_probs.shape[1]
    token_prob, tokens = buffers.token_prob, buffers.tokens
    highest = 0.0  # the greatest factor by which a prefix of the beam can multiply a token's probability
    for index in range(beam.sizes[N_PREFIXES]):
        total = beam.blank_prob[index] + beam.nonblank_prob[index]
        tree_node = beam.nodes[beam.node[index]].tree_node
        highest = max(
            highest, total * max(tables.max_gain_within[tree_node], tables.max_gain_word_end[tree_node])
        )
    top = -math.inf
    for token in range(vocab):
        top = max(top, tables.scale * log_probs[step, token] + tables.bias[token])
    lowest = top - pruning.token_threshold_nats
    if floor > 0.0:
        lowest = max(lowest, math.log(floor / highest) - 1e-9)  # the loop over prefixes compares exactly
    tried = 0
    for token in range(1, vocab):
        if tables.scale * log_probs[step, token] + tables.bias[token] < lowest:
            continue
        if buffers.token_step[token] != step:
            buffers.token_step[token] = step
            token_prob[token] = math.exp(tables.scale * log_probs[step, token] + tables.bias[token])
        prob = token_prob[token]
        rank = min(tried, pruning.token_top - 1)
        if rank < tried and prob <= token_prob[tokens[rank]]:
            continue
        while rank > 0 and token_prob[tokens[rank - 1]] < prob:
            tokens[rank] = tokens[rank - 1]
            rank -= 1
        tokens[rank] = token
        tried = min(tried + 1, pruning.token_top)
    return tried


@kernel(allocates=False, inline=True)
def _extend_prefixes(
    tried: int,
    floor: float,
    beam: Beam,
    tables: ScoreTables,
    lm: PackedNgrams,
    buffers: StepBuffers,
    count: int,
    pending: Pending,
) -> tuple[int, int]:
    """Add the prefixes that are one token longer than one of the beam, and not in the beam yet.

    Nothing else can lead to them at this step, so what is below the floor is left out at once.

    Args:
        tried: how many of `buffers.tokens`.
        floor: probability below which a new prefix is not kept.
        beam: of the step before; its arena gets the prefixes.
        tables: what scores the prefixes.
        lm: the n-gram model.
        buffers: get the candidates.
        count: how many candidates there are.
        pending: gets the proposals of a language model in Python.

    Returns:
        DONE, ARENA_FULL or PENDING; how many candidates there are then.
    """
    nodes = beam.nodes
    beam_size = beam.node.shape[0]
    token_prob, proposals = buffers.token_prob, buffers.proposals
    for index in range(beam.sizes[N_PREFIXES]):
        node = beam.node[index]
        last, tree_node = nodes[node].token, nodes[node].tree_node
        total = beam.blank_prob[index] + beam.nonblank_prob[index]
        max_within, max_word_end = tables.max_gain_within[tree_node], tables.max_gain_word_end[tree_node]
        highest = total * max(max_within, max_word_end)  # what a token's probability can be multiplied by
        listed = False
        for rank in range(tried):
            token = buffers.tokens[rank]
            if token_prob[token] * highest < floor:
                break  # those that follow are less probable
            # a token that is repeated needs a blank between
            incoming = token_prob[token] * (beam.blank_prob[index] if token == last else total)
            if (
                incoming * (max_word_end if tables.begins_word[token] else max_within) < floor
                or incoming == 0.0
            ):
                continue
            if not listed:  # once a prefix, if at all
                listed = True
                _list_children(beam, node, buffers)
            child = buffers.child[token] if buffers.child_stamp[token] == buffers.child_stamp[0] else NONE
            if child == NONE:
                proposed = propose(nodes, node, token, tables, proposals)
                if beam.sizes[N_NODES] + proposed > nodes.shape[0]:
                    return PENDING if pending.size[0] > 0 else ARENA_FULL, count
                if tables.lm_kind == PYTHON_LM:
                    if pending.size[0] + proposed > pending.proposals.shape[0]:
                        return PENDING, count  # what was left out is found when the step is tried again
                    for variant in range(proposed):
                        pending.proposals[pending.size[0]] = proposals[variant]
                        pending.size[0] += 1
                    continue
                for variant in range(proposed):
                    log_prob, state = advance_lm(nodes, proposals[variant], tables, lm)
                    add_prefix(beam, proposals[variant], log_prob, state, tables)
                child = nodes[node].child if proposed > 0 else NONE
            while child != NONE and nodes[child].token == token:  # variants of a token are made together
                prob = incoming * nodes[child].factor
                if nodes[child].beam_index == NONE and prob >= floor and prob > 0.0:
                    if count == buffers.total_prob.shape[0]:
                        keep_best(buffers, count, beam_size)
                        count = beam_size
                        floor = max(floor, buffers.total_prob[beam_size - 1])
                    buffers.node[count] = child
                    buffers.blank_prob[count] = 0.0
                    buffers.nonblank_prob[count] = prob
                    buffers.total_prob[count] = prob
                    count += 1
                child = nodes[child].sibling
    return PENDING if pending.size[0] > 0 else DONE, count


@kernel(allocates=False, inline=True)
def _list_children(beam: Beam, node: int, buffers: StepBuffers) -> None:
    """Write down the newest child of a prefix by each token, in `buffers.child`.

    Args:
        beam: its arena holds the prefix.
        node: of the prefix.
        buffers: the stamp of what is written down is that of the blank, which has no children.
    """
    nodes, stamps = beam.nodes, buffers.child_stamp
    stamps[0] += 1
    child = nodes[node].child
    while child != NONE:
        token = nodes[child].token
        if stamps[token] != stamps[0]:
            stamps[token] = stamps[0]
            buffers.child[token] = child
        child = nodes[child].sibling
