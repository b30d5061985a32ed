"""Joining: hypotheses of a recording's consecutive parts -> one hypothesis, overlaps stitched by words."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from asr.decoding.hypothesis import Hypothesis, Word
from asr.text.scripts import join_words

__all__ = ["Joined"]

_SAME_WORD_S = 0.25  # words of two windows are the same where their times differ by less


class Joined:
    """What was found in the parts of a recording so far; a part costs the same after hours.

    Args:
        step_s: seconds an encoder step.
    """

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._ranks: list[_Rank] = []  # best first
        # Of the last part with the next: start and end, seconds.
        self._overlap: tuple[float, float] | None = None
        self._returned = 0  # words

    def add(
        self, found: Sequence[Hypothesis], start_s: float, duration_s: float, overlap_s: float
    ) -> tuple[Word, ...]:
        """Append the hypotheses of the next part.

        Args:
            found: at least one, best first, with times from the beginning of the part.
            start_s: where the part begins in the recording.
            duration_s: its length.
            overlap_s: seconds at its end that the next part begins with, too.

        Returns:
            The next words of the best hypothesis that will not change any more.
        """
        while len(self._ranks) < len(found):
            self._ranks.append(self._ranks[-1].copy() if self._ranks else _Rank())
        for index, rank in enumerate(self._ranks):
            hypothesis = _shifted(found[min(index, len(found) - 1)], start_s, self._step_s)
            rank.add(hypothesis, self._overlap, self._step_s)
        end_s = start_s + duration_s
        self._overlap = (end_s - overlap_s, end_s) if overlap_s else None
        words = self._ranks[0].words
        end = len(words)
        if self._overlap is not None:
            while end > self._returned and words[end - 1].end_s > self._overlap[0]:
                end -= 1
        settled, self._returned = tuple(words[self._returned : end]), end
        return settled

    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """The whole recording's: the first texts of all parts, then the second ones, and so on."""
        return tuple(rank.hypothesis() for rank in self._ranks)


@dataclass
class _Rank:
    """The joined hypotheses of one rank."""

    words: list[Word] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    scores: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def copy(self) -> "_Rank":
        return _Rank(list(self.words), list(self.tokens), list(self.steps), self.scores)

    def add(self, found: Hypothesis, overlap: tuple[float, float] | None, step_s: float) -> None:
        """Append a hypothesis with times of the recording; in an overlap, each has a part of the words."""
        first_word, first_token = 0, 0
        if overlap is not None:
            kept, first_word, end_s = _stitch(self.words, found.words, overlap)
            del self.words[kept:]
            while self.steps and self.steps[-1] * step_s >= end_s:
                del self.steps[-1], self.tokens[-1]
            first_token = sum(step * step_s < end_s for step in found.steps)
        self.words += found.words[first_word:]
        self.tokens += found.tokens[first_token:]
        self.steps += found.steps[first_token:]
        scores = (
            found.score, found.acoustic_score, found.lm_log_prob, found.rescore_lm_log_prob,
            found.attention_score
        )  # fmt: skip
        self.scores = tuple(map(sum, zip(self.scores, scores, strict=True)))  # type: ignore[assignment]

    def hypothesis(self) -> Hypothesis:
        text = join_words(word.text for word in self.words)
        return Hypothesis(text, tuple(self.words), tuple(self.tokens), tuple(self.steps), *self.scores)


def _shifted(hypothesis: Hypothesis, seconds: float, step_s: float) -> Hypothesis:
    """The same hypothesis `seconds` later: from times in its part to times in the recording."""
    steps = round(seconds / step_s)
    words = tuple(word.shifted(seconds) for word in hypothesis.words)
    return replace(hypothesis, words=words, steps=tuple(step + steps for step in hypothesis.steps))


def _stitch(
    words: Sequence[Word], following: Sequence[Word], overlap: tuple[float, float]
) -> tuple[int, int, float]:
    """Where to go over from one window's words to those of the next; both have the words of the overlap.

    At the word nearest to the middle that both have, so that none is lost or doubled; else at the middle.

    Returns:
        How many words of the first are kept, how many of the next are left out, and the time between them.
    """
    middle = sum(overlap) / 2
    first = len(words)
    while first and words[first - 1].end_s > overlap[0]:
        first -= 1
    common: list[tuple[float, int, int]] = []
    for j, word in enumerate(following):
        if word.start_s > overlap[1]:
            break
        for i in range(first, len(words)):
            if words[i].text == word.text and abs(_middle(words[i]) - _middle(word)) < _SAME_WORD_S:
                common.append((abs(_middle(word) - middle), i, j))
    if common:
        _, i, j = min(common)
        return i + 1, j + 1, words[i].end_s
    while first < len(words) and _middle(words[first]) < middle:
        first += 1
    return first, sum(_middle(word) < middle for word in following), middle


def _middle(word: Word) -> float:
    return (word.start_s + word.end_s) / 2
