"""Augmentation for training only: its settings, the draws, speed perturbation, and SpecAugment masks.

Noise, rooms and volume are drawn and applied in `conditions`. Every draw is a pure function of (seed,
epoch, utterance id), so that the number of loader workers, the order of the batches and a resumed run change
nothing.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.errors import SettingsError
from asr.frontend.audio import resample
from asr.frontend.augment.draws import uniform
from asr.frontend.augment.noise import NOISE_KINDS, NoiseKind


@dataclass(frozen=True)
class AugmentConfig:
    """What training hears instead of the plain recordings."""

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)  # one is drawn an utterance and epoch; 1.0 alone for none
    time_masks_per_s: float = 1.0  # SpecAugment: masks along time for every 100 frames (1 s at a 10 ms shift)
    time_mask_frames: int = 15  # longest such mask, in frames
    mel_masks: int = 2  # SpecAugment: masks along the mel bands
    mel_mask_bands: int = 20  # widest such mask, in bands
    masks_from_epoch: int = 2  # epochs before it are unmasked, which shortens CTC's blank plateau
    room_share: float = 0.0  # share of the utterances that are heard in a room, 0 to 1
    room_dir: Path | None = None  # folder of recorded impulse responses, one a file; None makes rooms
    room_rt60_s: tuple[float, float] = (0.15, 0.8)  # made rooms: range of the time to decay by 60 dB, s
    room_direct_db: tuple[float, float] = (0.0, 15.0)  # made rooms: range of direct sound over echo, dB
    noise_share: float = 0.0  # share of the utterances that get noise, 0 to 1
    noise_dir: Path | None = None  # folder of recorded noise, searched through; None makes noise
    noise_kinds: tuple[NoiseKind, ...] = NOISE_KINDS  # made noise; speech: with the utterance's own spectrum
    noise_snr_db: tuple[float, float] = (5.0, 25.0)  # range of the SNR, in dB over the whole utterance
    # Share of the utterances that are made louder or quieter, 0 to 1. With features.normalize utterance, the
    # model cannot hear the difference (but where the quietest cells meet features.log-floor).
    gain_share: float = 0.0
    gain_db: tuple[float, float] = (-18.0, 6.0)  # range of the change of volume, dB
    # Range of the factor by which the frequencies that the mel bands hear are warped (vocal tract lengths);
    # 0.88 1.12 is usual, 1 1 is none.
    mel_warp: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise SettingsError(f"augment.speeds must be one or more factors in 0.5..2. Got {self.speeds}.")
        if any(abs(100 * speed - round(100 * speed)) > 1e-6 for speed in self.speeds):
            raise SettingsError(
                f"augment.speeds must be factors in whole percents, as 0.95. Got {self.speeds}."
            )
        masks = ("time_masks_per_s", "time_mask_frames", "mel_masks", "mel_mask_bands", "masks_from_epoch")
        for name in masks:
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise SettingsError(f"{_key(name)} must not be negative. Got {value:g}.")
        for name in ("room_share", "noise_share", "gain_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{_key(name)} must be in 0..1. Got {getattr(self, name):g}.")
        for name, (lowest, highest, unit) in _RANGES.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise SettingsError(
                    f"{_key(name)} must be two numbers within {lowest:g}..{highest:g}{unit}, the lower "
                    f"first. Got {low:g} {high:g}."
                )
        for topic in ("room", "noise"):
            if getattr(self, f"{topic}_dir") is not None and not getattr(self, f"{topic}_share"):
                raise SettingsError(
                    f"augment.{topic}-dir is given, but augment.{topic}-share is 0, so that nothing in it is "
                    f"heard. Set the share too, such as --augment.{topic}-share 0.5, or leave both out."
                )
        if not self.noise_kinds or not set(self.noise_kinds) <= set(NOISE_KINDS):
            got = " ".join(self.noise_kinds) or "none"
            raise SettingsError(f"augment.noise-kinds must be some of {' '.join(NOISE_KINDS)}. Got {got}.")

    @property
    def changes_waveform(self) -> bool:
        """Whether more than the speed may change, so that a cache lacks features of some utterances."""
        return max(self.room_share, self.noise_share, self.gain_share) > 0


# Of both ends of a drawn range: the lowest and highest value that make sense, and the unit.
_RANGES = {
    "room_rt60_s": (0.01, 10.0, " s"), "room_direct_db": (-30.0, 60.0, " dB"),
    "noise_snr_db": (-30.0, 100.0, " dB"), "gain_db": (-60.0, 60.0, " dB"), "mel_warp": (0.5, 2.0, ""),
}  # fmt: skip


def _key(name: str) -> str:
    return f"augment.{name.replace('_', '-')}"


def draw(seed: int, epoch: int, utterance_id: str, purpose: str) -> np.random.Generator:
    """The random numbers of one utterance in one epoch for one purpose, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{purpose}/{utterance_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def draw_speeds(
    config: AugmentConfig,
    top_speeds: NDArray[np.floating],
    hashes: NDArray[np.uint64],
    seed: int,
    epoch: int,
) -> NDArray[np.float64]:
    """The speed at which each utterance is heard in an epoch.

    Args:
        config: the speeds.
        top_speeds: (utterances,) the fastest that each may have; one that may have none is heard at 1.0.
        hashes: (utterances,) of their ids, as `hash_ids` gives them.
        seed: of the run.
        epoch: counted from 1.

    Returns:
        (utterances,) factors.
    """
    speeds = np.sort(np.array(config.speeds))
    # A little above: top speeds may have been rounded to float32.
    allowed = np.searchsorted(speeds, top_speeds * (1 + 1e-6), side="right")
    chosen = (uniform(hashes, seed, epoch, "speed") * allowed).astype(np.int64)
    return np.where(allowed > 0, speeds[chosen], 1.0)


def change_speed(waveform: Tensor, speed: float) -> Tensor:
    """Play a waveform faster or slower; tempo and pitch change together.

    Args:
        waveform: (samples,) float32 at any sample rate.
        speed: factor, in whole percents; 1.1 makes it about 9% shorter.

    Returns:
        (ceil(samples / speed),) float32 at the same sample rate.

    Source: Ko et al. 2015, "Audio augmentation for speech recognition".
    """
    # Only the ratio of the two rates matters to the resampler.
    return resample(waveform, round(100 * speed), 100)


@dataclass(frozen=True)
class Masks:
    """SpecAugment masks of a batch: (batch, masks, 2) int64 of first index and width along each axis."""

    time: Tensor
    mel: Tensor


def draw_masks(
    frames: int, n_mels: int, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw the masks of one utterance.

    Args:
        frames: its length.
        n_mels: its bands.
        config: number and size of the masks.
        rng: what `draw` gives.

    Returns:
        (masks, 2) int64 along time and along mel bands: first index and width, both drawn uniformly.

    Source: Park et al. 2019, "SpecAugment", section 2, with the number of time masks in proportion to the
        length as in Park et al. 2020, "SpecAugment on large scale datasets".
    """
    count = round(config.time_masks_per_s * frames / 100)
    return (
        _draw_intervals(count, min(config.time_mask_frames, frames), frames, rng),
        _draw_intervals(config.mel_masks, min(config.mel_mask_bands, n_mels), n_mels, rng),
    )


def apply_masks(features: Tensor, masks: Masks) -> Tensor:
    """Set masked regions to 0, the mean of normalised features.

    Args:
        features: (batch, frames, n_mels), normalised.
        masks: of the same batch, on the same device.
    """
    time = _covered(masks.time, features.shape[1])
    mel = _covered(masks.mel, features.shape[2])
    return features.masked_fill(time.unsqueeze(2) | mel.unsqueeze(1), 0.0)


def _draw_intervals(count: int, longest: int, size: int, rng: np.random.Generator) -> Tensor:
    widths = rng.integers(0, longest, size=count, endpoint=True)
    starts = rng.integers(0, size - widths, endpoint=True) if count else widths
    return torch.from_numpy(np.stack([starts, widths], axis=1).astype(np.int64))


def _covered(intervals: Tensor, size: int) -> Tensor:
    """(batch, masks, 2) intervals -> (batch, size) bool, True where any of them lies."""
    index = torch.arange(size, device=intervals.device)
    start, width = intervals[..., :1], intervals[..., 1:]
    return ((index >= start) & (index < start + width)).any(dim=1)
