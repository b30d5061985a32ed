"""The gradient of one update: from one batch or several, whole or in halves, of one process or many.

Processes add their gradients up in one message after the backward pass. torch's DistributedDataParallel sends
during it, which hides some of the sending, but cannot recover when one process runs out of memory half-way:
the others would wait for messages that never come, or take them for others.
"""

import gc
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from asr.device import is_out_of_memory
from asr.errors import TrainingError
from asr.training.distributed import Process
from asr.training.task import Losses, Task, TaskBatch

log = logging.getLogger("asr")

B = TypeVar("B", bound=TaskBatch)


@dataclass(frozen=True)
class Computed:
    """What one process's backward pass gives besides the gradients; all but the ids is on the device."""

    ids: tuple[str, ...]
    losses: Tensor  # (rows,) nats
    loss: Tensor  # () nats a token: this process's part of the sum
    shares: Mapping[str, tuple[Tensor, Tensor]]  # as in `Losses`


def compute_gradients(
    task: Task[B],
    batches: Sequence[B],
    precision: torch.dtype,
    scaler: torch.amp.GradScaler,
    seed: int,
    update: int,
) -> Computed:
    """Leave in the net's weights this process's gradient of the mean loss a token over all batches.

    A batch that does not fit into memory is halved, as often as it takes, and the update begun again; the
    gradient is the same up to the order of sums (and the draws of dropout).

    Args:
        task: the net and its loss.
        batches: of this update; several act as one of their joint size.
        precision: number format of the net's arithmetic.
        scaler: for fp16.
        seed: of this update's draws.
        update: its number, for messages.

    Raises:
        TrainingError: there is not enough memory, even for the smallest part.
    """
    tokens = sum(batch.global_tokens for batch in batches)
    carried = task.state()
    parts = list(batches)
    while True:
        torch.manual_seed(seed)
        task.net.zero_grad(set_to_none=True)
        done: list[Losses] = []
        for part in parts:
            result = _try(task, part, tokens, precision, scaler)
            if result is None:
                break
            done.append(result)
        else:
            break
        failed = len(done)
        parts[failed : failed + 1] = _halves(parts[failed], update, task.make_smaller)
        task.restore(carried)
        del done, result
        _free_memory()
    losses = torch.cat([part.losses.detach() for part in done])
    shares = {
        name: (
            torch.stack([part.shares[name][0] for part in done]).sum(),
            torch.stack([part.shares[name][1] for part in done]).sum(),
        )
        for name in done[0].shares
    }
    return Computed(tuple(chain(*(part.ids for part in parts))), losses, losses.sum() / tokens, shares)


def add_up(process: Process, totals: Tensor, weights: Sequence[nn.Parameter]) -> Tensor:
    """Replace gradients by their sums over all processes.

    Args:
        process: this process.
        totals: (n,) other numbers to add up, in the same message.
        weights: those that learn, in the same order everywhere.

    Returns:
        (n,) the sums of the totals.
    """
    if process.world_size == 1:
        return totals
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    message = torch.cat([totals, *(gradient.flatten() for gradient in gradients)])
    process.add_up(message)
    sums = torch.split(message, [len(totals), *(gradient.numel() for gradient in gradients)])
    for weight, summed in zip(weights, sums[1:], strict=True):
        weight.grad = summed.view_as(weight)
    return sums[0]


def _try(
    task: Task[B], part: B, tokens: int, precision: torch.dtype, scaler: torch.amp.GradScaler
) -> Losses | None:
    """The backward pass of one part; None for want of memory. What it held is free when this returns."""
    try:
        result = task.losses(part, precision)
        # A mean over the tokens of all processes, so that several make the update that one would make.
        scaler.scale(result.losses.sum() / tokens).backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return result


def _halves(part: B, update: int, make_smaller: str) -> tuple[B, B]:
    halves = part.split()
    ids = ", ".join(part.ids)
    if halves is None:
        raise TrainingError(
            f"update {update}: out of memory on what cannot be made smaller: {ids}. {make_smaller} Go on "
            f"with --train.resume."
        )
    log.warning(
        "update %d: out of memory on a batch of %d: %s. It is made in halves, with the same result; if this "
        "is no exception, lower --batch.seconds.",
        update, len(part.ids), ids,
    )  # fmt: skip
    return halves


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
