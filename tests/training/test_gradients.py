import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from asr.batching.batches import Batch, BatchConfig, Batches
from asr.errors import TrainingError
from asr.training import gradients as gradients_module
from asr.training.gradients import sum_statistics
from asr.training.stopping import StopRequest
from asr.training.task import Losses
from asr.training.trainer import Trainer
from tests.training.conftest import ENCODER, FEATURES, PLAIN, examples_of

Make = Callable[..., Trainer[Any]]
NO_DROPOUT = replace(ENCODER, dropout=0.0)


def gradients_of(trainer: Trainer[Any], batches: list[Batch]) -> tuple[Any, dict[str, torch.Tensor]]:
    tokens = sum(batch.global_tokens for batch in batches)

    def restart() -> None:
        torch.manual_seed(1)
        trainer.task.net.zero_grad()

    def forward_backward(part: Batch, last: bool) -> Losses:
        computed = trainer.loss.forward(part, torch.float32, send=last)
        trainer.loss.backward(computed.losses.sum() / tokens, send=last)
        return computed

    done = trainer.halving.run(batches, forward_backward, restart, update=7)
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
    batches = Batches(trainer.task.train.examples, FEATURES, config, PLAIN, seed=1)
    return list(batches.load(batches.plan(0)))


class TooLarge:
    """A task for which batches of more than `rows` utterances do not fit into memory."""

    def __init__(self, trainer: Trainer[Any], rows: int, error: Exception, where: str) -> None:
        self.task, self.rows, self.error, self.where = trainer.task, rows, error, where
        self.tried: list[int] = []
        self.original = trainer.task.losses
        trainer.task.losses = self.losses

    def losses(self, batch: Batch, precision: torch.dtype) -> Any:
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
    assert halved.statistics["blank of"] == computed.statistics["blank of"]
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)
    first = f"update 7: out of memory on a batch of 12: {', '.join(batch.ids)}. It is made in halves"
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
    trainer.run(StopRequest())
    failed = [rows for rows in limit.tried if rows > 2]
    assert len(failed) == len(caplog.messages) <= 2
    assert min(limit.tried) >= 1
    assert len(limit.tried) > 20


def test_out_of_memory_on_one_utterance(make_trainer: Make) -> None:
    """Guards against halving for ever: one utterance that does not fit ends the run with its name."""
    trainer = make_trainer()
    TooLarge(trainer, 0, CPU_ERROR, "forward")
    with pytest.raises(
        TrainingError, match=r"update 1: out of memory on what cannot be made smaller: u\d\d\."
    ):
        trainer.run(StopRequest())


def test_other_errors_are_not_taken_for_it(make_trainer: Make) -> None:
    """Guards against a bug that is hidden as out of memory."""
    trainer = make_trainer()
    TooLarge(trainer, 0, RuntimeError("shapes cannot be multiplied"), "forward")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trainer.run(StopRequest())


def test_whole_run_in_halves(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the loop: a run in which large batches never fit learns what one with enough memory learns."""
    caplog.set_level(logging.WARNING, "asr")
    freed: list[bool] = []
    monkeypatch.setattr(gradients_module, "_free_memory", lambda: freed.append(True))
    make_trainer("whole", encoder=NO_DROPOUT).run(StopRequest())
    assert not caplog.messages
    trainer = make_trainer("halves", encoder=NO_DROPOUT)
    TooLarge(trainer, 2, CPU_ERROR, "backward")
    trainer.run(StopRequest())
    assert freed
    whole, halves = (make_trainer(name) for name in ("a", "b"))
    for name, other in (("whole", whole), ("halves", halves)):
        states = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["states"]
        other.task.net.load_state_dict(states["net"])
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
    position = trainer.run(StopRequest())
    assert position.update == sum(-(-count // accumulate) for count in batches)


def test_halves_of_a_batch(make_trainer: Make) -> None:
    """Guards what a half holds: its own rows of everything, and no padding of the other half's."""
    trainer = make_trainer(augment=replace(PLAIN, time_masks_per_s=1.0, mel_masks=1, masks_from_epoch=1))
    batch = next(batch for batch in trainer.task.load(trainer.task.plan(1)) if len(batch.ids) > 2)
    first, second = batch.split()
    assert first.ids + second.ids == batch.ids
    assert (first.global_tokens, first.global_seconds) == (batch.global_tokens, batch.global_seconds)
    for part, rows in ((first, slice(None, len(first.ids))), (second, slice(len(first.ids), None))):
        frames = int(part.frame_lengths.max())
        assert torch.equal(part.frame_lengths, batch.frame_lengths[rows])
        assert torch.equal(part.audio, batch.audio[rows, :frames])
        assert torch.equal(part.tokens, batch.tokens[rows])
        assert torch.equal(part.token_lengths, batch.token_lengths[rows])
        assert torch.equal(part.masks.time, batch.masks.time[rows])
        assert torch.equal(part.masks.mel, batch.masks.mel[rows])
    assert batch._rows(0, 1).split() is None
    waveforms = replace(batch, audio=torch.zeros(len(batch.ids), 1000))
    assert waveforms.split()[0].audio.shape == (len(first.ids), 1000)


def test_examples_have_enough_variety(tones: Any) -> None:
    """The tests above would pass without batches of different sizes."""
    assert len({len(example.tokens) for example in examples_of(tones)}) > 2
