"""The learning rate as a pure function of how far training has come, so that there is no state to save."""

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant"]


def learning_rate_factor(progress: float, warmup: float, schedule: Schedule) -> float:
    """The factor on the peak learning rate.

    Args:
        progress: share of all updates that is done, in [0, 1].
        warmup: share of all updates over which the rate rises linearly from 0.
        schedule: how it falls to 0 afterwards; "constant" does not.

    Returns:
        A factor in [0, 1].

    Source: warm-up as in Goyal et al. 2017; cosine as in Loshchilov & Hutter 2017, equation 5, without
    restarts.
    """
    if progress < warmup:
        return progress / warmup
    if schedule == "constant":
        return 1.0
    remaining = (1 - progress) / (1 - warmup)
    return remaining if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * remaining))
