"""Silence before and after speech: quiet noise is added, or what is quiet there is trimmed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.frontend.augment.draws import uniform

_BLOCK_S = 0.01  # whose power tells speech from what is quiet
_QUIET_DB = -40.0  # of the loudest block: what lies below is quiet
_MARGIN_S = 0.05  # of what is quiet, that trimming leaves
_WINDOW = 512  # samples of a transform for the spectrum of room tone
_ROOM_TONE = 0.1  # share of the windows, the quietest, that room tone is made of
_LOWEST_DB = -100.0  # of full scale: no silence is digital zeros


@dataclass(frozen=True)
class Silence:
    """Silence at the ends of an utterance.

    Attributes:
        before_s: seconds added before the speech; below 0, trimmed off at most.
        after_s: likewise after it.
        level_db: of white noise, dB of full scale; None for room tone, noise like the recording's quietest
            moments.
        seed: of the noise.
    """

    before_s: float
    after_s: float
    level_db: float | None = None
    seed: int = 0

    def __str__(self) -> str:
        what = "room tone" if self.level_db is None else f"noise at {self.level_db:.0f} dB"
        return f"{self.before_s:+.2f} s before and {self.after_s:+.2f} s after of {what}"


def draw_silence(
    share: float, range_s: tuple[float, float], hashes: NDArray[np.uint64], seed: int, epoch: int
) -> NDArray[np.float64]:
    """Draw the seconds of silence at the ends of each utterance in an epoch.

    Args:
        share: of the utterances that get any.
        range_s: from which both ends are drawn.
        hashes: (utterances,) of their ids, as `hash_ids` gives them.
        seed: of the run.
        epoch: counted from 1.

    Returns:
        (utterances, 2) seconds before and after, below 0 to trim; zeros for those that get none.
    """
    if share == 0:
        return np.zeros((len(hashes), 2))
    low, high = range_s
    ends = [uniform(hashes, seed, epoch, f"silence {end}") for end in ("before", "after")]
    chosen = uniform(hashes, seed, epoch, "silence") < share
    return np.where(chosen[:, None], low + (high - low) * np.stack(ends, axis=1), 0.0)


def change_silence(samples: NDArray[np.float32], sample_rate: int, silence: Silence) -> NDArray[np.float32]:
    """Add silence at the ends of an utterance, or trim it.

    Only what is quiet is trimmed, 40 dB below the utterance's loudest moment, and 50 ms of it stay.

    Args:
        samples: (samples,) float32.
        sample_rate: Hz.
        silence: how much, and of what.

    Returns:
        (samples + added - trimmed,) float32.
    """
    wanted = [round(seconds * sample_rate) for seconds in (silence.before_s, silence.after_s)]
    before, after = (max(count, 0) for count in wanted)
    if min(wanted) < 0:
        quiet = _quiet_ends(samples, sample_rate)
        first, last = (min(max(-count, 0), most) for count, most in zip(wanted, quiet, strict=True))
        samples = samples[first : len(samples) - last]
    if before + after == 0:
        return samples
    rng = np.random.Generator(np.random.PCG64(silence.seed))
    noise = 10 ** (_LOWEST_DB / 20) * rng.standard_normal(before + after)
    if silence.level_db is not None:
        noise *= 10 ** ((silence.level_db - _LOWEST_DB) / 20)
    else:
        noise += _room_tone(samples, before + after, rng)
    noise = noise.astype(np.float32)
    return np.concatenate([noise[:before], samples, noise[before:]])


def _quiet_ends(samples: NDArray[np.float32], sample_rate: int) -> Sequence[int]:
    """How many samples are quiet at the beginning and at the end, without the margin."""
    size = max(round(_BLOCK_S * sample_rate), 1)
    blocks = np.square(samples[: len(samples) // size * size].reshape(-1, size)).mean(axis=1)
    loud = np.flatnonzero(blocks > 10 ** (_QUIET_DB / 10) * blocks.max(initial=0.0))
    if not len(loud):
        return 0, 0  # all silence
    margin = round(_MARGIN_S * sample_rate)
    first, last = int(loud[0]) * size, len(samples) - (int(loud[-1]) + 1) * size
    return max(first - margin, 0), max(last - margin, 0)


def _room_tone(samples: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count,) Gaussian noise with the mean spectrum of the utterance's quietest windows."""
    windows = len(samples) // _WINDOW
    if windows == 0:
        return np.zeros(count)
    blocks = samples[: windows * _WINDOW].reshape(windows, _WINDOW)
    quietest = np.argsort(np.square(blocks).sum(axis=1), kind="stable")[: max(round(_ROOM_TONE * windows), 1)]
    power = np.square(np.abs(np.fft.rfft(blocks[quietest] * np.hanning(_WINDOW)))).mean(axis=0)
    size = 1 << max(count - 1, 1).bit_length()
    bins = np.interp(np.fft.rfftfreq(size), np.fft.rfftfreq(_WINDOW), np.sqrt(power))
    spectrum = np.fft.rfft(rng.standard_normal(size)) * bins
    # A window's bin has the power of unit white noise times the window's energy.
    energy = np.square(np.hanning(_WINDOW)).sum()
    tone: NDArray[np.float64] = np.fft.irfft(spectrum / np.sqrt(energy), size)[:count]
    return tone
