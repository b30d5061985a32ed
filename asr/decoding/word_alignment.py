"""Forced alignment of words: which steps say which word, in recordings of any length.

Memory does not grow with steps times states: scores are kept at every few hundredth step, and the moves of
the steps between are found again when the path is traced back, block by block from the end.
"""

import math

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.decoding.word_graph import Alignment, AlignmentCosts, WordGraph, WordStates
from asr.text.tokenizer import BLANK

__all__ = ["align_words"]

_BLOCK = 500  # steps whose moves are in memory at the same time
_STAR_BLANK = 0.01  # nats by which the star's blank is worse than any other

# Moves into a state: 0 to 2 are how many states back the path comes from, the others lead into the blank
# before a word or into the first token of a pronunciation.
_FROM_STAR, _FROM_SKIP, _FROM_BLANK = 3, 4, 5
_FROM_WORD = 6  # and more: which pronunciation of the word before
_GOES_ON = 1  # into a state that leaves words out: the word before was left out, too


def align_words(
    log_probs: NDArray[np.float32], graph: WordGraph, costs: AlignmentCosts | None = None
) -> Alignment:
    """Find the most probable path of a text through an utterance or a recording of any length.

    Args:
        log_probs: (steps, vocab) float32 nats; the blank is token 0.
        graph: of the text.
        costs: None for the defaults.

    Source: Viterbi on the topology of Graves et al. 2006, section 4.1; without differences the path is that
        of torchaudio.functional.forced_align. The star is that of Pratap et al. 2023, "Scaling speech
        technology to 1,000+ languages", appendix B (there its probability is 1).
    """
    costs = costs or AlignmentCosts()
    # In silence the blank before a word is better than the star, but the star need not be left for it.
    star = np.maximum(log_probs.max(axis=1) - costs.star_step, log_probs[:, BLANK] - _STAR_BLANK)
    search = _Search(np.concatenate([log_probs, star[:, None].astype(np.float32)], axis=1), graph, costs)
    return graph.follow(*search.run())


class _Search:
    """The search through one recording."""

    def __init__(self, log_probs: NDArray[np.float32], graph: WordGraph, costs: AlignmentCosts) -> None:
        self._log_probs = log_probs
        self._states = graph.states(log_probs.shape[1] - 1, costs)
        at_ends = graph.skip_costs(costs.skip_at_ends)
        # What it costs to leave out the words before each one, and after.
        self._before = np.concatenate([[0.0], costs.skip + np.cumsum(at_ends)])
        self._after = np.concatenate([costs.skip + np.cumsum(at_ends[::-1])[::-1], [0.0]])
        self._window = costs.window
        self._scores = np.empty((2, len(self._states.token)))
        self._active = np.zeros(3, np.int64)  # the row of the last step, and its first and last word

    def run(self) -> tuple[NDArray[np.int64], float]:
        """The state of each step, and the score of the path; no state where there is none."""
        steps = len(self._log_probs)
        nothing = np.zeros(0, np.uint8)
        kept: list[tuple[int, int, NDArray[np.float64]]] = []  # scores before each block
        cells = []
        self._start()
        for begin in range(0, steps, _BLOCK):
            kept.append(self._keep())
            cells.append(self._advance(begin, nothing, np.zeros(0, np.int64), np.zeros(0, np.int64)))
        state, score = self._best_end()
        path = np.zeros(steps, np.int64)
        if score == -math.inf:
            return path[:0], score
        for number in reversed(range(len(kept))):
            begin = number * _BLOCK
            size = min(_BLOCK, steps - begin)
            self._restore(*kept.pop())
            moves = np.empty(cells[number], np.uint8)
            begins, firsts = np.zeros(size + 1, np.int64), np.zeros(size, np.int64)
            self._advance(begin, moves, begins, firsts)
            state = _trace_back(self._states, moves, begins, firsts, state, path[begin : begin + size])
        return path, score

    def _start(self) -> None:
        """Scores before the first step: as if a blank preceded it, before any word."""
        reached = self._before <= self._window
        self._scores.fill(-math.inf)
        self._scores[0, self._states.first[:-1][reached]] = -self._before[reached]
        self._active[:] = 0, 0, int(np.flatnonzero(reached)[-1])

    def _advance(
        self,
        begin: int,
        moves: NDArray[np.uint8],
        begins: NDArray[np.int64],
        firsts: NDArray[np.int64],
    ) -> int:
        block = self._log_probs[begin : begin + _BLOCK]
        return int(
            _advance(block, self._states, self._window, self._scores, self._active, moves, begins, firsts)
        )

    def _span(self, low: int, high: int) -> slice:
        return slice(int(self._states.first[low]), int(self._states.first[high + 1]))

    def _keep(self) -> tuple[int, int, NDArray[np.float64]]:
        row, low, high = self._active.tolist()
        return low, high, self._scores[row, self._span(low, high)].copy()

    def _restore(self, low: int, high: int, scores: NDArray[np.float64]) -> None:
        self._scores.fill(-math.inf)
        self._scores[0, self._span(low, high)] = scores
        self._active[:] = 0, low, high

    def _best_end(self) -> tuple[int, float]:
        """The state in which the best path ends, and its score: words after it are left out."""
        states, scores = self._states, self._scores[self._active[0]]
        blanks = states.first[:-1]
        owners = np.searchsorted(states.pronunciation, np.arange(len(states.end)), side="right")
        ends = np.concatenate([blanks, blanks + 1, states.end])
        totals = scores[ends] - np.concatenate([self._after, self._after, self._after[owners]])
        best = int(totals.argmax())
        return int(ends[best]), float(totals[best])


@kernel(allocates=False)
def _advance(
    log_probs: NDArray[np.float32],
    states: WordStates,
    window: float,
    scores: NDArray[np.float64],
    active: NDArray[np.int64],
    moves: NDArray[np.uint8],
    begins: NDArray[np.int64],
    firsts: NDArray[np.int64],
) -> int:
    """Take the steps of a block, among words whose states are at most `window` below the best of their step.

    Args:
        log_probs: (steps, vocab + 1) float32 nats; the last column is the star's.
        states: of the text.
        window: nats.
        scores: (2, states) float64 nats of the best path into each state; -inf for those that are pruned.
        active: (3,) the row of `scores` that holds the last step, and the first and last word with a state in
            it; changed.
        moves: where the best path into each state comes from, step by step; empty: not wanted.
        begins: (steps + 1,) where each step's moves begin.
        firsts: (steps,) the first state that has a move at each step.

    Returns:
        How many moves there are.
    """
    token, first, pronunciation, start, end, skip, skip_first, star_first = states
    words = first.shape[0] - 2
    row, low, high = active[0], active[1], active[2]
    record = moves.shape[0] > 0
    cells = 0
    best = -math.inf
    for step in range(log_probs.shape[0]):
        before, row = row, 1 - row
        blank = log_probs[step, 0]
        star = log_probs[step, log_probs.shape[1] - 1]
        if record:
            begins[step] = cells
            firsts[step] = first[low]
        offset = cells - first[low]
        best = -math.inf
        word = low
        while word <= words:
            at = first[word]
            # Past the words that the step can reach, only leaving words out leads on.
            skipped, move = -math.inf, 0
            if word > low:
                skipped = scores[row, first[word - 1]] - skip_first
                if scores[row, first[word - 1] + 2] > skipped:
                    skipped, move = scores[row, first[word - 1] + 2], _GOES_ON
                skipped -= skip[word - 1]
            if word > high + 1 and not (skipped > -math.inf and skipped >= best - window):
                break
            scores[row, at + 2] = skipped
            if record:
                moves[offset + at + 2] = move
            score, move = scores[before, at], 0
            if scores[before, at + 1] > score:
                score, move = scores[before, at + 1], _FROM_STAR
            if word > low:
                for number in range(pronunciation[word - 1], pronunciation[word]):
                    if scores[before, end[number]] > score:
                        score = scores[before, end[number]]
                        move = _FROM_WORD + number - pronunciation[word - 1]
            score += blank
            if skipped > score:
                score, move = skipped, _FROM_SKIP
            scores[row, at] = score
            best = max(best, score)
            if record:
                moves[offset + at] = move
            score, move = scores[before, at + 1], 0
            if scores[before, at] - star_first > score:
                score, move = scores[before, at] - star_first, 1
            scores[row, at + 1] = score + star
            best = max(best, score + star)
            if record:
                moves[offset + at + 1] = move
            for number in range(pronunciation[word], pronunciation[word + 1]):
                state = start[number]
                score, move = scores[before, state], 0
                if scores[before, at] > score:
                    score, move = scores[before, at], _FROM_BLANK
                if word > low:
                    for other in range(pronunciation[word - 1], pronunciation[word]):
                        last = end[other]
                        if scores[before, last] > score and token[last] != token[state]:
                            score = scores[before, last]
                            move = _FROM_WORD + other - pronunciation[word - 1]
                score += log_probs[step, token[state]]
                scores[row, state] = score
                best = max(best, score)
                if record:
                    moves[offset + state] = move
                for state in range(start[number] + 1, end[number] + 1):
                    score, move = scores[before, state], 0
                    if scores[before, state - 1] > score:
                        score, move = scores[before, state - 1], 1
                    passes = token[state] != 0 and token[state] != token[state - 2]
                    if passes and scores[before, state - 2] > score:
                        score, move = scores[before, state - 2], 2
                    score += log_probs[step, token[state]]
                    scores[row, state] = score
                    best = max(best, score)
                    if record:
                        moves[offset + state] = move
            word += 1
        new_high = word - 1
        cells += first[new_high + 1] - first[low]
        for state in range(first[low], first[high + 1]):
            scores[before, state] = -math.inf
        high = new_high
        limit = best - window
        while low < high and not _reaches(scores, row, first[low], first[low + 1], limit):
            low += 1
        while high > low and not _reaches(scores, row, first[high], first[high + 1], limit):
            high -= 1
    if record:
        begins[log_probs.shape[0]] = cells
    active[0], active[1], active[2] = row, low, high
    return cells


@kernel(allocates=False, inline=True)
def _reaches(scores: NDArray[np.float64], row: int, begin: int, end: int, limit: float) -> bool:
    """Whether a state of a word reaches the limit; if none does, all become -inf.

    Args:
        scores: (2, states) float64 nats.
        row: of `scores`.
        begin: the word's first state.
        end: the state after its last.
        limit: nats.
    """
    for state in range(begin, end):
        if scores[row, state] >= limit:
            return True
    for state in range(begin, end):
        scores[row, state] = -math.inf
    return False


@kernel(allocates=False)
def _trace_back(
    states: WordStates,
    moves: NDArray[np.uint8],
    begins: NDArray[np.int64],
    firsts: NDArray[np.int64],
    state: int,
    path: NDArray[np.int64],
) -> int:
    """Follow a path back through a block.

    Args:
        states: of the text.
        moves: of the block, see `_advance`.
        begins: (steps + 1,) likewise.
        firsts: (steps,) likewise.
        state: at the last step.
        path: (steps,) filled: the state of each step.

    Returns:
        The state at the step before the block.
    """
    first, pronunciation, end = states.first, states.pronunciation, states.end
    word = 0
    while first[word + 1] <= state:
        word += 1
    for step in range(path.shape[0] - 1, -1, -1):
        move = moves[begins[step] + state - firsts[step]]
        while move == _FROM_SKIP:  # within the step
            move = _GOES_ON
            while move == _GOES_ON:
                move = moves[begins[step] + first[word] + 2 - firsts[step]]
                word -= 1
            state = first[word]
            move = moves[begins[step] + state - firsts[step]]
        path[step] = state
        if move >= _FROM_WORD:
            word -= 1
            state = end[pronunciation[word] + move - _FROM_WORD]
        elif move == _FROM_STAR:
            state += 1
        elif move == _FROM_BLANK:
            state = first[word]
        else:
            state -= move
    return state
