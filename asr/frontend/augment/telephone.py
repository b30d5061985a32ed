"""Telephone: the narrow band, the low sample rate and the 8-bit samples of a telephone line."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.frontend.audio import resample

_RATE = 8000  # Hz, of every line
# Nothing passes outside of these, Hz; between the inner two all does, and in between it rises and falls.
_STOP_LOW, _PASS_LOW, _PASS_HIGH, _STOP_HIGH = 150.0, 300.0, 3400.0, 3750.0
_MU = 255.0


def telephone(waveform: Tensor, sample_rate: int) -> Tensor:
    """Send a waveform through a telephone line: 300 to 3400 Hz, 8 kHz, mu-law in 8 bits.

    Args:
        waveform: (samples,) float32 at sample_rate Hz.
        sample_rate: Hz.

    Returns:
        (samples,) float32 at sample_rate Hz, with nothing above 4 kHz; louder samples than 1 are clipped, as
        a line clips them.

    Source: the pass band of ITU-T G.712, with a filter that delays nothing; mu-law companding with mu = 255
        as the continuous curve of ITU-T G.711.
    """
    line = _band_pass(resample(waveform, sample_rate, _RATE).numpy())
    received = resample(torch.from_numpy(_mu_law(line)), _RATE, sample_rate)
    return received[: len(waveform)]


def _band_pass(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(samples,) at 8 kHz -> the same length, telephone band."""
    size = 1 << (len(samples) + _RATE // 10).bit_length()  # zeros at the end keep it apart from the beginning
    hertz = np.fft.rfftfreq(size, 1 / _RATE)
    rise = ((hertz - _STOP_LOW) / (_PASS_LOW - _STOP_LOW)).clip(0, 1)
    fall = ((_STOP_HIGH - hertz) / (_STOP_HIGH - _PASS_HIGH)).clip(0, 1)
    gain = np.sin(0.5 * np.pi * np.minimum(rise, fall)) ** 2
    return np.fft.irfft(np.fft.rfft(samples, size) * gain, size)[: len(samples)].astype(np.float32)


def _mu_law(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(samples,) in [-1, 1] -> what is left of them in 8 bits."""
    magnitude = np.log1p(_MU * np.abs(samples).clip(max=1)) / np.log1p(_MU)
    codes = np.round(127 * magnitude) / 127
    expanded: NDArray[np.float32] = np.expm1(codes * np.log1p(_MU)).astype(np.float32) / np.float32(_MU)
    return np.copysign(expanded, samples)
