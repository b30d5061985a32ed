from itertools import pairwise

import pytest

from asr.training.schedule import Schedule, learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        ("cosine", 0.0, 0.0),
        ("cosine", 0.05, 0.5),
        ("cosine", 0.1, 1.0),
        ("cosine", 0.55, 0.5),
        ("cosine", 0.325, 0.8535533905932737),
        ("cosine", 1.0, 0.0),
        ("linear", 0.1, 1.0),
        ("linear", 0.55, 0.5),
        ("linear", 1.0, 0.0),
        ("constant", 0.05, 0.5),
        ("constant", 1.0, 1.0),
    ],
)
def test_known_points(schedule: Schedule, progress: float, factor: float) -> None:
    """Guards the curve: the peak ends the warm-up, half is where it should be, zero comes last."""
    assert learning_rate_factor(progress, 0.1, schedule) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_no_jumps(schedule: Schedule, warmup: float) -> None:
    """Guards against a jump where the warm-up ends, and against factors outside [0, 1]."""
    values = [learning_rate_factor(step / 1000, warmup, schedule) for step in range(1001)]
    assert all(0 <= value <= 1 for value in values)
    steepest = max(1 / (1000 * warmup) if warmup else 0, 1.6 / (1000 * (1 - warmup)))
    assert max(abs(left - right) for left, right in pairwise(values)) <= steepest + 1e-9


def test_no_warmup_starts_at_the_peak() -> None:
    """Guards against a division by a warm-up of zero."""
    assert learning_rate_factor(0.0, 0.0, "cosine") == 1.0
