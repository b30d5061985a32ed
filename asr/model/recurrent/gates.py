"""Inside a cell: the values of its gates and its recurrent weights, gate by gate.

A layer returns states and outputs only. Its gates follow from the input and the previous state, so those of
many steps are computed at once, afterwards, by the cell's `step`. The table `_CELLS` names them; the tests
build each cell's next state from the named gates and compare.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from asr.errors import ModelError
from asr.model.recurrent.cells import Elman, Gru, LiGru, Lstm
from asr.model.recurrent.unidirectional import State, UnidirectionalLayer

Nonlinearity = Literal["sigmoid", "tanh", "relu"]

_SQUARINGS = 10  # n of them reach the 2^n-th power of a matrix; the error falls with 1 / 2^n


@dataclass(frozen=True)
class Gate:
    """The values of one gate, or of one other activation, of a cell."""

    values: Tensor  # (rows, width), between the bounds of its nonlinearity
    nonlinearity: Nonlinearity
    # whether its value is the fraction of the memory that is carried to the next step
    retains_memory: bool = False


@dataclass(frozen=True)
class Saturation:
    """How often a gate is near its limits, where its slope, and so the gradient through it, is near 0."""

    low: float  # share of values: sigmoid < 0.05, tanh < -0.95, relu exactly 0
    high: float  # share of values: sigmoid > 0.95, tanh > 0.95; 0 for relu, which has no upper limit


@torch.no_grad()
def gate_values(layer: UnidirectionalLayer, x: Tensor, state: State) -> dict[str, Gate]:
    """The gates of one step of a layer, for many rows at once.

    Args:
        layer: one direction of a `RecurrentLayer`.
        x: (rows, size) inputs of the step.
        state: of the step before, each (rows, width).

    Returns:
        By the gate's name.

    Raises:
        ModelError: the cell is none of those of asr/model/recurrent/cells.py.
    """
    nonlinearities = _nonlinearities(layer)
    _, values = layer.step(layer.input_gates(x), state, layer.weight_hh_l0)
    return {
        name: Gate(value, nonlinearity, retains_memory=name in _MEMORY_GATES)
        for (name, nonlinearity), value in zip(nonlinearities.items(), values, strict=True)
    }


def recurrent_weights(layer: UnidirectionalLayer) -> dict[str, Tensor]:
    """The matrices that the hidden state is multiplied by at every step, by the gate's name.

    Args:
        layer: one direction of a `RecurrentLayer`.

    Returns:
        Each (width, width); through a recurrent projection, where there is one.

    Raises:
        ModelError: the cell is none of those of asr/model/recurrent/cells.py.
    """
    names = _nonlinearities(layer)
    weight = layer.weight_hh_l0.detach()
    if isinstance(layer, Lstm) and layer.weight_hr_l0 is not None:
        weight = weight @ layer.weight_hr_l0.detach()
    return dict(zip(names, weight.chunk(len(names)), strict=True))


def saturation(gate: Gate) -> Saturation:
    """The fractions of a gate's values that are near its limits.

    Source: the thresholds of Karpathy, Johnson & Fei-Fei 2015, "Visualizing and understanding recurrent
        networks", section 4.2, who use 0.1 and 0.9, moved to 0.05 and 0.95.
    """
    values = gate.values
    low, high = {
        "sigmoid": (values < 0.05, values > 0.95),
        "tanh": (values < -0.95, values > 0.95),
        "relu": (values == 0, torch.zeros_like(values, dtype=torch.bool)),
    }[gate.nonlinearity]
    return Saturation(low.double().mean().item(), high.double().mean().item())


def memory_steps(gate: Gate) -> Tensor:
    """How long each unit remembers, in steps: 1 / (1 - f), with f the mean of the gate that retains memory.

    A memory of which a fraction f is kept at every step weights its input of k steps ago by f^k; the mean age
    of its content is then 1 / (1 - f), the present step counted as 1.

    Args:
        gate: one with `retains_memory`.

    Returns:
        (width,) float64, at most a million.

    Source: Gers, Schmidhuber & Cummins 2000, "Learning to forget", for the gate; the expected value is that
        of a geometric distribution.
    """
    return 1 / (1 - gate.values.double().mean(dim=0)).clamp(min=1e-6)


def spectral_radius(weight: Tensor) -> float:
    """The largest absolute eigenvalue of a square matrix, by repeated squaring.

    Eigenvalues themselves cost a hundred times as much, and power iteration does not settle on the complex
    pairs that recurrent weights have. No random start is needed.

    Args:
        weight: (width, width).

    Returns:
        Within 1% on any matrix whose eigenvectors are not almost parallel; exact for multiples of
        orthogonal matrices.

    Source: Gelfand's formula, radius = lim |W^k|^(1/k); the quotient of two powers' norms takes out the
        constant in front.
    """
    power, logs = weight.float(), [0.0]  # logs: of the norms of W^1, W^2, W^4, ...
    for _ in range(_SQUARINGS + 1):
        # The power itself is kept at norm 1, so that it neither over- nor underflows.
        norm = torch.linalg.matrix_norm(power).item()
        if not 0 < norm < math.inf:
            return 0.0 if norm == 0 else math.nan
        logs.append(2 * logs[-1] + math.log(norm))
        power = (power / norm) @ (power / norm)
    return math.exp((logs[-1] - logs[-2]) / 2 ** (_SQUARINGS - 1))


# The nonlinearity of each gate of a cell, in the order of the blocks of its recurrent weights.
_CELLS: Mapping[type[UnidirectionalLayer], Mapping[str, Nonlinearity]] = {
    Elman: {"hidden": "tanh"},
    Gru: {"reset": "sigmoid", "update": "sigmoid", "candidate": "tanh"},
    LiGru: {"candidate": "relu", "update": "sigmoid"},
    Lstm: {"input": "sigmoid", "forget": "sigmoid", "cell": "tanh", "output": "sigmoid"},
}

_MEMORY_GATES = frozenset({"update", "forget"})  # an update gate, here, is the fraction that is kept


def _nonlinearities(layer: UnidirectionalLayer) -> Mapping[str, Nonlinearity]:
    if isinstance(layer, Elman) and layer.relu:
        return {"hidden": "relu"}
    try:
        return _CELLS[type(layer)]
    except KeyError:
        raise ModelError(
            f"the gradient microscope cannot name the gates of the cell {type(layer).__name__}. "
            f"Expected one of {', '.join(cell.__name__ for cell in _CELLS)}. Leave out "
            f"--train.diagnose-every."
        ) from None
