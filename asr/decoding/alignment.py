"""Forced alignment: the steps of given tokens on their best path, and their probability over all paths."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel

__all__ = ["align_tokens"]

_BEAM_NATS = 60.0  # nats below a step's best state at which a state is pruned, at first
_FULL = math.nan  # the kernel's result where `moves` is too short


class _Memory(NamedTuple):
    """What `_align` overwrites. State s is column s + 2 of `scores` and `sums`, so that s - 2 always exists.

    Attributes:
        scores: (2, states + 2) float64 nats, all -inf: of the best path into each state, at this step and the
            one before.
        sums: (2, states + 2) float64, all 0: the probability of all paths, scaled so that the greatest of a
            step is 1.
        begins: (steps + 1,) int64: where each step's moves begin in `moves`.
        first_states: (steps,) int64: the first state that is not pruned at each step.
        moves: (at least the sum of active states over steps,) uint8: how many states back the best path into
            a state comes from, step by step.
    """

    scores: NDArray[np.float64]
    sums: NDArray[np.float64]
    begins: NDArray[np.int64]
    first_states: NDArray[np.int64]
    moves: NDArray[np.uint8]


def align_tokens(
    log_probs: NDArray[np.float64], tokens: NDArray[np.int32]
) -> tuple[NDArray[np.int64], float]:
    """Align tokens with the steps of an utterance, and sum the probability of all their paths.

    Args:
        log_probs: (steps, vocab) float64 nats, not necessarily normalised; the blank is token 0.
        tokens: (tokens,) int32 ids, which must fit into the steps (`required_steps`).

    Returns:
        (tokens, 2) int64: the first step of each token's run on the most probable path, and the first after
        it; and the log-probability of the tokens in nats, without paths that are pruned.

    Source: Graves et al. 2006, section 4.1, equations 5 to 8, and with the best instead of the sum of the
        paths; checked against torchaudio.functional.forced_align and torch.nn.functional.ctc_loss.
    """
    steps, states = len(log_probs), 2 * len(tokens) + 1
    spans = np.zeros((len(tokens), 2), np.int64)
    if len(tokens) == 0 or steps == 0:
        return spans, float(log_probs[:, 0].sum()) if len(tokens) == 0 else -math.inf
    begins, first_states = np.zeros(steps + 1, np.int64), np.zeros(steps, np.int64)
    moves = np.empty(16 * steps + 2 * states, np.uint8)
    beam_nats = _BEAM_NATS
    while True:
        scores, sums = np.full((2, states + 2), -np.inf), np.zeros((2, states + 2))
        memory = _Memory(scores, sums, begins, first_states, moves)
        log_prob = _align(log_probs, tokens, beam_nats, memory, spans)
        if math.isnan(log_prob):
            moves = np.empty(2 * len(moves), np.uint8)
        elif log_prob > -math.inf or beam_nats == math.inf:
            return spans, log_prob
        else:
            # the last state was pruned at some step: rare: the tokens do not fit the audio well
            beam_nats = beam_nats * 8 if beam_nats < 1e4 else math.inf


@kernel(allocates=False)
def _align(
    log_probs: NDArray[np.float64],
    tokens: NDArray[np.int32],
    beam_nats: float,
    memory: _Memory,
    spans: NDArray[np.int64],
) -> float:
    """`align_tokens` among states at most `beam_nats` below the best of their step.

    State 2k is the blank before token k, state 2k + 1 is token k. Plain loops only: numba takes long to
    compile slices.

    Args:
        log_probs: (steps, vocab) float64 nats.
        tokens: (tokens,) int32 ids, at least one.
        beam_nats: a state that is further below is pruned.
        memory: overwritten.
        spans: (tokens, 2) int64: filled, see `align_tokens`.

    Returns:
        Log-probability of all paths, nats; -inf where none reaches the end; NaN where `moves` is too short.
    """
    scores, sums, begins, first_states, moves = memory
    steps = log_probs.shape[0]
    states = 2 * tokens.shape[0] + 1
    low, high = 0, 0
    row = 0  # of `scores` and `sums`: this step
    scores[0, 2] = 0.0  # as if a blank preceded the first step
    sums[0, 2] = 1.0
    log_scale = 0.0
    begins[0] = 0
    for step in range(steps):
        before, row = row, 1 - row
        new_high = min(high + 2, states - 1)
        if begins[step] + new_high - low + 1 > moves.shape[0]:
            return _FULL
        first_states[step] = low
        begins[step + 1] = begins[step] + new_high - low + 1
        best, top = _take_step(log_probs, step, tokens, memory, row, low, new_high)
        if not top > 0.0:
            return -math.inf
        for state in range(low, high + 1):
            _prune(memory, before, state)
        for state in range(low, new_high + 1):
            sums[row, state + 2] /= top
        log_scale += math.log(top)
        high = new_high
        while low < high and scores[row, low + 2] < best - beam_nats:
            _prune(memory, row, low)
            low += 1
        while high > low and scores[row, high + 2] < best - beam_nats:
            _prune(memory, row, high)
            high -= 1
    state = states - 1
    if scores[row, states] > scores[row, states + 1]:  # the last token instead of the blank after it
        state = states - 2
    if scores[row, state + 2] == -math.inf:
        return -math.inf
    _trace_back(memory, state, spans)
    return log_scale + math.log(sums[row, states] + sums[row, states + 1])


@kernel(allocates=False, inline=True)
def _take_step(
    log_probs: NDArray[np.float64],
    step: int,
    tokens: NDArray[np.int32],
    memory: _Memory,
    row: int,
    low: int,
    high: int,
) -> tuple[float, float]:
    """Score each state by the states of the step before that lead into it.

    Args:
        log_probs: (steps, vocab) float64 nats.
        step: index of the step.
        tokens: (tokens,) int32 ids.
        memory: gets scores, sums and moves of the step.
        row: of `scores` and `sums`; the other one is the step before.
        low: first state.
        high: last state.

    Returns:
        The score of the best state, and the greatest sum.
    """
    scores, sums, begins, _, moves = memory
    before = 1 - row
    best, top = -math.inf, 0.0
    blank_prob = math.exp(log_probs[step, 0])
    for state in range(low, high + 1):
        score, move = scores[before, state + 2], 0
        total = sums[before, state + 2] + sums[before, state + 1]
        token = 0
        if state % 2 == 1:
            token = int(tokens[state // 2])
        if scores[before, state + 1] > score:
            score, move = scores[before, state + 1], 1
        if state % 2 == 1 and state > 1 and tokens[state // 2 - 1] != token:
            total += sums[before, state]
            if scores[before, state] > score:
                score, move = scores[before, state], 2
        score += log_probs[step, token]
        total *= blank_prob if token == 0 else math.exp(log_probs[step, token])
        scores[row, state + 2] = score
        sums[row, state + 2] = total
        moves[begins[step] + state - low] = move
        best = max(best, score)
        top = max(top, total)
    return best, top


@kernel(allocates=False, inline=True)
def _prune(memory: _Memory, row: int, state: int) -> None:
    """Let no path lead through a state."""
    memory.scores[row, state + 2] = -math.inf
    memory.sums[row, state + 2] = 0.0


@kernel(allocates=False, inline=True)
def _trace_back(memory: _Memory, state: int, spans: NDArray[np.int64]) -> None:
    """Follow the best path back from its last state, and note where each token's run begins and ends."""
    for token in range(spans.shape[0]):
        spans[token, 1] = 0
    for step in range(memory.first_states.shape[0] - 1, -1, -1):
        token = state // 2
        if state % 2 == 1:
            spans[token, 0] = step
            if spans[token, 1] == 0:
                spans[token, 1] = step + 1
        state -= int(memory.moves[memory.begins[step] + state - memory.first_states[step]])
