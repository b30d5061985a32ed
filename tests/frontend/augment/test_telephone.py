"""The telephone line: its band, its samples, and nothing else."""

import numpy as np
import pytest
import torch

from asr.frontend.augment.telephone import telephone

RATE = 16_000


def tone(hertz: float, rate: int = RATE, level: float = 0.3) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(rate) / rate)


def level_db(samples: torch.Tensor, hertz: float, rate: int = RATE) -> float:
    """Of the 100 Hz around a frequency, without the ends of the recording."""
    inside = samples.numpy()[rate // 4 : -rate // 4]
    power = np.square(np.abs(np.fft.rfft(inside * np.hanning(len(inside)))))
    bins = np.fft.rfftfreq(len(inside), 1 / rate)
    return 10 * float(np.log10(power[(bins > hertz - 50) & (bins < hertz + 50)].sum() + 1e-12))


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050])
@pytest.mark.parametrize("hertz", [350, 1000, 3300])
def test_band_passes(hertz: float, rate: int) -> None:
    """A line that changes the level of what it should pass, delays it or cuts it short."""
    original = tone(hertz, rate)
    received = telephone(original, rate)
    assert received.dtype == torch.float32
    assert len(received) == len(original)
    inside = slice(rate // 4, -rate // 4)
    assert (received - original)[inside].square().mean() < 1e-3 * original.square().mean()  # mu-law's noise


@pytest.mark.parametrize("hertz", [60, 120, 3900, 5000, 7500])
def test_nothing_passes_outside(hertz: float) -> None:
    """Frequencies that no telephone transmits."""
    original = tone(hertz) + tone(1000)
    assert level_db(telephone(original, RATE), hertz) < level_db(original, hertz) - 35


def test_nothing_is_above_4_khz() -> None:
    """White noise: what the resampler should have taken away, images of the band, or mu-law's noise there."""
    noise = 0.1 * torch.randn(2 * RATE, generator=torch.Generator().manual_seed(0))
    received = telephone(noise, RATE)
    for hertz in (4200, 5000, 6000, 7800):
        assert level_db(received, hertz) < level_db(received, 2000) - 80


def test_samples_are_companded() -> None:
    """A line without mu-law's noise, or with that of 8 linear bits, which would drown quiet speech."""
    for level in (0.5, 0.01):
        original = tone(1000, level=level)
        inside = slice(RATE // 4, -RATE // 4)
        noise = (telephone(original, RATE) - original)[inside]
        snr_db = 10 * torch.log10(original[inside].square().mean() / noise.square().mean()).item()
        assert 25 < snr_db < 45


@pytest.mark.parametrize("samples", [1, 399, 400, 12_345])
def test_any_length(samples: int) -> None:
    """Recordings whose length is no multiple of the ratio of the rates, and silence."""
    assert torch.equal(telephone(torch.zeros(samples), RATE), torch.zeros(samples))
    assert torch.equal(telephone(torch.zeros(samples), 22_050), torch.zeros(samples))
