"""What happens inside a cell: its gates' values and its recurrent weights, gate by gate.

Directions give states and outputs only. Between two steps everything else follows from the state before and
the input, so the gates of many steps are computed at once, after the fact. One table, `_CELLS`,
holds the formulas of every cell; the tests build each cell's next state from it and compare.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from asr.errors import ModelError
from asr.model.cells import Direction, Elman, Gru, LiGru, Lstm, State

Kind = Literal["sigmoid", "tanh", "relu"]


@dataclass(frozen=True)
class Gate:
    """The values of one gate, or of one other activation, of a cell."""

    values: Tensor  # (rows, width), between the bounds of its kind
    kind: Kind
    keeps: bool = False  # whether its value is the share of the memory that is carried to the next step


@dataclass(frozen=True)
class Saturation:
    """How often a gate stands at its ends, where its slope, and so what flows back through it, is near 0."""

    low: float  # share of values: sigmoid < 0.05, tanh < -0.95, relu exactly 0
    high: float  # share of values: sigmoid > 0.95, tanh > 0.95; 0 for relu, which has no upper end


@torch.no_grad()
def gate_values(direction: Direction, x: Tensor, state: State) -> dict[str, Gate]:
    """The gates of one step of one direction, for many rows at once.

    Args:
        direction: of a `RecurrentLayer`.
        x: (rows, size) inputs of the step.
        state: of the step before, each (rows, width).

    Returns:
        By the gate's name.

    Raises:
        ModelError: no formula is known for such a cell.
    """
    return _cell(direction).formula(direction, x, state)


def recurrent_weights(direction: Direction) -> dict[str, Tensor]:
    """The matrices that a direction's state goes through from step to step, by the gate's name.

    Args:
        direction: of a `RecurrentLayer`.

    Returns:
        Each (width, width); through a recurrent projection, where there is one.

    Raises:
        ModelError: no formula is known for such a cell.
    """
    names = _cell(direction).blocks
    weight = direction.weight_hh_l0.detach()
    if isinstance(direction, Lstm) and direction.weight_hr_l0 is not None:
        weight = weight @ direction.weight_hr_l0.detach()
    return dict(zip(names, weight.chunk(len(names)), strict=True))


def saturation(gate: Gate) -> Saturation:
    """The shares of a gate's values that lie at its ends.

    Source: the thresholds of Karpathy, Johnson & Fei-Fei 2015, "Visualizing and understanding recurrent
        networks", section 4.2, who use 0.1 and 0.9, moved to 0.05 and 0.95.
    """
    values = gate.values
    low, high = {
        "sigmoid": (values < 0.05, values > 0.95),
        "tanh": (values < -0.95, values > 0.95),
        "relu": (values == 0, torch.zeros_like(values, dtype=torch.bool)),
    }[gate.kind]
    return Saturation(low.double().mean().item(), high.double().mean().item())


def memory_steps(gate: Gate) -> Tensor:
    """How long each unit remembers, in steps: 1 / (1 - f), with f the mean of the gate that keeps.

    A memory of which a share f is kept at every step holds what came in k steps ago with the weight f^k; the
    mean age of what it holds is then 1 / (1 - f), the present step counted as 1.

    Args:
        gate: one with `keeps`.

    Returns:
        (width,) float64, at most a million.

    Source: Gers, Schmidhuber & Cummins 2000, "Learning to forget", for the gate; the expected value is that
        of a geometric distribution.
    """
    return 1 / (1 - gate.values.double().mean(dim=0)).clamp(min=1e-6)


def spectral_radius(weight: Tensor, squarings: int = 10) -> float:
    """The largest absolute eigenvalue of a square matrix, by repeated squaring.

    Eigenvalues themselves cost a hundred times as much, and power iteration does not settle on the complex
    pairs that recurrent weights have. No random start is needed.

    Args:
        weight: (width, width).
        squarings: n of them reach the 2^n-th power; the error falls with 1 / 2^n.

    Returns:
        Within 1% for n = 10 on any matrix whose eigenvectors are not almost parallel; exact for multiples of
        orthogonal matrices.

    Source: Gelfand's formula, radius = lim |W^k|^(1/k); the quotient of two powers' norms takes out the
        constant in front.
    """
    power, logs = weight.float(), [0.0]  # logs: of the norms of W^1, W^2, W^4, ...
    for _ in range(squarings + 1):
        # The power itself is kept at norm 1, so that it neither over- nor underflows.
        norm = torch.linalg.matrix_norm(power).item()
        if not 0 < norm < math.inf:
            return 0.0 if norm == 0 else math.nan
        logs.append(2 * logs[-1] + math.log(norm))
        power = (power / norm) @ (power / norm)
    return math.exp((logs[-1] - logs[-2]) / 2 ** (squarings - 1))


@dataclass(frozen=True)
class _Cell:
    blocks: tuple[str, ...]  # of its recurrent weights, in their order
    formula: Callable[[Any, Tensor, State], dict[str, Gate]]


def _cell(direction: Direction) -> _Cell:
    try:
        return _CELLS[type(direction)]
    except KeyError:
        raise ModelError(
            f"the gradient microscope does not know the gates of the cell {type(direction).__name__}. "
            f"Expected one of {', '.join(cell.__name__ for cell in _CELLS)}. Leave out "
            f"--train.diagnose-every."
        ) from None


def _elman(direction: Elman, x: Tensor, state: State) -> dict[str, Gate]:
    total = direction.project(x) + state[0] @ direction.weight_hh_l0.T
    return {"hidden": Gate(total.relu(), "relu") if direction.relu else Gate(total.tanh(), "tanh")}


def _gru(direction: Gru, x: Tensor, state: State) -> dict[str, Gate]:
    n, r, z = direction.project(x).chunk(3, dim=-1)
    r_h, z_h, n_h = (state[0] @ direction.weight_hh_l0.T).chunk(3, dim=-1)
    reset = (r + r_h).sigmoid()
    inner = n_h + direction.bias_hh_l0[2 * direction.width :]
    return {
        "reset": Gate(reset, "sigmoid"),
        "update": Gate((z + z_h).sigmoid(), "sigmoid", keeps=True),  # z is the share that stays
        "candidate": Gate((n + reset * inner).tanh(), "tanh"),
    }


def _ligru(direction: LiGru, x: Tensor, state: State) -> dict[str, Gate]:
    a, z = (direction.project(x) + state[0] @ direction.weight_hh_l0.T).chunk(2, dim=-1)
    return {"candidate": Gate(a.relu(), "relu"), "update": Gate(z.sigmoid(), "sigmoid", keeps=True)}


def _lstm(direction: Lstm, x: Tensor, state: State) -> dict[str, Gate]:
    h, c = state
    i, f, g, o = (direction.project(x) + h @ direction.weight_hh_l0.T).chunk(4, dim=-1)
    sees = direction.peepholes
    if sees is not None:
        i, f = i + sees[0] * c, f + sees[1] * c
        o = o + sees[2] * (f.sigmoid() * c + i.sigmoid() * g.tanh())
    return {
        "input": Gate(i.sigmoid(), "sigmoid"),
        "forget": Gate(f.sigmoid(), "sigmoid", keeps=True),
        "cell": Gate(g.tanh(), "tanh"),
        "output": Gate(o.sigmoid(), "sigmoid"),
    }


_CELLS: Mapping[type[Direction], _Cell] = {
    Elman: _Cell(("hidden",), _elman),
    Gru: _Cell(("reset", "update", "candidate"), _gru),
    LiGru: _Cell(("candidate", "update"), _ligru),
    Lstm: _Cell(("input", "forget", "cell", "output"), _lstm),
}
