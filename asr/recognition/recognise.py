"""A model run over many recordings without waiting for files or for decoding.

Threads read the next recordings while the model computes. Its output is copied to the host while it computes
the next batch, and is decoded then.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Generic, TypeVar

import torch
from torch import Tensor

from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.interface import Decoder
from asr.device import HostCopy, usable_cores
from asr.errors import AudioError, SettingsError, check_number
from asr.frontend.audio import audio_blocks, read_audio
from asr.frontend.features import FeatureConfig, require_one_window
from asr.frontend.recordings import open_recording
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel
from asr.recognition.recording_progress import RecordingProgress

__all__ = ["Recognised", "Segment", "recognise", "run_model"]

log = logging.getLogger("asr")

Output = TypeVar("Output")

_WINDOW = 10  # batches' worth of audio that is read before it is sorted by length
_CUT_WINDOW = 2  # as _WINDOW, while the segments of one long recording are read
_SILENCE = 1e-4  # of full scale: -80 dBFS
_MAX_THREADS = 8  # that read audio; they read 5,000 s of audio a second


@dataclass(frozen=True)
class Segment:
    """A recording, or a stretch of one, as Kaldi's `segments` has it."""

    path: Path
    offset_s: float = 0.0
    duration_s: float | None = None  # None: to the end
    channel: int | None = None  # counted from 0; None: the mean of all
    partial: bool = False  # of a recording that was cut short, what can be decoded is read, with a warning
    # (samples,) at the model's rate, where they are in memory already: the path is then only a name
    waveform: Tensor | None = field(default=None, compare=False, repr=False)
    error: AudioError | None = None  # why it cannot be read, where that is known already
    goes_on: bool = False  # whether another segment of the same recording comes after it
    # for the progress, see `Position.advance`: seconds of the recording that no segment before it had (None:
    # all of its own), and their share of the recording
    advance_s: float | None = None
    share: float = 1.0

    @classmethod
    def of(cls, utterance: Utterance) -> "Segment":
        """The audio of an utterance of a manifest."""
        return cls(utterance.audio_filepath, utterance.offset, utterance.duration, utterance.channel)

    def expected_s(self, sample_rate: int) -> float | None:
        """Its length in seconds, where that is known without decoding it; a header's word is only a hint.

        Args:
            sample_rate: the model's, Hz.
        """
        if self.waveform is not None:
            return len(self.waveform) / sample_rate
        if self.duration_s is not None:
            return self.duration_s
        if not self.path.is_file():  # a pipe cannot be opened twice
            return None
        try:
            with open_recording(self.path, partial=self.partial) as recording:
                samples, rate = recording.samples, recording.sample_rate
        except AudioError:
            return None  # it is raised again where it is read
        return samples / rate - self.offset_s if samples else None

    def read(self, sample_rate: int) -> Tensor:
        """(samples,) of the whole segment.

        Args:
            sample_rate: the model's, Hz.

        Raises:
            AudioError: as `read_audio`.
        """
        if self.waveform is not None:
            return self.waveform
        return read_audio(
            self.path,
            sample_rate,
            offset_s=self.offset_s,
            duration_s=self.duration_s,
            channel=self.channel,
            partial=self.partial,
        )

    def blocks(self, sample_rate: int, whole_s: float) -> Iterator[Tensor]:
        """The samples in consecutive blocks; a segment of up to `whole_s` seconds is one.

        Args:
            sample_rate: the model's, Hz.
            whole_s: seconds.

        Raises:
            AudioError: as `audio_blocks`, while blocks are taken.
        """
        if self.waveform is not None:
            return iter(torch.split(self.waveform, round(whole_s * sample_rate)))
        return audio_blocks(
            self.path,
            sample_rate,
            whole_s=whole_s,
            offset_s=self.offset_s,
            duration_s=self.duration_s,
            channel=self.channel,
            partial=self.partial,
        )


@dataclass(frozen=True)
class Recognised:
    """A segment with its result."""

    segment: Segment  # as `run_model` returns it
    duration_s: float  # of the audio that was recognised
    outcome: Hypothesis | AudioError  # the best text, or why there is none
    nbest: tuple[Hypothesis, ...] = ()  # all that the decoder returned, the outcome first


_Entry = tuple[Segment, Tensor | AudioError]  # (samples,) of a segment, or why there are none


def recognise(
    model: AcousticModel,
    segments: Iterable[Segment],
    batch_s: float,
    decoder: Decoder | None = None,
    progress: RecordingProgress | None = None,
) -> Iterator[Recognised]:
    """Recognise segments, in batches of about the same length; see `run_model`.

    Args:
        model: on its device.
        segments: what to recognise.
        batch_s: seconds of audio in a batch, padding included; a longer segment is a batch by itself.
        decoder: what decodes; None decodes greedily.
        progress: as for `run_model`.

    Yields:
        One result per segment, in order.

    Raises:
        SettingsError: batch_s is not above 0, or a batch does not fit into the device's memory.
    """
    decoder = decoder or GreedyDecoder(model.settings.tokenizer)
    for segment, duration_s, found in run_model(model, segments, batch_s, decoder.decode, progress):
        if isinstance(found, AudioError):
            yield Recognised(segment, duration_s, found)
        else:
            nbest = tuple(_end_with_recording(hypothesis, duration_s) for hypothesis in found)
            yield Recognised(segment, duration_s, nbest[0], nbest)


def _end_with_recording(hypothesis: Hypothesis, duration_s: float) -> Hypothesis:
    """The same hypothesis with its words cut at the end of the recording, past which a step may reach."""
    words = tuple(replace(word, end_s=min(word.end_s, duration_s)) for word in hypothesis.words)
    return replace(hypothesis, words=words)


def run_model(
    model: AcousticModel,
    segments: Iterable[Segment],
    batch_s: float,
    decode: Callable[[Tensor, Tensor, float, Tensor | None], Sequence[Output]],
    progress: RecordingProgress | None = None,
) -> Iterator[tuple[Segment, float, Output | AudioError]]:
    """Run a model over segments, in batches of about the same length, and hand its output on.

    Each batch is decoded after the next one has been started, so that a GPU computes meanwhile. Progress is
    logged after every batch, and the speed at the end.

    Args:
        model: on its device.
        segments: what to run it on.
        batch_s: seconds of audio in a batch, padding included; a longer segment is a batch by itself.
        decode: what is done with a batch's output: the `decode` of a `Decoder`, or a function that takes the
            same four arguments, which are on the CPU, and returns (batch,) results.
        progress: of the recordings that the segments belong to, for the log; needed where segments come one
            by one.

    Yields:
        Each segment in order, with the samples that were read, its seconds of audio, and its result, or why
        it has none.

    Raises:
        SettingsError: batch_s is not above 0, or a batch does not fit into the device's memory.
    """
    check_number("--batch-s", batch_s, above=0, unit="seconds")
    rate = model.settings.features.sample_rate
    if progress is None:
        progress = RecordingProgress(len(segments) if isinstance(segments, Sized) else 0)
    windows: deque[_Window[Output]] = deque()
    running: _RunningBatch[Output] | None = None

    def finish(batch: "_RunningBatch[Output]") -> None:
        log_probs, step_lengths, encoded = batch.output.get()
        results = decode(log_probs, step_lengths, model.step_s, encoded)
        batch.window.results |= zip(batch.numbers, results, strict=True)
        done = [batch.window.entries[number][0] for number in batch.numbers]
        lengths_s = (len(batch.window.waveforms[number]) / rate for number in batch.numbers)
        seconds = sum(
            length_s if segment.advance_s is None else segment.advance_s
            for segment, length_s in zip(done, lengths_s, strict=True)
        )
        progress.add(sum(not one.goes_on for one in done), seconds, sum(one.share for one in done))

    for entries in _read_ahead(segments, model.settings.features, _WINDOW * batch_s):
        window: _Window[Output] = _Window(entries)
        windows.append(window)
        progress.failed(len(entries) - len(window.waveforms))
        for numbers in _batches(window.waveforms, batch_s * rate):
            started = _RunningBatch(window, numbers, _start(model, window, numbers, batch_s))
            if running is not None:
                finish(running)
            running = started
            if running.output.complete:  # on a CPU
                finish(running)
                running = None
            while windows and windows[0].complete:
                yield from windows.popleft().rows(rate)
    if running is not None:
        finish(running)
    for window in windows:
        yield from window.rows(rate)
    progress.end()


@dataclass
class _Window(Generic[Output]):
    """Segments that are sorted by length together, and their results."""

    entries: list[_Entry]
    results: dict[int, Output] = field(default_factory=dict)  # by the number of the entry
    waveforms: dict[int, Tensor] = field(init=False)  # (samples,) of the entries that can be used

    def __post_init__(self) -> None:
        self.waveforms = {n: audio for n, (_, audio) in enumerate(self.entries) if isinstance(audio, Tensor)}

    @property
    def complete(self) -> bool:
        """Whether every entry that can be used has its result."""
        return len(self.results) == len(self.waveforms)

    def rows(self, sample_rate: int) -> Iterator[tuple[Segment, float, Output | AudioError]]:
        """The entries in order, with their seconds and results."""
        for number, (segment, audio) in enumerate(self.entries):
            if isinstance(audio, AudioError):
                yield segment, 0.0, audio
            else:
                yield replace(segment, waveform=audio), len(audio) / sample_rate, self.results[number]


_ModelOutput = tuple[Tensor, Tensor, Tensor | None]  # of `AcousticModel.outputs`


@dataclass(frozen=True)
class _RunningBatch(Generic[Output]):
    """A batch that the device computes."""

    window: _Window[Output]
    numbers: list[int]  # of the window's entries
    output: HostCopy[_ModelOutput]


def _start(
    model: AcousticModel, window: _Window[Output], numbers: list[int], batch_s: float
) -> HostCopy[_ModelOutput]:
    waveforms = [window.waveforms[number] for number in numbers]
    try:
        return HostCopy(model.outputs(waveforms))
    except torch.OutOfMemoryError as error:
        longest_s = len(waveforms[0]) / model.settings.features.sample_rate
        raise SettingsError(
            f"--batch-s {batch_s:g}: {len(numbers)} recordings of up to {longest_s:.0f} s do not fit into "
            f"the memory of {model.device} together. Lower --batch-s, cut recordings longer than it, or use "
            f"--device cpu."
        ) from error


def _batches(waveforms: Mapping[int, Tensor], batch_samples: float) -> Iterator[list[int]]:
    """The waveforms' numbers in batches of about the same length, the longest first.

    Args:
        waveforms: (samples,) of each number.
        batch_samples: of a batch, padding included.
    """
    numbers = sorted(waveforms, key=lambda number: len(waveforms[number]), reverse=True)
    while numbers:
        size = max(1, int(batch_samples / len(waveforms[numbers[0]])))
        yield numbers[:size]
        numbers = numbers[size:]


# ---------------------------------------------------------------------------------------------------- reading


def _read_ahead(
    segments: Iterable[Segment], features: FeatureConfig, window_s: float
) -> Iterator[list[_Entry]]:
    """Segments with their audio, window_s seconds at a time; the next ones are read meanwhile.

    A thousand files need no more memory than three windows: of one the last batch is computed, of one the
    first, and one is read.
    """
    stop = Event()
    windows = _windows(segments, features, window_s, stop)
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, windows, None)
        try:
            while (window := following.result()) is not None:
                following = reader.submit(next, windows, None)
                yield window
        finally:
            stop.set()
            reader.submit(windows.close).result()


def _windows(
    segments: Iterable[Segment], features: FeatureConfig, window_s: float, stop: Event
) -> Generator[list[_Entry], None, None]:
    """Read segments in threads, until `stop` is set."""
    threads = min(_MAX_THREADS, usable_cores())
    waiting = iter(segments)
    reading: deque[tuple[Segment, Future[Tensor | AudioError]]] = deque()
    window: list[_Entry] = []
    samples = 0
    pool = ThreadPoolExecutor(threads)
    try:
        while not stop.is_set():
            for segment in islice(waiting, 2 * threads - len(reading)):
                reading.append((segment, pool.submit(_read, segment, features)))
            if not reading:
                break
            segment, future = reading.popleft()
            audio = future.result()
            window.append((segment, audio))
            if isinstance(audio, Tensor):
                samples += len(audio)
                if float(audio.abs().max()) < _SILENCE:  # here, and not in `_read`: messages keep their order
                    log.warning("%s: silence (no sample above -80 dBFS). Check the recording.", segment.path)
            # Segments of a long recording are of about the same length, and somebody waits for their text.
            share = _CUT_WINDOW / _WINDOW if segment.goes_on else 1.0
            if samples >= share * window_s * features.sample_rate:
                yield window
                window, samples = [], 0
        if window and not stop.is_set():
            yield window
    finally:
        pool.shutdown(cancel_futures=True)


def _read(segment: Segment, features: FeatureConfig) -> Tensor | AudioError:
    """(samples,) of a segment at the model's rate, or why there are none."""
    if segment.error is not None:
        return segment.error
    try:
        waveform = segment.read(features.sample_rate)
        require_one_window(len(waveform), features, str(segment.path))
    except AudioError as error:
        return error
    return waveform
