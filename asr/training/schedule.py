"""The learning-rate schedule: a pure function of the progress of training, so no state is saved."""

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant", "one-cycle", "noam", "plateau"]

PLATEAU_FACTOR = 0.5  # on the rate, after each validation that was not the best so far

_ONE_CYCLE = 1 / 25, 1 / 25e4  # of the peak, at the beginning and at the end, as in torch's OneCycleLR


def learning_rate_factor(progress: float, warmup: float, schedule: Schedule) -> float:
    """The factor on the peak learning rate.

    Args:
        progress: fraction of the training (epochs, updates or minutes) that is done, in [0, 1].
        warmup: fraction over which the rate rises to its peak, linearly from 0 except in
            "one-cycle"; above 0 for "noam".
        schedule: how it falls afterwards. "constant" does not; nor does "plateau" here: its cuts depend on
            the dev scores (`TrainingState.learning_rate_scale`).

    Returns:
        A factor in [0, 1].

    Source: warm-up as in Goyal et al. 2017; cosine as in Loshchilov & Hutter 2017, equation 5, without
    restarts; one-cycle: Smith & Topin 2018, with the cosine halves and constants of torch's OneCycleLR, the
    momentum left alone; noam: Vaswani et al. 2017, equation 3, with its peak at 1.
    """
    if schedule == "one-cycle":
        start, end = _ONE_CYCLE
        if progress < warmup:
            return _cosine(start, 1.0, progress / warmup)
        return _cosine(1.0, end, (progress - warmup) / (1 - warmup))
    if progress < warmup:
        return progress / warmup
    if schedule == "noam":
        return math.sqrt(warmup / progress)
    if schedule in ("constant", "plateau"):
        return 1.0
    done = (progress - warmup) / (1 - warmup)
    return 1 - done if schedule == "linear" else _cosine(1.0, 0.0, done)


def _cosine(start: float, end: float, done: float) -> float:
    """A value between two, along half a cosine; done: in [0, 1]."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * done))
