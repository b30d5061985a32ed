"""An aligned recording -> training utterances: cut at pauses, without what does not match."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.errors import SettingsError, check_number
from asr.recognition.text_alignment import AlignedText
from asr.text.scripts import join_words

__all__ = ["Cuts", "CuttingConfig", "LeftOutStretch", "Loudness", "cut_utterances"]

_FRAME_S = 0.01
_QUIET_S = 0.1  # the quiet that a cut needs
_QUIET_DB = 12.0  # which is so far below the speech around it
_AROUND_S = 1.0  # before and after a pause, where the level of that speech is measured
_PAD_S = 0.4  # of a longer pause, what an utterance keeps at each end
_UTTERANCE_COST_S = 1.0  # so many seconds are rather left out than cut off as an utterance of their own
_DOUBTFUL_WORDS = 3  # in a row, of low confidence; fewer may be said carelessly
_ISLAND_WORDS = 3  # at least, between two stretches that do not match: fewer are found anywhere


@dataclass(frozen=True)
class CuttingConfig:
    """How long utterances are, and where they may be cut."""

    min_s: float = 1.0  # seconds of the shortest utterance
    max_s: float = 20.0  # of the longest
    pause_s: float = 0.2  # that separates two utterances, at least

    def __post_init__(self) -> None:
        if not 0 < self.min_s < self.max_s:
            raise SettingsError(
                f"--min-s {self.min_s:g} --max-s {self.max_s:g}. Expected seconds above 0, the first fewer "
                f"than the second."
            )
        check_number("--pause-s", self.pause_s, least=_QUIET_S, unit="seconds")


@dataclass(frozen=True)
class Cut:
    """An utterance.

    Attributes:
        start_s: in the recording.
        end_s: likewise.
        text: its words, as the text writes them.
        confidence: mean of its words.
    """

    start_s: float
    end_s: float
    text: str
    confidence: float


@dataclass(frozen=True)
class LeftOutStretch:
    """A stretch that is in no utterance, and why."""

    start_s: float
    end_s: float
    text: str
    reason: str


@dataclass(frozen=True)
class Cuts:
    """What a recording is cut into; every word of its text is in one of the two."""

    utterances: tuple[Cut, ...]
    left_out: tuple[LeftOutStretch, ...]


class Loudness:
    """How loud each 10 ms of a recording is.

    Args:
        blocks: each (samples,), consecutive.
        sample_rate: Hz.
    """

    def __init__(self, blocks: Iterable[Tensor], sample_rate: int) -> None:
        size = round(_FRAME_S * sample_rate)
        rest = np.zeros(0, np.float32)
        powers: list[NDArray[np.float32]] = []
        for block in blocks:
            rest = np.concatenate([rest, block.numpy()])
            frames = rest[: len(rest) // size * size].reshape(-1, size)
            rest = rest[frames.size :]
            # differences: a constant offset and hum are no sound here
            powers.append(np.square(np.diff(frames, axis=1)).mean(1))
        self._powers = np.concatenate(powers) if powers else np.zeros(0, np.float32)

    def quietest(self, start_s: float, end_s: float) -> tuple[float, bool]:
        """The middle of the quietest stretch of 0.1 s, and whether it is quiet beside what is around it.

        Args:
            start_s: of the pause; one that is too short has no quiet stretch.
            end_s: likewise.
        """
        width = round(_QUIET_S / _FRAME_S)
        first = max(0, round(start_s / _FRAME_S))
        inside = self._powers[first : max(first, round(end_s / _FRAME_S))]
        if len(inside) < width:
            return (start_s + end_s) / 2, False
        means = np.convolve(inside, np.full(width, 1 / width), "valid")
        around = round(_AROUND_S / _FRAME_S)
        speech = np.percentile(self._powers[max(0, first - around) : first + len(inside) + around], 80)
        best = int(means.argmin())
        quiet = bool(means[best] <= speech * 10 ** (-_QUIET_DB / 10))
        return (first + best + width / 2) * _FRAME_S, quiet


def cut_utterances(text: AlignedText, loudness: Loudness, config: CuttingConfig) -> Cuts:
    """Cut an aligned recording at pauses, so that as little as possible is left out.

    Args:
        text: aligned with the recording.
        loudness: of the recording.
        config: the settings.
    """
    utterances: list[Cut] = []
    left_out: list[LeftOutStretch] = []
    for first, end, matches in _runs(text):
        if not matches:
            left_out.append(_left_out(text, first, end, "does not match"))
            continue
        begin = first
        for left, right, start_s, end_s in _best_cuts(text, loudness, config, first, end):
            if left > begin:
                left_out.append(_left_out(text, begin, left, "no pause at the right distance"))
            words = text.words[left:right]
            confidence = sum(word.confidence for word in words) / len(words)
            utterances.append(Cut(start_s, end_s, join_words(word.text for word in words), confidence))
            begin = right
        if begin < end:
            left_out.append(_left_out(text, begin, end, "no pause at the right distance"))
    for one in text.mismatches:
        if one.words == 0:
            left_out.append(LeftOutStretch(one.start_s, one.end_s, "", "speech that is not in the text"))
    return Cuts(tuple(utterances), tuple(sorted(left_out, key=lambda one: one.start_s)))


def _left_out(text: AlignedText, first: int, end: int, reason: str) -> LeftOutStretch:
    words = text.words[first:end]
    return LeftOutStretch(words[0].start_s, words[-1].end_s, join_words(word.text for word in words), reason)


def _runs(text: AlignedText) -> list[tuple[int, int, bool]]:
    """First word and end of each run of words that match, or do not; speech without text ends a run."""
    wrong = [not aligned for aligned in text.aligned]
    breaks = set()
    for first, end in _islands(wrong):
        wrong[first:end] = [True] * (end - first)
    for one in text.mismatches:
        if one.words >= _DOUBTFUL_WORDS:
            wrong[one.first : one.first + one.words] = [True] * one.words
        if one.words == 0:
            breaks.add(one.first)
    runs: list[tuple[int, int, bool]] = []
    for number, bad in enumerate(wrong):
        if runs and runs[-1][2] is not bad and number not in breaks:
            runs[-1] = runs[-1][0], number + 1, not bad
        else:
            runs.append((number, number + 1, not bad))
    return runs


def _islands(wrong: Sequence[bool]) -> list[tuple[int, int]]:
    """First word and end of each short run of words that match, between others that do not."""
    found = []
    last = -1  # the last word that does not match
    for number, bad in enumerate(wrong):
        if bad:
            if last >= 0 and 0 < number - last - 1 < _ISLAND_WORDS:
                found.append((last + 1, number))
            last = number
    return found


@dataclass(frozen=True)
class _Pause:
    """Where utterances may be cut: before the word of this number."""

    word: int
    at_s: float
    length_s: float


def _pauses(
    text: AlignedText, loudness: Loudness, config: CuttingConfig, first: int, end: int
) -> list[_Pause]:
    """The pauses among the words of a run, and before and after it."""
    words = text.words
    found = []
    for number in range(first, end + 1):
        before_s = words[number - 1].end_s if number > 0 else 0.0
        after_s = words[number].start_s if number < len(words) else text.duration_s
        # Next to what does not match the time of the neighbour is unknown.
        if number == first:
            before_s = max(0.0, after_s - 2 * _PAD_S)
        elif number == end:
            after_s = min(text.duration_s, before_s + 2 * _PAD_S)
        at_s, quiet = loudness.quietest(before_s, after_s)
        if quiet and after_s - before_s >= config.pause_s:
            found.append(_Pause(number, at_s, after_s - before_s))
        elif number in (0, len(words)):  # the recording's own ends
            found.append(_Pause(number, before_s if number == 0 else after_s, after_s - before_s))
    return found


def _best_cuts(
    text: AlignedText, loudness: Loudness, config: CuttingConfig, first: int, end: int
) -> list[tuple[int, int, float, float]]:
    """First word, end and times of each utterance of a run: the cuts that lose the least.

    They are found by dynamic programming.
    """
    pauses = _pauses(text, loudness, config, first, end)
    words = text.words
    costs = [0.0] * len(pauses)  # of the best cuts up to each pause, seconds
    # The pause before each one on the way of these cuts, and the times of the utterance between the two; None
    # where what is between them is left out.
    best_from: list[tuple[int, tuple[float, float] | None]] = [(0, None)] * len(pauses)
    for number, pause in enumerate(pauses):
        if number == 0:
            continue
        costs[number] = costs[number - 1] + pause.at_s - pauses[number - 1].at_s
        best_from[number] = number - 1, None
        for other in reversed(range(number)):
            start_s = max(pauses[other].at_s, words[pauses[other].word].start_s - _PAD_S)
            end_s = min(pause.at_s, words[pause.word - 1].end_s + _PAD_S)
            if end_s - start_s > config.max_s:
                break
            cost = costs[other] + _UTTERANCE_COST_S - 0.5 * min(pause.length_s, 1.0)
            if end_s - start_s >= config.min_s and cost < costs[number]:
                costs[number], best_from[number] = cost, (other, (start_s, end_s))
    found = []
    number = len(pauses) - 1
    while number > 0:
        other, times = best_from[number]
        if times is not None:
            found.append((pauses[other].word, pauses[number].word, *times))
        number = other
    return found[::-1]
