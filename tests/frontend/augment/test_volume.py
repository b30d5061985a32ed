"""Volume perturbation."""

import pytest
import torch

from asr.frontend.augment.volume import change_volume


@pytest.mark.parametrize(("gain_db", "factor"), [(-20.0, 0.1), (0.0, 1.0), (20.0, 10.0)])
def test_gain(gain_db: float, factor: float) -> None:
    """Guards the sign and the factor: 20 dB is ten times the amplitude, not the power."""
    waveform = torch.randn(1000)
    torch.testing.assert_close(change_volume(waveform, gain_db), factor * waveform)
