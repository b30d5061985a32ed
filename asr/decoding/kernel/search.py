"""One step of prefix beam search after another: the compiled part.

Masses are probabilities, not logarithms: each step multiplies and adds, and what is kept is scaled by the
best mass, so that nothing under- or overflows. The mass of a prefix holds its fused scores (language model,
bonuses) as a factor, so that ranking needs no logarithm either; at the end the factor is taken out again.

Source: Graves, "Sequence transduction with recurrent neural networks", 2012, and Hannun et al., "First-pass
large vocabulary continuous speech recognition using bi-directional recurrent DNNs", 2014, algorithm 1.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.kernel.arena import NONE, Beam, Merges
from asr.decoding.kernel.fusion import COLUMNS, EXTERNAL, Tables, add, propose, say
from asr.lm.ngram.packed import PackedNgrams

__all__ = ["Pending", "Pruning", "search"]

_RIVALS = 6  # prefixes that a prefix is compared with before it is taken as it is


class Pruning(NamedTuple):
    """What the search leaves out; see `BeamConfig`."""

    beam_threshold: float
    token_threshold: float
    token_top: int  # never 0
    blank_skip: float  # log-probability; inf: never
    recombine: bool
    lattice_threshold: float


class Pending(NamedTuple):
    """Prefixes that a language model outside has to score before the step can be taken.

    Attributes:
        rows: (many, COLUMNS) int32: proposals.
        waiting: (1,) int64: how many.
    """

    rows: NDArray[np.int32]
    waiting: NDArray[np.int64]


class Scratch(NamedTuple):
    """Room for one step.

    Attributes:
        node, blank, token, mass: (room,) the prefixes that were found: numbers, the two masses, and their
            sum.
        probs: (vocab,) the tokens' weighted probabilities.
        computed: (vocab,) the step for which `probs` holds.
        tokens: (vocab,) the tokens that are tried.
        newest: (vocab,) the newest child of a prefix by that token.
        marked: (vocab,) the prefix for which `newest` holds, by a running number.
        rows: (many, COLUMNS) proposals.
        seen, seen_step: (slots, a power of 2) a hash table of places among what was found; the step for which
            an entry holds.
    """

    node: NDArray[np.int32]
    blank: NDArray[np.float64]
    token: NDArray[np.float64]
    mass: NDArray[np.float64]
    probs: NDArray[np.float64]
    computed: NDArray[np.int64]
    tokens: NDArray[np.int32]
    newest: NDArray[np.int32]
    marked: NDArray[np.int64]
    rows: NDArray[np.int32]
    seen: NDArray[np.int32]
    seen_step: NDArray[np.int64]


def new_scratch(beam_size: int, vocab: int, most_proposals: int) -> Scratch:
    """Room for the steps of a search.

    Args:
        beam_size: most prefixes after a step.
        vocab: number of tokens, blank included.
        most_proposals: see `Tables`.
    """
    room = 2 * beam_size + 16
    slots = 1 << (2 * room).bit_length()
    return Scratch(
        node=np.empty(room, np.int32),
        blank=np.empty(room),
        token=np.empty(room),
        mass=np.empty(room),
        probs=np.empty(vocab),
        computed=np.empty(vocab, np.int64),
        tokens=np.empty(vocab, np.int32),
        newest=np.empty(vocab, np.int32),
        marked=np.zeros(vocab, np.int64),
        rows=np.empty((most_proposals, COLUMNS), np.int32),
        seen=np.empty(slots, np.int32),
        seen_step=np.empty(slots, np.int64),
    )


@kernel(allocates=False)
def search(
    log_probs: NDArray[np.float64],
    begin: int,
    beam: Beam,
    merges: Merges,
    pruning: Pruning,
    tables: Tables,
    lm: PackedNgrams,
    pending: Pending,
    scratch: Scratch,
) -> int:
    """Take the beam through the steps of an utterance.

    Nothing that could have been in the next beam is left out but by `pruning` and the beam's size: a mass is
    the sum over the paths that lead through prefixes of the beam alone.

    Args:
        log_probs: (steps, vocab) float64, as the model gives them.
        begin: the first step to take.
        beam: changed in place.
        merges: gets the prefixes that recombination drops, where it has room for any.
        pruning: what may be left out.
        tables: what scores the prefixes.
        lm: the n-gram model; without one, anything.
        pending: for a language model that is asked outside.
        scratch: room for the steps.

    Returns:
        The first step that was not taken: `steps`, or less when the arena or `merges` is full or something is
        pending.
        -1 - step where nothing has a probability above 0 after that step.
    """
    width = beam.node.shape[0]
    scratch.computed[:] = -1
    scratch.seen_step[:] = -1
    for step in range(begin, log_probs.shape[0]):
        count, best, worst = _stay(log_probs, step, beam, tables, scratch)
        if log_probs[step, 0] <= pruning.blank_skip:
            floor = best * math.exp(-pruning.beam_threshold)
            if count == width:
                floor = max(floor, worst)
            tried = _choose(log_probs, step, floor, pruning, beam, tables, scratch)
            if tried > 0:
                count = _grow(tried, floor, beam, tables, lm, scratch, count, pending)
                if count < 0:
                    return step
                if pruning.recombine and count > beam.sizes[1]:
                    room = merges.ratio.shape[0]
                    if room > 0 and merges.made[0] + count > room:
                        return step
                    count = _recombine(beam, merges, pruning.lattice_threshold, scratch, count, step)
        if not _replace(beam, scratch, count, pruning.beam_threshold):
            return -1 - step
    return int(log_probs.shape[0])


@kernel(allocates=False, inline=True)
def _stay(
    log_probs: NDArray[np.float64], step: int, beam: Beam, tables: Tables, scratch: Scratch
) -> tuple[int, float, float]:
    """The prefixes of the beam go on, by a blank, by their last token again, or from one token less.

    Returns:
        How many, the best and the worst mass.
    """
    nodes = beam.nodes
    best, worst = 0.0, math.inf
    silent = math.exp(tables.scale * log_probs[step, 0] + tables.bias[0])
    for place in range(beam.sizes[1]):
        number = beam.node[place]
        token = int(nodes[number].token)  # one integer type, one compilation
        blank = (beam.blank[place] + beam.token[place]) * silent
        again = 0.0
        if token != 0:
            again = beam.token[place]
            parent = nodes[number].parent
            before = nodes[parent].slot
            if before != NONE:
                # a token that stands twice needs a blank between
                came = beam.blank[before]
                if nodes[parent].token != token:
                    came += beam.token[before]
                again += came * nodes[number].factor
            if scratch.computed[token] != step:
                scratch.computed[token] = step
                scratch.probs[token] = math.exp(tables.scale * log_probs[step, token] + tables.bias[token])
            again *= scratch.probs[token]
        mass = blank + again
        scratch.node[place] = number
        scratch.blank[place] = blank
        scratch.token[place] = again
        scratch.mass[place] = mass
        best = max(best, mass)
        worst = min(worst, mass)
    return beam.sizes[1], best, worst


@kernel(allocates=False, inline=True)
def _choose(
    log_probs: NDArray[np.float64],
    step: int,
    floor: float,
    pruning: Pruning,
    beam: Beam,
    tables: Tables,
    scratch: Scratch,
) -> int:
    """The tokens that may start new prefixes at this step, the most probable first.

    Returns:
        How many.
    """
    vocab = log_probs.shape[1]
    probs, tokens = scratch.probs, scratch.tokens
    highest = 0.0  # what the best placed prefix can make of a token's probability
    for place in range(beam.sizes[1]):
        mass = beam.blank[place] + beam.token[place]
        lex = beam.nodes[beam.node[place]].lex
        highest = max(highest, mass * max(tables.gain_within[lex], tables.gain_end[lex]))
    top = -math.inf
    for token in range(vocab):
        top = max(top, tables.scale * log_probs[step, token] + tables.bias[token])
    least = top - pruning.token_threshold
    if floor > 0.0:
        least = max(least, math.log(floor / highest) - 1e-9)  # the loop over prefixes compares exactly
    tried = 0
    for token in range(1, vocab):
        if tables.scale * log_probs[step, token] + tables.bias[token] < least:
            continue
        if scratch.computed[token] != step:
            scratch.computed[token] = step
            scratch.probs[token] = math.exp(tables.scale * log_probs[step, token] + tables.bias[token])
        prob = probs[token]
        place = min(tried, pruning.token_top - 1)
        if place < tried and prob <= probs[tokens[place]]:
            continue
        while place > 0 and probs[tokens[place - 1]] < prob:
            tokens[place] = tokens[place - 1]
            place -= 1
        tokens[place] = token
        tried = min(tried + 1, pruning.token_top)
    return tried


@kernel(allocates=False, inline=True)
def _grow(
    tried: int,
    floor: float,
    beam: Beam,
    tables: Tables,
    lm: PackedNgrams,
    scratch: Scratch,
    count: int,
    pending: Pending,
) -> int:
    """Prefixes that are one token longer and not in the beam yet.

    Nothing else can lead to them at this step, so what lies below the floor can be left out at once.

    Returns:
        How many prefixes were found in all, or -1 when the arena is full or something is pending.
    """
    nodes = beam.nodes
    width = beam.node.shape[0]
    probs, rows, newest, marked = scratch.probs, scratch.rows, scratch.newest, scratch.marked
    mark = marked[0]  # the blank's place is free to count
    for place in range(beam.sizes[1]):
        number = int(beam.node[place])
        last, lex = nodes[number].token, nodes[number].lex
        total = beam.blank[place] + beam.token[place]
        gain_within, gain_end = tables.gain_within[lex], tables.gain_end[lex]
        most = total * max(gain_within, gain_end)
        listed = False
        for rank in range(tried):
            token = int(scratch.tokens[rank])
            if probs[token] * most < floor:
                break  # those that follow are less probable
            # a token that stands twice needs a blank between
            came = probs[token] * (beam.blank[place] if token == last else total)
            if came * (gain_end if tables.begins[token] else gain_within) < floor or came == 0.0:
                continue
            if not listed:  # once a prefix: each token's newest child
                listed = True
                mark += 1
                marked[0] = mark
                child = nodes[number].child
                while child != NONE:
                    known = nodes[child].token
                    if marked[known] != mark:
                        marked[known] = mark
                        newest[known] = child
                    child = nodes[child].sibling
            child = int(newest[token]) if marked[token] == mark else NONE
            if child == NONE:
                proposed = propose(nodes, number, token, tables, rows)
                if beam.sizes[0] + proposed > nodes.shape[0]:
                    return -1
                if tables.lm_kind == EXTERNAL:
                    if pending.waiting[0] + proposed > pending.rows.shape[0]:
                        return -1  # what was left out is found when the step is tried again
                    for row in range(proposed):
                        for column in range(COLUMNS):
                            pending.rows[pending.waiting[0], column] = rows[row, column]
                        pending.waiting[0] += 1
                    continue
                for row in range(proposed):
                    nats, state = say(nodes, rows[row], tables, lm)
                    add(beam, rows[row], nats, state, tables)
                child = nodes[number].child if proposed > 0 else NONE
            while child != NONE and nodes[child].token == token:  # variants of a token are made together
                mass = came * nodes[child].factor
                if nodes[child].slot == NONE and mass >= floor and mass > 0.0:
                    if count == scratch.mass.shape[0]:
                        _keep_best(scratch, count, width)
                        count = width
                        floor = max(floor, scratch.mass[width - 1])
                    scratch.node[count] = child
                    scratch.blank[count] = 0.0
                    scratch.token[count] = mass
                    scratch.mass[count] = mass
                    count += 1
                child = nodes[child].sibling
    return -1 if pending.waiting[0] > 0 else count


@kernel(allocates=False, inline=True)
def _covers(beam: Beam, scratch: Scratch, one: int, other: int) -> bool:
    """Whether one prefix has at least the masses of another, whose parent is gone and adds no more."""
    return bool(
        scratch.blank[one] >= scratch.blank[other]
        and scratch.token[one] >= scratch.token[other]
        and beam.nodes[beam.nodes[scratch.node[other]].parent].slot == NONE
    )


@kernel(allocates=False, inline=True)
def _recombine(beam: Beam, merges: Merges, threshold: float, scratch: Scratch, count: int, step: int) -> int:
    """Drop each prefix that goes on as another one does and has no more mass, whatever comes.

    What their own masses become depends on the last token, the node of the tree and the states of language
    model and hot words alone. Approximate all the same: the prefix that is dropped could have been given more
    by its parent, should that come back, and gives nothing any more to longer ones that are in the beam.

    What is dropped is recorded in `merges` if it is within `threshold` nats of the step's best prefix.

    Returns:
        How many are left.
    """
    nodes = beam.nodes
    record = merges.ratio.shape[0] > 0
    least = 0.0
    if record:
        for place in range(count):
            least = max(least, scratch.mass[place])
        least *= math.exp(-threshold)
    mask = scratch.seen.shape[0] - 1
    kept = 0
    for place in range(count):
        node = nodes[scratch.node[place]]
        token, lex, state, hot = int(node.token), int(node.lex), int(node.state), int(node.hot)
        key = ((state * 31337 + lex) * 7919 + token * 131 + hot) & 0x7FFFFFFFFFFF
        slot = (key ^ (key >> 17)) & mask
        target = kept
        looked = 0
        winner, loser = 0, NONE  # indices of two prefixes that merge
        while scratch.seen_step[slot] == step and looked < _RIVALS:
            looked += 1
            other = scratch.seen[slot]
            rival = nodes[scratch.node[other]]
            if rival.state == state and rival.lex == lex and rival.token == token and rival.hot == hot:
                if _covers(beam, scratch, other, place):
                    target = NONE
                    winner, loser = int(other), place
                    break
                if _covers(beam, scratch, place, other):
                    target = int(other)
                    winner, loser = place, int(other)
                    break
            slot = (slot + 1) & mask
        if record and loser != NONE and scratch.mass[loser] >= least and scratch.mass[loser] > 0.0:
            merge = merges.made[0]
            merges.kept[merge] = scratch.node[winner]
            merges.lost[merge] = scratch.node[loser]
            merges.ratio[merge] = math.log(scratch.mass[loser] / scratch.mass[winner])
            merges.made[0] = merge + 1
        if target == NONE:
            continue
        if target == kept:
            scratch.seen_step[slot] = step  # after many rivals the newest takes the last one's place
            scratch.seen[slot] = kept
            kept += 1
        scratch.node[target] = scratch.node[place]
        scratch.blank[target] = scratch.blank[place]
        scratch.token[target] = scratch.token[place]
        scratch.mass[target] = scratch.mass[place]
    return kept


@kernel(allocates=False, inline=True)
def _replace(beam: Beam, scratch: Scratch, count: int, beam_threshold: float) -> bool:
    """Make the best of what was found the next beam, its best mass 1; False where all masses are 0."""
    nodes = beam.nodes
    width = beam.node.shape[0]
    for place in range(beam.sizes[1]):
        nodes[beam.node[place]].slot = NONE
    if count > width:
        _keep_best(scratch, count, width)
        count = width
    best = 0.0
    for place in range(count):
        best = max(best, scratch.mass[place])
    if not best > 0.0:
        return False
    floor = best * math.exp(-beam_threshold)
    kept = 0
    for place in range(count):
        if scratch.mass[place] < floor or scratch.mass[place] == 0.0:
            continue
        number = scratch.node[place]
        beam.node[kept] = number
        beam.blank[kept] = scratch.blank[place] / best
        beam.token[kept] = scratch.token[place] / best
        nodes[number].slot = kept
        kept += 1
    beam.sizes[1] = kept
    beam.log_scale[0] += math.log(best)
    return True


@kernel(allocates=False)
def _keep_best(scratch: Scratch, count: int, width: int) -> None:
    """Bring the `width` greatest masses to the front, the least of them last (quickselect)."""
    low, high = 0, count - 1
    while low < high:
        pivot = scratch.mass[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while scratch.mass[left] > pivot:
                left += 1
            while scratch.mass[right] < pivot:
                right -= 1
            if left <= right:
                _swap(scratch, left, right)
                left += 1
                right -= 1
        if width - 1 <= right:
            high = right
        elif width - 1 >= left:
            low = left
        else:
            return


@kernel(allocates=False, inline=True)
def _swap(scratch: Scratch, left: int, right: int) -> None:
    scratch.node[left], scratch.node[right] = scratch.node[right], scratch.node[left]
    scratch.blank[left], scratch.blank[right] = scratch.blank[right], scratch.blank[left]
    scratch.token[left], scratch.token[right] = scratch.token[right], scratch.token[left]
    scratch.mass[left], scratch.mass[right] = scratch.mass[right], scratch.mass[left]
