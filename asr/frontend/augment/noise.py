"""Additive noise, synthetic or cut from recordings, at an exact SNR.

numpy's transforms run on one thread, so the same draw gives the same samples on any number of cores.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.errors import AudioError
from asr.frontend.audio import read_audio

NoiseKind = Literal["white", "pink", "brown", "speech"]
NOISE_KINDS: tuple[NoiseKind, ...] = get_args(NoiseKind)

_FLAT_BELOW_HZ = 50.0  # pink and brown rise no further: their power would be where there is no speech
_SILENCE = 1e-12  # mean square: -120 dB, below half a step of 16 bits


@dataclass(frozen=True)
class SyntheticNoise:
    """Shaped Gaussian noise, fully described by its kind and the seed of its samples."""

    kind: NoiseKind
    seed: int

    def samples(self, speech: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Noise of the speech's length, at no particular level.

        Args:
            speech: (samples,) what it will be added to; "speech" noise takes its spectrum from it.
            sample_rate: Hz.

        Returns:
            (samples,) float32.

        Source: shaped Gaussian noise: white, pink (-3 dB an octave), brown (-6 dB an octave). "speech" has
            the utterance's own spectrum and random phases, the last step of Dreschler et al. 2001, "ICRA
            noises".
        """
        rng = np.random.Generator(np.random.PCG64(self.seed))
        size = _transform_size(len(speech))
        if self.kind == "speech":
            phases = rng.uniform(0, 2 * np.pi, size // 2 + 1)
            spectrum = np.abs(np.fft.rfft(speech, size)) * np.exp(1j * phases)
        else:
            parts = rng.standard_normal((2, size // 2 + 1))
            slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[self.kind]
            hertz = np.fft.rfftfreq(size, 1 / sample_rate).clip(min=_FLAT_BELOW_HZ)
            spectrum = (parts[0] + 1j * parts[1]) * (_FLAT_BELOW_HZ / hertz) ** slope
        return np.fft.irfft(spectrum, size)[: len(speech)].astype(np.float32)

    def __str__(self) -> str:
        return "speech-shaped noise" if self.kind == "speech" else f"{self.kind} noise"


@dataclass(frozen=True)
class RecordedNoise:
    """A part of a recording of noise, repeated where the recording is too short."""

    path: Path
    duration_s: float  # of the recording
    position: float  # where the part is, 0 (at the beginning) to 1 (at the end)
    in_memory: bool = False  # hold the whole recording in memory, for the next part of it

    def samples(self, speech: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Noise of the speech's length, at the recording's level.

        Args:
            speech: (samples,) what it will be added to.
            sample_rate: Hz.

        Returns:
            (samples,) float32.

        Raises:
            AudioError: the recording cannot be read, or is silent throughout.
        """
        count, needed_s = len(speech), len(speech) / sample_rate
        if not self.in_memory and self.duration_s > needed_s:
            offset_s = self.position * (self.duration_s - needed_s)
            part = read_audio(self.path, sample_rate, offset_s=offset_s, duration_s=needed_s).numpy()
            if _power(part) > _SILENCE:
                return np.resize(part, count)  # resampling may be off by a sample
        read = _read_once if self.in_memory else read_audio
        whole: NDArray[np.float32] = read(self.path, sample_rate).numpy()
        start = int(self.position * (len(whole) - count if len(whole) > count else len(whole)))
        chosen = whole.take(np.arange(start, start + count), mode="wrap")
        if _power(chosen) <= _SILENCE:  # a pause: continue with the next audible sample
            audible = np.flatnonzero(np.square(whole) > _SILENCE)
            if not len(audible):
                raise AudioError(
                    f"{self.path}: silent throughout. Expected a recording of noise. Take it out of its "
                    f"folder."
                )
            start = int(audible[int(np.searchsorted(audible, start)) % len(audible)])
            chosen = whole.take(np.arange(start, start + count), mode="wrap")
        return chosen

    def __str__(self) -> str:
        return f"noise {self.path.name}"


Noise = SyntheticNoise | RecordedNoise


def add_noise(speech: NDArray[np.float32], noise: NDArray[np.float32], snr_db: float) -> NDArray[np.float32]:
    """Add noise so that the ratio of the mean powers over the whole utterance is snr_db.

    Args:
        speech: (samples,) float32; its level stays. Silence stays silent.
        noise: (samples,) float32 of any level; it is scaled.
        snr_db: power of the speech over that of the noise, dB.

    Returns:
        (samples,) float32; may exceed [-1, 1], which the features allow.

    Source: Snyder et al. 2015, "MUSAN: a music, speech and noise corpus"; the ratio of whole utterances as in
        Kaldi's wav-reverberate.
    """
    power = _power(noise)
    if power == 0:  # speech-shaped noise of silence
        return speech
    scale = np.sqrt(_power(speech) / power / 10 ** (snr_db / 10))
    return speech + np.float32(scale) * noise


@cache
def _read_once(path: Path, sample_rate: int) -> Tensor:
    """A whole recording, (samples,) float32, held for the life of the process."""
    return read_audio(path, sample_rate)


def _power(samples: NDArray[np.float32]) -> float:
    """Mean square of (samples,), summed in float64."""
    return float(np.square(samples, dtype=np.float64).mean())


def _transform_size(samples: int) -> int:
    """A power of two: prime lengths would take many times longer."""
    return 1 << max(samples - 1, 1).bit_length()
