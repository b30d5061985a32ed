"""A model run over a stream: blocks of audio in, results that settle out, utterance by utterance."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.hypothesis import Word
from asr.decoding.interface import Decoder, DecoderStream, Partial
from asr.frontend.audio import StreamResampler, check_rate, check_samples
from asr.frontend.endpointing import EndpointConfig, Endpointer, UtterancePart
from asr.frontend.voice_activity import VadName, find_vad, open_vad
from asr.model.acoustic import AcousticModel
from asr.model.acoustic_stream import AcousticStream
from asr.recognition.long_audio import are_doubtful
from asr.text.scripts import join_words

__all__ = ["RecognitionStream", "StreamConfig", "StreamResult", "warm_up"]


@dataclass(frozen=True)
class StreamConfig:
    """How a stream is recognised."""

    # of a bidirectional model: seconds that it is run on at a time; a text is late by up to chunk and right
    # context together
    chunk_s: float = 0.3
    right_context_s: float = 0.6  # of a bidirectional model: seconds after a chunk that it reads for it
    endpoint: Annotated[EndpointConfig, tyro.conf.arg(name="")] = field(default_factory=EndpointConfig)


@dataclass(frozen=True)
class StreamResult:
    """What is known of an utterance.

    Attributes:
        text: the words, joined by single spaces.
        stable: those that will not change any more; the text begins with them.
        start_s: of the utterance, seconds from the start of the stream.
        end_s: up to which the stream is recognised.
        final: whether the utterance has ended; `stable` is then all of the text.
        words: with their times in the stream and confidences, of a final result.
    """

    text: str
    stable: str
    start_s: float
    end_s: float
    final: bool = False
    words: tuple[Word, ...] = ()


class RecognitionStream:
    """One stream; `Model.stream` makes one. What a block costs, and memory, do not grow over hours.

    Args:
        model: on its device.
        decoder: what decodes.
        config: the settings.
        sample_rate: of the stream, Hz.

    Raises:
        SettingsError: a setting is impossible, or the detector of speech is not installed.
    """

    def __init__(
        self, model: AcousticModel, decoder: Decoder, config: StreamConfig, sample_rate: int
    ) -> None:
        check_rate(sample_rate)
        rate = model.settings.features.sample_rate
        self._resampler = StreamResampler(sample_rate, rate)
        self._vad: VadName = find_vad(config.endpoint.vad)
        self._endpointer = Endpointer(config.endpoint, open_vad(self._vad, rate), rate)
        self._acoustic = AcousticStream(model.eval(), config.chunk_s, config.right_context_s)
        self._decoder, self._step_s = decoder, model.step_s
        self._utterance: _Utterance | None = None

    def accept(self, samples: NDArray[Any] | Tensor) -> list[StreamResult]:
        """Take the next samples, (samples,) floating-point numbers in [-1, 1].

        Returns:
            What has changed, in order: final results, and the partial one of an utterance that goes on.

        Raises:
            AudioError: they are not floating-point numbers, not mono, or not finite.
        """
        waveform = self._resampler.accept(check_samples(samples, "the stream's next block"))
        return self._recognise(list(self._endpointer.accept(waveform)))

    def finish(self) -> list[StreamResult]:
        """The stream ends: the final result of an utterance that goes on, if there is one."""
        parts = [*self._endpointer.accept(self._resampler.finish()), *self._endpointer.finish()]
        return self._recognise(parts)

    def _recognise(self, parts: Sequence[UtterancePart]) -> list[StreamResult]:
        results = []
        for part in parts:
            if self._utterance is None:
                self._utterance = _Utterance(self._decoder.stream(self._step_s), part.start_s, self._step_s)
            result = self._utterance.accept(self._acoustic.accept(part.waveform))
            if part.ends:
                result = self._utterance.finish(self._acoustic.finish())
                self._utterance = None
            if result is not None:
                results.append(result)
        return results


class _Utterance:
    """One utterance of a stream.

    Args:
        decoder: for it alone.
        start_s: in the stream.
        step_s: seconds an encoder step.
    """

    def __init__(self, decoder: DecoderStream, start_s: float, step_s: float) -> None:
        self._decoder, self._start_s, self._step_s = decoder, start_s, step_s
        self._steps = 0
        self._last = Partial("", "")

    def accept(self, log_probs: Tensor) -> StreamResult | None:
        """Take the next steps, (steps, vocab); the result, if it has changed."""
        if len(log_probs) == 0:
            return None
        partial = self._decoder.accept(log_probs)
        self._steps += len(log_probs)
        if partial == self._last:
            return None
        self._last = partial
        return StreamResult(partial.text, partial.stable, self._start_s, self._end_s)

    def finish(self, log_probs: Tensor) -> StreamResult | None:
        """Take the last steps; the final result, or None if the utterance has no text and never had any."""
        self.accept(log_probs)
        words = tuple(word.shifted(self._start_s) for word in self._decoder.finish()[0].words)
        if are_doubtful(words, self._end_s - self._start_s):
            words = ()
        if not words and self._last == Partial("", ""):
            return None
        text = join_words(word.text for word in words)
        return StreamResult(text, text, self._start_s, self._end_s, True, words)

    @property
    def _end_s(self) -> float:
        return self._start_s + self._steps * self._step_s


def warm_up(model: AcousticModel, decoder: Decoder) -> None:
    """Compile and load what the first block would wait for."""
    rate = model.settings.features.sample_rate
    log_probs, step_lengths, encoded = model.outputs([torch.zeros(rate)])
    decoder.decode(log_probs, step_lengths, model.step_s, encoded)
