"""Results that are read one update late, as on a GPU, with a stand-in for its event."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.errors import Interrupted
from asr.training import trainer as trainer_module
from asr.training.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.pending import PendingUpdate, one_late
from asr.training.reproducer import read_reproducer
from asr.training.stopping import StopRequest
from asr.training.tasks.speech import replay
from asr.training.trainer import Trainer
from tests.training.conftest import AUGMENT, StopAfter, rows, same_tree
from tests.training.test_bad_updates import plant
from tests.training.test_trainer import assert_same_runs

Make = Callable[..., Trainer]
CPU = torch.device("cpu")


class LateEvent:
    """The event of a GPU that has done nothing until it is waited for: before that, results are NaN."""

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        self.arriving = [(tensor, tensor.clone()) for tensor in tensors]
        for tensor in tensors:
            tensor.fill_(math.nan)

    def synchronize(self) -> None:
        for tensor, value in self.arriving:
            tensor.copy_(value)


@pytest.fixture
def defer(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it makes every later run read its results as on a GPU."""
    original = PendingUpdate.begin

    def begin(*arguments: Any) -> PendingUpdate[Any]:
        update = original(*arguments)
        update = replace(update, losses=update.losses.clone())
        return replace(update, ready=LateEvent((update.losses, update.values)))

    def start() -> None:
        monkeypatch.setattr(trainer_module, "defers", lambda device: True)
        monkeypatch.setattr(PendingUpdate, "begin", staticmethod(begin))

    return start


def test_deferred_equals_immediate(make_trainer: Make, tmp_path: Path, defer: Callable[[], None]) -> None:
    """Guards the GPU's way through the loop: the same weights, metrics and reports, also of bad updates, as
    when each result is read at once; and reproducers with the weights of their update, not of a later one."""
    records = []
    for name in ("at_once", "late"):
        trainer = make_trainer(name, epochs=2, augment=AUGMENT, ema=0.9, accumulate=2)
        plant(trainer, "u05", "infinite")
        trainer.run(StopRequest())
        paths = sorted((tmp_path / name).glob("bad_update_*.pt"))
        records.append([(path.name, read_reproducer(path)["weights_sha256"]) for path in paths])
        defer()
    assert_same_runs(tmp_path / "at_once", tmp_path / "late")
    assert len(records[0]) == 2
    assert records[0] == records[1]
    for path in (tmp_path / "late").glob("bad_update_*.pt"):
        assert not math.isfinite(replay(path)["gradient norm"])


@pytest.mark.parametrize("stops", [(1,), (2, 0), (3,)])
def test_stop_with_the_last_update_of_an_epoch(
    stops: tuple[int, ...], make_trainer: Make, tmp_path: Path, defer: Callable[[], None]
) -> None:
    """Guards Ctrl-C and --train.max-hours where each epoch has one update: a request that arrived with an
    epoch's last update was lost, every time."""
    more = {"epochs": 5, "accumulate": 100, "augment": AUGMENT}
    make_trainer("whole", **more).run(StopRequest())
    defer()
    trainer = make_trainer("parts", **more)
    stopped_after = 0
    for stop in stops:
        with pytest.raises(Interrupted, match="and saved"):
            trainer.run(StopAfter(stop))
        position, _, states = load_checkpoint(tmp_path / "parts" / CHECKPOINT, CPU)
        stopped_after += stop + 1  # the first that asks is the one after so many
        assert position.update == stopped_after
        trainer = make_trainer("parts", **more)
        trainer.restore(position, states)
    trainer.run(StopRequest())
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_time_limit_with_one_update_an_epoch(make_trainer: Make, defer: Callable[[], None]) -> None:
    """Guards --train.max-hours on a GPU; see above."""
    defer()
    with pytest.raises(Interrupted, match=r"stopped by --train\.max-hours"):
        make_trainer(accumulate=100).run(StopRequest(max_hours=1e-9))


def test_saved_with_the_last_update_of_an_epoch(
    make_trainer: Make, tmp_path: Path, defer: Callable[[], None]
) -> None:
    """Guards requests to save in mid-epoch: the checkpoint holds the update that was pending."""
    make_trainer("whole").run(StopRequest())
    defer()
    make_trainer("saved", save_every_s=0.0).run(StopRequest())
    assert_same_runs(tmp_path / "whole", tmp_path / "saved")


def test_one_late() -> None:
    """Guards the order: each item is handed over when the next has been begun, and none is lost."""
    events: list[str] = []

    def items() -> Iterator[int]:
        for number in range(3):
            events.append(f"begin {number}")
            yield number

    for number in one_late(items()):
        events.append(f"end {number}")
    assert events == ["begin 0", "begin 1", "end 0", "begin 2", "end 1", "end 2"]
    assert list(one_late([])) == []


def test_rows_of_metrics(make_trainer: Make, tmp_path: Path, defer: Callable[[], None]) -> None:
    """Guards the numbers of each row: they are those of the update that it names."""
    make_trainer("at_once", epochs=2).run(StopRequest())
    defer()
    make_trainer("late", epochs=2).run(StopRequest())
    times = ("audio_s_per_s", "waiting_share")
    left, right = (
        [{key: row[key] for key in row if key not in times} for row in rows(tmp_path / name, "updates")]
        for name in ("at_once", "late")
    )
    assert same_tree(left, right)
    assert json.dumps(left)
