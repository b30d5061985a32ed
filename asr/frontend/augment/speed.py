"""Speed perturbation: an utterance played faster or slower, tempo and pitch together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.frontend.audio import resample
from asr.frontend.augment.draws import uniform


def draw_speeds(
    speeds: Sequence[float],
    top_speeds: NDArray[np.floating],
    hashes: NDArray[np.uint64],
    seed: int,
    epoch: int,
) -> NDArray[np.float64]:
    """Draw the speed of each utterance in an epoch, each speed with the same probability.

    Args:
        speeds: factors to draw from, in any order.
        top_speeds: (utterances,) the fastest that each may have; one that may have none gets 1.0.
        hashes: (utterances,) of their ids, as `hash_ids` gives them.
        seed: of the run.
        epoch: counted from 1.

    Returns:
        (utterances,) factors.
    """
    ordered = np.sort(np.array(speeds))
    # A little above: top speeds may have been rounded to float32.
    allowed = np.searchsorted(ordered, top_speeds * (1 + 1e-6), side="right")
    chosen = (uniform(hashes, seed, epoch, "speed") * allowed).astype(np.int64)
    return np.where(allowed > 0, ordered[chosen], 1.0)


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
