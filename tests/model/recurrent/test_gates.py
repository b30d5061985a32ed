import math

import pytest
import torch
from torch import Tensor, nn

from asr.errors import ModelError
from asr.model.recurrent.cells import Gru, LiGru, Lstm
from asr.model.recurrent.factory import CELL_NAMES, Cell, make_layer
from asr.model.recurrent.gates import (
    Gate,
    gate_values,
    memory_steps,
    recurrent_weights,
    saturation,
    spectral_radius,
)
from asr.model.recurrent.unidirectional import State, UnidirectionalLayer

ROWS, SIZE, WIDTH = 5, 3, 4


def next_state(direction: UnidirectionalLayer, gates: dict[str, Gate], state: State) -> State:
    """The state after a step, from its gates alone: the equations as the papers have them."""
    value = {name: gate.values for name, gate in gates.items()}
    if isinstance(direction, Gru | LiGru):
        return (value["update"] * state[0] + (1 - value["update"]) * value["candidate"],)
    if isinstance(direction, Lstm):
        memory = value["forget"] * state[1] + value["input"] * value["cell"]
        h = value["output"] * memory.tanh()
        return (h if direction.weight_hr_l0 is None else h @ direction.weight_hr_l0.T), memory
    return (value["hidden"],)


CASES: list[tuple[Cell, int]] = [*((cell, 0) for cell in CELL_NAMES), ("lstm", 2), ("lstm-peephole", 2)]


def make(cell: Cell, projection: int) -> tuple[UnidirectionalLayer, Tensor, State]:
    """A direction with no weight at its usual start, inputs of one step, and a state."""
    torch.manual_seed(0)
    direction = make_layer(cell, SIZE, WIDTH, projection=projection)
    for weight in direction.parameters():
        nn.init.normal_(weight)
    state = tuple(torch.randn_like(part) for part in direction.initial_state(torch.zeros(1, ROWS, SIZE)))
    return direction, torch.randn(ROWS, SIZE), state


@pytest.mark.parametrize(("cell", "projection"), CASES)
@torch.no_grad()
def test_gates_make_the_next_state(cell: Cell, projection: int) -> None:
    """Guards every formula, the order of gates, all biases: the gates of a step give what the cell gives."""
    direction, x, state = make(cell, projection)
    _, expected = direction(x.unsqueeze(0), state)
    ours = next_state(direction, gate_values(direction, x, state), state)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("cell", "projection"), CASES)
def test_names_of_recurrent_weights(cell: Cell, projection: int) -> None:
    """Guards the names: a block named after a gate moves that gate, and no other one but what that one
    reaches within the step (a GRU's candidate, the output gate that peeps)."""
    direction, x, state = make(cell, projection)
    blocks = direction.weight_hh_l0.detach().chunk(direction.gate_count)
    for (name, weight), block in zip(recurrent_weights(direction).items(), blocks, strict=True):
        assert weight.shape == (WIDTH, WIDTH)
        before = gate_values(direction, x, state)
        block.add_(0.5)  # a view of the weights themselves
        after = gate_values(direction, x, state)
        block.sub_(0.5)
        moved = {gate for gate in before if not torch.equal(before[gate].values, after[gate].values)}
        assert name in moved
        assert moved <= {name, "candidate" if cell == "gru" else "output"}


def test_unknown_cell() -> None:
    """Guards against a new cell that the microscope would describe with another one's formulas."""
    with pytest.raises(ModelError, match=r"cannot name the gates of the cell Linear\. Expected one of Elman"):
        gate_values(nn.Linear(2, 2), torch.zeros(1, 2), (torch.zeros(1, 2),))


def test_saturation_by_hand() -> None:
    """Guards the bounds, both ends, and that the three kinds have their own."""
    values = torch.tensor([[0.01, 0.04, 0.06, 0.5], [0.94, 0.96, 0.97, 0.99]])
    found = saturation(Gate(values, "sigmoid"))
    assert (found.low, found.high) == (2 / 8, 3 / 8)
    values = torch.tensor([[-1.0, -0.94, 0.0, 0.96]])
    found = saturation(Gate(values, "tanh"))
    assert (found.low, found.high) == (1 / 4, 1 / 4)
    found = saturation(Gate(torch.tensor([[0.0, 0.0, 0.0, 7.0]]), "relu"))
    assert (found.low, found.high) == (3 / 4, 0)


def test_memory_by_hand() -> None:
    """Guards 1 / (1 - f), its mean over rows, and a gate that is wide open, which divides by 0."""
    gate = Gate(torch.tensor([[0.5, 0.85, 0.0, 1.0], [0.5, 0.95, 0.0, 1.0]]), "sigmoid", retains_memory=True)
    expected = torch.tensor([2.0, 10.0, 1.0, 1e6], dtype=torch.float64)
    torch.testing.assert_close(memory_steps(gate), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_spectral_radius_against_eigenvalues(seed: int) -> None:
    """Guards the squaring: complex pairs, other scales, and no over- or underflow at the 1024th power."""
    torch.manual_seed(seed)
    weight = torch.randn(24, 24) * 10.0 ** (seed - 2)
    expected = torch.linalg.eigvals(weight.double()).abs().max().item()
    assert spectral_radius(weight) == pytest.approx(expected, rel=1e-2)


def test_spectral_radius_of_known_matrices() -> None:
    """Guards the edges: a multiple of a rotation, powers that vanish, zeros, and what is not finite."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    assert spectral_radius(1.5 * turn) == pytest.approx(1.5, rel=1e-6)
    assert spectral_radius(torch.tensor([[0.0, 1.0], [0.0, 0.0]])) == 0
    assert spectral_radius(torch.zeros(3, 3)) == 0
    assert math.isnan(spectral_radius(torch.full((2, 2), math.inf)))
