"""Data parallelism: forward and backward passes that add up the gradients of all processes.

With two or more processes this is torch's `DistributedDataParallel` around the task's forward pass: buckets
of gradients are sent during the backward pass. It sums where torch takes the mean, since every process
divides its losses by the tokens of all.

A process that runs out of memory while it sends would leave the others waiting. So only the last part of an
update sends, and before training each process runs its longest batch once without sending (`dry_run`), so
that a batch that does not fit is found, and split, before anything is sent.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from asr.device import is_out_of_memory
from asr.errors import TrainingError
from asr.training.distributed import Process
from asr.training.tasks.interface import Task, TaskBatch, TaskOutput
from asr.training.update import OomSplitter

B = TypeVar("B", bound=TaskBatch)


class ParallelTask(Generic[B]):
    """Forward and backward passes of one process among those that train together.

    Args:
        task: what is trained; all processes get the weights of the main one.
        process: this process.

    Source: Li et al. 2020, "PyTorch Distributed: experiences on accelerating data parallel training".
    """

    def __init__(self, task: Task[B], process: Process) -> None:
        self.task = task
        self._parallel: DistributedDataParallel | None = None
        if process.world_size > 1:
            # torch 2.14 warns that the argument has a new name, which torch 2.11 does not have.
            with warnings.catch_warnings(action="ignore", category=FutureWarning):
                self._parallel = DistributedDataParallel(_TaskModule(task), broadcast_buffers=False)
            self._parallel.register_comm_hook(None, _sum_gradients)

    def forward(self, batch: B, precision: torch.dtype, *, sync: bool) -> TaskOutput:
        """The losses of a batch.

        Args:
            batch: in the host's memory.
            precision: number format of the net's arithmetic.
            sync: whether its backward pass adds up the gradients of all processes.
        """
        if self._parallel is None:
            return self.task.forward(batch, precision)
        with self._synchronised(sync):
            output: TaskOutput = self._parallel(batch, precision)
            return output

    def backward(self, loss: Tensor, *, sync: bool) -> None:
        """Add a loss's gradient to the weights'; with `sync`, sum that over all processes.

        Args:
            loss: () of `forward`.
            sync: as in `forward`.

        Raises:
            TrainingError: out of memory while gradients were sent, after which the processes cannot continue.
        """
        try:
            with self._synchronised(sync):
                loss.backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, MemoryError) as error:
            if self._parallel is None or not sync or not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"out of memory while gradients were sent to the other processes: {error}. Lower "
                f"--batch.seconds, and resume with --train.resume-anyway."
            ) from error

    @contextmanager
    def _synchronised(self, sync: bool) -> Iterator[None]:
        if self._parallel is None or sync:
            yield
        else:
            with self._parallel.no_sync():
                yield


def dry_run(
    parallel_task: ParallelTask[B], splitter: OomSplitter[B], plan: Sequence[Any], precision: torch.dtype
) -> None:
    """Run the longest batch of this process once, before training, and discard its gradient.

    The first pass sends nothing: a size that does not fit into memory is found, and split from then on. The
    second sends, by which DistributedDataParallel fixes the order of its buckets: after that, sums of more
    than two processes are the same in a resumed run as in one that never stopped.

    Args:
        parallel_task: of this process.
        splitter: remembers which size does not fit.
        plan: of an epoch. Its first batch is the longest, or its last where short ones come first.
        precision: number format of the net's arithmetic.

    Raises:
        TrainingError: there is not enough memory.
    """
    task = parallel_task.task
    task_state = task.state()
    task.net.train()
    longest = max(task.load(plan[:: max(len(plan) - 1, 1)]), key=lambda batch: batch.padded_size)

    def forward_backward(part: B, sync: bool) -> TaskOutput:
        output = parallel_task.forward(part, precision, sync=sync)
        parallel_task.backward(output.losses.sum(), sync=sync)
        return output

    def restart() -> None:
        task.restore(task_state)
        task.net.zero_grad(set_to_none=True)

    splitter.run([longest], lambda part, last: forward_backward(part, sync=False), restart, number=0)
    splitter.run([longest], forward_backward, restart, number=0)
    restart()


class _TaskModule(nn.Module):
    """A task's forward pass as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, task: Task[Any]) -> None:
        super().__init__()
        self.net, self.task = task.net, task

    def forward(self, batch: Any, precision: torch.dtype) -> TaskOutput:
        return self.task.forward(batch, precision)


def _sum_gradients(
    state: object,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """As torch's allreduce_hook, without its division by the number of processes."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    sums: torch.futures.Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
    return sums
