"""How long a run is, and when it is validated: by epochs, by updates, by the clock; older runs."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asr.errors import Interrupted
from asr.training import metrics as metrics_module
from asr.training.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.stopping import StopRequest
from asr.training.trainer import Trainer
from tests.training.conftest import AUGMENT, ENCODER, StopAfter, rows, same_tree
from tests.training.test_trainer import assert_same_runs

Make = Callable[..., Trainer]
CPU = torch.device("cpu")
OLD_RUN = Path(__file__).parent / "data" / "run_d81c39c"


def resume(make_trainer: Make, run_dir: Path, **config: Any) -> Trainer:
    trainer = make_trainer(run_dir.name, **config)
    position, _, states = load_checkpoint(run_dir / CHECKPOINT, CPU)
    trainer.restore(position, states)
    return trainer


def test_validated_every_so_many_updates(make_trainer: Make, tmp_path: Path) -> None:
    """Guards --train.validate-every: in mid-epoch and over more than one, and once more at the end."""
    position = make_trainer(validate_every=4).run(StopRequest())
    total = position.update
    validations = rows(tmp_path / "run", "validation")
    assert [row["update"] for row in validations] == [*range(4, total, 4), total]
    assert position.best.startswith("update ")
    assert not rows(tmp_path / "run", "epoch")
    assert position.epoch == 4


@pytest.mark.parametrize("stops", [(3, 2), (4,), (1, 7)])
def test_resumed_equals_never_stopped(stops: tuple[int, ...], make_trainer: Make, tmp_path: Path) -> None:
    """Guards validations by updates against being left out, or made twice, where a session ends: also one
    that ends when a validation is due."""
    more = {"validate_every": 5, "updates": 17, "average": 2, "ema": 0.9, "schedule": "plateau"}
    make_trainer("whole", augment=AUGMENT, **more).run(StopRequest())
    trainer = make_trainer("parts", augment=AUGMENT, **more)
    for stop in stops:
        with pytest.raises(Interrupted):
            trainer.run(StopAfter(stop))
        trainer = resume(make_trainer, tmp_path / "parts", augment=AUGMENT, **more)
    trainer.run(StopRequest())
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
    pairs = [[row["update"] for row in rows(tmp_path / name, "validation")] for name in ("whole", "parts")]
    assert pairs[0] == pairs[1] == [5, 10, 15, 17]


def test_patience_counts_validations(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards early stopping within an epoch."""
    trainer = make_trainer(validate_every=2, epochs=50, patience=2)
    original = trainer.task.validate
    monkeypatch.setattr(trainer.task, "validate", lambda *args: replace(original(*args), wer=50, loss=1))
    position = trainer.run(StopRequest())
    assert (position.best, position.update) == ("update 2", 6)


def test_planned_by_updates(make_trainer: Make, tmp_path: Path) -> None:
    """Guards --train.updates: their number, whatever --train.epochs is; the learning rate falls over them."""
    position = make_trainer(epochs=1, updates=12, schedule="linear", warmup=0.0, learning_rate=0.12).run(
        StopRequest()
    )
    assert position.update == 12
    rates = [row["learning_rate"] for row in rows(tmp_path / "run", "updates")]
    assert rates == pytest.approx([0.12 - 0.01 * number for number in range(12)])
    assert position.validated_update == 12  # the last weights are scored, in mid-epoch
    assert resume(make_trainer, tmp_path / "run", updates=12).run(StopRequest()).update == 12


class Clock:
    """A clock by which each update takes 10 seconds."""

    def __init__(self, trainer: Trainer) -> None:
        self.now = 1000.0
        original = trainer._update

        def update(*arguments: Any) -> None:
            self.now += 10.0
            original(*arguments)

        trainer._update = update

    def monotonic(self) -> float:
        return self.now


def test_planned_by_time(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards --train.minutes: the learning rate falls with the clock and is 0 at the end, the time of earlier
    sessions counts, and the progress line knows what is left."""
    caplog.set_level("INFO", "asr")
    plan = {"minutes": 2.0, "schedule": "linear", "warmup": 0.0, "learning_rate": 0.12}
    trainer = make_trainer(**plan)
    monkeypatch.setattr(metrics_module, "time", Clock(trainer))
    with pytest.raises(Interrupted):
        trainer.run(StopAfter(4))
    trainer = resume(make_trainer, tmp_path / "run", **plan)
    monkeypatch.setattr(metrics_module, "time", Clock(trainer))
    position = trainer.run(StopRequest())
    assert position.update == 12
    assert position.seconds == 120
    rates = [row["learning_rate"] for row in rows(tmp_path / "run", "updates")]
    assert rates == pytest.approx([0.12 - 0.01 * number for number in range(12)])
    lines = [record.getMessage() for record in caplog.records if "  left " in record.getMessage()]
    assert lines[0].startswith("epoch 1  batch 1/")
    assert lines[0].endswith("left 0:01:50")
    assert lines[-1].endswith("left 0:00:00")
    assert position.validated_update == 12


def test_run_of_an_older_version(make_trainer: Make, tmp_path: Path) -> None:
    """Guards runs that were begun at commit d81c39c, in checkpoint format 2: resumed, one ends as it would
    have there. Its numbers are those of another processor, hence the tolerance."""
    shutil.copytree(OLD_RUN, tmp_path / "run")
    small = replace(ENCODER, width=4, channels=2)
    trainer = resume(
        make_trainer, tmp_path / "run", encoder=small, augment=AUGMENT, epochs=4, average=2, ema=0.9
    )
    assert (trainer.position.best, trainer.position.since_best) == ("epoch 2", 0)
    position = trainer.run(StopRequest())
    assert (position.epoch, position.update, position.best) == (5, 20, "epoch 4")
    expected = load_file(OLD_RUN / "expected_last.safetensors")
    torch.testing.assert_close(
        load_file(tmp_path / "run" / "last.safetensors"), expected, rtol=1e-3, atol=1e-4
    )
    assert {path.stem for path in (tmp_path / "run" / "best_epochs").iterdir()} == {
        "epoch_00003",
        "epoch_00004",
    }
    assert [row["epoch"] for row in rows(tmp_path / "run", "epoch")] == [1, 2, 3, 4]


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False), (True, True)])
def test_resumed_into_another_precision(
    before: bool, after: bool, make_trainer: Make, tmp_path: Path
) -> None:
    """Guards --train.resume-anyway with another --train.precision: the loss scale of fp16 is reset, or is
    left aside; it was a bare RuntimeError."""

    def make(scaled: bool) -> Trainer:
        trainer = make_trainer(epochs=2)
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        return trainer

    trainer = make(before)
    with pytest.raises(Interrupted):
        trainer.run(StopAfter(1))
    position, _, states = load_checkpoint(tmp_path / "run" / CHECKPOINT, CPU)
    assert bool(states["scaler"]) == before
    trainer = make(after)
    trainer.restore(position, states)
    assert trainer.run(StopRequest()).epoch == 3
    assert same_tree(trainer.scaler.is_enabled(), after)
