"""Batches in halves, results that are read one update late (with a stand-in for a GPU's event), AdamW."""

import copy
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asr.batching.batches import Batch, BatchConfig, Batches
from asr.errors import Interrupted, TrainingError
from asr.training import trainer as trainer_module
from asr.training import update as update_module
from asr.training.run.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.run.faults import load_bad_update
from asr.training.run.stopping import StopRequest
from asr.training.tasks.interface import TaskOutput
from asr.training.tasks.speech import replay
from asr.training.trainer import Trainer
from asr.training.update import (
    PendingUpdate,
    delayed_by_one,
    make_optimizer,
    restore_optimizer,
    step_unless,
    sum_statistics,
)
from tests.training.conftest import AUGMENT, ENCODER, FEATURES, PLAIN, StopAfter, examples_of, rows, same_tree
from tests.training.run.test_faults import plant
from tests.training.test_trainer import assert_same_runs

Make = Callable[..., Trainer[Any]]
NO_DROPOUT = replace(ENCODER, dropout=0.0)


def gradients_of(trainer: Trainer[Any], batches: list[Batch]) -> tuple[Any, dict[str, torch.Tensor]]:
    tokens = sum(batch.global_tokens for batch in batches)

    def restart() -> None:
        torch.manual_seed(1)
        trainer.task.net.zero_grad()

    def forward_backward(part: Batch, last: bool) -> TaskOutput:
        computed = trainer.parallel_task.forward(part, torch.float32, sync=last)
        trainer.parallel_task.backward(computed.losses.sum() / tokens, sync=last)
        return computed

    done = trainer.splitter.run(batches, forward_backward, restart, number=7)
    losses = torch.cat([computed.losses.detach() for _, computed in done])
    computed = SimpleNamespace(
        ids=tuple(name for part, _ in done for name in part.ids),
        losses=losses,
        loss=losses.sum() / tokens,
        statistics=sum_statistics([computed for _, computed in done]),
    )
    net = trainer.task.net
    return computed, {name: weight.grad.clone() for name, weight in net.named_parameters()}


def whole_set(trainer: Trainer[Any], seconds: float) -> list[Batch]:
    """All utterances, in batches of about so many seconds."""
    config = BatchConfig(seconds=seconds, cache_dir=None, workers=0)
    batches = Batches(trainer.task.train_batches.examples, FEATURES, config, PLAIN, seed=1)
    return list(batches.load(batches.plan(0)))


class TooLarge:
    """A task for which batches of more than `rows` utterances do not fit into memory."""

    def __init__(self, trainer: Trainer[Any], rows: int, error: Exception, where: str) -> None:
        self.task, self.rows, self.error, self.where = trainer.task, rows, error, where
        self.tried: list[int] = []
        self.original = trainer.task.forward
        trainer.task.forward = self.forward

    def forward(self, batch: Batch, precision: torch.dtype) -> Any:
        self.tried.append(len(batch.ids))
        if len(batch.ids) <= self.rows:
            return self.original(batch, precision)
        if self.where == "forward":
            raise self.error
        result = self.original(batch, precision)
        result.losses.register_hook(self.fail)
        return result

    def fail(self, gradient: torch.Tensor) -> torch.Tensor:
        raise self.error


CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:125] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


CUDA_ERROR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


@pytest.mark.parametrize(("error", "where"), [(CUDA_ERROR, "forward"), (CPU_ERROR, "backward")])
def test_out_of_memory_gives_the_same_gradient(
    error: Exception, where: str, make_trainer: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the effective gradient: twelve utterances of which five fit are halved twice, and named."""
    trainer = make_trainer(encoder=NO_DROPOUT)
    (batch,) = whole_set(trainer, 1000)
    computed, expected = gradients_of(trainer, [batch])
    limit = TooLarge(trainer, 5, error, where)
    halved, actual = gradients_of(trainer, [batch])
    assert limit.tried == [12, 6, 3, 3, 3, 3]  # the second half is not tried: it is as large as the first
    assert halved.ids == batch.ids
    torch.testing.assert_close(halved.losses, computed.losses)
    torch.testing.assert_close(halved.loss, computed.loss)
    assert halved.statistics["blank"][1] == computed.statistics["blank"][1] > 0
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)
    first = f"update 7: out of memory on a batch of 12: {', '.join(batch.ids)}. It is computed in halves"
    assert caplog.messages[0].startswith(first)
    assert len(caplog.messages) == 2


def test_out_of_memory_after_a_part_that_fitted(make_trainer: Make) -> None:
    """Guards against a gradient that counts what was done before the failure twice."""
    trainer = make_trainer(encoder=NO_DROPOUT)
    batches = whole_set(trainer, 3)[
        ::-1
    ]  # the shortest utterances, of which many fit, come last: begin there
    assert len(batches) > 1
    _, expected = gradients_of(trainer, batches)
    TooLarge(trainer, max(len(batch.ids) for batch in batches) - 1, CPU_ERROR, "backward")
    _, actual = gradients_of(trainer, batches)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


def test_size_that_failed_is_not_tried_again(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the speed of a run whose longest batches do not fit: each size fails, and is logged, once."""
    trainer = make_trainer(epochs=4, encoder=NO_DROPOUT, augment=PLAIN)
    limit = TooLarge(trainer, 2, CPU_ERROR, "backward")
    trainer.fit(StopRequest())
    failed = [rows for rows in limit.tried if rows > 2]
    assert len(failed) == len(caplog.messages) <= 2
    assert min(limit.tried) >= 1
    assert len(limit.tried) > 20


def test_out_of_memory_on_one_utterance(make_trainer: Make) -> None:
    """Guards against halving for ever: one utterance that does not fit ends the run with its name."""
    trainer = make_trainer()
    TooLarge(trainer, 0, CPU_ERROR, "forward")
    with pytest.raises(
        TrainingError, match=r"update 1: out of memory on a batch that cannot be split: u\d\d\."
    ):
        trainer.fit(StopRequest())


def test_other_errors_are_not_taken_for_it(make_trainer: Make) -> None:
    """Guards against a bug that is hidden as out of memory."""
    trainer = make_trainer()
    TooLarge(trainer, 0, RuntimeError("shapes cannot be multiplied"), "forward")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trainer.fit(StopRequest())


def test_whole_run_in_halves(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the loop: a run in which large batches never fit learns what one with enough memory learns."""
    caplog.set_level(logging.WARNING, "asr")
    freed: list[bool] = []
    monkeypatch.setattr(update_module, "_free_memory", lambda: freed.append(True))
    make_trainer("whole", encoder=NO_DROPOUT).fit(StopRequest())
    assert not caplog.messages
    trainer = make_trainer("halves", encoder=NO_DROPOUT)
    TooLarge(trainer, 2, CPU_ERROR, "backward")
    trainer.fit(StopRequest())
    assert freed
    whole, halves = (make_trainer(name) for name in ("a", "b"))
    for name, other in (("whole", whole), ("halves", halves)):
        state_dicts = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["states"]
        other.task.net.load_state_dict(state_dicts["net"])
    torch.testing.assert_close(
        whole.task.net.state_dict(), halves.task.net.state_dict(), rtol=1e-3, atol=1e-4
    )


def test_accumulation_equals_one_large_batch(make_trainer: Make) -> None:
    """Guards the weights of the parts: batches with few and many tokens count by their tokens."""
    trainer = make_trainer(encoder=NO_DROPOUT)
    large, small = whole_set(trainer, 1000), whole_set(trainer, 2)
    assert len(small) > 3
    computed, expected = gradients_of(trainer, large)
    parts, actual = gradients_of(trainer, small)
    torch.testing.assert_close(parts.loss, computed.loss)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [2, 3, 100])
def test_accumulating_run(accumulate: int, make_trainer: Make, tmp_path: Path) -> None:
    """Guards the counts: an epoch of n batches makes n / accumulate updates, the last of what is left."""
    trainer = make_trainer(epochs=2, accumulate=accumulate)
    batches = len(trainer.task.plan(1)), len(trainer.task.plan(2))
    state = trainer.fit(StopRequest())
    assert state.update == sum(-(-count // accumulate) for count in batches)


def test_halves_of_a_batch(make_trainer: Make) -> None:
    """Guards what a half holds: its rows of everything, and no padding of the other half."""
    trainer = make_trainer(augment=replace(PLAIN, time_masks_per_s=1.0, mel_masks=1, masks_from_epoch=1))
    batch = next(batch for batch in trainer.task.load(trainer.task.plan(1)) if len(batch.ids) > 2)
    first, second = batch.split()
    assert first.ids + second.ids == batch.ids
    assert (first.global_tokens, first.global_seconds) == (batch.global_tokens, batch.global_seconds)
    for part, part_rows in ((first, slice(None, len(first.ids))), (second, slice(len(first.ids), None))):
        frames = int(part.frame_lengths.max())
        assert torch.equal(part.frame_lengths, batch.frame_lengths[part_rows])
        assert torch.equal(part.cached_features, batch.cached_features[part_rows, :frames])
        assert torch.equal(part.tokens, batch.tokens[part_rows])
        assert torch.equal(part.token_lengths, batch.token_lengths[part_rows])
        assert torch.equal(part.masks.time, batch.masks.time[part_rows])
        assert torch.equal(part.masks.mel, batch.masks.mel[part_rows])
    assert batch._rows(0, 1).split() is None
    waveforms = replace(batch, cached_features=None, waveforms=torch.zeros(len(batch.ids), 1000))
    assert waveforms.split()[0].waveforms.shape == (len(first.ids), 1000)


def test_examples_have_enough_variety(tones: Any) -> None:
    """The tests above would pass without batches of different sizes."""
    assert len({len(example.tokens) for example in examples_of(tones)}) > 2


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
    original = PendingUpdate.__init__

    def begin(update: PendingUpdate[Any], **arguments: Any) -> None:
        original(update, **arguments)
        losses, values, statistics = update._copy.get()
        update._copy._events.append(LateEvent((losses, values, *statistics.values())))

    def start() -> None:
        monkeypatch.setattr(trainer_module, "is_asynchronous", lambda device: True)
        monkeypatch.setattr(PendingUpdate, "__init__", begin)

    return start


def test_deferred_equals_immediate(make_trainer: Make, tmp_path: Path, defer: Callable[[], None]) -> None:
    """Guards the GPU's way through the loop: the same weights, metrics and reports, also of bad updates, as
    when each result is read at once; and reproducers with the weights of their update, not of a later one."""
    records = []
    for name in ("at_once", "late"):
        trainer = make_trainer(name, epochs=2, augment=AUGMENT, ema=0.9, accumulate=2)
        plant(trainer, "u05", "infinite")
        trainer.fit(StopRequest())
        paths = sorted((tmp_path / name).glob("bad_update_*.pt"))
        records.append([(path.name, load_bad_update(path)["weights_sha256"]) for path in paths])
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
    make_trainer("whole", **more).fit(StopRequest())
    defer()
    trainer = make_trainer("parts", **more)
    stopped_after = 0
    for stop in stops:
        with pytest.raises(Interrupted, match="and saved"):
            trainer.fit(StopAfter(stop))
        state, _, state_dicts = load_checkpoint(tmp_path / "parts" / CHECKPOINT, CPU)
        stopped_after += stop + 1  # the first that asks is the one after so many
        assert state.update == stopped_after
        trainer = make_trainer("parts", **more)
        trainer.restore(state, state_dicts)
    trainer.fit(StopRequest())
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_time_limit_with_one_update_an_epoch(make_trainer: Make, defer: Callable[[], None]) -> None:
    """Guards --train.max-hours on a GPU; see above."""
    defer()
    with pytest.raises(Interrupted, match=r"stopped by --train\.max-hours"):
        make_trainer(accumulate=100).fit(StopRequest(max_hours=1e-9))


def test_saved_with_the_last_update_of_an_epoch(
    make_trainer: Make, tmp_path: Path, defer: Callable[[], None]
) -> None:
    """Guards requests to save in mid-epoch: the checkpoint holds the update that was pending."""
    make_trainer("whole").fit(StopRequest())
    defer()
    make_trainer("saved", save_every_s=0.0).fit(StopRequest())
    assert_same_runs(tmp_path / "whole", tmp_path / "saved")


def test_one_late() -> None:
    """Guards the order: each item is returned after the next has been started, and none is lost."""
    events: list[str] = []

    def items() -> Iterator[int]:
        for number in range(3):
            events.append(f"begin {number}")
            yield number

    for number in delayed_by_one(items()):
        events.append(f"end {number}")
    assert events == ["begin 0", "begin 1", "end 0", "begin 2", "end 1", "end 2"]
    assert list(delayed_by_one([])) == []


def test_rows_of_metrics(make_trainer: Make, tmp_path: Path, defer: Callable[[], None]) -> None:
    """Guards the numbers of each row: they are those of the update that it names."""
    make_trainer("at_once", epochs=2).fit(StopRequest())
    defer()
    make_trainer("late", epochs=2).fit(StopRequest())
    times = ("audio_s_per_s", "waiting_share")
    left, right = (
        [{key: row[key] for key in row if key not in times} for row in rows(tmp_path / name, "updates")]
        for name in ("at_once", "late")
    )
    assert same_tree(left, right)
    assert json.dumps(left)


def _step(model: nn.Module, optimizer: torch.optim.AdamW, skipped: bool, gradient: float = 1.0) -> None:
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, gradient)
    step_unless(optimizer, torch.tensor(skipped, device=next(model.parameters()).device))


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gradient", [1.0, float("nan"), float("inf")])
def test_skipped_update_changes_nothing(device: str, gradient: float) -> None:
    """Guards weights, both moments, step counts and weight decay against an update that is to be left out."""
    model = nn.Linear(3, 2).to(device)
    optimizer = make_optimizer(model, 0.1, weight_decay=0.5)
    _step(model, optimizer, skipped=False)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    _step(model, optimizer, skipped=True, gradient=gradient)
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)
    after = optimizer.state_dict()["state"]
    for key, values in state["state"].items():
        assert values["step"] == 1
        for name, value in values.items():
            assert torch.equal(after[key][name], value), name


def test_first_update_skipped() -> None:
    """Guards the state that the first call makes: a skip there must not count as a step."""
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, 0.1, weight_decay=0.0)
    _step(model, optimizer, skipped=True, gradient=float("nan"))
    _step(model, optimizer, skipped=False)
    other = copy.deepcopy(model)
    state_dicts = optimizer.state_dict()["state"].values()
    assert all(state["step"] == 1 and torch.isfinite(state["exp_avg"]).all() for state in state_dicts)
    assert all(torch.isfinite(weight).all() for weight in other.parameters())


def test_equals_plain_adamw() -> None:
    """Guards the fused updates against torch's plain ones."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    plain = copy.deepcopy(model)
    ours = make_optimizer(model, 0.1, weight_decay=0.5)
    theirs = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.5, foreach=False)
    for gradient in (1.0, -2.0, 0.5):
        _step(model, ours, skipped=False, gradient=gradient)
        for weight in plain.parameters():
            weight.grad = torch.full_like(weight, gradient)
        theirs.step()
    torch.testing.assert_close(model.state_dict(), plain.state_dict())


def test_only_matrices_decay() -> None:
    """Guards biases and norms against weight decay."""
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    decayed, plain = make_optimizer(model, 0.1, weight_decay=0.5).param_groups
    assert [weight.dim() for weight in decayed["params"]] == [2]
    assert decayed["weight_decay"] == 0.5
    assert len(plain["params"]) == 3
    assert plain["weight_decay"] == 0.0


def test_moments_of_other_weights_are_refused() -> None:
    """Freezing another layer of the same shape leaves as many weights of the same shapes: moments taken by
    their index in the list would silently be those of other weights."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    optimizer = make_optimizer(model, 0.1, weight_decay=0.0)
    _step(model, optimizer, skipped=False)
    state = copy.deepcopy(optimizer.state_dict())
    assert restore_optimizer(make_optimizer(model, 0.1, weight_decay=0.0), state)
    model[0].requires_grad_(True)
    model[1].requires_grad_(False)
    other = make_optimizer(model, 0.1, weight_decay=0.0)
    assert not restore_optimizer(other, state)
    assert not other.state_dict()["state"]
