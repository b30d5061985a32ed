"""Character RNN language model, after Karpathy's char-rnn: the network, its file, its use by a decoder.

A text is lines. The end of a line is a symbol (id 0), and a line begins in the state after such an end:
one network learns from running text and scores single transcripts.

    CharRnn(symbols, config)            the network; trained by asr.training.tasks.charrnn
    save_charrnn, load_charrnn          one safetensors file, like an acoustic model
    CharRnnModel(network)               the methods of interface.LanguageModel, batched
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.errors import ModelError, check_number
from asr.lm.interface import Unit
from asr.lm.recurrent import TextState, check_reads_forwards, load_language_network, read_last_symbols
from asr.model.recurrent.layers import RecurrentConfig, RecurrentStack
from asr.model.recurrent.unidirectional import State
from asr.model.saved import FileKind, save_network

__all__ = ["END_OF_LINE", "CharRnn", "CharRnnConfig", "CharRnnModel", "load_charrnn", "save_charrnn"]

END_OF_LINE = 0  # id of the symbol that ends a line

_FILE = FileKind("asr-character-rnn", 2, "character RNN", "asr lm train --kind charrnn")

# Log-probability of a character outside the alphabet: about that of the rarest one of a large alphabet.
_UNKNOWN_LOG_PROB = float(np.log(1e-7))

_TEMPERATURE = 0.8  # of samples; below 1, probable characters are more probable


@dataclass(frozen=True, kw_only=True)
class CharRnnConfig:
    """The shape of a character RNN."""

    embedding: int = 64  # size of the vector of a character at the input
    # on the command line without a prefix of their own: --model.width
    layers: Annotated[RecurrentConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RecurrentConfig(
            bidirectional=False, layer_norm=False, width=512, depth=2, dropout=0.2
        )
    )

    def __post_init__(self) -> None:
        check_number("--model.embedding", self.embedding, least=1)
        check_reads_forwards(self.layers)


class CharRnn(nn.Module):
    """The network: symbols in, log-probabilities of the next symbols out.

    Args:
        symbols: (n,) characters, each once; symbol i has the id i + 1, the end of a line has 0.
        config: the settings.

    Raises:
        ModelError: no symbol, one that is not a single character, or one that occurs twice.

    Source: Mikolov et al. 2010, "Recurrent neural network based language model"; Karpathy 2015, char-rnn.
    """

    def __init__(self, symbols: tuple[str, ...], config: CharRnnConfig) -> None:
        super().__init__()
        if not symbols or len(set(symbols)) < len(symbols) or any(len(symbol) != 1 for symbol in symbols):
            raise ModelError(f"the alphabet is {symbols!r:.200}. Expected single characters, each once.")
        self.symbols, self.config = symbols, config
        self.ids = {symbol: index for index, symbol in enumerate(symbols, start=1)}
        self.embedding = nn.Embedding(len(symbols) + 1, config.embedding)
        self.recurrent = RecurrentStack(config.embedding, config.layers)
        self.dropout = nn.Dropout(config.layers.dropout)
        self.output = nn.Linear(self.recurrent.config.output_size, len(symbols) + 1)

    def forward(self, symbols: Tensor, states: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Predict every next symbol of a block.

        Args:
            symbols: (batch, steps) int64.
            states: those after the previous block; None starts from zeros.

        Returns:
            (batch, steps, symbols + 1) float32 natural log-probabilities, and the states after the block.
        """
        lengths = torch.full((len(symbols),), symbols.shape[1], device=symbols.device)
        y, states = self.recurrent(self.embedding(symbols), lengths, states)
        return self.output(self.dropout(y)).float().log_softmax(-1), states

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.output.weight.device

    @torch.inference_mode()
    def sample(self, length: int, seed: int) -> str:
        """Draw a text from the network, line ends included.

        Args:
            length: characters.
            seed: of a generator that only these draws use.
        """
        generator = torch.Generator().manual_seed(seed)
        symbol, states, text = END_OF_LINE, None, []
        for _ in range(length):
            log_probs, states = self(torch.tensor([[symbol]], device=self.device), states)
            probs = (log_probs[0, -1].cpu() / _TEMPERATURE).softmax(-1)
            symbol = int(torch.multinomial(probs, 1, generator=generator))
            text.append("\n" if symbol == END_OF_LINE else self.symbols[symbol - 1])
        return "".join(text)


class CharRnnModel:
    """A trained network as an `interface.LanguageModel`; each call is one batch of the network.

    Args:
        network: on its device; it is put into evaluation mode.
    """

    unit: Unit = "character"

    def __init__(self, network: CharRnn) -> None:
        self.network = network.eval()
        self._start = TextState(None, END_OF_LINE)
        self._predict([self._start])

    @property
    def words(self) -> tuple[str, ...]:
        """The alphabet."""
        return self.network.symbols

    def start(self) -> TextState:
        """The state in which a text begins."""
        return self._start

    def score(
        self, states: Sequence[TextState], symbols: Sequence[str]
    ) -> tuple[NDArray[np.float64], list[TextState]]:
        """Natural log-probabilities of characters after states, and the states that follow.

        A character outside the alphabet has the log-probability log 1e-7 and leaves the state as it is.
        """
        ids = [self.network.ids.get(symbol, -1) for symbol in symbols]
        predicted = zip(states, self._predict(states), ids, strict=True)
        scored = [
            (log_probs[symbol], TextState(state, symbol)) if symbol >= 0 else (_UNKNOWN_LOG_PROB, state)
            for state, log_probs, symbol in predicted
        ]
        return np.array([log_prob for log_prob, _ in scored], np.float64), [state for _, state in scored]

    def finish(self, states: Sequence[TextState]) -> NDArray[np.float64]:
        """(n,) natural log-probabilities that the text ends after each of n states."""
        return np.array([log_probs[END_OF_LINE] for log_probs in self._predict(states)], np.float64)

    def encode(self, text: str) -> NDArray[np.int32]:
        """(n,) the ids of a text's characters; 0 for unknown ones, as in `NgramModel.encode`."""
        return np.array([self.network.ids.get(symbol, 0) for symbol in text], np.int32)

    @torch.inference_mode()
    def log_probs(self, text: str) -> NDArray[np.float64]:
        """(n + 1,) natural log-probability of each character of a line, and of its end, in one pass."""
        ids = self.encode(text)
        in_alphabet = ids > 0
        inputs = torch.tensor([[END_OF_LINE, *ids[in_alphabet].tolist()]], device=self.network.device)
        table = self.network(inputs)[0][0].double().cpu().numpy()
        result = np.full(len(ids) + 1, _UNKNOWN_LOG_PROB)
        result[np.append(in_alphabet, True)] = table[np.arange(len(table)), [*ids[in_alphabet], END_OF_LINE]]
        return result

    @torch.inference_mode()
    def _predict(self, states: Sequence[TextState]) -> list[NDArray[np.float64]]:
        """(symbols + 1,) log-probabilities after each state."""
        return [table.numpy() for table in read_last_symbols(states, self._step, self.network.device)]

    def _step(self, symbols: Tensor, states: list[State] | None) -> tuple[Tensor, list[State]]:
        log_probs, states = self.network(symbols, states)
        return log_probs[:, -1].double().cpu(), states


def save_charrnn(
    path: Path, network: CharRnn, provenance: dict[str, Any], weights: Mapping[str, Tensor] | None = None
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
        "symbols": "".join(network.symbols),
        "config": asdict(network.config),
        "provenance": provenance,
    }
    save_network(path, _FILE, network, record, weights)


def load_charrnn(path: Path, device: torch.device | str = "cpu") -> CharRnn:
    """Read a network, in evaluation mode; loading it cannot run code.

    Raises:
        ModelError: the file is missing, damaged, of another format, or not a character RNN.
    """
    return load_language_network(path, _FILE, _build, device)


def _build(record: dict[str, Any]) -> CharRnn:
    config = record["config"]
    layers = RecurrentConfig(**config["layers"])
    return CharRnn(tuple(record["symbols"]), CharRnnConfig(**{**config, "layers": layers}))
