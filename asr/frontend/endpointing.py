"""End-pointing: the utterances of a stream, from the first speech to a pause."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from asr.errors import check_number
from asr.frontend.segmentation import NO_SPEECH, PAD_S, SPEECH
from asr.frontend.voice_activity import FRAME_S, VadName, VoiceActivity

__all__ = ["EndpointConfig", "Endpointer", "UtterancePart"]

_SHORT_PAUSE_S = 0.1  # ends an utterance that is too long already
_AT_MOST = 1.5  # times the longest utterance: then it is cut in the middle of speech


@dataclass(frozen=True)
class EndpointConfig:
    """When an utterance of a stream ends."""

    endpoint_s: float = 0.8  # seconds of silence that end an utterance
    max_utterance_s: float = 30.0  # after so many seconds the next short pause ends it, however short
    # what finds speech: silero, energy, or none (all is speech); auto: silero where it is installed
    vad: VadName = "auto"

    def __post_init__(self) -> None:
        check_number("--endpoint-s", self.endpoint_s, least=_SHORT_PAUSE_S, unit="seconds")
        check_number("--max-utterance-s", self.max_utterance_s, least=1, unit="second")


@dataclass(frozen=True)
class UtterancePart:
    """The next samples of an utterance.

    Attributes:
        start_s: of the utterance, seconds from the start of the stream.
        waveform: (samples,) float32.
        ends: whether the utterance ends with them.
    """

    start_s: float
    waveform: Tensor
    ends: bool


class Endpointer:
    """Finds the utterances of one stream, which comes in blocks; their size changes nothing here.

    An utterance begins shortly before the first frame that is speech. What is between utterances is left
    out. Samples are kept only until it is known whether they are speech.

    Args:
        config: the settings.
        vad: a new detector.
        sample_rate: Hz.
    """

    def __init__(self, config: EndpointConfig, vad: VoiceActivity, sample_rate: int) -> None:
        self._vad, self._rate = vad, sample_rate
        self._endpoint, self._longest = (
            round(seconds / FRAME_S) for seconds in (config.endpoint_s, config.max_utterance_s)
        )
        self._samples = torch.zeros(0)  # from sample `_first` of the stream on
        self._first = 0
        self._frame = 0  # of the stream, the next one that the detector decides
        self._begin: int | None = None  # frame that the utterance begins with
        self._pause = 0  # frames without speech at its end

    def accept(self, waveform: Tensor) -> Iterator[UtterancePart]:
        """Take the next samples, (samples,), and return what is known to belong to utterances."""
        self._samples = torch.cat([self._samples, waveform])
        yield from self._decide(self._vad.accept(waveform))

    def finish(self) -> Iterator[UtterancePart]:
        """The last samples; an utterance that is still going on ends with them."""
        yield from self._decide(self._vad.finish())
        if self._begin is not None:
            yield self._part(self._first + len(self._samples), ends=True)

    def _decide(self, probs: Tensor) -> Iterator[UtterancePart]:
        for prob in probs.tolist():
            if self._begin is None and prob >= SPEECH:
                self._begin = max(self._frame - round(PAD_S / FRAME_S), self._first_frame())
                self._drop(self._sample(self._begin))
            self._frame += 1
            if self._begin is not None:
                self._pause = self._pause + 1 if prob < NO_SPEECH else 0
                if self._ends(self._frame - self._begin):
                    yield self._part(self._sample(self._frame), ends=True)
                    self._begin, self._pause = None, 0
        if self._begin is not None:
            yield self._part(self._sample(self._frame), ends=False)
        else:
            self._drop(self._sample(self._frame - round(PAD_S / FRAME_S)))

    def _ends(self, frames: int) -> bool:
        """Whether the utterance ends here; frames: its length."""
        if self._pause >= self._endpoint or frames >= _AT_MOST * self._longest:
            return True
        return frames >= self._longest and self._pause >= round(_SHORT_PAUSE_S / FRAME_S)

    def _part(self, end: int, *, ends: bool) -> UtterancePart:
        start_s = self._sample(self._begin or 0) / self._rate
        part = UtterancePart(start_s, self._samples[: max(0, end - self._first)].clone(), ends)
        self._drop(end)
        return part

    def _first_frame(self) -> int:
        """The first frame whose samples are all kept."""
        frame = round(self._first / (FRAME_S * self._rate))
        return frame if self._sample(frame) >= self._first else frame + 1

    def _sample(self, frame: int) -> int:
        return round(frame * FRAME_S * self._rate)

    def _drop(self, end: int) -> None:
        """Forget the samples of the stream before this one."""
        if end > self._first:
            self._samples = self._samples[end - self._first :].clone()
            self._first = end
