"""Vocal tract length perturbation: log-mel frames of a longer or shorter vocal tract."""

from functools import lru_cache

import torch
from torch import Tensor

from asr.frontend.features import FeatureConfig, band_edges_hz

_KNEE = 0.6  # of half the sample rate: 4800 Hz at 16 kHz, above which the warp bends back


def warp_mel(features: Tensor, factors: Tensor, config: FeatureConfig) -> Tensor:
    """Give each mel band the energy at its centre frequency times a factor.

    Features are interpolated linearly between the bands' centres, so this works on cached ones.

    Args:
        features: (batch, frames, n_mels) log-mel frames, not normalised.
        factors: (batch,) float64, above 0; 1 changes nothing. Above 1, voices become lower.
        config: how the features were made.

    Returns:
        (batch, frames, n_mels).

    Source: Jaitly and Hinton 2013, "Vocal Tract Length Perturbation (VTLP) improves speech recognition",
        equation 1, with the centre frequencies of bands for single frequencies.
    """
    if config.n_mels == 1:
        return features
    centres = _band_centres(config.n_mels, config.sample_rate, features.device)
    source_hz = _warp(centres, factors.unsqueeze(1), config.sample_rate / 2)
    below = (torch.searchsorted(centres, source_hz.contiguous(), right=True) - 1).clamp(0, len(centres) - 2)
    low, high = centres[below], centres[below + 1]
    weight = ((source_hz - low) / (high - low)).clamp(0, 1)  # outside the outermost centres: their values
    below = below.unsqueeze(1).expand(features.shape)
    weight = weight.unsqueeze(1).to(features.dtype)
    return torch.lerp(features.gather(2, below), features.gather(2, below + 1), weight)


@lru_cache(maxsize=16)
def _band_centres(n_mels: int, sample_rate: int, device: torch.device) -> Tensor:
    """(n_mels,) float64, Hz. Kept on the device: a copy at every update would make the host wait."""
    return band_edges_hz(n_mels, sample_rate)[1:-1].to(device)


def _warp(hertz: Tensor, factors: Tensor, highest: float) -> Tensor:
    """Frequencies times factors up to a knee, then linear to the highest frequency, which stays."""
    knee = _KNEE * highest * factors.clamp(max=1)  # after the warp
    slope = (highest - knee) / (highest - knee / factors)
    return torch.where(hertz <= knee / factors, hertz * factors, highest - slope * (highest - hertz))
