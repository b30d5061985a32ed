from itertools import pairwise
from typing import get_args

import pytest
import torch

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
        ("plateau", 0.05, 0.5),
        ("plateau", 0.9, 1.0),
        ("noam", 0.05, 0.5),
        ("noam", 0.1, 1.0),
        ("noam", 0.4, 0.5),
        ("noam", 0.9, 1 / 3),
        ("one-cycle", 0.0, 0.04),
        ("one-cycle", 0.1, 1.0),
        ("one-cycle", 1.0, 4e-6),
    ],
)
def test_known_points(schedule: Schedule, progress: float, factor: float) -> None:
    """Guards the curve: the peak ends the warm-up, half is where it should be, zero comes last."""
    assert learning_rate_factor(progress, 0.1, schedule) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "warmup"),
    [(schedule, warmup) for schedule in get_args(Schedule) for warmup in (0.0, 0.1, 0.5)
     if (schedule, warmup) != ("noam", 0.0)],
)  # fmt: skip
def test_no_jumps(schedule: Schedule, warmup: float) -> None:
    """Guards against a jump where the warm-up ends, and against factors outside [0, 1]."""
    values = [learning_rate_factor(step / 1000, warmup, schedule) for step in range(1001)]
    assert all(0 <= value <= 1 for value in values)
    steepest = max(1.6 / (1000 * warmup) if warmup else 0, 1.6 / (1000 * (1 - warmup)))
    assert max(abs(left - right) for left, right in pairwise(values)) <= steepest + 1e-9


def test_no_warmup_starts_at_the_peak() -> None:
    """Guards against a division by a warm-up of zero."""
    assert learning_rate_factor(0.0, 0.0, "cosine") == 1.0


@pytest.mark.parametrize(("updates", "share"), [(40, 0.3), (101, 0.05), (64, 0.5)])
def test_one_cycle_equals_torchs(updates: int, share: float) -> None:
    """Guards Smith's cycle against torch's, whose peak is one update before the share of its warm-up ends."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=updates, pct_start=share, cycle_momentum=False
    )
    warmup = (share * updates - 1) / (updates - 1)
    for update in range(updates):
        ours = learning_rate_factor(update / (updates - 1), warmup, "one-cycle")
        assert optimizer.param_groups[0]["lr"] == pytest.approx(ours, rel=1e-6)
        optimizer.step()
        if update < updates - 1:
            theirs.step()


def test_noam_equals_the_papers_formula() -> None:
    """Guards Vaswani's equation 3: step^-0.5 after 4000 updates, step * 4000^-1.5 before."""
    total, warmup = 100_000, 4000
    for step in (1, 100, 3999, 4000, 4001, 50_000, 100_000):
        paper = min(step**-0.5, step * warmup**-1.5) / warmup**-0.5
        assert learning_rate_factor(step / total, warmup / total, "noam") == pytest.approx(paper)
