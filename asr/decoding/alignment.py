"""Where given tokens stand in an utterance: the best path that spells them."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["align_tokens"]

_WINDOW = 60.0  # nats below a step's best state at which a state is given up, at first


def align_tokens(log_probs: NDArray[np.float64], tokens: NDArray[np.int32]) -> NDArray[np.int64]:
    """The steps of each token along the most probable single path of these tokens (Viterbi).

    Args:
        log_probs: (steps, vocab) float64; blank at 0.
        tokens: (tokens,) int32 ids, which must fit into the steps (`required_steps`).

    Returns:
        (tokens, 2) int64: the first step of each token's run, and the first after it.

    Source: Graves et al. 2006, section 4.1, with the best instead of the sum of the paths; checked against
        torchaudio.functional.forced_align.
    """
    window = _WINDOW
    while True:
        spans, reached = _align(log_probs, tokens, window)
        if reached or window == np.inf:
            return spans
        # the end lay outside the window at some step: rare, and only where the tokens hardly fit the audio
        window = window * 8 if window < 1e4 else np.inf


@njit(cache=True, nogil=True)
def _align(
    log_probs: NDArray[np.float64], tokens: NDArray[np.int32], window: float
) -> tuple[NDArray[np.int64], bool]:
    """`align_tokens` among states at most `window` nats below the best of their step.

    State 2k is the blank before token k, state 2k + 1 is token k.
    """
    steps = log_probs.shape[0]
    spans = np.zeros((tokens.shape[0], 2), np.int64)
    if tokens.shape[0] == 0 or steps == 0:
        return spans, tokens.shape[0] == 0
    states = 2 * tokens.shape[0] + 1
    now = np.full(states + 2, -np.inf)  # two to the left, so that a state can look back
    then = np.full(states + 2, -np.inf)
    begins = np.empty(steps + 1, np.int64)  # where each step's moves begin in `moves`
    lows = np.empty(steps, np.int64)
    moves = np.empty(16 * steps + 2 * states, np.uint8)
    begins[0] = 0
    low, high = 0, 0  # states that are alive
    now[2] = 0.0  # as if a blank state stood before the first step
    for step in range(steps):
        now, then = then, now
        new_high = min(high + 2, states - 1)
        if begins[step] + new_high - low + 1 > moves.shape[0]:
            longer = np.empty(2 * moves.shape[0] + states, np.uint8)
            longer[: begins[step]] = moves[: begins[step]]
            moves = longer
        lows[step] = low
        best = -np.inf
        for state in range(low, new_high + 1):
            score, move = then[state + 2], 0
            token = 0
            if state % 2 == 1:
                token = tokens[state // 2]
            if then[state + 1] > score and state > 0:
                score, move = then[state + 1], 1
            if state % 2 == 1 and state > 1 and tokens[state // 2 - 1] != token and then[state] > score:
                score, move = then[state], 2
            score += log_probs[step, token]
            now[state + 2] = score
            moves[begins[step] + state - low] = move
            best = max(best, score)
        begins[step + 1] = begins[step] + new_high - low + 1
        then[low + 2 : high + 3] = -np.inf
        high = new_high
        while low < high and now[low + 2] < best - window:
            now[low + 2] = -np.inf
            low += 1
        while high > low and now[high + 2] < best - window:
            now[high + 2] = -np.inf
            high -= 1
    state = states - 1
    if now[states] > now[states + 1]:  # the last token instead of the blank after it
        state = states - 2
    if now[state + 2] == -np.inf:
        return spans, False
    for step in range(steps - 1, -1, -1):
        token = state // 2
        if state % 2 == 1:
            spans[token, 0] = step
            if spans[token, 1] == 0:
                spans[token, 1] = step + 1
        state -= moves[begins[step] + state - lows[step]]
    return spans, True
