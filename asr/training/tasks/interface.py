"""The interface between the training loop and what it trains: a recogniser, a language model.

`Trainer` knows updates, epochs, checkpoints, signals and bad losses; a `Task` knows the net, the data, the
loss and the validation. `asr.training.tasks.speech` is an example.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from asr.training.distributed import Process


class TaskBatch(Protocol):
    """A batch as the loop sees it; a frozen dataclass, so that it can be kept on disk."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The name of every row, for messages."""

    @property
    def global_tokens(self) -> int:
        """Tokens of all processes' parts of this batch, at least 1: the loss is divided by them."""

    @property
    def global_size(self) -> float:
        """The size of all processes' parts of this batch, as the task's `Throughput` counts it."""

    @property
    def padded_size(self) -> int:
        """Rows times the longest one's length: the memory that a batch needs grows with it."""

    def split(self) -> tuple[Self, Self] | None:
        """Two halves, if the whole does not fit into memory; None where that is not possible."""


@dataclass(frozen=True)
class TaskOutput:
    """What a task computes of a batch; all of it stays on the device."""

    losses: Tensor  # (rows,) nats, one for each of the batch's ids, with their gradient
    # Fractions that the progress line shows after the loss, by name: () how many, and () out of how many.
    statistics: Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Throughput:
    """How the speed of training is reported."""

    key: str  # in metrics.jsonl, such as audio_s_per_s
    text: str  # in the progress line, such as "audio {:.0f} s/s"


class ValidationResult(Protocol):
    """The validation of a net on held-out data."""

    @property
    def score(self) -> float:
        """The criterion for the best epoch, such as WER in percent; lower is better."""

    @property
    def loss(self) -> float:
        """Nats a token; decides between equal scores."""

    def headline(self) -> str:
        """The numbers for the epoch's log line, such as "dev loss 0.500  dev WER 12.50%"."""

    def row(self) -> dict[str, Any]:
        """The numbers for metrics.jsonl, as plain values; a saved model's provenance has them, too."""


B = TypeVar("B", bound=TaskBatch)


def trainable_children(net: nn.Module) -> dict[str, nn.Module]:
    """The children of a net that have parameters, by name: what most tasks give as `submodules`."""
    return {name: part for name, part in net.named_children() if any(True for _ in part.parameters())}


class Task(Protocol[B]):
    """A net with its data, its loss and its validation.

    Its random draws come from torch's generator, which the loop seeds before every update, or are pure
    functions of a seed: then a resumed run equals one that never stopped.
    """

    score_name: str  # of `ValidationResult.score`, such as "dev WER"
    score_format: str  # of its value, such as "{:.2f}%"
    throughput: Throughput

    # Module whose function `replay` repeats the update of a file bad_update_N.pt; None: there is none.
    replay_module: str | None

    # Advice for a batch that does not fit into memory and cannot be split, as a sentence.
    memory_advice: str

    @property
    def net(self) -> nn.Module:
        """The net that is trained, on its device."""

    def submodules(self) -> dict[str, nn.Module]:
        """Submodules of the net by the names that --train.freeze takes; together they are the net."""

    def source_weights(self, path: Path) -> dict[str, Tensor | None]:
        """The tensors of a saved model, for a warm start; None for one whose meaning differs here.

        Raises:
            ModelError: the file cannot be read.
        """

    def plan(self, epoch: int) -> Sequence[Any]:
        """The batches of an epoch, counted from 1, in their order; the same at every call."""

    def load(self, plan: Sequence[Any]) -> Iterator[B]:
        """The batches of a part of a plan, in the host's memory."""

    def forward(self, batch: B, precision: torch.dtype) -> TaskOutput:
        """The losses of a batch, which is moved to the net's device. Must not read from the device.

        A state that is carried to the next batch is detached, replaced rather than changed in place, and
        kept finite: otherwise all later updates would fail.
        """

    def observe(self, number: int, statistics: Mapping[str, float]) -> None:
        """Receive the statistics, each in [0, 1], of an update that was made.

        Args:
            number: of the update, counted from 1.
            statistics: by name.
        """

    def validate(self, process: Process, precision: torch.dtype) -> ValidationResult:
        """Score the net on held-out data; all processes get the same result. Leaves it in training mode."""

    def save(self, path: Path, weights: Mapping[str, Tensor], provenance: dict[str, Any]) -> None:
        """Write the net, with these weights, as a model file that the other commands can use.

        Called from another thread while training continues, so it must not read the net's current weights.

        Raises:
            ModelError: it cannot be written.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the weights (a carried hidden state): tensors, plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state` of this process or, if the number of processes has changed, of another."""
