"""A recording of any format, rate or channel count -> mono float32 samples at the model's rate.

Every waveform of the project enters here and nowhere else, so a wrong sample rate cannot slip through.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.functional
from torch import Tensor

from asr.errors import AudioError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64")


@dataclass(frozen=True)
class AudioInfo:
    """What a recording's header says."""

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
        AudioError: the file is missing, empty, or not audio.
    """
    with _open(path) as file:
        return AudioInfo(sample_rate=file.samplerate, channels=file.channels, samples=file.frames)


def read_audio(
    path: Path, sample_rate: int, *, offset_s: float = 0.0, duration_s: float | None = None
) -> Tensor:
    """Read a recording, or a part of it, as the model wants it.

    Channels are averaged; another rate is resampled with an anti-aliasing filter.

    Args:
        path: any file that libsndfile reads: wav of any width, flac, ogg, opus, mp3, …
        sample_rate: wanted rate, Hz.
        offset_s: where to start, in seconds from the beginning of the file.
        duration_s: how much to read, in seconds; None reads to the end.

    Returns:
        (samples,) float32, mono, nominally in [-1, 1].

    Raises:
        AudioError: the file is missing, not audio, empty, cut short, or holds samples that are not numbers.
    """
    with _open(path) as file:
        start = round(offset_s * file.samplerate)
        wanted = file.frames - start if duration_s is None else round(duration_s * file.samplerate)
        if start < 0 or wanted <= 0 or start >= file.frames:
            raise AudioError(
                f"{path}: no samples between {offset_s:g} s and "
                f"{'the end' if duration_s is None else f'{offset_s + duration_s:g} s'}: the recording is "
                f"{file.frames / file.samplerate:g} s long. Correct the offset and duration, or leave the file out."
            )
        # A manifest's rounded duration may reach a hair past the end; anything more is a wrong manifest.
        missing = start + wanted - file.frames
        if missing > 0.05 * file.samplerate:
            raise AudioError(
                f"{path}: the segment ends at {offset_s + (duration_s or 0):g} s but the recording at "
                f"{file.frames / file.samplerate:g} s. Correct the manifest's offset and duration."
            )
        wanted -= max(missing, 0)
        try:
            if start:
                file.seek(start)
            samples = file.read(wanted, dtype="float32", always_2d=True)
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
    return resample(torch.from_numpy(samples.mean(axis=1)), rate, sample_rate)


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sample rate with a windowed-sinc, anti-aliasing filter.

    Args:
        waveform: (..., samples) float32 at from_rate Hz.

    Returns:
        (..., ceil(samples * to_rate / from_rate)) float32 at to_rate Hz.

    Source: torchaudio.functional.resample, with a filter wider than its default: 64 zero crossings put
        the -6 dB point at 0.99 of the Nyquist frequency and leave less than -60 dB of aliases.
    """
    if from_rate == to_rate:
        return waveform
    return torchaudio.functional.resample(waveform, from_rate, to_rate, lowpass_filter_width=64)


_CUT_SHORT = "The file is damaged or was cut short: copy or download it again."


def _open(path: Path) -> soundfile.SoundFile:
    """Open a recording, turning each way to fail into one clear line."""
    if not path.exists():
        raise AudioError(f"{path}: no such file.")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder. Expected an audio file.")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes). Expected an audio file.")
    try:
        file = soundfile.SoundFile(str(path))
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path}: not a readable audio file ({_reason(error)}). Expected wav, flac, ogg, opus, mp3 or "
            f"another format that libsndfile reads."
        ) from error
    if file.frames == 0:
        file.close()
        raise AudioError(f"{path}: the recording has no samples. Record it again, or leave it out.")
    return file


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error.error_string).strip().rstrip(".")
