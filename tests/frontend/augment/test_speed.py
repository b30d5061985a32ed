"""Speed perturbation: which speeds are drawn, and what they do to a waveform."""

import math

import numpy as np
import pytest
import torch

from asr.frontend.augment.draws import hash_ids
from asr.frontend.augment.speed import change_speed, draw_speeds


@pytest.mark.parametrize("percent", [50, 90, 95, 100, 110, 200])
def test_speed_changes_length_and_pitch(percent: int) -> None:
    """Guards the direction: 1.1 is shorter and higher. The length is the ceiling, as the batch plan
    expects."""
    rate = 16_000
    for samples in (16_000, 12_345, 401):
        assert len(change_speed(torch.zeros(samples), percent / 100)) == -(-samples * 100 // percent)
    tone = torch.sin(2 * math.pi * 500 * torch.arange(rate) / rate)
    spectrum = torch.fft.rfft(change_speed(tone, percent / 100), n=rate).abs()
    assert int(spectrum.argmax()) == pytest.approx(500 * percent / 100, abs=1)


def test_speed_one_changes_nothing() -> None:
    """Guards against filtering what is not changed."""
    waveform = torch.randn(1000)
    assert torch.equal(change_speed(waveform, 1.0), waveform)


def test_speeds_are_pinned() -> None:
    """Guards against other speeds for the same seed: a resumed run would train on other data."""
    hashes = hash_ids(["", "a1", "1272-128104-0000", "größe"])
    drawn = draw_speeds((0.9, 1.0, 1.1), np.full(4, 2.0), hashes, seed=1, epoch=2)
    assert drawn.tolist() == [1.1, 0.9, 1.0, 1.1]


def test_speeds() -> None:
    """Guards the shares of the speeds, those too fast for a transcript, and the order in the setting."""
    speeds, hashes = (1.1, 0.9, 1.0), hash_ids([f"{number}" for number in range(3000)])
    top_speeds = np.repeat(np.array([1.1, 1.0, 0.5], dtype=np.float32), 1000)
    drawn = draw_speeds(speeds, top_speeds, hashes, 1, 1)
    assert set(drawn[:1000].tolist()) == {0.9, 1.0, 1.1}
    assert set(drawn[1000:2000].tolist()) == {0.9, 1.0}
    assert set(drawn[2000:].tolist()) == {1.0}
    counts = [(drawn[:1000] == speed).sum() for speed in (0.9, 1.0, 1.1)]
    assert min(counts) > 250
    again = draw_speeds((0.9, 1.0, 1.1), top_speeds, hashes, 1, 1)
    assert np.array_equal(again, drawn)
    one = draw_speeds(speeds, top_speeds[5:6], hashes[5:6], 1, 1)
    assert one[0] == drawn[5]
