"""`Model.transcribe`: audio in, transcripts out, for use from Python.

>>> import asr
>>> model = asr.load("english")
>>> model.transcribe("recording.wav").text
'this dressing should stand in the ice box'
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.decoder import DescribedDecoder
from asr.decoding.hypothesis import Hypothesis, Word
from asr.errors import AudioError, SettingsError
from asr.frontend.audio import to_waveform
from asr.frontend.segmentation import SegmentationConfig
from asr.model.acoustic import AcousticModel
from asr.recognition.long_audio import recognise_recordings
from asr.recognition.long_emissions import recording_emissions
from asr.recognition.recognise import Recognised, Segment
from asr.recognition.streaming import RecognitionStream, StreamConfig

__all__ = ["Audio", "Model", "Transcript"]

Audio = str | os.PathLike[str] | NDArray[Any] | Tensor
"""A recording: the path of a file, or a mono waveform (samples,) of floating-point numbers in [-1, 1]."""


@dataclass(frozen=True)
class Transcript:
    """The text of a recording.

    Attributes:
        text: the words, joined by single spaces.
        words: the same words with `text`, `start_s`, `end_s` (seconds) and `confidence` (0 to 1).
        duration_s: length of the recording, seconds.
        hypotheses: the texts that the decoder found, best first: at most as many as were asked for.
    """

    text: str
    words: tuple[Word, ...]
    duration_s: float
    hypotheses: tuple[Hypothesis, ...]


class Model:
    """An acoustic model with its decoder, ready to transcribe; see `asr.load`.

    Attributes:
        acoustic: the network, on its device, with its settings.
        decoder: what turns the network's output into text.
    """

    def __init__(self, acoustic: AcousticModel, decoder: DescribedDecoder) -> None:
        self.acoustic = acoustic
        self.decoder = decoder

    def __repr__(self) -> str:
        return f"<asr.Model on {self.acoustic.device}, decoder: {self.decoder.name}>"

    @property
    def sample_rate(self) -> int:
        """Rate at which the model works, Hz; other audio is resampled to it."""
        return self.acoustic.settings.features.sample_rate

    @overload
    def transcribe(  # type: ignore[overload-overlap]  # a str is a Sequence too, and is taken for a path
        self,
        audio: Audio,
        *,
        sample_rate: int | None = None,
        batch_s: float = 120.0,
        segmentation: SegmentationConfig | None = None,
    ) -> Transcript: ...

    @overload
    def transcribe(
        self,
        audio: Sequence[Audio],
        *,
        sample_rate: int | None = None,
        batch_s: float = 120.0,
        segmentation: SegmentationConfig | None = None,
    ) -> list[Transcript]: ...

    def transcribe(
        self,
        audio: Audio | Sequence[Audio],
        *,
        sample_rate: int | None = None,
        batch_s: float = 120.0,
        segmentation: SegmentationConfig | None = None,
    ) -> Transcript | list[Transcript]:
        """Transcribe a recording, or a list of recordings in batches.

            >>> model.transcribe(["a.wav", "b.flac"])[1].words[0].start_s
            0.42
            >>> model.transcribe(samples, sample_rate=48_000).text
            'good morning'

        Args:
            audio: the path of a file (wav, flac, ogg, opus, mp3, …), a mono waveform (samples,) of
                floating-point numbers in [-1, 1] as numpy array or tensor, or a list of these.
            sample_rate: Hz, of waveforms; needed where there is one. A file names its own.
            batch_s: seconds of audio in a batch, padding included; bounds the memory that is needed.
            segmentation: how recordings are cut that are longer than 30 s; None as `asr transcribe` does.

        Returns:
            A transcript; for a list a list of them, in the same order.

        Raises:
            AudioError: a recording cannot be read, is too short, or a waveform is no mono waveform.
            SettingsError: a waveform comes without sample_rate, or batch_s is not above 0 or does not fit
                into the device's memory.
        """
        segments, one = self._segments(audio, sample_rate)
        results = recognise_recordings(
            self.acoustic, segments, batch_s, self.decoder, segmentation or SegmentationConfig()
        )
        transcripts = [_transcript(result) for result in results]
        return transcripts[0] if one else transcripts

    @property
    def tokens(self) -> tuple[str, ...]:
        """(vocab,) what each column of `log_probs` stands for: "" for the CTC blank, then the symbols."""
        return ("", *self.acoustic.settings.tokenizer.symbols)

    @property
    def step_s(self) -> float:
        """Seconds from one row of `log_probs` to the next."""
        return self.acoustic.step_s

    @overload
    def log_probs(  # type: ignore[overload-overlap]  # as `transcribe`
        self, audio: Audio, *, sample_rate: int | None = None, batch_s: float = 120.0
    ) -> NDArray[np.float32]: ...

    @overload
    def log_probs(
        self, audio: Sequence[Audio], *, sample_rate: int | None = None, batch_s: float = 120.0
    ) -> list[NDArray[np.float32]]: ...

    def log_probs(
        self, audio: Audio | Sequence[Audio], *, sample_rate: int | None = None, batch_s: float = 120.0
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """What the network makes of a recording before any decoding (emissions): of each step, all tokens.

            >>> log_probs = model.log_probs("talk.wav")
            >>> best = log_probs.argmax(1)
            >>> [(step * model.step_s, model.tokens[token]) for step, token in enumerate(best) if token]

        A recording of more than 30 s is computed in windows that overlap, and joined.

        Args:
            audio: as `transcribe` takes it.
            sample_rate: likewise.
            batch_s: likewise.

        Returns:
            (steps, vocab) float32 natural logarithms, which sum to 1 as probabilities; for a list a list of
            them, in the same order.

        Raises:
            AudioError, SettingsError: as `transcribe`.
        """
        segments, one = self._segments(audio, sample_rate)
        found: list[NDArray[np.float32]] = []
        for result in recording_emissions(self.acoustic, segments, batch_s):
            if isinstance(result.outcome, AudioError):
                raise result.outcome
            found.append(result.outcome.numpy())
        return found[0] if one else found

    def stream(self, sample_rate: int | None = None, config: StreamConfig | None = None) -> RecognitionStream:
        """Recognise audio while it is spoken.

            >>> stream = model.stream(sample_rate=48_000)
            >>> for block in microphone:
            ...     for result in stream.accept(block):
            ...         print(result.text, result.final)
            >>> stream.finish()[-1].text
            'good morning'

        Args:
            sample_rate: Hz, of the samples; None is the model's.
            config: chunks and end-pointing; None as `asr stream` does.

        Raises:
            SettingsError: a setting is impossible, or the detector of speech is not installed.
        """
        return RecognitionStream(
            self.acoustic, self.decoder, config or StreamConfig(), sample_rate or self.sample_rate
        )

    def _segments(
        self, audio: Audio | Sequence[Audio], sample_rate: int | None
    ) -> tuple[list[Segment], bool]:
        """The recordings, and whether it is one that is not in a list."""
        one = isinstance(audio, str | os.PathLike | np.ndarray | Tensor)
        recordings: Sequence[Any] = [audio] if one else cast(Sequence[Any], audio)
        return [self._segment(item, index, sample_rate) for index, item in enumerate(recordings)], one

    def _segment(self, audio: Audio, index: int, sample_rate: int | None) -> Segment:
        if isinstance(audio, str | os.PathLike):
            return Segment(Path(audio))
        if sample_rate is None:
            raise SettingsError(
                "sample_rate is missing. Expected the rate of the waveform in Hz, such as sample_rate=16000."
            )
        name = f"waveform {index}"
        return Segment(Path(name), waveform=to_waveform(audio, sample_rate, self.sample_rate, name))


def _transcript(result: Recognised) -> Transcript:
    if isinstance(result.outcome, AudioError):
        raise result.outcome
    return Transcript(result.outcome.text, result.outcome.words, result.duration_s, result.nbest)
