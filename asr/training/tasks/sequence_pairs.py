"""The sequence pair task: sequences of symbols to other ones, such as the letters of words to phones."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.batching.sampler import group_by_length
from asr.device import autocast
from asr.errors import DataError, check_number
from asr.model.sequence.model import (
    Ids,
    PaddedIds,
    SequenceModel,
    load_sequence_model,
    save_sequence_model,
)
from asr.training.distributed import Process
from asr.training.tasks.interface import TaskOutput, Throughput, trainable_children

log = logging.getLogger("asr")


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """How pairs become batches."""

    symbols: int = 2000  # most source and target symbols of a process's batch, padding included

    def __post_init__(self) -> None:
        check_number("--pairs.symbols", self.symbols, least=1)


@dataclass(frozen=True)
class SequencePair:
    """A source sequence and the target sequences that are right for it."""

    name: str  # for messages, such as a word
    source: Ids  # at least one
    targets: tuple[Ids, ...]  # at least one; the usual one first


@dataclass(frozen=True)
class PairBatch:
    """Source sequences, each with one target."""

    ids: tuple[str, ...]  # the names of the pairs
    source: Tensor  # (rows, longest source) int64
    source_lengths: Tensor  # (rows,) int64
    target: Tensor  # (rows, longest target) int64
    target_lengths: Tensor  # (rows,) int64
    global_tokens: int  # target symbols and ends of all processes
    global_size: float  # pairs of all processes

    @property
    def padded_size(self) -> int:
        """Source and target symbols, over all rows."""
        return self.source.numel() + self.target.numel()

    def split(self) -> tuple["PairBatch", "PairBatch"] | None:
        """The first half of the rows and the second; None for one row."""
        half = len(self.ids) // 2
        return (self._rows(slice(0, half)), self._rows(slice(half, None))) if half else None

    def _rows(self, rows: slice) -> "PairBatch":
        return PairBatch(
            self.ids[rows], self.source[rows], self.source_lengths[rows], self.target[rows],
            self.target_lengths[rows], self.global_tokens, self.global_size,
        )  # fmt: skip


@dataclass(frozen=True)
class PairValidation:
    """The validation on held-out sequences, written greedily."""

    wrong: float  # percent of the sequences for which none of the right targets was written
    loss: float  # nats per symbol of the usual targets and their ends
    examples: tuple[tuple[str, str], ...]  # a few names with what was written

    @property
    def score(self) -> float:
        """Percent wrong."""
        return self.wrong

    def headline(self) -> str:
        """The numbers for the epoch's log line."""
        return f"dev loss {self.loss:.3f}  dev {self.wrong:.2f}% wrong"

    def row(self) -> dict[str, Any]:
        """The numbers for metrics.jsonl and the model's provenance."""
        return {"dev_loss": self.loss, "dev_wrong": self.wrong, "examples": self.examples}


class SequencePairTask:
    """A network that is trained on pairs and selected by the share of other sequences that it gets wrong.

    A source with more than one right target is as many pairs in training.

    Args:
        net: on its device.
        train: the training pairs; targets that the net cannot give are left out, and counted.
        dev: pairs to choose the best epoch by.
        config: the size of batches.
        process: this process among those that train together.
        seed: of the order of the pairs.

    Raises:
        DataError: nothing to learn from, or to choose by.
    """

    score_name, score_format = "dev sequences wrong", "{:.2f}%"
    throughput = Throughput("pairs_per_s", "{:.0f} pairs/s")
    replay_module: str | None = None
    memory_advice = "Lower --pairs.symbols, or make the model smaller."

    def __init__(
        self,
        net: SequenceModel,
        train: Sequence[SequencePair],
        dev: Sequence[SequencePair],
        config: PairConfig,
        process: Process,
        seed: int,
    ) -> None:
        self.net, self.config, self.process, self.seed = net, config, process, seed
        every = [(pair.name, pair.source, target) for pair in train for target in pair.targets]
        self.train = [(name, source, target) for name, source, target in every if net.fits(source, target)]
        self.dev = dev
        if len(self.train) < process.world_size or not dev:
            raise DataError(
                f"{len(self.train)} sequences to learn from and {len(dev)} to choose by. Expected at least "
                f"one for each of {process.world_size} process(es), and one. Give more data."
            )
        if left_out := len(every) - len(self.train):
            log.warning(
                "%d of %d pairs are left out of training: their targets have more symbols than the network "
                "has steps for.", left_out, len(every),
            )  # fmt: skip
        self._lengths = np.array([len(source) + len(target) + 1 for _, source, target in self.train])
        self._tokens = np.array([len(target) + 1 for _, _, target in self.train])

    def submodules(self) -> dict[str, nn.Module]:
        """Submodules of the network by the names that --train.freeze takes."""
        return trainable_children(self.net)

    def source_weights(self, path: Path) -> dict[str, Tensor | None]:
        """The tensors of a saved network; None for embeddings and outputs if the alphabets differ."""
        other = load_sequence_model(path)
        strange: tuple[str, ...] = (
            () if other.sources == self.net.sources else ("source_embedding.", "embedding.")
        )
        strange += () if other.targets == self.net.targets else ("target_embedding.", "output.")
        return {
            name: None if name.startswith(strange) else tensor for name, tensor in other.state_dict().items()
        }

    def plan(self, epoch: int) -> Sequence[tuple[NDArray[np.int32], int, int]]:
        """The batches of an epoch: this process's rows of each, and the tokens and pairs of all processes."""
        draw = np.random.default_rng([self.seed, epoch])
        world_size = self.process.world_size
        limit = float(self.config.symbols * world_size)
        groups = group_by_length(self._lengths.astype(np.float64), limit, draw, world_size)
        order = np.arange(len(groups))
        draw.shuffle(order[1:])  # the longest first, so that one that does not fit is found at once
        return [
            (groups.shards_of(int(number))[self.process.rank], int(self._tokens[rows].sum()), len(rows))
            for number in order
            if len(rows := groups.batch(int(number)))
        ]

    def load(self, plan: Sequence[tuple[NDArray[np.int32], int, int]]) -> Iterator[PairBatch]:
        """The batches of a part of a plan."""
        for rows, tokens, pairs in plan:
            chosen = [self.train[row] for row in rows]
            source = PaddedIds.of([source for _, source, _ in chosen])
            target = PaddedIds.of([target for _, _, target in chosen])
            names = tuple(name for name, _, _ in chosen)
            yield PairBatch(
                names, source.ids, source.lengths, target.ids, target.lengths, tokens, float(pairs)
            )

    def forward(self, batch: PairBatch, precision: torch.dtype) -> TaskOutput:
        """The loss of each pair, in nats; nothing is read from the device."""
        device = self.net.device
        source = batch.source.to(device, non_blocking=True)
        target = batch.target.to(device, non_blocking=True)
        with autocast(precision, device):
            losses = self.net.losses(source, batch.source_lengths, target, batch.target_lengths)
        return TaskOutput(losses, {})

    def observe(self, number: int, statistics: Mapping[str, float]) -> None:
        """It has no statistics."""

    @torch.inference_mode()
    def validate(self, process: Process, precision: torch.dtype) -> PairValidation:
        """The share of dev sequences that are wrong; the processes share the work and all get the result."""
        self.net.eval()
        device = self.net.device
        mine = sorted(self.dev[process.rank :: process.world_size], key=lambda pair: len(pair.source))
        wrong, total, tokens = 0, 0.0, 0
        examples: list[tuple[str, str]] = []
        longest = max((len(pair.source) for pair in mine), default=1)
        size = max(1, self.config.symbols // longest)
        for begin in range(0, len(mine), size):
            pairs = mine[begin : begin + size]
            source = PaddedIds.of([pair.source for pair in pairs], device)
            usual = PaddedIds.of([pair.targets[0] for pair in pairs], device)
            with autocast(precision, device):
                losses = self.net.losses(source.ids, source.lengths, usual.ids, usual.lengths)
                written = self.net.greedy(source.ids, source.lengths)
            fits = torch.tensor([self.net.fits(pair.source, pair.targets[0]) for pair in pairs])
            total += float(losses.cpu()[fits].sum())
            for pair, target in zip(pairs, written, strict=True):
                wrong += target not in pair.targets
                tokens += len(pair.targets[0]) + 1
            symbols = [" ".join(self.net.targets[number - 1] for number in target) for target in written[:1]]
            examples += [(pairs[0].name, text) for text in symbols]
        self.net.train()
        gathered = process.gather((wrong, total, tokens, examples[:: max(1, len(examples) // 3)]))
        wrong, total, tokens = (sum(part[index] for part in gathered) for index in range(3))
        return PairValidation(100 * wrong / len(self.dev), total / tokens, tuple(gathered[0][3][:3]))

    def save(self, path: Path, weights: Mapping[str, Tensor], provenance: dict[str, Any]) -> None:
        """Write the network with these weights."""
        save_sequence_model(path, self.net, provenance, weights)

    def state(self) -> dict[str, Any]:
        """Nothing: it carries no state from batch to batch."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to continue from."""
