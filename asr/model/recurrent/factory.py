"""Makes the layer of a cell: which settings are possible, and which class they mean."""

from typing import Literal, get_args

from asr.errors import SettingsError, check_choice
from asr.model.recurrent.cells import Elman, Gru, LiGru, Lstm
from asr.model.recurrent.initialization import initialize
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
    initialize(layer)
    return layer


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
