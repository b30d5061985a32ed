"""Emissions of recordings of any length: the model runs over windows that overlap, and their output is one.

Two windows are joined where both have context and agree best. Audio is in memory window by window, the
log-probabilities as a whole: with 40 tokens and 30 ms a step 19 MB an hour.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from asr.errors import AudioError
from asr.model.acoustic import AcousticModel
from asr.recognition.emissions import split_rows
from asr.recognition.recognise import Segment, run_model
from asr.recognition.recording_progress import Position, RecordingProgress

__all__ = ["RecordingEmissions", "recording_emissions"]

_WINDOW_S = 30.0
_OVERLAP_S = 4.0


@dataclass(frozen=True)
class RecordingEmissions:
    """What a model makes of a recording.

    Attributes:
        segment: the recording.
        duration_s: its length, seconds; 0 where it cannot be used.
        outcome: (steps, vocab) float32 log-probabilities, nats, on the CPU; or why there are none.
    """

    segment: Segment
    duration_s: float
    outcome: Tensor | AudioError


@dataclass
class _JoinedWindows:
    """The windows of a recording so far, as one."""

    hop: int  # steps from one window to the next
    rows: list[Tensor] = field(default_factory=list)
    held: Tensor | None = None  # of the last window, from where it may still be joined
    windows: int = 0
    duration_s: float = 0.0

    def add(self, rows: Tensor, duration_s: float, hop_s: float) -> None:
        """Append the rows of the next window."""
        begin = 0
        if self.held is not None:
            begin = _seam(self.held, rows)
            self.rows.append(self.held[:begin])
        # The last rows of a window see its end; a window that is not the last one is longer than its hop.
        self.rows.append(rows[begin : self.hop])
        self.held = rows[self.hop :]
        self.duration_s = self.windows * hop_s + duration_s
        self.windows += 1

    def finish(self) -> Tensor:
        """(steps, vocab) of the recording."""
        return torch.cat([*self.rows, *([] if self.held is None else [self.held])])


def recording_emissions(
    model: AcousticModel, recordings: Sequence[Segment], batch_s: float
) -> Iterator[RecordingEmissions]:
    """Run a model over recordings of any length.

    Args:
        model: on its device.
        recordings: what to run it on; what is not longer than a window is run as a whole.
        batch_s: seconds of audio in a batch, padding included.

    Yields:
        One result per recording, in order.

    Raises:
        SettingsError: batch_s is not above 0, or a batch does not fit into the device's memory.
    """
    rate = model.settings.features.sample_rate
    window, hop = (round(seconds / model.step_s) for seconds in (_WINDOW_S, _WINDOW_S - _OVERLAP_S))
    step = round(model.step_s * rate)  # samples
    windows = (cut for one in recordings for cut in _windows(one, rate, window * step, hop * step))
    waiting = iter(recordings)
    joined = _JoinedWindows(hop)
    failed: AudioError | None = None
    progress = RecordingProgress(len(recordings))
    for segment, duration_s, rows in run_model(model, windows, batch_s, _log_probs, progress):
        if isinstance(rows, AudioError):
            failed = failed or rows
        elif failed is None:
            joined.add(rows, duration_s, hop * model.step_s)
        if segment.goes_on:
            continue
        if failed is None:
            yield RecordingEmissions(next(waiting), joined.duration_s, joined.finish())
        else:
            yield RecordingEmissions(next(waiting), 0.0, failed)
        joined, failed = _JoinedWindows(hop), None


def _log_probs(
    log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None
) -> list[Tensor]:
    """(steps, vocab) float32 log-probabilities of each window, on the CPU."""
    return split_rows(log_probs, step_lengths)


def _windows(recording: Segment, rate: int, window: int, hop: int) -> Iterator[Segment]:
    """A recording as it is, or its windows.

    Args:
        recording: what to cut.
        rate: the model's, Hz.
        window: samples of each; the last one may have fewer.
        hop: samples from one to the next.
    """
    if recording.duration_s is not None and recording.duration_s * rate <= window:
        yield recording
        return
    position = Position(recording.expected_s(rate))
    samples, begin = torch.zeros(0), 0
    try:
        for block in recording.blocks(rate, window / rate):
            samples = torch.cat([samples, block])
            while len(samples) > window:
                seconds, share = position.advance((begin + window) / rate, last=False)
                waveform = samples[:window].clone()
                yield replace(recording, waveform=waveform, goes_on=True, advance_s=seconds, share=share)
                samples, begin = samples[hop:].clone(), begin + hop
    except AudioError as error:
        yield replace(recording, error=error)
        return
    seconds, share = position.advance((begin + len(samples)) / rate, last=True)
    yield replace(recording, waveform=samples, advance_s=seconds, share=share)


def _seam(rows: Tensor, following: Tensor) -> int:
    """After how many steps of an overlap to go over from one window to the next: where they differ least.

    Args:
        rows: (steps, vocab) log-probabilities of the first window's end.
        following: (at least as many steps, vocab) of the next window, from the same step on.
    """
    size = min(len(rows), len(following))
    quarter = size // 4  # what is nearer to an end of a window lacks context
    differences = (rows[:size].exp() - following[:size].exp()).abs().sum(1)
    if size - 2 * quarter < 2:
        return size // 2
    pairs = differences[quarter : size - quarter].unfold(0, 2, 1).sum(1)  # the step before and the one after
    # Of equals: the middle.
    distance = 1e-4 * (torch.arange(len(pairs)) - len(pairs) / 2).abs() / max(1, len(pairs))
    return quarter + 1 + int((pairs + distance).argmin())
