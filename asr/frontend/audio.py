"""A recording of any format, rate or channel count -> mono float32 samples at the model's rate.

Every waveform is read here and nowhere else, so that no other sample rate reaches the model.
"""

import glob
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.errors import AudioError, SettingsError

log = logging.getLogger("asr")

_LOWEST_RATE, _HIGHEST_RATE = 1000, 768_000  # Hz; outside of them a header is damaged

# Of the power that the mean of unrelated channels has; below it (-10 dB) channels cancel each other. Two
# channels of equal power are there when their correlation is under -0.9.
_CANCELLED = 0.1

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64")


@dataclass(frozen=True)
class AudioInfo:
    """The header of a recording."""

    sample_rate: int  # Hz
    channels: int
    samples: int  # per channel

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate


def audio_info(path: Path) -> AudioInfo:
    """Read the header of a recording, not its samples.

    Raises:
        AudioError: the file does not exist, is empty or no audio, or its header shows that it was cut short.
    """
    with _open(path) as file:
        return AudioInfo(sample_rate=file.samplerate, channels=file.channels, samples=file.frames)


def audio_files(folder: Path) -> list[Path]:
    """The audio files in a folder and the folders below it, by their suffix, sorted."""
    inside = folder.rglob("*")
    return sorted(file for file in inside if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file())


def find_audio(names: Sequence[str]) -> list[Path]:
    """Find the audio files that files, globs and folders name, in this order, sorted within a glob or folder.

    Raises:
        AudioError: a folder or glob holds no audio files.
        SettingsError: there is no name.
    """
    if not names:
        raise SettingsError("no file to transcribe. Expected audio files, folders, or globs in quotes.")
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            matches = audio_files(path)
            if not matches:
                raise AudioError(
                    f"{name}: no audio files in this folder. Expected some that end in "
                    f"{', '.join(AUDIO_SUFFIXES)}; a file with another ending has to be named itself."
                )
        elif not path.exists() and glob.has_magic(name):
            matches = [Path(file) for file in sorted(glob.glob(name, recursive=True)) if Path(file).is_file()]
            if not matches:
                raise AudioError(f"{name}: no file matches this pattern. Correct it.")
        else:
            matches = [path]  # a missing file gets its message when it is read
        found += matches
    return found


def read_audio(
    path: Path,
    sample_rate: int,
    *,
    offset_s: float = 0.0,
    duration_s: float | None = None,
    channel: int | None = None,
) -> Tensor:
    """Read a recording, or a part of it, in the format of the model.

    Channels are averaged. Where they cancel each other (one is inverted), the loudest is used instead, with
    a warning. Another rate is resampled with an anti-aliasing filter.
    A part of a file is the same samples as that slice of the whole, except for the resampling filter at
    the edges, and in opus for the decoder's memory of what came before (about 1%). In mp3, the time and
    memory that a part takes grow with offset_s.

    Args:
        path: any file that libsndfile reads: wav of any width, flac, ogg, opus, mp3, …
        sample_rate: wanted rate, Hz.
        offset_s: where to start, in seconds from the beginning of the file.
        duration_s: how much to read, in seconds; None reads to the end.
        channel: the one to read, counted from 0, where channels are different speakers or microphones; None
            reads the mean of all.

    Returns:
        (samples,) float32, mono, nominally in [-1, 1].

    Raises:
        AudioError: the file does not exist, is no audio, empty or cut short, lacks the channel, or holds
            samples that are not numbers.
    """
    with _open(path) as file:
        if channel is not None and not 0 <= channel < file.channels:
            raise AudioError(
                f"{path}: there is no channel {channel}: the recording has {file.channels}. Expected 0 to "
                f"{file.channels - 1}. Correct the manifest's channel."
            )
        start = round(offset_s * file.samplerate)
        wanted = file.frames - start if duration_s is None else round(duration_s * file.samplerate)
        if start < 0 or wanted <= 0 or start >= file.frames:
            raise AudioError(
                f"{path}: no samples between {offset_s:g} s and "
                f"{'the end' if duration_s is None else f'{offset_s + duration_s:g} s'}: the recording is "
                f"{file.frames / file.samplerate:g} s long. Correct the offset and duration, or leave the "
                f"file out."
            )
        # A manifest's rounded duration may extend slightly past the end; anything more is a wrong manifest.
        missing = start + wanted - file.frames
        if missing > 0.05 * file.samplerate:
            raise AudioError(
                f"{path}: the segment ends at {offset_s + (duration_s or 0):g} s but the recording at "
                f"{file.frames / file.samplerate:g} s. Correct the manifest's offset and duration."
            )
        wanted -= max(missing, 0)
        try:
            samples = _read_part(file, start, wanted)
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: cannot be decoded ({_reason(error)}). {_CUT_SHORT}") from error
        rate = file.samplerate
    if len(samples) < wanted:
        raise AudioError(f"{path}: {len(samples)} of {wanted} samples could be read. {_CUT_SHORT}")
    if not np.isfinite(samples).all():
        bad = int(np.argmin(np.isfinite(samples).all(axis=1)))
        raise AudioError(
            f"{path}: sample {start + bad} is not a finite number. Expected float samples in [-1, 1]. "
            f"Write the file again from its source."
        )
    mono = _mix(samples, path) if channel is None else samples[:, channel]
    return resample(torch.from_numpy(np.ascontiguousarray(mono)), rate, sample_rate)


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
    if not _LOWEST_RATE <= from_rate <= _HIGHEST_RATE:
        raise SettingsError(f"sample_rate is {from_rate} Hz. Expected {_LOWEST_RATE} to {_HIGHEST_RATE} Hz.")
    array = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if array.dtype.kind != "f":
        raise AudioError(
            f"{name}: samples of type {array.dtype}. Expected floating-point numbers in [-1, 1]: divide "
            f"integers of 16 bits by 32768."
        )
    if array.ndim != 1 or not len(array):
        raise AudioError(
            f"{name}: samples of shape {array.shape}. Expected (samples,), one channel and at least one "
            f"sample: choose a channel, or take the mean of all."
        )
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array)))
        raise AudioError(f"{name}: sample {bad} is not a finite number. Expected numbers in [-1, 1].")
    return resample(torch.from_numpy(array.astype(np.float32)), from_rate, to_rate)


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


def _mix(samples: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """(samples, channels) -> (samples,): their mean, or the loudest where the channels cancel each other."""
    channels = samples.shape[1]
    if channels == 1:
        return samples[:, 0]
    mixed = samples @ np.full(channels, 1 / channels, np.float32)  # many times as fast as mean(axis=1)
    # Variances, since a constant offset is no sound.
    powers = [float(samples[:, channel].var()) for channel in range(channels)]
    if float(mixed.var()) >= _CANCELLED * sum(powers) / channels**2:
        return mixed
    loudest = int(np.argmax(powers))
    _warn_about_cancelling(path, loudest)
    return samples[:, loudest]


@lru_cache(maxsize=4096)  # one warning per file, however many utterances it holds
def _warn_about_cancelling(path: Path, channel: int) -> None:
    log.warning(
        "%s: the channels cancel each other when mixed (one is inverted). Channel %d alone is used. Correct "
        "the recording's polarity, or name a channel in the manifest.",
        path,
        channel,
    )


_CUT_SHORT = "The file is damaged or was cut short: copy or download it again."

# libsndfile shortens a wav, aiff or au recording to what the file holds and reports it only in its log. Sizes
# of 2 GiB and more are written by programs that do not know the length in advance.
_CLAIMED_SIZE = re.compile(
    r"^\s*(?:data|SSND|Data Size|Riff size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)
_UNKNOWN_SIZE = 0x7FFFF000 - 64


def _open(path: Path) -> soundfile.SoundFile:
    """Open a recording; every failure is an AudioError of one line."""
    if not path.exists():
        raise AudioError(f"{path}: no such file.")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder. Expected an audio file.")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes). Expected an audio file.")
    try:
        file = soundfile.SoundFile(os.fsencode(path))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a headerless .raw
        raise AudioError(
            f"{path}: not a readable audio file ({_reason(error)}). Expected wav, flac, ogg, opus, mp3 or "
            f"another format that libsndfile reads."
        ) from error
    wrong = _header_fault(file)
    if wrong:
        file.close()
        raise AudioError(f"{path}: {wrong}")
    return file


def _header_fault(file: soundfile.SoundFile) -> str:
    """What is wrong with a recording according to its header, or ""."""
    if not _LOWEST_RATE <= file.samplerate <= _HIGHEST_RATE:
        return (
            f"the sample rate is {file.samplerate} Hz. Expected {_LOWEST_RATE} to {_HIGHEST_RATE} Hz. The "
            f"header is damaged: copy or download the file again."
        )
    header_log = file.extra_info
    sizes = _CLAIMED_SIZE.search(header_log)
    if sizes and int(sizes[2]) < int(sizes[1]) < _UNKNOWN_SIZE:
        return f"the header promises {sizes[1]} bytes, the file has {sizes[2]}. {_CUT_SHORT}"
    if file.format == "OGG" and "Junk after the last page" in header_log:
        return f"the last part is incomplete. {_CUT_SHORT}"
    if file.frames == 0:
        return "the recording has no samples. Record it again, or leave it out."
    return ""


def _read_part(file: soundfile.SoundFile, start: int, samples: int) -> NDArray[np.float32]:
    """(samples, channels) from a recording that was just opened; fewer where it ends too early."""
    if file.format == "MP3":
        # Seeking goes by a table of a hundred positions, which misses in a variable bit rate. As soundfile
        # seeks after every read as well, one read has to give it all.
        part: NDArray[np.float32] = file.read(start + samples, dtype="float32", always_2d=True)[start:]
        return part
    # In opus files of other programs than libsndfile, only a seek leaves out what the encoder put in front of
    # the recording (6.5 ms); where nothing was put, it changes nothing.
    if start or file.subtype == "OPUS":
        file.seek(start)
    part = file.read(samples, dtype="float32", always_2d=True)
    return part


def _reason(error: soundfile.LibsndfileError | TypeError) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
