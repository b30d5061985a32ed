"""Reverberation: impulse responses of rooms, synthetic or recorded, and their convolution with speech.

numpy's transforms run on one thread, so the same draw gives the same samples on any number of cores.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.errors import AudioError
from asr.frontend.audio import read_audio


@dataclass(frozen=True)
class SyntheticRoom:
    """A simple model of a room: its direct sound, then noise that decays exponentially."""

    rt60_s: float  # in which the reverberation decays by 60 dB
    direct_db: float  # energy of the direct sound over that of the reverberation
    seed: int  # of the noise

    def response(self, sample_rate: int) -> NDArray[np.float32]:
        """The impulse response, direct sound first, down to -60 dB.

        Args:
            sample_rate: Hz.

        Returns:
            (1 + rt60_s * sample_rate,) float32 whose first sample is 1.

        Source: Polack 1988, "La transmission de l'énergie sonore dans les salles": Gaussian noise under an
            exponential envelope. RT60 as in Schroeder 1965, "New method of measuring reverberation time".
        """
        rng = np.random.Generator(np.random.PCG64(self.seed))
        count = max(round(self.rt60_s * sample_rate), 1)
        decay = 10 ** (-3 * np.arange(1, count + 1) / (self.rt60_s * sample_rate))
        tail = rng.standard_normal(count) * decay
        tail *= np.sqrt(10 ** (-self.direct_db / 10) / np.square(tail).sum())
        return np.concatenate([[1.0], tail]).astype(np.float32)

    def __str__(self) -> str:
        return f"room of RT60 {self.rt60_s:.2f} s, direct sound {self.direct_db:+.1f} dB"


@dataclass(frozen=True)
class RecordedRoom:
    """A room whose impulse response is a recording."""

    path: Path

    def response(self, sample_rate: int) -> NDArray[np.float32]:
        """The impulse response from its direct sound on, of the first channel.

        Args:
            sample_rate: Hz.

        Returns:
            (samples,) float32, the largest sample first.

        Raises:
            AudioError: the recording cannot be read, or is silent.
        """
        # A mean over the microphones of an array would be a comb filter, which is no room.
        response: NDArray[np.float32] = read_audio(self.path, sample_rate, channel=0).numpy()
        direct = int(np.abs(response).argmax())
        if response[direct] == 0:
            raise AudioError(
                f"{self.path}: silent throughout. Expected a room's impulse response. Take it out of its "
                f"folder."
            )
        return response[direct:]

    def __str__(self) -> str:
        return f"room {self.path.name}"


Room = SyntheticRoom | RecordedRoom


def reverberate(speech: NDArray[np.float32], response: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convolve speech with a room: same length, same mean power, direct sound at the same time.

    Args:
        speech: (samples,) float32.
        response: (taps,) float32, the direct sound first.

    Returns:
        (samples,) float32; the reverberation after the end of the speech is cut off.

    Source: Ko et al. 2017, "A study on data augmentation of reverberant speech for robust speech
        recognition". The power is kept as Kaldi's wav-reverberate keeps it.
    """
    size = 1 << (len(speech) + len(response) - 2).bit_length()
    spectrum = np.fft.rfft(speech, size) * np.fft.rfft(response, size)
    reverberant = np.fft.irfft(spectrum, size)[: len(speech)]
    power = float(np.square(reverberant, dtype=np.float64).sum())
    if power == 0:
        return speech
    scale = np.sqrt(float(np.square(speech, dtype=np.float64).sum()) / power)
    return np.asarray(reverberant * scale, dtype=np.float32)
