"""Vocal tract length perturbation of log-mel frames."""

import math

import pytest
import torch

from asr.frontend.augment.mel_warp import warp_mel
from asr.frontend.features import FeatureConfig, band_edges_hz, log_mel

CONFIG = FeatureConfig()


def centres_hz() -> torch.Tensor:
    return band_edges_hz(CONFIG.n_mels, CONFIG.sample_rate)[1:-1]


@pytest.mark.parametrize("factor", [0.5, 0.88, 1.0, 1.12, 2.0])
def test_bands_hear_the_paper_s_frequencies(factor: float) -> None:
    """Guards equation 1 of Jaitly and Hinton: features that are their bands' frequencies show what each band
    receives after the warp (interpolation of a line is exact)."""
    centres = centres_hz()
    features = centres.float().expand(1, 3, -1)
    warped_features = warp_mel(features, torch.tensor([factor], dtype=torch.float64), CONFIG)[0, 0]
    high, half = 4800, 8000
    for hertz, warped in zip(centres.tolist(), warped_features.tolist(), strict=True):
        if hertz <= high * min(factor, 1) / factor:
            expected = hertz * factor
        else:
            expected = half - (half - high * min(factor, 1)) / (half - high * min(factor, 1) / factor) * (
                half - hertz
            )
        expected = min(max(expected, centres[0].item()), centres[-1].item())
        assert warped == pytest.approx(expected, rel=1e-5)


def test_factor_one_changes_nothing() -> None:
    """Guards against blurring what is not warped."""
    features = torch.randn(2, 20, 80)
    assert torch.equal(warp_mel(features, torch.ones(2, dtype=torch.float64), CONFIG), features)


@pytest.mark.parametrize("factor", [0.88, 1.12])
def test_a_tone_moves(factor: float) -> None:
    """Guards the direction: above 1 a band receives a higher frequency, so a voice becomes lower."""
    tone = 0.3 * torch.sin(2 * math.pi * 2000 * torch.arange(16_000) / 16_000)
    features = log_mel(tone.unsqueeze(0), CONFIG)
    warped = warp_mel(features, torch.tensor([factor], dtype=torch.float64), CONFIG)
    loudest = centres_hz()[warped[0, 50].argmax()].item()
    assert loudest == pytest.approx(2000 / factor, rel=0.04)


def test_alone_equals_in_a_batch() -> None:
    """Guards against factors that are applied to other rows, or that depend on the batch."""
    features = torch.randn(3, 20, 80)
    factors = torch.tensor([0.9, 1.0, 1.1], dtype=torch.float64)
    together = warp_mel(features, factors, CONFIG)
    for row in range(3):
        assert torch.equal(
            together[row], warp_mel(features[row : row + 1], factors[row : row + 1], CONFIG)[0]
        )
    assert not torch.equal(together[0], features[0])


def test_one_band() -> None:
    """Guards the smallest setting: between one band and no other nothing can be interpolated."""
    config = FeatureConfig(n_mels=1)
    features = torch.randn(1, 5, 1)
    assert torch.equal(warp_mel(features, torch.tensor([1.1], dtype=torch.float64), config), features)
