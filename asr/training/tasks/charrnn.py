"""The character RNN task: streams of text, hidden states carried from block to block.

The text is one long sequence of symbols, cut into as many equal streams as a batch has rows. A batch is the
next block of every stream, and its hidden state continues from the last block's: gradients reach back over
one block (truncated back-propagation through time), the hidden state without limit.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.device import autocast
from asr.errors import DataError, SettingsError, check_number
from asr.lm.charrnn import CharRnn, load_charrnn, save_charrnn
from asr.model.recurrent.unidirectional import State
from asr.training.distributed import Process
from asr.training.tasks.interface import TaskOutput, Throughput, trainable_children

log = logging.getLogger("asr")

_SAMPLE = 120  # characters of the text that is sampled after every epoch


@dataclass(frozen=True, kw_only=True)
class TextStreamConfig:
    """How a text becomes batches."""

    streams: int = 64  # rows of a batch, over all processes: parts of the text that are read in parallel
    block: int = 128  # characters over which gradients reach back

    def __post_init__(self) -> None:
        check_number("--text.streams", self.streams, least=1)
        check_number("--text.block", self.block, least=1)


@dataclass(frozen=True)
class Block:
    """The next block of every stream."""

    ids: tuple[str, ...]  # where in the text each row is
    symbols: Tensor  # (rows, steps + 1) int64: inputs, and one more for the last target
    first: bool  # of the epoch: the hidden state starts at zero
    global_tokens: int  # targets of all processes
    global_size: float  # the same, which is what the throughput counts

    @property
    def padded_size(self) -> int:
        """Characters, over all rows."""
        return self.symbols.numel()

    def split(self) -> None:
        """None: rows and hidden states are not split."""


@dataclass(frozen=True)
class CharRnnValidation:
    """The validation on a held-out text."""

    loss: float  # nats per character

    @property
    def score(self) -> float:
        """Bits a character."""
        return self.loss / math.log(2)

    def headline(self) -> str:
        """The numbers for the epoch's log line."""
        return f"dev {self.score:.3f} bits per character"

    def row(self) -> dict[str, Any]:
        """The numbers for metrics.jsonl and the model's provenance."""
        return {"dev_loss": self.loss, "dev_bits_per_character": self.score}


class CharRnnTask:
    """A character RNN that is trained on one text and selected by its bits per character on another.

    Args:
        net: on its device.
        train: (n,) symbol ids of the training text.
        dev: (m,) symbol ids of the dev text.
        config: streams and block length.
        process: this process; it reads every world_size-th stream.
        seed: of where the streams begin in each epoch.

    Raises:
        DataError: a text is too short for its streams.
    """

    score_name, score_format = "dev bits per character", "{:.3f}"
    throughput = Throughput("characters_per_s", "{:.0f} characters/s")
    replay_module: str | None = None
    memory_advice = "Lower --text.block or --text.streams, or make the model smaller."

    def __init__(
        self,
        net: CharRnn,
        train: NDArray[np.uint16],
        dev: NDArray[np.uint16],
        config: TextStreamConfig,
        process: Process,
        seed: int,
    ) -> None:
        self.net, self.train, self.dev = net, train, dev
        self.config, self.process, self.seed = config, process, seed
        if len(train) < 2 * config.streams or len(dev) < 2:
            raise DataError(
                f"{len(train)} characters to learn from and {len(dev)} to choose by. Expected at "
                f"least {2 * config.streams} for {config.streams} streams, and 2. Give more text, or lower "
                f"--text.streams."
            )
        if config.streams < process.world_size:
            raise SettingsError(
                f"--text.streams is {config.streams} for {process.world_size} processes. Expected one or "
                f"more for each. Raise it."
            )
        self._states: list[State] | None = None

    def submodules(self) -> dict[str, nn.Module]:
        """Parts of the network by the names that --train.freeze takes."""
        return trainable_children(self.net)

    def source_weights(self, path: Path) -> dict[str, Tensor | None]:
        """The tensors of a saved network; None for embeddings and outputs if the alphabets differ."""
        other = load_charrnn(path)
        same = other.symbols == self.net.symbols
        return {
            name: tensor if same or not name.startswith(("embedding.", "output.")) else None
            for name, tensor in other.state_dict().items()
        }

    def plan(self, epoch: int) -> Sequence[tuple[int, int]]:
        """(epoch, block) of an epoch's blocks; every stream continues from block to block."""
        length = len(self.train) // self.config.streams
        return [(epoch, block) for block in range(-(-(length - 1) // self.config.block))]

    def load(self, plan: Sequence[tuple[int, int]]) -> Iterator[Block]:
        """The blocks of a part of a plan."""
        streams, steps = self.config.streams, self.config.block
        length = len(self.train) // streams
        rows = range(self.process.rank, streams, self.process.world_size)
        for epoch, block in plan:
            # Streams start elsewhere in every epoch, so that the cuts move.
            shift = int(np.random.default_rng([self.seed, epoch]).integers(len(self.train)))
            begin, end = block * steps, min((block + 1) * steps, length - 1)
            offsets = np.arange(begin, end + 1)
            parts = [self.train[(shift + row * length + offsets) % len(self.train)] for row in rows]
            count = (end - begin) * streams
            yield Block(
                ids=tuple(f"stream {row}, characters {begin} to {end}" for row in rows),
                symbols=torch.from_numpy(np.stack(parts).astype(np.int64)),
                first=block == 0,
                global_tokens=count,
                global_size=float(count),
            )

    def forward(self, batch: Block, precision: torch.dtype) -> TaskOutput:
        """The loss of each stream's block, in nats; the state is carried to the next."""
        symbols = batch.symbols.to(self.net.device, non_blocking=True)
        states = None if batch.first else self._states
        with autocast(precision, self.net.device):
            log_probs, states = self.net(symbols[:, :-1], states)
        # A state that is not finite would make all later updates fail: it is reset, and its update skipped.
        self._states = [
            tuple(torch.nan_to_num(part.detach(), nan=0.0, posinf=0.0, neginf=0.0) for part in layer)
            for layer in states
        ]
        # Flat, since torch has no deterministic kernel for losses along a second axis on a GPU.
        losses = F.nll_loss(log_probs.flatten(0, 1), symbols[:, 1:].flatten(), reduction="none")
        return TaskOutput(losses.view(len(symbols), -1).sum(1), {})

    def observe(self, number: int, statistics: Mapping[str, float]) -> None:
        """It has no statistics."""

    @torch.inference_mode()
    def validate(self, process: Process, precision: torch.dtype) -> CharRnnValidation:
        """Bits a character on the held-out text; the main process logs a sample of the network."""
        self.net.eval()
        streams = max(1, min(self.config.streams, len(self.dev) // 1000))
        length = len(self.dev) // streams
        text = torch.from_numpy(self.dev[: streams * length].astype(np.int64)).view(streams, length)
        total, count = torch.zeros((), dtype=torch.float64, device=self.net.device), 0
        states: list[State] | None = None
        for begin in range(0, length - 1, self.config.block):
            part = text[:, begin : begin + self.config.block + 1].to(self.net.device, non_blocking=True)
            with autocast(precision, self.net.device):
                log_probs, states = self.net(part[:, :-1], states)
            total += F.nll_loss(log_probs.flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
            count += part[:, 1:].numel()
        if process.is_main:
            log.info("it writes: %s", self.net.sample(_SAMPLE, self.seed).replace("\n", " / "))
        self.net.train()
        return CharRnnValidation(float(total) / count)  # the only value that is read from the device

    def save(self, path: Path, weights: Mapping[str, Tensor], provenance: dict[str, Any]) -> None:
        """Write the network with these weights."""
        save_charrnn(path, self.net, provenance, weights)

    def state(self) -> dict[str, Any]:
        """The hidden state of the next block, and how the streams are spread over processes."""
        states = None if self._states is None else [list(layer) for layer in self._states]
        return {"states": states, "streams": self.config.streams, "processes": self.process.world_size}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned.

        Raises:
            SettingsError: the streams are spread over the processes in another way.
        """
        before, now = state["processes"], self.process.world_size
        if (before, state["streams"]) != (now, self.config.streams):
            raise SettingsError(
                f"the run was trained by {before} process(es) with {state['streams']} streams, and this is "
                f"{now} with {self.config.streams}. Resume with as many processes and --text.streams as "
                f"before, or start a new run with --train.warm-start."
            )
        states = state["states"]
        self._states = None if states is None else [
            tuple(part.to(self.net.device) for part in layer) for layer in states
        ]  # fmt: skip
