"""Waveform -> log-mel frames, the frame-count formula, and normalisation.

Everything here runs on the device of its input and treats each row of a batch on its own, so that an
utterance has the same features alone and in a batch.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, overload

import torch
import torchaudio.functional
from torch import Tensor, nn

from asr.errors import AudioError, SettingsError

Normalization = Literal["utterance", "global", "none"]


@dataclass(frozen=True)
class FeatureConfig:
    """How a waveform becomes log-mel frames."""

    sample_rate: int = 16_000  # Hz; every recording is resampled to it
    n_mels: int = 80  # mel bands from 0 Hz to half the sample rate
    window_ms: float = 25.0  # length of the Hann window
    shift_ms: float = 10.0  # from one frame to the next
    log_floor: float = 1e-8  # mel energies are raised to this before the logarithm (about -85 dBFS of white noise)
    normalize: Normalization = "utterance"  # mean and variance per band: of each utterance, of the training set, or neither

    def __post_init__(self) -> None:
        if self.sample_rate < 1000:
            raise SettingsError(f"features.sample-rate must be at least 1000 Hz. Got {self.sample_rate}.")
        if not 1 <= self.n_mels <= self.n_fft // 4:
            raise SettingsError(
                f"features.n-mels must be in 1..{self.n_fft // 4} for a window of {self.window_ms:g} ms at "
                f"{self.sample_rate} Hz. Got {self.n_mels}."
            )
        if not 0 < self.shift_ms <= self.window_ms:
            raise SettingsError(
                f"features.shift-ms must be above 0 and not above features.window-ms ({self.window_ms:g}). "
                f"Got {self.shift_ms:g}."
            )
        if self.log_floor <= 0:
            raise SettingsError(f"features.log-floor must be above 0. Got {self.log_floor:g}.")

    @property
    def win_length(self) -> int:
        """Window length in samples."""
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop_length(self) -> int:
        """Shift in samples."""
        return round(self.shift_ms * self.sample_rate / 1000)

    @property
    def n_fft(self) -> int:
        """Transform size in samples: the power of two that holds a window."""
        return 1 << (self.win_length - 1).bit_length()

    @property
    def frame_s(self) -> float:
        """Seconds from one frame to the next."""
        return self.hop_length / self.sample_rate


@overload
def frame_count(samples: int, config: FeatureConfig) -> int: ...
@overload
def frame_count(samples: Tensor, config: FeatureConfig) -> Tensor: ...
def frame_count(samples: int | Tensor, config: FeatureConfig) -> int | Tensor:
    """Frames that `log_mel` makes of so many samples: 1 + samples // hop_length."""
    return 1 + samples // config.hop_length


def log_mel(waveform: Tensor, config: FeatureConfig) -> Tensor:
    """Log-mel energies of a batch of waveforms.

    Frame t is centred on sample t * hop_length; beyond its ends a waveform counts as zeros, which is also
    what padding in a batch looks like.

    Args:
        waveform: (batch, samples) float32 in [-1, 1], at config.sample_rate Hz, padded with zeros.

    Returns:
        (batch, frames, n_mels) float32, natural logarithms; frames = 1 + samples // hop_length.

    Raises:
        AudioError: the waveforms are shorter than one window.

    Source: librosa.feature.melspectrogram (Slaney's mel scale and area normalisation, power spectrum,
        zero padding), whose numbers it matches to 1e-4 relative.
    """
    if waveform.shape[-1] < config.win_length:
        raise AudioError(
            f"a recording of {waveform.shape[-1] / config.sample_rate:.3f} s is shorter than one window of "
            f"{config.window_ms:g} ms. Expected at least {config.win_length} samples at {config.sample_rate} Hz."
        )
    spectrum = torch.stft(
        waveform,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        win_length=config.win_length,
        window=_hann_window(config.win_length, waveform.device),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    # view_as_real and one sum is three times faster on a CPU than abs(), which takes a square root.
    power = torch.view_as_real(spectrum).square().sum(-1).transpose(1, 2)
    energies = power @ _mel_filters(config.n_fft, config.n_mels, config.sample_rate, waveform.device)
    return energies.clamp_min(config.log_floor).log()


def normalize_utterance(features: Tensor, lengths: Tensor) -> Tensor:
    """Zero mean and unit variance per band over each utterance's own frames; padding becomes 0.

    Args:
        features: (batch, frames, n_mels).
        lengths: (batch,) int64 valid frames.

    Returns:
        (batch, frames, n_mels), 0 beyond each length.
    """
    valid = frame_mask(lengths, features.shape[1]).unsqueeze(-1)
    count = lengths.clamp_min(1).to(features.dtype)[:, None, None]
    mean = (features * valid).sum(dim=1, keepdim=True) / count
    centred = (features - mean) * valid
    # A band that never moves (silence) has no variance: the small term keeps it at 0 instead of NaN.
    deviation = (centred.square().sum(dim=1, keepdim=True) / count + 1e-5).sqrt()
    return centred / deviation


def frame_mask(lengths: Tensor, size: int) -> Tensor:
    """(batch, size) bool, True where an index lies below the row's length."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)


class Normalizer(nn.Module):
    """Mean and variance normalisation as config.normalize says; global statistics are kept with the model.

    Args:
        config: the feature settings.
    """

    mean: Tensor  # (n_mels,) of the training set, used by "global"
    deviation: Tensor  # (n_mels,)

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.kind = config.normalize
        self.register_buffer("mean", torch.zeros(config.n_mels))
        self.register_buffer("deviation", torch.ones(config.n_mels))

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Store the training set's mean and standard deviation per band, each (n_mels,)."""
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, n_mels) log-mel frames -> the same shape, normalised, 0 in the padding."""
        if self.kind == "utterance":
            return normalize_utterance(features, lengths)
        if self.kind == "global":
            features = (features - self.mean) / self.deviation
        return features * frame_mask(lengths, features.shape[1]).unsqueeze(-1)


@lru_cache(maxsize=16)
def _hann_window(win_length: int, device: torch.device) -> Tensor:
    return torch.hann_window(win_length, device=device)


@lru_cache(maxsize=16)
def _mel_filters(n_fft: int, n_mels: int, sample_rate: int, device: torch.device) -> Tensor:
    """(n_fft // 2 + 1, n_mels) triangular filters."""
    return torchaudio.functional.melscale_fbanks(
        n_freqs=n_fft // 2 + 1,
        f_min=0.0,
        f_max=sample_rate / 2,
        n_mels=n_mels,
        sample_rate=sample_rate,
        norm="slaney",
        mel_scale="slaney",
    ).to(device)
