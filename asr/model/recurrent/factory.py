"""Makes the layer of a cell: which settings are possible, which class they mean, and its first weights."""

from typing import Literal, get_args

import torch
from torch import nn

from asr.errors import SettingsError, check_choice
from asr.model.recurrent.cells import Elman, Gru, LiGru, Lstm, TorchCell
from asr.model.recurrent.unidirectional import UnidirectionalLayer

Cell = Literal["rnn", "rnn-relu", "gru", "ligru", "lstm", "lstm-peephole"]

CELL_NAMES: tuple[Cell, ...] = get_args(Cell)


def make_layer(
    cell: Cell, input_size: int, width: int, *, projection: int = 0, recurrent_dropout: float = 0.0
) -> UnidirectionalLayer:
    """A layer in one direction, with fresh weights.

    Args:
        cell: which one.
        input_size: values per step.
        width: units.
        projection: values of the hidden state of an LSTM, 1..width; 0 for `width` without a projection.
        recurrent_dropout: in [0, 1).

    Raises:
        SettingsError: the cell is unknown; it has no projection; or the projection is larger than the width.
    """
    check_cell(cell, projection)
    check_projection(projection, width)
    layer: UnidirectionalLayer
    if cell in ("rnn", "rnn-relu"):
        layer = Elman(input_size, width, relu=cell == "rnn-relu", recurrent_dropout=recurrent_dropout)
    elif cell in ("lstm", "lstm-peephole"):
        layer = Lstm(
            input_size,
            width,
            projection=projection,
            peephole=cell == "lstm-peephole",
            recurrent_dropout=recurrent_dropout,
        )
    else:
        layer = {"gru": Gru, "ligru": LiGru}[cell](input_size, width, recurrent_dropout=recurrent_dropout)
    _initialize(layer)
    return layer


def _initialize(layer: UnidirectionalLayer) -> None:
    """Initialise the weights in place.

    Recurrent weights are orthogonal for every gate, which keeps the norm of the gradient through time
    (Saxe et al. 2014), and so is a projection; input weights are Xavier-uniform for every gate (Glorot &
    Bengio 2010); biases and peepholes are 0, but the LSTM's forget gate starts at 1 so that it remembers at
    first (Gers et al. 2000; Jozefowicz et al. 2015).
    """
    with torch.no_grad():
        for gate in layer.weight_ih_l0.chunk(layer.gate_count):
            nn.init.xavier_uniform_(gate)
        for gate in layer.weight_hh_l0.chunk(layer.gate_count):
            nn.init.orthogonal_(gate)
        if isinstance(layer, TorchCell):
            nn.init.zeros_(layer.bias_ih_l0)
            nn.init.zeros_(layer.bias_hh_l0)
        if isinstance(layer, Lstm):
            nn.init.ones_(layer.bias_ih_l0.chunk(4)[1])  # input, forget, cell, output
            if layer.weight_hr_l0 is not None:
                nn.init.orthogonal_(layer.weight_hr_l0)
            if layer.peepholes is not None:
                nn.init.zeros_(layer.peepholes)


def check_cell(cell: str, projection: int) -> None:
    """Refuse a cell that cannot be made.

    Raises:
        SettingsError: the cell is unknown, or has no projection.
    """
    check_choice("--model.cell", cell, CELL_NAMES)
    if projection and not cell.startswith("lstm"):
        raise SettingsError(
            f"--model.projection is {projection}, but a {cell} cell has no recurrent projection, only lstm "
            "and lstm-peephole have. Set --model.bottleneck for a linear layer after each recurrent layer."
        )


def check_projection(projection: int, width: int) -> None:
    """Refuse a projection that makes the hidden state larger.

    Raises:
        SettingsError: the projection is larger than the width.
    """
    if projection > width:
        raise SettingsError(
            f"--model.projection larger than width: {projection} > {width}. A projection makes the hidden "
            "state smaller; expected at most --model.width. Lower it, or set it to 0 for none."
        )
