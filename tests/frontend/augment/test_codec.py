"""Opus: its bit rate, its loss, and no delay."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.frontend.audio import read_audio
from asr.frontend.augment.codec import code, encode_opus

pytest.importorskip("av", reason="the codec needs PyAV")
RATE = 16_000


def buzz(seconds: float = 2.0, rate: int = RATE) -> torch.Tensor:
    """A tone of many harmonics whose level comes and goes, as a voice's does."""
    clock = torch.arange(round(seconds * rate)) / rate
    harmonics = sum(torch.sin(2 * torch.pi * 140 * number * clock) / number for number in range(1, 25))
    return 0.1 * harmonics * (0.6 + 0.4 * torch.sin(2 * torch.pi * 3 * clock))


def lag(found: torch.Tensor, original: torch.Tensor) -> int:
    """Samples by which the one is later than the other."""
    size = 1 << (2 * len(found)).bit_length()
    spectrum = np.fft.rfft(found.numpy(), size) * np.conj(np.fft.rfft(original.numpy(), size))
    position = int(np.fft.irfft(spectrum).argmax())
    return position if position < size // 2 else position - size


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 24_000])
def test_length_and_time_stay(rate: int) -> None:
    """A codec that delays speech, which would move the times of words, or shortens it."""
    original = buzz(1.7, rate)
    coded = code(original, rate, 12.0)
    assert coded.dtype == torch.float32
    assert coded.shape == original.shape
    assert abs(lag(coded, original)) <= 1
    assert (coded - original).abs().max() > 0.01


def test_lower_rates_lose_more() -> None:
    """A bit rate that does not reach the encoder."""
    original = buzz()
    errors = [(code(original, RATE, kbits) - original).square().mean().item() for kbits in (8.0, 24.0, 96.0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.2 * errors[0]


def test_bit_rate() -> None:
    """Opus of another rate than the one that was asked for."""
    rng = np.random.default_rng(0)
    samples = np.round(3000 * rng.standard_normal(10 * RATE)).astype(np.int16)
    for kbits in (12.0, 24.0):
        assert 8 * len(encode_opus(samples, RATE, kbits)) / 10 == pytest.approx(
            1000 * kbits, rel=0.25
        )  # a variable rate


def test_same_samples_again() -> None:
    """Random state in the encoder: a resumed run would differ."""
    assert torch.equal(code(buzz(), RATE, 12.0), code(buzz(), RATE, 12.0))


def test_as_a_file(tmp_path: Path) -> None:
    """Training on something else than what a model is given for the same file."""
    original = buzz(1.0)
    path = tmp_path / "a.opus"
    path.write_bytes(encode_opus(np.round(32767 * original.numpy()).astype(np.int16), RATE, 12.0))
    assert soundfile.info(path).samplerate == RATE
    assert torch.equal(read_audio(path, RATE), code(original, RATE, 12.0))
