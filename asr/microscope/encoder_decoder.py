"""What an encoder-decoder looks at: of each written symbol, the attention and the gradient of each read one.

The attention's weights say what the decoder reads of the encoder's outputs, each of which knows its
neighbours, too. The gradient of a written symbol's log-probability says by which symbols of the source it
changes, on whichever path: without attention it has passed through the summary vector, and through every
step of the decoder before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.model.modes import evaluating
from asr.model.sequence.encoder_decoder import EncoderDecoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SymbolReading", "draw_readings", "read_symbols"]

_END = "end"  # the name of what ends an output


@dataclass(frozen=True)
class SymbolReading:
    """What a network looks at while it writes.

    Attributes:
        network: its name.
        source: the symbols that it has read.
        written: the symbols that it has written, and the end.
        attention: (written, source) the weights, each row's sum 1; None of a network without attention.
        gradient: (written, source) norms of the gradients of the symbols' log-probabilities with respect to
            the vectors of the source's symbols, each row's sum 1.
    """

    network: str
    source: tuple[str, ...]
    written: tuple[str, ...]
    attention: NDArray[np.float64] | None
    gradient: NDArray[np.float64]


def read_symbols(network: str, net: EncoderDecoder, source: Sequence[str]) -> SymbolReading:
    """Let a network write, greedily, and measure what it looks at.

    Args:
        network: its name.
        net: is not changed; no gradients are left.
        source: symbols of the net's, at least one.
    """
    ids = torch.tensor([[net.sources.index(symbol) + 1 for symbol in source]], device=net.device)
    lengths = torch.tensor([len(source)], device=net.device)
    embedded: list[Tensor] = []

    def keep(_: nn.Module, arguments: object, result: Tensor) -> Tensor:
        embedded.append(result.detach().requires_grad_())
        return embedded[-1]

    # cuDNN differentiates recurrent layers in training mode only, which has dropout.
    with evaluating(net), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        [written] = net.greedy(ids, lengths)
        target = torch.tensor([written], dtype=torch.int64, device=net.device)
        hook = net.source_embedding.register_forward_hook(keep)
        try:
            log_probs, weights = net.step_through(net.encode(ids, lengths), target)
        finally:
            hook.remove()
        rows = []
        for step, symbol in enumerate([*written, 0]):
            (gradient,) = torch.autograd.grad(log_probs[0, step, symbol], embedded, retain_graph=True)
            rows.append(gradient[0].double().norm(dim=1).cpu().numpy())
    gradients = np.array(rows)
    return SymbolReading(
        network=network,
        source=tuple(source),
        written=(*(net.targets[symbol - 1] for symbol in written), _END),
        attention=None if net.attention is None else weights[0].detach().double().cpu().numpy(),
        gradient=gradients / np.maximum(gradients.sum(1, keepdims=True), np.finfo(np.float64).tiny),
    )


def draw_readings(readings: Sequence[Sequence[SymbolReading]], path: Path, title: str) -> None:
    """Write the picture: heat maps, a column for each source, attention above gradients.

    Args:
        readings: (networks,) of each network those of the same sources.
        path: of the picture; its ending names the format.
        title: of the picture.
    """
    from matplotlib.figure import Figure  # slow to load

    rows: list[tuple[str, list[tuple[SymbolReading, NDArray[np.float64]]]]] = []
    for kind in ("attention", "gradient"):
        for of_net in readings:
            tables = [(one, getattr(one, kind)) for one in of_net]
            if tables[0][1] is not None:
                rows.append((f"{of_net[0].network}:\n{kind}", tables))
    columns = [max(len(of_net[column].source) for of_net in readings) for column in range(len(readings[0]))]
    heights = [max(len(one.written) for one, _ in tables) for _, tables in rows]
    figure = Figure(figsize=(1.5 + 0.24 * sum(columns), 1 + 0.24 * sum(heights)), layout="constrained")
    grid = figure.subplots(
        len(rows), len(columns), squeeze=False, width_ratios=columns, height_ratios=heights
    )
    for line, (name, tables) in zip(grid, rows, strict=True):
        for axes, (one, table) in zip(line, tables, strict=True):
            _draw_one(axes, table, one)
        line[0].set_ylabel(name, fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


def _draw_one(axes: "Axes", table: NDArray[np.float64], one: SymbolReading) -> None:
    """One heat map: written symbols downwards, source symbols across."""
    axes.imshow(table, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(one.source)), one.source, fontsize=8)
    axes.set_yticks(range(len(one.written)), one.written, fontsize=6)
    axes.tick_params(length=0)
