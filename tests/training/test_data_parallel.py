from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from asr.errors import TrainingError
from asr.training.data_parallel import ParallelTask, dry_run
from asr.training.trainer import Trainer
from tests.training.conftest import ALONE
from tests.training.test_update import CPU_ERROR, CUDA_ERROR, TooLarge

Make = Callable[..., Trainer]


def failing_loss(error: Exception) -> torch.Tensor:
    def fail(gradient: torch.Tensor) -> torch.Tensor:
        raise error

    loss = torch.ones((), requires_grad=True) * 2
    loss.register_hook(fail)
    return loss


def test_out_of_memory_while_sending(make_trainer: Make) -> None:
    """Guards processes against one that starts its batch again while the others wait for the rest of
    its gradient: where nothing is sent it may (the caller splits the batch), else the run ends, in one line.
    """
    parallel = ParallelTask(make_trainer().task, ALONE)
    parallel._parallel = SimpleNamespace(no_sync=nullcontext)
    with pytest.raises(torch.OutOfMemoryError):
        parallel.backward(failing_loss(CUDA_ERROR), sync=False)
    with pytest.raises(TrainingError, match=r"^out of memory while gradients were sent .*--batch\.seconds"):
        parallel.backward(failing_loss(CUDA_ERROR), sync=True)
    with pytest.raises(RuntimeError, match="shapes"):
        parallel.backward(failing_loss(RuntimeError("shapes cannot be multiplied")), sync=True)


def test_rehearsal(make_trainer: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the try before training: it finds what does not fit, in the longest batch, and leaves neither
    gradients nor another state of the task."""
    trainer = make_trainer()
    trainer.task.blank_plateau.emits = True
    limit = TooLarge(trainer, 1, CPU_ERROR, "backward")
    plan = trainer.task.plan(1)
    longest = max(trainer.task.load(plan), key=lambda batch: batch.padded_size)
    dry_run(trainer.parallel_task, trainer.splitter, plan, torch.float32)
    assert limit.tried[0] == len(longest.ids)
    assert trainer.splitter.failed_size <= longest.padded_size
    assert len(caplog.messages) == sum(rows > 1 for rows in limit.tried)  # the second pass has none
    assert all(weight.grad is None for weight in trainer.task.net.parameters())
    assert trainer.task.blank_plateau.emits
