"""A recording of any format, rate or channel count -> mono float32 samples at the model's rate.

Every waveform is read here and nowhere else, so that no other sample rate reaches the model.
"""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.errors import AudioError, SettingsError
from asr.files import atomic_path
from asr.frontend.recordings import HIGHEST_RATE, LOWEST_RATE, Block, open_recording

log = logging.getLogger("asr")

# Channels cancel each other where their mean has less than this share (-10 dB) of the power that the mean of
# unrelated channels would have. Two channels of equal power do so when their correlation is under -0.9.
_CANCELLED = 0.1


@dataclass(frozen=True)
class AudioInfo:
    """The form of a recording."""

    sample_rate: int  # Hz
    channels: int
    samples: int  # per channel

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate


def audio_info(path: Path) -> AudioInfo:
    """The rate, channels and length of a recording; decodes it where only that tells its length.

    Raises:
        AudioError: the file does not exist, is empty or no audio, or was cut short.
    """
    with open_recording(path) as recording:
        samples = recording.samples
        if samples is None:
            samples = sum(map(len, recording.blocks(0, None)))
        return AudioInfo(recording.sample_rate, recording.channels, samples)


def channel_count(path: Path) -> int:
    """How many channels a recording has.

    Raises:
        AudioError: the file does not exist, is empty or no audio.
    """
    with open_recording(path, partial=True) as recording:
        return recording.channels


def write_audio(path: Path, waveform: Tensor, sample_rate: int, form: str, subtype: str) -> None:
    """Write a recording; the file appears complete or not at all.

    Args:
        path: of the file, in an existing folder.
        waveform: (samples,) float32.
        sample_rate: Hz.
        form: libsndfile's name of the format, such as FLAC.
        subtype: its name of the samples' type, such as PCM_16.

    Raises:
        OSError: the file cannot be written.
    """
    content = io.BytesIO()  # on a full disk soundfile fails without a reason
    soundfile.write(content, waveform.numpy(), sample_rate, format=form, subtype=subtype)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_audio(
    path: Path,
    sample_rate: int,
    *,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    channel: int | None = None,
    partial: bool = False,
) -> Tensor:
    """Read a recording, or a part of it, in the format of the model.

    Channels are averaged. Where they cancel each other (one is inverted), the loudest is used instead, with
    a warning. Another rate is resampled with an anti-aliasing filter.
    A part of a file is the same samples as that slice of the whole, except for the resampling filter at
    the edges, and in opus for the decoder's memory of what came before (about 1%). What FFmpeg decodes, mp3
    among it, is decoded from the beginning: the time that a part takes grows with offset_s.

    Args:
        path: a file of any format that libsndfile or FFmpeg reads: wav of any width, flac, ogg, opus, mp3,
            m4a, the sound of a film, …; or a pipe; `-` is the standard input.
        sample_rate: wanted rate, Hz.
        offset_s: where to start, in seconds from the beginning of the file.
        duration_s: how much to read, in seconds; None reads to the end.
        channel: the one to read, counted from 0, where channels are different speakers or microphones; None
            reads the mean of all.
        partial: warn of a recording that was cut short, and read what can be decoded, instead of raising.

    Returns:
        (samples,) float32, mono, nominally in [-1, 1].

    Raises:
        AudioError: the file does not exist, is no audio, empty or cut short, lacks the channel, or holds
            samples that are not numbers.
    """
    blocks = audio_blocks(
        path,
        sample_rate,
        whole_s=math.inf,
        offset_s=offset_s,
        duration_s=duration_s,
        channel=channel,
        partial=partial,
    )
    (waveform,) = blocks
    return waveform


def audio_blocks(
    path: Path,
    sample_rate: int,
    *,
    whole_s: float,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    channel: int | None = None,
    partial: bool = False,
) -> Iterator[Tensor]:
    """Read a recording of any length, or a part of it, in blocks: memory does not grow with its length.

    Rates are converted as one stream, so that blocks have no seams: together they equal `read_audio` within
    1e-5 of full scale. Whether channels cancel each other is decided at each block, by all that came before
    it and the block itself.

    Args:
        path: as for `read_audio`.
        sample_rate: wanted rate, Hz.
        whole_s: a recording of up to this many seconds is one block, exactly what `read_audio` returns.
        offset_s: where to start, in seconds from the beginning of the file.
        duration_s: how much to read, in seconds; None reads to the end.
        channel: the one to read, counted from 0; None reads the mean of all.
        partial: warn of a recording that was cut short, and read what can be decoded, instead of raising.

    Yields:
        (samples,) float32, mono: consecutive blocks of about 30 s.

    Raises:
        AudioError: as `read_audio`; blocks before the damage were read then.
    """
    with open_recording(path, partial=partial) as recording:
        rate = recording.sample_rate
        if channel is not None and not 0 <= channel < recording.channels:
            raise AudioError(
                f"{path}: there is no channel {channel}: the recording has {recording.channels}. Expected "
                f"0 to {recording.channels - 1}. Correct the manifest's channel."
            )
        start = round(offset_s * rate)
        wanted = None if duration_s is None else round(duration_s * rate)
        decoded = iter(() if start < 0 else recording.blocks(start, wanted))
        first: list[Block] = []
        position = start
        for block in decoded:
            first.append(block)
            position += len(block)
            if position - start > whole_s * rate:
                break
        whole = position - start <= whole_s * rate
        if position == start:
            end = "the end" if duration_s is None else f"{offset_s + duration_s:g} s"
            length = f": the recording is {recording.samples / rate:g} s long" if recording.samples else ""
            raise AudioError(
                f"{path}: no samples between {offset_s:g} s and {end}{length}. Correct the offset and "
                f"duration, or leave the file out."
            )
        mixer = _Mixer(path)
        resampler = StreamResampler(rate, sample_rate)
        position = start
        for block in (np.concatenate(first),) if whole else chain(first, decoded):
            check_finite(block, position, path)
            mono = mixer.mix(block) if channel is None else block[:, channel]
            waveform = torch.from_numpy(np.ascontiguousarray(mono))
            position += len(block)
            if whole:
                _check_end(path, position / rate, offset_s, duration_s)
                yield resample(waveform, rate, sample_rate)
                return
            yield resampler.accept(waveform)
        _check_end(path, position / rate, offset_s, duration_s)
        yield resampler.finish()


def check_finite(samples: Block, start: int, path: Path) -> None:
    """Refuse samples of floating-point files that are no numbers.

    Args:
        samples: (samples, channels).
        start: of the first of them in the file, for the message.
        path: of the file.

    Raises:
        AudioError: one is infinite or NaN.
    """
    if not np.isfinite(samples).all():
        bad = int(np.argmin(np.isfinite(samples).all(axis=1)))
        raise AudioError(
            f"{path}: sample {start + bad} is not a finite number. Expected float samples in [-1, 1]. "
            f"Write the file again from its source."
        )


def _check_end(path: Path, end_s: float, offset_s: float, duration_s: float | None) -> None:
    # A manifest's rounded duration may extend slightly past the end; anything more is a wrong manifest.
    if duration_s is not None and end_s < offset_s + duration_s - 0.05:
        raise AudioError(
            f"{path}: the segment ends at {offset_s + duration_s:g} s but the recording at {end_s:g} s. "
            f"Correct the manifest's offset and duration."
        )


def to_waveform(samples: NDArray[Any] | Tensor, from_rate: int, to_rate: int, name: str) -> Tensor:
    """Samples that are in memory already, in the format of the model.

    Args:
        samples: (samples,) floating-point numbers in [-1, 1], mono; a tensor may be on any device.
        from_rate: their rate, Hz.
        to_rate: wanted rate, Hz.
        name: what messages call them.

    Returns:
        (samples,) float32 at to_rate Hz, on the CPU.

    Raises:
        AudioError: they are not floating-point numbers, not mono, not finite, or there are none.
        SettingsError: the rate is impossible.
    """
    check_rate(from_rate)
    checked = check_samples(samples, name)
    if not len(checked):
        raise AudioError(f"{name}: samples of shape (0,). Expected at least one sample.")
    return resample(checked, from_rate, to_rate)


def check_rate(sample_rate: int) -> None:
    """Refuse a sample rate that is impossible.

    Raises:
        SettingsError: it is outside of what recordings have.
    """
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise SettingsError(f"sample_rate is {sample_rate} Hz. Expected {LOWEST_RATE} to {HIGHEST_RATE} Hz.")


def check_samples(samples: NDArray[Any] | Tensor, name: str) -> Tensor:
    """Samples that are in memory already, (samples,) float32 on the CPU.

    Args:
        samples: (samples,) floating-point numbers in [-1, 1], mono; a tensor may be on any device.
        name: what messages call them.

    Raises:
        AudioError: they are not floating-point numbers, not mono, or not finite.
    """
    array = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if array.dtype.kind != "f":
        raise AudioError(
            f"{name}: samples of type {array.dtype}. Expected floating-point numbers in [-1, 1]: divide "
            f"integers of 16 bits by 32768."
        )
    if array.ndim != 1:
        raise AudioError(
            f"{name}: samples of shape {array.shape}. Expected (samples,), one channel: choose a channel, or "
            f"take the mean of all."
        )
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array)))
        raise AudioError(f"{name}: sample {bad} is not a finite number. Expected numbers in [-1, 1].")
    return torch.from_numpy(array.astype(np.float32))


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate with a windowed-sinc, anti-aliasing filter.

    Up to 0.92 of the lower rate's Nyquist frequency the gain is 1 within 0.015 dB, and from the Nyquist
    frequency on it is below -120 dB, so that no more than that is aliased.

    Args:
        waveform: (samples,) float32 at from_rate Hz, on the CPU.
        from_rate: the waveform's rate, Hz.
        to_rate: wanted rate, Hz.

    Returns:
        (ceil(samples * to_rate / from_rate),) float32 at to_rate Hz.

    Source: soxr, the SoX resampler library, at its high quality. What is below 0.92 of the Nyquist
        frequency equals torchaudio.transforms.Resample with a Kaiser window (lowpass_filter_width=64,
        rolloff=0.96, beta=7.86) within 1e-3 of the waveform's largest sample.
    """
    if from_rate == to_rate:
        return waveform
    samples = len(waveform)
    # soxr rounds the length of its output, sometimes down: more zeros than a sample needs are appended.
    padded = np.pad(waveform.numpy(), (0, from_rate // to_rate + 1))
    resampled: NDArray[np.float32] = soxr.resample(padded, from_rate, to_rate, quality="HQ")
    return torch.from_numpy(resampled[: -(-samples * to_rate // from_rate)])


class StreamResampler:
    """`resample` for a waveform that comes in blocks.

    Args:
        from_rate: the waveform's rate, Hz.
        to_rate: wanted rate, Hz.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self._rates = from_rate, to_rate
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")
        self._taken = self._given = 0  # samples

    def accept(self, waveform: Tensor) -> Tensor:
        """Take the next samples, (samples,), and return those that are ready: some milliseconds fewer."""
        if self._stream is None:
            return waveform
        self._taken += len(waveform)
        ready = torch.from_numpy(self._stream.resample_chunk(waveform.numpy()))
        self._given += len(ready)
        return ready

    def finish(self) -> Tensor:
        """The last samples; together as many as `resample` returns."""
        if self._stream is None:
            return torch.zeros(0)
        from_rate, to_rate = self._rates
        zeros = np.zeros(from_rate // to_rate + 1, np.float32)
        rest: NDArray[np.float32] = self._stream.resample_chunk(zeros, last=True)
        return torch.from_numpy(rest[: -(-self._taken * to_rate // from_rate) - self._given])


def channels_cancel(powers: Sequence[float], mixed_power: float) -> bool:
    """Whether the mean of the channels has lost nearly all of their power: one of them is inverted.

    Args:
        powers: the variance of each channel.
        mixed_power: that of their mean.
    """
    return mixed_power < _CANCELLED * sum(powers) / len(powers) ** 2


class _Mixer:
    """The mean of the channels, or the loudest one where they cancel each other.

    Args:
        path: of the recording, for the warning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._samples = 0
        self._means = np.zeros(1)
        self._squares = np.zeros(1)  # of the deviations from the means, summed

    def mix(self, samples: Block) -> NDArray[np.float32]:
        """(samples, channels) of the next block -> (samples,)."""
        channels = samples.shape[1]
        if channels == 1:
            return samples[:, 0]
        mixed = samples @ np.full(channels, 1 / channels, np.float32)  # many times as fast as mean(axis=1)
        *powers, mixed_power = self._powers([*samples.T, mixed])
        if not channels_cancel(powers, mixed_power):
            return mixed
        loudest = int(np.argmax(powers))
        _warn_about_cancelling(self._path, loudest)
        return samples[:, loudest]

    def _powers(self, signals: list[NDArray[np.float32]]) -> list[float]:
        """The variance of each signal, (samples,), up to now: a constant offset is no sound.

        Source: Chan et al. 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
        """
        size = len(signals[0])
        means = np.array([float(signal.mean()) for signal in signals])
        squares = np.array([float(signal.var()) for signal in signals]) * size
        total = self._samples + size
        delta = means - self._means
        self._squares = self._squares + squares + delta**2 * (self._samples * size / total)
        self._means = self._means + delta * (size / total)
        self._samples = total
        return [float(square) / total for square in self._squares]


@lru_cache(maxsize=4096)  # one warning per file, however many utterances it holds
def _warn_about_cancelling(path: Path, channel: int) -> None:
    log.warning(
        "%s: the channels cancel each other when mixed (one is inverted). Channel %d alone is used. Correct "
        "the recording's polarity, or name a channel in the manifest.",
        path,
        channel,
    )
