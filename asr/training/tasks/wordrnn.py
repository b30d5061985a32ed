"""The word RNN task: sentences of about the same length side by side, each read from zeros.

Between sentences nothing is carried: a transcript is scored alone, and a network that has learned from
running text does not know how a text begins.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.device import autocast
from asr.errors import DataError, check_number
from asr.lm.wordrnn import END_OF_SENTENCE, WordRnn, load_wordrnn, save_wordrnn
from asr.training.distributed import Process
from asr.training.tasks.interface import TaskOutput, Throughput, trainable_children

_POOL = 20_000  # sentences that are sorted by length together


@dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """How sentences become batches."""

    words: int = 2048  # of a batch, over all processes, padding included
    longest: int = 80  # words of a sentence, which is cut there

    def __post_init__(self) -> None:
        check_number("--text.words", self.words, least=1)
        check_number("--text.longest", self.longest, least=1)


@dataclass(frozen=True)
class Sentences:
    """Encoded sentences, one after the other.

    Attributes:
        words: (n,) int32 ids, each sentence's end included.
        begins: (sentences,) index of the first word of each.
        lengths: (sentences,) words that are read of each, its end included.
    """

    words: NDArray[np.int32]
    begins: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def from_lines(cls, lines: Sequence[str], ids: Mapping[str, int], longest: int) -> "Sentences":
        """Encode lines; words without an id get 0, and what is beyond the longest length is not read."""
        words = np.fromiter(
            (
                word
                for line in lines
                for word in (*(ids.get(one, 0) for one in line.split()), END_OF_SENTENCE)
            ),
            np.int32,
        )
        ends = np.flatnonzero(words == END_OF_SENTENCE) + 1
        begins = np.append(0, ends[:-1])
        return cls(words, begins, np.minimum(ends - begins, longest))

    def batches(self, order: NDArray[np.int64], words: int) -> Iterator[NDArray[np.int64]]:
        """Indices of sentences of about the same length, as many as have so many words with their padding."""
        for first in range(0, len(order), _POOL):
            pool = order[first : first + _POOL]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            begin = 0
            while begin < len(pool):
                sizes = self.lengths[pool[begin:]] * np.arange(1, len(pool) - begin + 1)
                count = max(int(np.searchsorted(sizes, words, side="right")), 1)
                yield pool[begin : begin + count]
                begin += count

    def padded(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(rows, steps + 1) words with a sentence's end before the first, and (rows,) how many to predict."""
        lengths = self.lengths[rows]
        words = np.full((len(rows), int(lengths.max(initial=1)) + 1), END_OF_SENTENCE, np.int64)
        for row, (begin, length) in enumerate(zip(self.begins[rows], lengths, strict=True)):
            words[row, 1 : length + 1] = self.words[begin : begin + length]
        return torch.from_numpy(words), torch.from_numpy(lengths)


@dataclass(frozen=True)
class SentenceBatch:
    """Sentences of this process, see `Sentences.padded`."""

    ids: tuple[str, ...]  # the number of each
    words: Tensor  # (rows, steps + 1) int64
    lengths: Tensor  # (rows,) int64
    global_tokens: int  # targets of all processes
    global_size: float  # the same, which is what the throughput counts

    @property
    def padded_size(self) -> int:
        """Words, over all rows."""
        return self.words.numel()

    def split(self) -> tuple["SentenceBatch", "SentenceBatch"] | None:
        """Two halves of the rows; None for a single one."""
        if len(self.ids) < 2:
            return None
        middle = len(self.ids) // 2
        return self._rows(slice(None, middle)), self._rows(slice(middle, None))

    def _rows(self, rows: slice) -> "SentenceBatch":
        return SentenceBatch(
            self.ids[rows], self.words[rows], self.lengths[rows], self.global_tokens, self.global_size
        )


@dataclass(frozen=True)
class WordRnnValidation:
    """The validation on held-out sentences."""

    loss: float  # nats a word, sentence ends included

    @property
    def score(self) -> float:
        """Perplexity."""
        return math.exp(self.loss)

    def headline(self) -> str:
        """The numbers for the epoch's log line."""
        return f"dev perplexity {self.score:.1f}"

    def row(self) -> dict[str, Any]:
        """The numbers for metrics.jsonl and the model's provenance."""
        return {"dev_loss": self.loss, "dev_perplexity": self.score}


class WordRnnTask:
    """A word RNN that is trained on sentences and selected by its perplexity on others.

    Args:
        net: on its device.
        train: sentences to learn from.
        dev: sentences to choose by.
        config: of the batches.
        process: this process; it reads every world_size-th sentence of a batch.
        seed: of the order of the sentences.

    Raises:
        DataError: there are no sentences.
    """

    score_name, score_format = "dev perplexity", "{:.1f}"
    throughput = Throughput("words_per_s", "{:.0f} words/s")
    replay_module: str | None = None
    memory_advice = "Lower --text.words or --text.longest, or make the model smaller."

    def __init__(
        self,
        net: WordRnn,
        train: Sentences,
        dev: Sentences,
        config: SentenceConfig,
        process: Process,
        seed: int,
    ) -> None:
        self.net, self.train, self.dev = net, train, dev
        self.config, self.process, self.seed = config, process, seed
        if not len(train.lengths) or not len(dev.lengths):
            raise DataError("no sentence to learn from or to choose by. Expected one or more of each.")

    def submodules(self) -> dict[str, nn.Module]:
        """Parts of the network by the names that --train.freeze takes."""
        return trainable_children(self.net)

    def source_weights(self, path: Path) -> dict[str, Tensor | None]:
        """The tensors of a saved network; None for embeddings and outputs if the vocabularies differ."""
        other = load_wordrnn(path)
        same = other.vocabulary.words == self.net.vocabulary.words
        return {
            name: tensor if same or not name.startswith(("embedding.", "output.")) else None
            for name, tensor in other.state_dict().items()
        }

    def plan(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """The sentences of each batch of an epoch, in an order of its own."""
        generator = np.random.default_rng([self.seed, epoch])
        batches = [*self.train.batches(generator.permutation(len(self.train.lengths)), self.config.words)]
        return [batches[index] for index in generator.permutation(len(batches))]

    def load(self, plan: Sequence[NDArray[np.int64]]) -> Iterator[SentenceBatch]:
        """The batches of a part of a plan."""
        for batch in plan:
            rows = batch[self.process.rank :: self.process.world_size]
            own = rows if len(rows) else batch[:1]
            words, lengths = self.train.padded(own)
            count = int(self.train.lengths[batch].sum())
            yield SentenceBatch(
                ids=tuple(f"sentence {number}" for number in own.tolist()),
                words=words,
                # a process without a sentence of its own predicts nothing of another's
                lengths=lengths if len(rows) else torch.zeros_like(lengths),
                global_tokens=count,
                global_size=float(count),
            )

    def forward(self, batch: SentenceBatch, precision: torch.dtype) -> TaskOutput:
        """The loss of each sentence, in nats."""
        return TaskOutput(self._losses(batch.words, batch.lengths, precision), {})

    def observe(self, number: int, statistics: Mapping[str, float]) -> None:
        """It has no statistics."""

    @torch.inference_mode()
    def validate(self, process: Process, precision: torch.dtype) -> WordRnnValidation:
        """Perplexity of the held-out sentences."""
        self.net.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.net.device)
        for rows in self.dev.batches(np.arange(len(self.dev.lengths)), self.config.words):
            total += self._losses(*self.dev.padded(rows), precision).sum()
        self.net.train()
        # the only value that is read from the device
        return WordRnnValidation(float(total) / int(self.dev.lengths.sum()))

    def save(self, path: Path, weights: Mapping[str, Tensor], provenance: dict[str, Any]) -> None:
        """Write the network with these weights."""
        save_wordrnn(path, self.net, provenance, weights)

    def state(self) -> dict[str, Any]:
        """Nothing: every sentence begins anew."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """There is nothing to restore."""

    def _losses(self, words: Tensor, lengths: Tensor, precision: torch.dtype) -> Tensor:
        """(rows,) nats of each sentence."""
        words = words.to(self.net.device, non_blocking=True)
        lengths = lengths.to(self.net.device, non_blocking=True)
        with autocast(precision, self.net.device):
            outputs, _ = self.net(words[:, :-1])
        # Padding is little, since lengths are about the same, and to leave it out here would wait for a GPU.
        log_probs = self.net.log_probs(outputs.flatten(0, 1), words[:, 1:].flatten()).view(len(words), -1)
        valid = torch.arange(log_probs.shape[1], device=self.net.device) < lengths[:, None]
        return -(log_probs * valid).sum(1)
