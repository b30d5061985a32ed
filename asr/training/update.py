"""What one update needs: halves of batches that do not fit into memory, deferred results, AdamW.

A GPU works on a queue. A host that reads a result waits until the queue is empty, and the GPU then waits for
the host. So results are copied to the host's memory without waiting, and read while the device is busy with
the next update's gradient. The weights do not change before that: whoever inspects an update (to write down
what made it fail) still sees the weights that it has left.
"""

import gc
import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from asr.device import HostCopy, is_out_of_memory
from asr.errors import TrainingError
from asr.training.metrics import UpdateReport
from asr.training.tasks.interface import TaskBatch, TaskOutput

log = logging.getLogger("asr")

B = TypeVar("B", bound=TaskBatch)


class OomSplitter(Generic[B]):
    """Runs the forward and backward pass of an update's batches, in halves where it runs out of memory.

    The gradient of the parts is that of the whole, up to the order of sums (and the draws of dropout). A
    size that has once run out of memory is split from the start afterwards, for as long as the process lives.

    Args:
        memory_advice: a sentence for the user, for a batch that does not fit and cannot be split.
    """

    def __init__(self, memory_advice: str) -> None:
        self.memory_advice = memory_advice
        self.failed_size = math.inf  # `padded_size` of the smallest batch that has run out of memory

    def run(
        self,
        batches: Sequence[B],
        forward_backward: Callable[[B, bool], TaskOutput],
        restart: Callable[[], None],
        number: int,
    ) -> list[tuple[B, TaskOutput]]:
        """Leave the gradient of all batches in the weights.

        Args:
            batches: of one update.
            forward_backward: (part, is it the last?) -> its output; adds its gradient to the weights'.
            restart: sets gradients to zero and seeds the random draws again; called before each attempt.
            number: of the update, for messages.

        Returns:
            The parts, in order, and what was computed of each.

        Raises:
            TrainingError: there is not enough memory, even for the smallest part.
        """
        parts = [part for batch in batches for part in self._small_enough(batch)]
        while True:  # normally once: one part per batch, each of which fits
            restart()
            done: list[tuple[B, TaskOutput]] = []
            for index, part in enumerate(parts, start=1):
                output = _try(forward_backward, part, index == len(parts))
                if output is None:
                    break
                done.append((part, output))
            else:
                return done
            failed = len(done)
            halves = self._halve(parts[failed], number)
            parts = [part for batch in (*parts[:failed], *halves, *parts[failed + 1 :])
                     for part in self._small_enough(batch)]  # fmt: skip
            del done, output  # they hold memory
            _free_memory()

    def _small_enough(self, batch: B) -> list[B]:
        """A batch, or its parts below the size that has failed before, as far as it can be split."""
        if math.isinf(self.failed_size) or batch.padded_size < self.failed_size:
            return [batch]
        halves = batch.split()
        return [batch] if halves is None else [part for half in halves for part in self._small_enough(half)]

    def _halve(self, part: B, number: int) -> tuple[B, B]:
        halves = part.split()
        ids = ", ".join(part.ids)
        if halves is None:
            raise TrainingError(
                f"update {number}: out of memory on a batch that cannot be split: {ids}. "
                f"{self.memory_advice} Resume with --train.resume."
            )
        self.failed_size = min(self.failed_size, part.padded_size)
        log.warning(
            "update %d: out of memory on a batch of %d: %s. It is computed in halves, with the same result, "
            "as are all of its size from now on; if they are many, lower --batch.seconds.",
            number, len(part.ids), ids,
        )  # fmt: skip
        return halves


def sum_statistics(outputs: Sequence[TaskOutput]) -> dict[str, Tensor]:
    """A task's statistics over all parts of an update.

    Returns:
        By name: (2,) how many and out of how many, in the losses' type.
    """
    sums = {name: outputs[0].losses.new_zeros(2) for name in outputs[0].statistics}
    for output in outputs:
        for name, pair in output.statistics.items():
            sums[name] += torch.stack(pair)
    return sums


def _try(forward_backward: Callable[[B, bool], TaskOutput], part: B, last: bool) -> TaskOutput | None:
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


T = TypeVar("T")


def delayed_by_one(items: Iterable[T]) -> Iterator[T]:
    """The same items, each after the next one has been started."""
    iterator = iter(items)
    for before in iterator:
        for item in iterator:
            yield before
            before = item
        yield before


class PendingUpdate(Generic[B]):
    """An update whose results have not been read; they are being copied to the host's memory.

    Args:
        number: of the update, counted from 1.
        batches: of this process.
        ids: of their rows.
        losses: (rows,) nats, on the device.
        seed: of the random draws.
        learning_rate: that the update was made with.
        results: () each, by name; the same on all processes.
        statistics: of `sum_statistics`, over all processes.
    """

    def __init__(
        self,
        *,
        number: int,
        batches: Sequence[B],
        ids: tuple[str, ...],
        losses: Tensor,
        seed: int,
        learning_rate: float,
        results: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
    ) -> None:
        self.number, self.batches, self.ids = number, batches, ids
        self.seed, self.learning_rate = seed, learning_rate
        self._names = tuple(results)
        self._copy = HostCopy((losses, torch.stack(list(results.values())), statistics))

    @property
    def losses(self) -> Tensor:
        """(rows,) nats; waits for the device if it is still computing them."""
        losses, _, _ = self._copy.get()
        return losses

    def read(self) -> dict[str, float]:
        """The results; waits for the device if it is still computing them."""
        _, values, _ = self._copy.get()
        return dict(zip(self._names, values.tolist(), strict=True))

    def report(self, results: Mapping[str, float], clip_norm: float) -> UpdateReport:
        """The numbers that are logged.

        Args:
            results: as `read` gives them, among them loss, norm and skipped.
            clip_norm: above which gradients are scaled down; 0 for never.
        """
        _, _, pairs = self._copy.get()
        counts = {name: pair.tolist() for name, pair in pairs.items()}
        statistics = {name: count / max(total, 1) for name, (count, total) in counts.items()}
        return UpdateReport(
            number=self.number,
            made=not results["skipped"],
            loss=results["loss"],
            norm=results["norm"],
            clipped=0 < clip_norm < results["norm"],
            statistics=statistics,
            learning_rate=self.learning_rate,
            tokens=sum(batch.global_tokens for batch in self.batches),
            size=sum(batch.global_size for batch in self.batches),
        )


def make_optimizer(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    copied: Collection[str] = (),
    copied_rate: float = 1.0,
) -> torch.optim.AdamW:
    """AdamW over a model's trainable parameters; weight decay for matrices only.

    Biases and norms do not overfit. The fused kernel can skip an update by a flag on the device
    (`step_unless`), without the host reading it.

    Args:
        model: on its device.
        learning_rate: of the first update.
        weight_decay: of matrices.
        copied: names of the parameters that were copied from another model.
        copied_rate: factor on their learning rate.

    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization".
    """
    # Named, so that a checkpoint records which parameters its moments belong to.
    parameters = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    slow = set(copied) if copied_rate != 1 else set()
    groups: list[dict[str, Any]] = [
        {
            "params": [
                (name, parameter)
                for name, parameter in parameters
                if (parameter.dim() > 1) == is_matrix and (name in slow) == is_slow
            ],
            "weight_decay": weight_decay if is_matrix else 0.0,
            "rate": copied_rate if is_slow else 1.0,
        }
        for is_slow in (False, True)
        for is_matrix in (True, False)
    ]
    groups = [group for group in groups if group["params"]]  # torch expects names in all groups or none
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    set_learning_rate(optimizer, learning_rate)
    return optimizer


def set_learning_rate(optimizer: torch.optim.AdamW, learning_rate: float) -> None:
    """Set the learning rate of the next update; weights that were copied get their fraction of it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]


def restore_optimizer(optimizer: torch.optim.AdamW, state: dict[str, Any]) -> bool:
    """Load moments and step counts; learning rate and weight decay stay those of the optimiser.

    Args:
        optimizer: of `make_optimizer`.
        state: of such an optimiser.

    Returns:
        False, with nothing changed, if the state belongs to other weights.
    """
    groups = optimizer.state_dict()["param_groups"]
    before, now = ([group["param_names"] for group in part] for part in (state["param_groups"], groups))
    if before != now:
        return False
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    return True


def step_unless(optimizer: torch.optim.AdamW, skipped: Tensor) -> None:
    """Update the weights, or leave weights, moments and step counts as they are.

    Args:
        optimizer: of `make_optimizer`.
        skipped: () bool on the weights' device; True for no update. The host never reads it.

    Source: torch.optim.adam._fused_adam: the kernels return early where found_inf is 1, and the step counts
        that were raised for them are lowered by it again. torch.amp.GradScaler uses the same door.
    """
    optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
    optimizer.step()
