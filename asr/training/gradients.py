"""The batches of one update, whole or in halves: what does not fit into memory is split, and begun again."""

import gc
import logging
import math
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from asr.device import is_out_of_memory
from asr.errors import TrainingError
from asr.training.task import Losses, TaskBatch

log = logging.getLogger("asr")

B = TypeVar("B", bound=TaskBatch)


class Halving(Generic[B]):
    """Runs the forward and backward pass of an update's batches, in halves where memory does not suffice.

    The gradient of the parts is that of the whole, up to the order of sums (and the draws of dropout). A
    size that has once run out of memory is split from the start afterwards, for as long as the process lives.

    Args:
        make_smaller: what to do when a batch cannot be split, as a sentence.
    """

    def __init__(self, make_smaller: str) -> None:
        self.make_smaller = make_smaller
        self.failed_size = math.inf  # `padded_size` of the smallest batch that has run out of memory

    def run(
        self,
        batches: Sequence[B],
        forward_backward: Callable[[B, bool], Losses],
        restart: Callable[[], None],
        update: int,
    ) -> list[tuple[B, Losses]]:
        """Leave the gradient of all batches in the weights.

        Args:
            batches: of one update.
            forward_backward: adds the gradient of a part to that in the weights; told whether it is the last.
            restart: sets gradients to zero and random draws to their beginning; called before each attempt.
            update: its number, for messages.

        Returns:
            The parts, in order, and what was computed of each.

        Raises:
            TrainingError: there is not enough memory, even for the smallest part.
        """
        parts = [part for batch in batches for part in self._small_enough(batch)]
        while True:
            restart()
            done: list[tuple[B, Losses]] = []
            for number, part in enumerate(parts, start=1):
                losses = _try(forward_backward, part, number == len(parts))
                if losses is None:
                    break
                done.append((part, losses))
            else:
                return done
            failed = len(done)
            halves = self._halve(parts[failed], update)
            parts = [part for batch in (*parts[:failed], *halves, *parts[failed + 1 :])
                     for part in self._small_enough(batch)]  # fmt: skip
            del done, losses  # they hold memory
            _free_memory()

    def _small_enough(self, batch: B) -> list[B]:
        """A batch, or its parts below the size that is known to fail, as far as it can be split."""
        if math.isinf(self.failed_size) or batch.padded_size < self.failed_size:
            return [batch]
        halves = batch.split()
        return [batch] if halves is None else [part for half in halves for part in self._small_enough(half)]

    def _halve(self, part: B, update: int) -> tuple[B, B]:
        halves = part.split()
        ids = ", ".join(part.ids)
        if halves is None:
            raise TrainingError(
                f"update {update}: out of memory on what cannot be made smaller: {ids}. {self.make_smaller} "
                f"Go on with --train.resume."
            )
        self.failed_size = min(self.failed_size, part.padded_size)
        log.warning(
            "update %d: out of memory on a batch of %d: %s. It is made in halves, with the same result, as "
            "are all of its size from now on; if they are many, lower --batch.seconds.",
            update, len(part.ids), ids,
        )  # fmt: skip
        return halves


def sum_statistics(parts: Sequence[Losses]) -> dict[str, Tensor]:
    """The () counts of a task's statistics over all parts of an update, as "NAME count" and "NAME of"."""
    sums: dict[str, Tensor] = {}
    for name in parts[0].statistics:
        pairs = zip(*(part.statistics[name] for part in parts), strict=True)
        count, total = (torch.stack(values).sum().to(parts[0].losses) for values in pairs)
        sums |= {f"{name} count": count, f"{name} of": total}
    return sums


def _try(forward_backward: Callable[[B, bool], Losses], part: B, last: bool) -> Losses | None:
    """The pass of one part; None if it ran out of memory. What it held is free when this returns."""
    try:
        return forward_backward(part, last)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
