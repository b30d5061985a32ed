"""Forced alignment of words: which steps say which word, in recordings of any length.

Memory does not grow with steps times states: scores are kept at every few hundredth step, and the moves of
the steps between are found again when the path is traced back, block by block from the end.
"""

import math
from typing import NamedTuple

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


class _Block(NamedTuple):
    """Some hundred steps of a recording.

    Attributes:
        log_probs: (steps, vocab + 1) float32 nats; the last column is the star's.
        scores: (2, states) float64 nats of the best path into each state, at this step and the one before;
            -inf for those that are pruned.
        moves: where the best path into each state comes from, step by step; empty: not wanted.
        begins: (steps + 1,) where each step's moves begin.
        firsts: (steps,) the first state that has a move at each step.
    """

    log_probs: NDArray[np.float32]
    scores: NDArray[np.float64]
    moves: NDArray[np.uint8]
    begins: NDArray[np.int64]
    firsts: NDArray[np.int64]


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
        kept: list[tuple[int, int, NDArray[np.float64]]] = []  # scores before each block
        cells = []
        self._start()
        for begin in range(0, steps, _BLOCK):
            kept.append(self._keep())
            cells.append(self._advance(self._block(begin, 0, 0)))
        state, score = self._best_end()
        path = np.zeros(steps, np.int64)
        if score == -math.inf:
            return path[:0], score
        for number in reversed(range(len(kept))):
            begin = number * _BLOCK
            size = min(_BLOCK, steps - begin)
            self._restore(*kept.pop())
            block = self._block(begin, size, cells[number])
            self._advance(block)
            state = _trace_back(block, self._states, state, path[begin : begin + size])
        return path, score

    def _block(self, begin: int, size: int, cells: int) -> _Block:
        """The block from a step on, with room for the moves of so many steps: none if they are not wanted."""
        return _Block(
            self._log_probs[begin : begin + _BLOCK],
            self._scores,
            np.empty(cells, np.uint8),
            np.zeros(size + 1, np.int64),
            np.zeros(size, np.int64),
        )

    def _start(self) -> None:
        """Scores before the first step: as if a blank preceded it, before any word."""
        reached = self._before <= self._window
        self._scores.fill(-math.inf)
        self._scores[0, self._states.first[:-1][reached]] = -self._before[reached]
        self._active[:] = 0, 0, int(np.flatnonzero(reached)[-1])

    def _advance(self, block: _Block) -> int:
        return int(_advance(block, self._states, self._window, self._active))

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
def _advance(block: _Block, states: WordStates, window: float, active: NDArray[np.int64]) -> int:
    """Take the steps of a block, among words whose states are at most `window` below the best of their step.

    Args:
        block: its scores and moves are changed.
        states: of the text.
        window: nats.
        active: (3,) the row of `scores` that holds the last step, and the first and last word with a state in
            it; changed.

    Returns:
        How many moves there are.
    """
    log_probs, scores, moves, begins, firsts = block
    first = states.first
    words = first.shape[0] - 2
    row, low, high = active[0], active[1], active[2]
    record = moves.shape[0] > 0
    cells = 0
    for step in range(log_probs.shape[0]):
        before, row = row, 1 - row
        if record:
            begins[step] = cells
            firsts[step] = first[low]
        offset = cells - first[low]
        best = -math.inf
        word = low
        while word <= words:
            skipped, skip_move = -math.inf, 0
            if word > low:
                skipped, skip_move = _leave_out(scores, row, states, word - 1)
            # Past the words that the step can reach, only leaving words out leads on.
            if word > high + 1 and not (skipped > -math.inf and skipped >= best - window):
                break
            scores[row, first[word] + 2] = skipped
            if record:
                moves[offset + first[word] + 2] = skip_move
            best = max(best, _take_blank_and_star(block, states, step, row, word, low, offset))
            best = max(best, _take_tokens(block, states, step, row, word, low, offset))
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
def _leave_out(scores: NDArray[np.float64], row: int, states: WordStates, word: int) -> tuple[float, int]:
    """The score of leaving out a word, and whether the one before it was left out, too, as a move.

    Within a step: before the blank of the word, or after another one that was left out.
    """
    at = states.first[word]
    score, move = scores[row, at] - states.skip_first, 0
    if scores[row, at + 2] > score:
        score, move = scores[row, at + 2], _GOES_ON
    return score - states.skip[word], move


@kernel(allocates=False, inline=True)
def _take_blank_and_star(
    block: _Block, states: WordStates, step: int, row: int, word: int, low: int, offset: int
) -> float:
    """Score the blank before a word, and the star there.

    Args:
        block: its scores and moves are changed; the score of leaving out the words before is there.
        states: of the text.
        step: index of the step.
        row: of the scores; the other one is the step before.
        word: of the text; the last one is its end.
        low: the first word that is not pruned.
        offset: in `moves`, where the step's move into state 0 would be.

    Returns:
        The better of the two scores.
    """
    scores, at, before = block.scores, states.first[word], 1 - row
    blank, move = scores[before, at], 0
    if scores[before, at + 1] > blank:
        blank, move = scores[before, at + 1], _FROM_STAR
    if word > low:
        blank, move = _after_word(scores, before, states, word - 1, BLANK, blank, move)
    blank += block.log_probs[step, BLANK]
    if scores[row, at + 2] > blank:
        blank, move = scores[row, at + 2], _FROM_SKIP
    scores[row, at] = blank
    star, star_move = scores[before, at + 1], 0
    if scores[before, at] - states.star_first > star:
        star, star_move = scores[before, at] - states.star_first, 1
    star += block.log_probs[step, block.log_probs.shape[1] - 1]
    scores[row, at + 1] = star
    if block.moves.shape[0] > 0:
        block.moves[offset + at] = move
        block.moves[offset + at + 1] = star_move
    best: float = max(blank, star)
    return best


@kernel(allocates=False, inline=True)
def _take_tokens(
    block: _Block, states: WordStates, step: int, row: int, word: int, low: int, offset: int
) -> float:
    """Score the states of a word's pronunciations; arguments and result as `_take_blank_and_star`."""
    log_probs, scores, moves, _, _ = block
    token, record = states.token, moves.shape[0] > 0
    before, at = 1 - row, states.first[word]
    best = -math.inf
    for number in range(states.pronunciation[word], states.pronunciation[word + 1]):
        start = states.start[number]
        score, move = scores[before, start], 0
        if scores[before, at] > score:
            score, move = scores[before, at], _FROM_BLANK
        if word > low:
            score, move = _after_word(scores, before, states, word - 1, token[start], score, move)
        score += log_probs[step, token[start]]
        scores[row, start] = score
        best = max(best, score)
        if record:
            moves[offset + start] = move
        for state in range(start + 1, states.end[number] + 1):
            score, move = scores[before, state], 0
            if scores[before, state - 1] > score:
                score, move = scores[before, state - 1], 1
            passes = token[state] != BLANK and token[state] != token[state - 2]
            if passes and scores[before, state - 2] > score:
                score, move = scores[before, state - 2], 2
            score += log_probs[step, token[state]]
            scores[row, state] = score
            best = max(best, score)
            if record:
                moves[offset + state] = move
    return best


@kernel(allocates=False, inline=True)
def _after_word(
    scores: NDArray[np.float64],
    before: int,
    states: WordStates,
    word: int,
    token: int,
    score: float,
    move: int,
) -> tuple[float, int]:
    """The best score and move into a state with this token, if the end of a word may lead there, too."""
    first = states.pronunciation[word]
    for number in range(first, states.pronunciation[word + 1]):
        last = states.end[number]
        if scores[before, last] > score and states.token[last] != token:  # else a blank is between
            score, move = scores[before, last], _FROM_WORD + number - first
    return score, move


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
def _trace_back(block: _Block, states: WordStates, state: int, path: NDArray[np.int64]) -> int:
    """Follow a path back through a block.

    Args:
        block: with its moves.
        states: of the text.
        state: at the last step.
        path: (steps,) filled: the state of each step.

    Returns:
        The state at the step before the block.
    """
    first, pronunciation, end = states.first, states.pronunciation, states.end
    moves, begins, firsts = block.moves, block.begins, block.firsts
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
