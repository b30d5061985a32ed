"""Silence at the ends of speech: how much, of what, and that speech stays."""

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.frontend.augment.draws import hash_ids
from asr.frontend.augment.silence import Silence, change_silence, draw_silence

RATE = 16_000


def speech(before_s: float = 0.0, after_s: float = 0.0, background: float = 1e-4) -> NDArray[np.float32]:
    """One second that is loud between quiet ends, over a background of low frequencies."""
    rng = np.random.default_rng(0)
    loud = 0.1 * rng.standard_normal(RATE)
    ends = [np.zeros(round(seconds * RATE)) for seconds in (before_s, after_s)]
    samples = np.concatenate([ends[0], loud, ends[1]])
    hum = np.convolve(rng.standard_normal(len(samples) + 15), np.ones(16) / 4, mode="valid")
    return (samples + background * hum).astype(np.float32)


def level_db(samples: NDArray[np.float32]) -> float:
    return 10 * float(np.log10(np.square(samples, dtype=np.float64).mean()))


def test_silence_is_added_around_speech() -> None:
    """Silence at the wrong end or of another length, and speech that is not the same samples."""
    original = speech()
    longer = change_silence(original, RATE, Silence(0.25, 0.5, -70.0, seed=1))
    assert longer.dtype == np.float32
    assert len(longer) == len(original) + 4000 + 8000
    assert np.array_equal(longer[4000 : 4000 + len(original)], original)
    assert level_db(longer[:4000]) == pytest.approx(-70, abs=0.3)
    assert level_db(longer[-8000:]) == pytest.approx(-70, abs=0.3)
    assert np.array_equal(longer, change_silence(original, RATE, Silence(0.25, 0.5, -70.0, seed=1)))
    assert not np.array_equal(longer, change_silence(original, RATE, Silence(0.25, 0.5, -70.0, seed=2)))


def test_room_tone_is_the_recordings_own() -> None:
    """Noise of another level or colour than the recording's pauses, which a listener would notice."""
    original = speech(0.4, 0.4)
    tone = change_silence(original, RATE, Silence(0.0, 2.0, None, seed=1))[len(original) :]
    pause = original[: RATE // 3]
    assert level_db(tone) == pytest.approx(level_db(pause), abs=2.5)  # of the quietest moments

    def low_share(samples: NDArray[np.float32]) -> float:
        power = np.square(np.abs(np.fft.rfft(samples)))
        return float(power[: len(power) // 16].sum() / power.sum())

    assert low_share(tone) == pytest.approx(low_share(pause), abs=0.2)  # white: 0.06


@pytest.mark.parametrize("level_db", [None, -100.0])
def test_never_digital_zeros(level_db: float | None) -> None:
    """Zeros, which no microphone gives, also where the recording's own pauses are zeros, or it has none."""
    for original in (speech(0.2, 0.2, background=0.0), np.zeros(100, np.float32), np.zeros(0, np.float32)):
        longer = change_silence(original, RATE, Silence(0.1, 0.1, level_db, seed=1))
        assert len(longer) == len(original) + 3200
        assert np.count_nonzero(longer[:1600]) == np.count_nonzero(longer[-1600:]) == 1600
        assert np.abs(longer[:1600]).max() < 1e-3


def test_trimming_takes_what_is_quiet() -> None:
    """Speech that is cut off, silence that is not, or more of it than was asked for."""
    original = speech(0.5, 0.3)
    shorter = change_silence(original, RATE, Silence(-0.2, -1.0))
    assert np.array_equal(shorter, original[round(0.2 * RATE) : -round(0.25 * RATE)])  # 50 ms stay
    assert np.array_equal(change_silence(original, RATE, Silence(-5.0, 0.0)), original[round(0.45 * RATE) :])
    both = change_silence(original, RATE, Silence(-5.0, 0.1, -80.0))
    assert np.array_equal(both[: -round(0.1 * RATE)], original[round(0.45 * RATE) :])


def test_noisy_ends_are_not_quiet() -> None:
    """Trimming by the clock: in a noisy recording nobody knows where speech begins."""
    original = speech(0.5, 0.5, background=0.01)
    assert np.array_equal(change_silence(original, RATE, Silence(-0.4, -0.4)), original)
    silence = np.zeros(RATE, np.float32)
    assert np.array_equal(change_silence(silence, RATE, Silence(-0.4, -0.4)), silence)


def test_draws() -> None:
    """A share that is inverted, ends that are drawn alike, values outside of the range, or draws that depend
    on the other utterances."""
    hashes = hash_ids([f"u{number}" for number in range(4000)])
    drawn = draw_silence(0.25, (-0.2, 0.5), hashes, seed=1, epoch=2)
    chosen = drawn[drawn.any(axis=1)]
    assert len(chosen) == pytest.approx(1000, abs=110)  # four standard deviations
    assert -0.2 <= chosen.min() < -0.19
    assert 0.49 < chosen.max() < 0.5
    assert abs(np.corrcoef(chosen.T)[0, 1]) < 0.13
    assert np.array_equal(draw_silence(0.25, (-0.2, 0.5), hashes[7:9], 1, 2), drawn[7:9])
    assert not np.array_equal(draw_silence(0.25, (-0.2, 0.5), hashes, 1, 3), drawn)
    assert not draw_silence(0.0, (-0.2, 0.5), hashes, 1, 2).any()
