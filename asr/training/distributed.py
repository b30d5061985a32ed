"""Processes that train together, started by torchrun: rank, collective operations, lost connections.

`torchrun --nproc-per-node K -m asr train …` starts K processes; without torchrun there is one, of rank 0.
The gradients are added up in `data_parallel.py`.
"""

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from asr.device import choose_device
from asr.errors import TrainingError
from asr.torchrun import rank_and_world_size

# How long a process waits for another. Nothing that one does alone takes as long; caches wait by a lock.
_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Process:
    """This process among those that train together."""

    rank: int  # 0 .. world_size - 1
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in order of rank, on every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by those of the main process."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def sums(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The sums of tensors over all processes, in one message; the host does not wait for a GPU.

        Args:
            values: the same names and shapes, in the same order, on every process; of one type.
        """
        if self.world_size == 1:
            return dict(values)
        message = torch.cat([value.flatten() for value in values.values()])
        dist.all_reduce(message)
        sizes = [value.numel() for value in values.values()]
        parts = message.split(sizes)  # type: ignore[no-untyped-call]
        return {name: part.view_as(values[name]) for name, part in zip(values, parts, strict=True)}


@contextmanager
def processes(device: str) -> Iterator[Process]:
    """Join the other processes, if torchrun started any, and leave them at the end.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N"; auto takes a GPU when there is one.

    Raises:
        SettingsError: the device does not exist.
        TrainingError: another process has ended too early.
    """
    rank, world_size = rank_and_world_size()
    chosen = choose_device(device, "--train.device")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world_size == 1:
        yield Process(0, 1, chosen)
        return
    # Gathered values are in the host's memory: gloo sends them, NCCL the gradients.
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield Process(rank, world_size, chosen)
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise TrainingError(
            f"{world_size} processes trained together, and one has ended too early or has not answered for "
            f"{_TIMEOUT.total_seconds() / 60:.0f} minutes. See its message; without one, it "
            f"was killed, perhaps out of memory. Start again with --train.resume."
        ) from error
    finally:
        dist.destroy_process_group()
        # gloo's threads end with the last reference to the group. One that is left, and frees a tensor after
        # the interpreter exits, aborts the process (torch's pull request 179291).
        gc.collect()


def _is_lost_connection(error: RuntimeError) -> bool:
    # gloo has no error class.
    return isinstance(error, dist.DistError) or "gloo" in str(error) or "Connection" in str(error)
