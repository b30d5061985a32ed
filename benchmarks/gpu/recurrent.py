"""One bidirectional recurrent layer, forward and backward, in several arrangements, for every cell.

layer: asr's RecurrentLayer, as it ships.
in turn: two one-directional layers, one after the other; the backward one reads every utterance reversed by
  its own length.
two streams: the same, side by side.
packed: torch's bidirectional layer on packed sequences, what other toolkits do.
padded: torch's bidirectional layer on the padded batch. Its backward direction reads the padding, so results
  depend on an utterance's neighbours: for reference only.

A middle layer of a stack: inputs twice as wide as the layer, 300 steps (12 s of audio at 40 ms a step),
lengths of 90 to 100% of them, as in batches of about the same length. The combinations that matter most come
first, and the last ones are left out when the time is up.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from asr.model.recurrent.factory import CELL_NAMES, Cell, make_layer
from asr.model.recurrent.layers import RecurrentConfig, RecurrentLayer, reversal, reverse
from benchmarks.gpu.part import Part
from benchmarks.gpu.timing import FORMATS, milliseconds, number_format
from benchmarks.peers import TORCH

# The most informative first: batches of 1600 and 400 s of audio are about 128 and 32 utterances.
CELLS: tuple[Cell, ...] = ("lstm", "gru", "ligru", "lstm-peephole", "rnn", "rnn-relu")
WIDTHS = (320, 256, 512, 384)
BATCHES = (128, 32, 64, 8)
STEPS = 300

Layer = Callable[[Tensor], Tensor]  # (steps, batch, inputs) -> outputs of any shape


def run(part: Part) -> None:
    """Measure every arrangement of one combination after the other."""
    quick = part.settings.quick
    if set(CELLS) != set(CELL_NAMES):
        part.record(unmeasured_cells=sorted(set(CELL_NAMES) - set(CELLS)))
    cases = list(combinations())
    part.record(combinations=len(cases), steps=12 if quick else STEPS)
    done = 0
    for cell, precision, batch, width in cases:
        if part.left_s < 0 or (quick and done == len(CELLS)):
            break
        if quick and (precision != "float32" or done >= len(CELLS) or cell != CELLS[done]):
            continue
        steps, batch, width = (12, 3, 8) if quick else (STEPS, batch, width)
        times = measure(part, cell, precision, steps, batch, width)
        part.row("layers", cell=cell, precision=precision, batch=batch, width=width, ms=times)
        done += 1


def combinations() -> Iterator[tuple[Cell, str, int, int]]:
    """(cell, precision, batch, width), in the order of the sum of their indices in the lists above."""
    lists = (CELLS, tuple(FORMATS), BATCHES, WIDTHS)
    places = itertools.product(*(range(len(values)) for values in lists))
    for place in sorted(places, key=lambda place: (sum(place), place)):
        cell, precision, batch, width = (values[index] for values, index in zip(lists, place, strict=True))
        yield cell, precision, batch, width


def measure(part: Part, cell: Cell, precision: str, steps: int, batch: int, width: int) -> dict[str, Any]:
    """Milliseconds of each arrangement, or why it has none."""
    device = torch.device(part.settings.device)
    times: dict[str, Any] = {}
    with number_format(precision) as dtype:
        torch.manual_seed(0)
        x = torch.randn(steps, batch, 2 * width, device=device, dtype=dtype, requires_grad=True)
        lengths = torch.linspace(steps, 0.9 * steps, batch).long()  # in the host's memory, the longest first
        for name, make in ARRANGEMENTS.items():
            try:
                layer = make(cell, width, x, lengths)
                if layer is None:
                    continue
                times[name] = round(_update_ms(layer, x, part), 3)
            except (
                RuntimeError,
                NotImplementedError,
            ) as error:  # one arrangement may not know a number format
                times[name] = str(error).splitlines()[0][:120]
    return times


def _update_ms(layer: Layer, x: Tensor, part: Part) -> float:
    y = layer(x)
    gradient = torch.ones_like(y)

    def update() -> None:
        x.grad = None
        layer(x).backward(gradient)

    return milliseconds(update, cuda=part.cuda, repeats=2 if part.settings.quick else 5)


def _layer(cell: Cell, width: int, x: Tensor, lengths: Tensor) -> Layer:
    config = RecurrentConfig(cell=cell, width=width)
    layer = RecurrentLayer(x.shape[2], config).to(x.device, x.dtype)
    order = reversal(lengths.to(x.device), len(x))
    return lambda x: layer(x, order)[0]


def _in_turn(cell: Cell, width: int, x: Tensor, lengths: Tensor) -> Layer:
    forwards, backwards, order = _directions(cell, width, x, lengths)

    def run_layer(x: Tensor) -> Tensor:
        return torch.cat([forwards(x)[0], reverse(backwards(reverse(x, order))[0], order)], dim=-1)

    return run_layer


def _two_streams(cell: Cell, width: int, x: Tensor, lengths: Tensor) -> Layer | None:
    if x.device.type != "cuda":
        return None
    forwards, backwards, order = _directions(cell, width, x, lengths)
    side = torch.cuda.Stream()

    def run_layer(x: Tensor) -> Tensor:
        main = torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):  # autograd runs the backward pass of this on the same stream
            y_backwards = reverse(backwards(reverse(x, order))[0], order)
        y = forwards(x)[0]
        main.wait_stream(side)
        y_backwards.record_stream(main)
        return torch.cat([y, y_backwards], dim=-1)

    return run_layer


def _packed(cell: Cell, width: int, x: Tensor, lengths: Tensor) -> Layer | None:
    if cell not in TORCH:
        return None
    rnn = _torch_layer(cell, width, x)
    return lambda x: rnn(pack_padded_sequence(x, lengths, enforce_sorted=True))[0].data


def _padded(cell: Cell, width: int, x: Tensor, lengths: Tensor) -> Layer | None:
    if cell not in TORCH:
        return None
    rnn = _torch_layer(cell, width, x)
    return lambda x: rnn(x)[0]


ARRANGEMENTS: dict[str, Callable[[Cell, int, Tensor, Tensor], Layer | None]] = {
    "layer": _layer, "in turn": _in_turn, "two streams": _two_streams, "packed": _packed, "padded": _padded
}  # fmt: skip


def _directions(cell: Cell, width: int, x: Tensor, lengths: Tensor) -> tuple[nn.Module, nn.Module, Tensor]:
    """Two directions, and the order of rows that reverses each utterance."""
    one, other = (make_layer(cell, x.shape[2], width).to(x.device, x.dtype) for _ in range(2))
    return one, other, reversal(lengths.to(x.device), len(x))


def _torch_layer(cell: Cell, width: int, x: Tensor) -> nn.RNNBase:
    kind, options = TORCH[cell]
    return kind(x.shape[2], width, bidirectional=True, **options).to(x.device, x.dtype)
