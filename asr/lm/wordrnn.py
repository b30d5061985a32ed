"""Word RNN language model: the network, its file, its use by a decoder.

A text is lines, each of which the network reads from zeros, so that it learns what it is asked for: the
probability of a transcript. Words are sorted by frequency, and rare ones have smaller outputs (adaptive
softmax), so that a vocabulary of tens of thousands costs little more than that of the most frequent words.

    WordRnn(vocabulary, config)         the network; trained by asr.training.tasks.wordrnn
    save_wordrnn, load_wordrnn          one safetensors file, like an acoustic model
    save_small_wordrnn                  the same in a quarter of the space
    WordRnnModel(network)               the methods of interface.LanguageModel, batched
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.errors import ModelError, SettingsError, check_number
from asr.lm.interface import Unit
from asr.lm.recurrent import TextState, check_reads_forwards, load_language_network, read_last_symbols
from asr.model.recurrent.layers import RecurrentConfig, RecurrentStack
from asr.model.recurrent.unidirectional import State
from asr.model.saved import FileKind, quantized, save_network

__all__ = [
    "END_OF_SENTENCE", "FILE_KIND", "UNKNOWN", "Vocabulary", "WordRnn", "WordRnnConfig", "WordRnnModel",
    "load_wordrnn", "save_small_wordrnn", "save_wordrnn",
]  # fmt: skip

UNKNOWN, END_OF_SENTENCE = 0, 1  # ids, as those of an n-gram model's first words
RESERVED = ("<unk>", "</s>")

FILE_KIND = FileKind("asr-word-rnn", 1, "word RNN", "asr lm train --kind wordrnn")

_SHRINK = 4  # each group of rarer words has outputs of a fourth of the size of the one before


@dataclass(frozen=True, kw_only=True)
class WordRnnConfig:
    """The shape of a word RNN."""

    vocabulary: int = 30_000  # the most frequent words of the text, at most
    embedding: int = 128  # size of the vector of a word at the input
    # ranks of words by frequency at which the outputs become smaller
    cutoffs: tuple[int, ...] = (2000, 8000)
    # on the command line without a prefix of their own: --model.width
    layers: Annotated[RecurrentConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RecurrentConfig(
            bidirectional=False, layer_norm=False, width=512, depth=1, dropout=0.1
        )
    )

    def __post_init__(self) -> None:
        check_number("--model.vocabulary", self.vocabulary, least=1)
        check_number("--model.embedding", self.embedding, least=1)
        if any(low >= high for low, high in pairwise((0, *self.cutoffs))):
            raise SettingsError(
                f"--model.cutoffs are {' '.join(map(str, self.cutoffs))}. Expected growing ranks above 0, "
                f"such as 2000 8000."
            )
        check_reads_forwards(self.layers)
        smallest = _SHRINK ** max(len(self.cutoffs), 1)
        if self.layers.output_size < smallest:
            raise SettingsError(
                f"--model.width {self.layers.width} is too small for {len(self.cutoffs)} --model.cutoffs: "
                f"expected at least {smallest}."
            )


@dataclass(frozen=True)
class Vocabulary:
    """The words of a network.

    Attributes:
        words: (n,) the most frequent one first; the word i has the id i + 2.
        others: how many different words the training text had besides, of which each gets an equal share of
            the probability of `<unk>`; at least 1.
    """

    words: tuple[str, ...]
    others: int

    def __post_init__(self) -> None:
        if not self.words or len(set(self.words)) < len(self.words) or not all(self.words):
            raise ModelError(
                f"the vocabulary has {len(self.words)} words. Expected one or more, each once, none empty."
            )


class WordRnn(nn.Module):
    """The network: words in, the probability of the next words out.

    Args:
        vocabulary: the words.
        config: the settings.

    Source: Mikolov et al. 2010, "Recurrent neural network based language model"; the outputs after Grave et
        al. 2017, "Efficient softmax approximation for GPUs".
    """

    def __init__(self, vocabulary: Vocabulary, config: WordRnnConfig) -> None:
        super().__init__()
        self.vocabulary, self.config = vocabulary, config
        self.ids = {word: index for index, word in enumerate(vocabulary.words, start=len(RESERVED))}
        size, layers = len(RESERVED) + len(vocabulary.words), config.layers
        self.embedding = nn.Embedding(size, config.embedding)
        self.recurrent = RecurrentStack(config.embedding, layers)
        self.dropout = nn.Dropout(layers.dropout)
        cutoffs = [rank for rank in config.cutoffs if rank < size] or [size - 1]
        self.output = nn.AdaptiveLogSoftmaxWithLoss(
            self.recurrent.config.output_size, size, cutoffs, div_value=_SHRINK
        )
        nn.init.normal_(self.embedding.weight, std=config.embedding**-0.5)

    def forward(self, words: Tensor, states: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Read a block.

        Args:
            words: (batch, steps) int64, `END_OF_SENTENCE` where a sentence begins.
            states: those after the previous block; None starts from zeros.

        Returns:
            (batch, steps, output size) of which `log_probs` predicts each next word, and the states after it.
        """
        lengths = torch.full((len(words),), words.shape[1], device=words.device)
        y, states = self.recurrent(self.embedding(words), lengths, states)
        return self.dropout(y), states

    def log_probs(self, outputs: Tensor, words: Tensor) -> Tensor:
        """Natural log-probabilities of words.

        Args:
            outputs: (n, output size) of the steps before.
            words: (n,) int64.

        Returns:
            (n,) float32.
        """
        outputs = outputs.float()
        if outputs.device.type == "cpu":
            log_probs: Tensor = self.output(outputs, words).output
            return log_probs
        # All words: the call above reads from the device which groups the words are of.
        return self.output.log_prob(outputs).gather(1, words[:, None])[:, 0]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.embedding.weight.device


class WordRnnModel:
    """A trained network as an `interface.LanguageModel`; each call is one batch of the network.

    Args:
        network: on its device; it is put into evaluation mode.
    """

    unit: Unit = "word"

    def __init__(self, network: WordRnn) -> None:
        self.network = network.eval()
        self._start = TextState(None, END_OF_SENTENCE)
        self._unknown_share = -math.log(network.vocabulary.others)
        self._read([self._start])

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary."""
        return (*RESERVED, *self.network.vocabulary.words)

    def start(self) -> TextState:
        """The state in which a text begins."""
        return self._start

    def score(
        self, states: Sequence[TextState], symbols: Sequence[str]
    ) -> tuple[NDArray[np.float64], list[TextState]]:
        """Natural log-probabilities of words after states, and the states that follow.

        Each word outside the vocabulary has the same share of the probability of `<unk>`.
        """
        ids = [self.network.ids.get(symbol, UNKNOWN) for symbol in symbols]
        following = [TextState(state, word) for state, word in zip(states, ids, strict=True)]
        return self._log_probs(states, ids), following

    def finish(self, states: Sequence[TextState]) -> NDArray[np.float64]:
        """(n,) natural log-probabilities that the text ends after each of n states."""
        return self._log_probs(states, [END_OF_SENTENCE] * len(states))

    def encode(self, text: str) -> NDArray[np.int32]:
        """(n,) the ids of a text's words; 0 for unknown ones, as in `NgramModel.encode`."""
        return np.array([self.network.ids.get(word, UNKNOWN) for word in text.split()], np.int32)

    @torch.inference_mode()
    def log_probs(self, text: str) -> NDArray[np.float64]:
        """(n + 1,) natural log-probability of each word of a line, and of its end, in one pass."""
        ids = torch.tensor([END_OF_SENTENCE, *self.encode(text).tolist(), END_OF_SENTENCE])
        ids = ids.to(self.network.device)
        outputs, _ = self.network(ids[None, :-1])
        return self._shared(self.network.log_probs(outputs[0], ids[1:]), ids[1:])

    @torch.inference_mode()
    def _log_probs(self, states: Sequence[TextState], ids: Sequence[int]) -> NDArray[np.float64]:
        """(n,) log-probability of a word after each state."""
        words = torch.tensor(ids, dtype=torch.int64, device=self.network.device)
        return self._shared(self.network.log_probs(torch.stack(self._read(states)), words), words)

    def _shared(self, log_probs: Tensor, words: Tensor) -> NDArray[np.float64]:
        """Log-probabilities in which each unknown word has its share of that of all."""
        shares = torch.where(words == UNKNOWN, self._unknown_share, 0.0)
        return (log_probs + shares).double().cpu().numpy()

    @torch.inference_mode()
    def _read(self, states: Sequence[TextState]) -> list[Tensor]:
        return read_last_symbols(states, self._step, self.network.device)

    def _step(self, words: Tensor, states: list[State] | None) -> tuple[Tensor, list[State]]:
        outputs, states = self.network(words, states)
        return outputs[:, -1], states


def save_wordrnn(
    path: Path, network: WordRnn, provenance: dict[str, Any], weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write a network; the file appears complete or not at all.

    Args:
        path: ends in .safetensors by convention.
        network: on any device.
        provenance: where it comes from: data, settings, code.
        weights: written in place of the network's current ones, under the same names.

    Raises:
        ModelError: it cannot be written; an older file stays as it was.
    """
    record = {
        "words": " ".join(network.vocabulary.words),
        "others": network.vocabulary.others,
        "config": asdict(network.config),
        "provenance": provenance,
    }
    save_network(path, FILE_KIND, network, record, weights)


def save_small_wordrnn(path: Path, network: WordRnn) -> None:
    """Write a network for others: matrices of 8 bits, a quarter of the size, and no provenance.

    Raises:
        ModelError: it cannot be written; an older file stays as it was.
    """
    save_wordrnn(path, network, {}, quantized(network.state_dict()))


def load_wordrnn(path: Path, device: torch.device | str = "cpu") -> WordRnn:
    """Read a network, in evaluation mode; loading it cannot run code.

    Raises:
        ModelError: the file is missing, damaged, of another format, or not a word RNN.
    """
    return load_language_network(path, FILE_KIND, _build, device)


def _build(record: dict[str, Any]) -> WordRnn:
    config = record["config"]
    layers = RecurrentConfig(**config["layers"])
    cutoffs = tuple(config["cutoffs"])
    vocabulary = Vocabulary(tuple(record["words"].split(" ")), record["others"])
    return WordRnn(vocabulary, WordRnnConfig(**{**config, "layers": layers, "cutoffs": cutoffs}))
