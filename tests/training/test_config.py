import math
from pathlib import Path
from typing import Any

import pytest

from asr.errors import SettingsError
from asr.training.config import TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"--train\.epochs must be at least 1. Got 0"),
        ({"patience": -1}, r"--train\.patience must be at least 0"),
        ({"accumulate": 0}, r"--train\.accumulate must be at least 1"),
        ({"max_bad_updates": 0}, r"--train\.max-bad-updates must be at least 1"),
        ({"save_every_s": -1.0}, r"--train\.save-every-s must be at least 0"),
        ({"log_every_s": math.nan}, r"--train\.log-every-s must be at least 0. Got nan"),
        ({"weight_decay": -0.1}, r"--train\.weight-decay must be at least 0"),
        ({"clip_norm": -1.0}, r"--train\.clip-norm must be at least 0"),
        ({"seed": -1}, r"--train\.seed must be at least 0"),
        ({"learning_rate": 0.0}, r"--train\.learning-rate must be above 0"),
        ({"learning_rate": math.inf}, r"--train\.learning-rate must be above 0"),
        ({"warmup": 1.0}, r"--train\.warmup must be in \[0, 1\). Got 1"),
        (
            {"schedule": "step"},
            r"--train\.schedule must be one of cosine, linear, constant, one-cycle, noam, plateau. Got",
        ),
        ({"schedule": "noam", "warmup": 0.0}, r"--train\.schedule noam peaks where --train\.warmup ends"),
        ({"ema": 1.0}, r"--train\.ema must be in \[0, 1\). Got 1"),
        ({"average": -1}, r"--train\.average must be at least 0"),
        ({"updates": -1}, r"--train\.updates must be at least 0"),
        ({"minutes": -1.0}, r"--train\.minutes must be at least 0"),
        ({"validate_every": -1}, r"--train\.validate-every must be at least 0"),
        (
            {"minutes": 8, "updates": 9},
            r"--train\.minutes 8 and --train\.updates 9: training ends by one of them",
        ),
        (
            {"warm_start": Path("m"), "warm_start_rate": 0.0},
            r"--train\.warm-start-rate must be above 0\. Got 0\. Weights .* --train\.freeze",
        ),
        (
            {"warm_start_rate": 0.1},
            r"--train\.warm-start-rate 0\.1: no weights .*--train\.warm-start",
        ),
        ({"max_hours": -1.0}, r"--train\.max-hours must be at least 0"),
        ({"threads": 0}, r"--train\.threads must be at least 1. Got 0"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    """Guards the ranges, by the names that the user types."""
    with pytest.raises(SettingsError, match=message):
        TrainConfig(**settings)
