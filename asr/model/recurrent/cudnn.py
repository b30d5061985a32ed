"""When torch uses cuDNN's persistent kernels, which keep the recurrent weights on the chip for all steps.

torch chooses cuDNN's algorithm for each call, from the shapes and the type alone. For a call over a padded
batch, of one layer and without projection:

- PERSIST_STATIC in float16, not in bf16 or float32: one direction; width a multiple of 128, at most 1024;
  input size a multiple of 128; lstm, rnn and rnn-relu, not gru; a batch that is a multiple of 8, at most 128
  rows (rnn of 896 units and more: below 96); a GPU of compute capability 8.0 or more, but not 8.6 or 12.6,
  with at least 98 multiprocessors, such as A100 and H100. A V100 has other conditions on the batch.
- PERSIST_STATIC_SMALL_H in every type but float64: width at most 192 forward and 128 backward for lstm and
  gru, 384 and 256 for rnn and rnn-relu.
- The standard algorithm, a few launches a step, for all others, and always for packed sequences.

Only the first has conditions that a batch can be made to meet, by rows of padding.

Source: `get_algo` and the functions it calls in aten/src/ATen/native/cudnn/RNN.cpp of torch.
"""

from typing import Protocol

import torch

from asr.model.recurrent.factory import Cell

_MULTIPLE = 128  # of width and input size
_MOST_UNITS = 1024
_ROWS = 8  # a batch is a multiple of it
_MOST_ROWS = 128


class Properties(Protocol):
    """The fields used of `torch.cuda.get_device_properties`."""

    major: int
    minor: int
    multi_processor_count: int


def persistent_obstacle(cell: Cell, width: int, projection: int, input_size: int) -> str | None:
    """Why the shape of a layer rules PERSIST_STATIC out.

    Args:
        cell: its kind.
        width: units.
        projection: 0 for none.
        input_size: values per step.

    Returns:
        One clause for the user, or None if nothing rules it out.
    """
    if cell not in ("lstm", "rnn", "rnn-relu"):
        return f"--model.cell is {cell}, expected lstm, rnn or rnn-relu"
    if projection:
        return f"--model.projection is {projection}, expected 0"
    if width > _MOST_UNITS or width % _MULTIPLE:
        below = min(width, _MOST_UNITS) // _MULTIPLE * _MULTIPLE
        nearest = [value for value in (below, below + _MULTIPLE) if 0 < value <= _MOST_UNITS]
        return f"--model.width is {width}, expected {' or '.join(str(value) for value in nearest)}"
    if input_size % _MULTIPLE:
        return f"a recurrent layer gets {input_size} values per step, expected a multiple of {_MULTIPLE}"
    return None


def persistent_rows(cell: Cell, width: int, batch: int) -> int | None:
    """The smallest batch, rows of padding included, that PERSIST_STATIC takes; None if it is too large."""
    rows = -(-batch // _ROWS) * _ROWS
    too_many = rows > _MOST_ROWS or (cell != "lstm" and width >= 896 and rows >= 96)
    return None if too_many else rows


def has_persistent_kernels(dtype: torch.dtype, gpu: Properties) -> bool:
    """Whether torch considers PERSIST_STATIC at all, for inputs of this type on this GPU."""
    enough = gpu.major >= 8 and gpu.minor != 6 and gpu.multi_processor_count >= 98
    return dtype == torch.float16 and enough
