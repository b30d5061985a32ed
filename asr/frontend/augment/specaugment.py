"""SpecAugment: stretches of frames and of mel bands replaced by a constant."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asr.frontend.augment.config import AugmentConfig
from asr.frontend.features import frame_mask


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
        rng: of the utterance and epoch; see `draws.generator`.

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


def apply_masks(features: Tensor, masks: Masks, lengths: Tensor | None = None) -> Tensor:
    """Set masked regions to the mean of their band over the utterance, as in SpecAugment.

    Args:
        features: (batch, frames, n_mels), 0 after the end of each utterance.
        masks: of the same batch, on the same device.
        lengths: (batch,) int64 valid frames, to compute the means; None where they are known to be 0, as
            after normalisation of each utterance.

    Returns:
        (batch, frames, n_mels), 0 after the end of each utterance.

    Source: Park et al. 2019, "SpecAugment", section 2: the mask's value is the mean, which is 0 in
        normalised features.
    """
    time = _covered(masks.time, features.shape[1])
    mel = _covered(masks.mel, features.shape[2])
    masked = time.unsqueeze(2) | mel.unsqueeze(1)
    if lengths is None:
        return features.masked_fill(masked, 0.0)
    mean = features.sum(dim=1, keepdim=True) / lengths.clamp_min(1)[:, None, None]
    valid = frame_mask(lengths, features.shape[1]).unsqueeze(2)
    return torch.where(masked & valid, mean, features)


def _draw_intervals(count: int, longest: int, size: int, rng: np.random.Generator) -> Tensor:
    """(count, 2) int64 of first index and width, each width up to longest, all within size."""
    widths = rng.integers(0, longest, size=count, endpoint=True)
    starts = rng.integers(0, size - widths, endpoint=True) if count else widths
    return torch.from_numpy(np.stack([starts, widths], axis=1).astype(np.int64))


def _covered(intervals: Tensor, size: int) -> Tensor:
    """(batch, masks, 2) intervals -> (batch, size) bool, True inside any of them."""
    index = torch.arange(size, device=intervals.device)
    start, width = intervals[..., :1], intervals[..., 1:]
    return ((index >= start) & (index < start + width)).any(dim=1)
