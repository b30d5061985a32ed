"""Long recordings cut into segments that a model can take: at pauses, else into windows that overlap.

What holds no speech is left out. Only the segment that is being cut is in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.errors import check_number
from asr.frontend.voice_activity import FRAME_S, VadName, VoiceActivity

__all__ = ["SegmentationConfig", "Segmenter", "SpeechSegment"]

_LEAST_SEGMENT_S = 5.0

# Speech begins at the first probability and ends under the second.
SPEECH, NO_SPEECH = 0.5, 0.35
_LEAST_SPEECH_S = 0.1  # what is shorter is a click
_LEAST_PAUSE_S = 0.25  # what is shorter may be inside a word
_LONG_PAUSE_S = 2.0  # is left out, and the segment ends there
PAD_S = 0.3  # kept before and after speech
_OVERLAP_S = 4.0  # of windows, where there is no pause
_QUIET_S = 0.1  # the quietest stretch of this length is the middle of the overlap


@dataclass(frozen=True)
class SegmentationConfig:
    """How recordings that are longer than a segment are cut."""

    # longer recordings are cut into segments of at most so many seconds, at pauses where there are some
    max_segment_s: float = 30.0
    # what finds speech in recordings that are cut: silero, energy, or none (all is speech);
    # auto: silero where it is installed
    vad: VadName = "auto"

    def __post_init__(self) -> None:
        check_number("--max-segment-s", self.max_segment_s, least=_LEAST_SEGMENT_S, unit="seconds")


@dataclass(frozen=True)
class SpeechSegment:
    """A part of a recording that holds speech, cut out of it.

    Attributes:
        start_s: of its first sample, seconds from the start of the recording.
        waveform: (samples,) float32.
        overlap_s: seconds at its end that the next segment begins with.
    """

    start_s: float
    waveform: Tensor
    overlap_s: float = 0.0


class Segmenter:
    """Cuts one recording, which comes in blocks.

    Args:
        config: the settings.
        vad: a new detector.
        sample_rate: Hz.
    """

    def __init__(self, config: SegmentationConfig, vad: VoiceActivity, sample_rate: int) -> None:
        self._longest = int(config.max_segment_s / FRAME_S)  # frames, as all below
        self._vad = vad
        self._rate = sample_rate
        self._samples = torch.zeros(0)
        self._speech = np.zeros(0, np.float32)  # probabilities
        self._first = 0  # the frame of the recording that `_samples` and `_speech` begin with

    def accept(self, block: Tensor) -> Iterator[SpeechSegment]:
        """Take the next samples, (samples,), and return the segments that can be cut now."""
        self._samples = torch.cat([self._samples, block])
        self._speech = np.concatenate([self._speech, self._vad.accept(block).numpy()])
        return self._cut(final=False)

    def finish(self) -> Iterator[SpeechSegment]:
        """The last segments."""
        self._speech = np.concatenate([self._speech, self._vad.finish().numpy()])
        return self._cut(final=True)

    def _cut(self, final: bool) -> Iterator[SpeechSegment]:
        while (segment := self._next(final)) is not None:
            yield segment

    def _next(self, final: bool) -> SpeechSegment | None:
        """The next segment; None where none begins, or where more has to be known first."""
        frames = len(self._speech)
        regions = speech_regions(self._speech)
        pad = _frames(PAD_S)
        if not regions:
            self._drop(frames if final else max(0, frames - _frames(_LEAST_PAUSE_S) - pad))
            return None
        begin = max(0, regions[0][0] - pad)
        last = 0  # the last region of the segment
        while last + 1 < len(regions):
            if regions[last + 1][1] + pad - begin > self._longest:
                break
            if regions[last + 1][0] - regions[last][1] > _frames(_LONG_PAUSE_S):
                return self._segment(begin, regions[last][1] + pad, regions[last][1] + pad)
            last += 1
        full = last + 1 < len(regions) or regions[last][1] + pad - begin > self._longest
        if not full:
            if not final and frames - regions[last][1] <= _frames(_LONG_PAUSE_S):
                return None
            return self._segment(begin, regions[last][1] + pad, regions[last][1] + pad)
        if regions[last][1] + pad - begin > self._longest:
            return self._window(begin)
        # The longest pause of the second half, else the last one.
        pauses = [(regions[n][1], regions[n + 1][0]) for n in range(last + 1)]
        late = [pause for pause in pauses if pause[0] - begin >= self._longest // 2] or pauses[-1:]
        end, following = max(late, key=lambda pause: pause[1] - pause[0])
        room = (following - end) // 2
        return self._segment(begin, end + min(pad, room), end + room)

    def _segment(self, begin: int, end: int, following: int) -> SpeechSegment:
        """Frames begin to end as a segment; the next one begins at `following` or later."""
        segment = SpeechSegment(self._seconds(begin), self._part(begin, end))
        self._drop(following)
        return segment

    def _window(self, begin: int) -> SpeechSegment:
        """A segment that ends in the middle of speech, and that the next one overlaps."""
        end = begin + self._longest
        half = min(_frames(_OVERLAP_S) // 2, self._longest // 8)
        search = begin + self._longest // 2, end - half
        middle = search[0] + self._quietest(self._part(*search))
        waveform = self._part(begin, middle + half)
        segment = SpeechSegment(self._seconds(begin), waveform, 2 * half * FRAME_S)
        self._drop(middle - half)
        return segment

    def _quietest(self, samples: Tensor) -> int:
        """The frame in the middle of the quietest stretch."""
        size = round(FRAME_S * self._rate)
        powers = samples[: len(samples) // size * size].view(-1, size).diff(dim=1).square().mean(1)
        width = _frames(_QUIET_S)
        return int(powers.unfold(0, width, 1).mean(1).argmin()) + width // 2

    def _seconds(self, frame: int) -> float:
        return self._sample(frame) / self._rate

    def _sample(self, frame: int) -> int:
        return round((self._first + frame) * FRAME_S * self._rate)

    def _part(self, begin: int, end: int) -> Tensor:
        origin = self._sample(0)
        # A copy: a view would keep all samples in memory.
        return self._samples[self._sample(begin) - origin : self._sample(end) - origin].clone()

    def _drop(self, frames: int) -> None:
        """Forget the first frames."""
        frames = min(frames, len(self._speech))
        self._samples = self._samples[self._sample(frames) - self._sample(0) :].clone()
        self._speech = self._speech[frames:].copy()
        self._first += frames


def speech_regions(speech: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Where there is speech.

    Args:
        speech: (frames,) probabilities.

    Returns:
        First frame and end of each region, in order; pauses and regions that are too short are none.
    """
    regions: list[tuple[int, int]] = []
    begin = None
    for frame, prob in enumerate([*speech.tolist(), 0.0]):
        if begin is None and prob >= SPEECH:
            begin = frame
        elif begin is not None and prob < NO_SPEECH:
            regions.append((begin, frame))
            begin = None
    merged: list[tuple[int, int]] = []
    for region in regions:
        if merged and region[0] - merged[-1][1] < _frames(_LEAST_PAUSE_S):
            merged[-1] = merged[-1][0], region[1]
        else:
            merged.append(region)
    return [region for region in merged if region[1] - region[0] >= _frames(_LEAST_SPEECH_S)]


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_S)
