"""An update's results, which the device may still be computing when the next update begins.

A GPU works on a queue. A host that reads a result waits until the queue is empty, and the GPU then waits for
the host. So results are copied to the host's memory without waiting, and read while the device is busy with
the next update's gradient. The weights do not change before that: whoever inspects an update (to write down
what spoiled it) still sees the weights that it has left.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from asr.training.metrics import UpdateReport
from asr.training.task import TaskBatch

B = TypeVar("B", bound=TaskBatch)
T = TypeVar("T")


def defers(device: torch.device) -> bool:
    """Whether results are read one update late; a CPU has them at once."""
    return device.type == "cuda"


def record_event() -> torch.cuda.Event:
    """A mark in the device's queue, for which the host can wait."""
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


def one_late(items: Iterable[T]) -> Iterator[T]:
    """The same items, each when the next one has been begun."""
    iterator = iter(items)
    for before in iterator:
        for item in iterator:
            yield before
            before = item
        yield before


@dataclass(frozen=True)
class PendingUpdate(Generic[B]):
    """An update whose results have not been read.

    Attributes:
        number: of the update, counted from 1.
        batches: of this process.
        ids: of their rows.
        losses: (rows,) nats, in the host's memory.
        seed: of its random draws.
        learning_rate: that it was made with.
        names: of the results, as `Trainer` gives them.
        values: (names,) the results, the same on all processes, in the host's memory.
        ready: when losses and results have arrived; None: they have.
    """

    number: int
    batches: Sequence[B]
    ids: tuple[str, ...]
    losses: Tensor
    seed: int
    learning_rate: float
    names: tuple[str, ...]
    values: Tensor
    ready: torch.cuda.Event | None

    @staticmethod
    def begin(
        number: int,
        batches: Sequence[B],
        ids: tuple[str, ...],
        losses: Tensor,
        seed: int,
        learning_rate: float,
        results: Mapping[str, Tensor],
    ) -> "PendingUpdate[B]":
        """Start to copy an update's results, which are on the device, to the host's memory."""
        return PendingUpdate(
            number, batches, ids, losses.to("cpu", non_blocking=True), seed, learning_rate,
            tuple(results), torch.stack(list(results.values())).to("cpu", non_blocking=True),
            record_event() if defers(losses.device) else None,
        )  # fmt: skip

    def read(self) -> dict[str, float]:
        """The results; waits for the device if they have not arrived."""
        if self.ready is not None:
            self.ready.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))

    def report(self, results: Mapping[str, float], clip_norm: float) -> UpdateReport:
        """The numbers that are logged.

        Args:
            results: as `read` gives them: loss, norm and skipped; of each statistic "NAME count", "NAME of".
            clip_norm: above which gradients are scaled down; 0 for never.
        """
        names = [name.removesuffix(" count") for name in results if name.endswith(" count")]
        return UpdateReport(
            number=self.number,
            made=not results["skipped"],
            loss=results["loss"],
            norm=results["norm"],
            clipped=0 < clip_norm < results["norm"],
            statistics={name: results[f"{name} count"] / max(results[f"{name} of"], 1) for name in names},
            learning_rate=self.learning_rate,
            tokens=sum(batch.global_tokens for batch in self.batches),
            units=sum(batch.global_units for batch in self.batches),
        )
