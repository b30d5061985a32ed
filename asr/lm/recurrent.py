"""What recurrent language models have in common: the texts they have read, their direction, their files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from asr.errors import ModelError, SettingsError
from asr.model.recurrent.layers import RecurrentConfig
from asr.model.recurrent.unidirectional import State
from asr.model.saved import FileKind, load_network

__all__ = ["Step", "TextState", "check_reads_forwards", "load_language_network", "read_last_symbols"]

N = TypeVar("N", bound=nn.Module)

# (batch, 1) int64 symbols, the states before them (None where texts begin) -> (batch, size) outputs, states
Step = Callable[[Tensor, list[State] | None], tuple[Tensor, list[State]]]


@dataclass(eq=False, slots=True)
class TextState:
    """The text so far. The network reads its last symbol only when a score after it is first needed.

    Most of the prefixes that a search makes are dropped before that.

    Attributes:
        previous: the state before the last symbol, until that has been read; None where a text begins.
        symbol: id of the last symbol.
        output: (size,) what the network gives after the last symbol; None until it has been read.
        hidden: one state a layer, each part of it (width,); None until then.
    """

    previous: "TextState | None"
    symbol: int
    output: Tensor | None = None
    hidden: tuple[State, ...] | None = None


def read_last_symbols(states: Sequence[TextState], step: Step, device: torch.device) -> list[Tensor]:
    """(n,) outputs (size,) after each state; the new states are one batch of the network.

    Args:
        states: whose texts all have begun, or are all at their beginning.
        step: one step of the network.
        device: of the network.
    """
    new = [state for state in dict.fromkeys(states) if state.output is None]
    if new:
        hidden = [state.previous.hidden for state in new if state.previous and state.previous.hidden]
        # each part of each layer's state, (batch, width); none where a text begins
        layers = [
            tuple(torch.stack(parts) for parts in zip(*layer, strict=True))
            for layer in zip(*hidden, strict=True)
        ]
        symbols = torch.tensor([[state.symbol] for state in new], device=device)
        outputs, layers = step(symbols, layers or None)
        for row, state in enumerate(new):
            # Copies, and no older states: a state that is kept must not keep the memory of dropped ones.
            state.hidden = tuple(tuple(part[row].clone() for part in layer) for layer in layers)
            state.output, state.previous = outputs[row].clone(), None
    return [state.output for state in states if state.output is not None]


def check_reads_forwards(layers: RecurrentConfig) -> None:
    """Raise if the layers read a text from its end, too, which would tell them what they predict.

    Raises:
        SettingsError: they are bidirectional.
    """
    if layers.bidirectional:
        raise SettingsError(
            "--model.no-bidirectional is needed for a language model: it predicts what follows."
        )


def load_language_network(
    path: Path, kind: FileKind, build: Callable[[dict[str, Any]], N], device: torch.device | str
) -> N:
    """Read a network, in evaluation mode; loading it cannot run code.

    Args:
        path: of the file.
        kind: of file.
        build: the network of a record, see `load_network`.
        device: of the network.

    Raises:
        ModelError: the file is missing, damaged, of another format, or of another kind.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such language model. Expected a .safetensors file of {kind.command}.")
    return load_network(path, kind, build).to(device).eval()
