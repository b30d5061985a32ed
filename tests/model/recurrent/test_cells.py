"""Every cell alone: three ways to the same numbers, gradients included, and torch's layers as the oracle."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asr.model.recurrent.cells import Lstm
from asr.model.recurrent.factory import CELL_NAMES, Cell, make_layer
from asr.model.recurrent.unidirectional import UnidirectionalLayer
from tests.model.recurrent.definition import by_definition, loss

KINDS: dict[str, tuple[Cell, int]] = {
    **{cell: (cell, 0) for cell in CELL_NAMES},
    "lstm, projection": ("lstm", 3),
    "lstm, projection of full width": ("lstm", 5),
    "lstm-peephole, projection": ("lstm-peephole", 3),
}
TORCHS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "rnn": (nn.RNN, {}),
    "rnn-relu": (nn.RNN, {"nonlinearity": "relu"}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "lstm, projection": (nn.LSTM, {"proj_size": 3}),
}


def make(kind: str, input_size: int = 4, width: int = 5, **settings: Any) -> UnidirectionalLayer:
    """A direction in float64 whose weights are all random, so that none can be left out unnoticed."""
    cell, projection = KINDS[kind]
    direction = make_layer(cell, input_size, width, projection=projection, **settings).double()
    generator = torch.Generator().manual_seed(1)
    for weight in direction.parameters():
        weight.data = torch.randn(weight.shape, generator=generator).double() * 0.5
    return direction


def inputs(
    direction: UnidirectionalLayer, steps: int = 7, batch: int = 3
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Noise to run over, and a state to begin with; both want gradients."""
    generator = torch.Generator().manual_seed(2)
    widths = [direction.output_size, direction.width][: len(direction.initial_state(torch.zeros(1, 1, 1)))]
    x, *state = (
        torch.randn(*shape, generator=generator).double().requires_grad_()
        for shape in ((steps, batch, direction.input_size), *((batch, width) for width in widths))
    )
    return x, tuple(state)


def assert_same_gradients(ours: Tensor, theirs: Tensor, wanted: list[Tensor]) -> None:
    pairs = zip(torch.autograd.grad(ours, wanted), torch.autograd.grad(theirs, wanted), strict=True)
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "batch"), [(1, 3), (7, 1), (7, 3), (3, 4), (2, 9)])
def test_scan_equals_the_definition(kind: str, steps: int, batch: int) -> None:
    """Guards the kernels and the backward pass by hand: outputs, states and all gradients are those that
    autograd finds for the cell's definition."""
    direction = make(kind)
    x, state = inputs(direction, steps, batch)
    y, last = direction(x, state)
    assert y.shape == (steps, batch, direction.output_size)
    y_plain, last_plain = by_definition(direction, x, state)
    torch.testing.assert_close((y, *last), (y_plain, *last_plain), rtol=1e-12, atol=1e-12)
    wanted = [x, *state, *direction.parameters()]
    assert_same_gradients(loss(y, last), loss(y_plain, last_plain), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_against_finite_differences(kind: str) -> None:
    """Guards every gradient without trust in autograd's formulas."""
    direction = make(kind, input_size=2, width=5)
    x, state = inputs(direction, steps=3, batch=2)
    names = [name for name, _ in direction.named_parameters()]

    def run(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        weights = dict(zip(names, tensors[len(state) :], strict=True))
        y, last = torch.func.functional_call(direction, weights, (x, tensors[: len(state)]))
        return (y, *last)

    assert torch.autograd.gradcheck(run, (x, *state, *direction.parameters()), fast_mode=True)


@pytest.mark.parametrize("kind", TORCHS)
def test_equals_torchs_layer(kind: str) -> None:
    """Guards the definitions: the order of gates and the biases are torch's, and weights can be exchanged."""
    direction = make(kind)
    layer, options = TORCHS[kind]
    theirs = layer(4, 5, **options).double()
    theirs.load_state_dict(direction.state_dict())
    x, state = inputs(direction)
    y, last = direction(x, state)
    packed = tuple(part.unsqueeze(0) for part in state)
    y_theirs, last_theirs = theirs(x, packed if len(packed) == 2 else packed[0])
    last_theirs = last_theirs if isinstance(last_theirs, tuple) else (last_theirs,)
    last_theirs = tuple(part.squeeze(0) for part in last_theirs)
    torch.testing.assert_close((y, *last), (y_theirs, *last_theirs), rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad(loss(y, last), [x, *state, *direction.parameters()])
    expected = torch.autograd.grad(loss(y_theirs, last_theirs), [x, *state, *theirs.parameters()])
    for actual, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(actual, other, rtol=1e-11, atol=1e-12)


def test_peephole_by_hand() -> None:
    """Guards which cell each gate sees: input and forget gate the one before, the output gate the one now."""
    direction = make_layer("lstm-peephole", 1, 1)
    assert isinstance(direction, Lstm)
    for weight in direction.parameters():
        nn.init.zeros_(weight)
    assert direction.peepholes is not None
    direction.peepholes.data = torch.tensor([[1.0], [2.0], [3.0]])
    before = 0.5

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    now = sigmoid(2 * before) * before  # the input is 0, so is what the input gate lets in
    expected = sigmoid(3 * now) * math.tanh(now)
    y, (_, c) = direction(torch.zeros(1, 1, 1), (torch.zeros(1, 1), torch.tensor([[before]])))
    assert c.item() == pytest.approx(now, rel=1e-5)
    assert y.item() == pytest.approx(expected, rel=1e-5)
    direction.bias_ih_l0.data[2] = 100.0  # now the input gate lets 1 in
    _, (_, c) = direction(torch.zeros(1, 1, 1), (torch.zeros(1, 1), torch.tensor([[before]])))
    assert c.item() == pytest.approx(now + sigmoid(before), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_float32(kind: str) -> None:
    """Guards the float32 kernels, whose tanh is an approximation, over its range: near float64's numbers."""
    exact = make(kind, width=5)
    x, state = inputs(exact, steps=40)
    x = x.detach() * 4
    y, _ = exact(x, state)
    single, _ = exact.float()(x.float(), tuple(part.float() for part in state))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), y, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nan_is_not_swallowed(kind: str, poison: float) -> None:
    """Guards the trainer's watch for broken updates: clamping inside of the kernels must not hide a NaN."""
    direction = make(kind).float()
    x = torch.zeros(3, 2, 4)
    x[1, 0] = poison
    y, _ = direction(x)
    assert y[:, 1].isfinite().all()
    assert y[0, 0].isfinite().all()
    if poison != poison or "relu" in kind or "ligru" in kind:  # an infinite input just saturates other gates
        assert not y[2, 0].isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_backward_twice(kind: str) -> None:
    """Guards the buffers: a graph that is kept gives the same gradients again."""
    direction = make(kind)
    x, state = inputs(direction)
    total = loss(*direction(x, state))
    first = torch.autograd.grad(total, [x, *state], retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(total, [x, *state]), first, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_weights(kind: str) -> None:
    """Guards a frozen layer, without and with an input that wants a gradient, and running without any."""
    direction = make(kind).requires_grad_(False)
    x, state = inputs(direction)
    y, _ = direction(x.detach(), tuple(part.detach() for part in state))
    assert not y.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(direction(x, state)[0], y)
    [gradient] = torch.autograd.grad(direction(x, state)[0].sum(), [x])
    assert gradient.abs().sum() > 0
    [alone] = torch.autograd.grad(direction(x.detach(), state)[0].sum(), [state[0]])
    assert alone.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind: str) -> None:
    """Guards mixed precision on any processor: bf16 products, outputs near the exact, finite gradients."""
    direction = make(kind).float()
    if direction.is_fused(torch.zeros(1)) and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("torch's fused LSTM needs instructions for bf16")
    x = inputs(direction)[0].detach().float()
    exact, _ = direction(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = direction(x)
    torch.testing.assert_close(y.float(), exact, rtol=0, atol=0.1)
    y.float().square().sum().backward()
    for weight in direction.parameters():
        assert weight.grad is not None
        assert weight.grad.dtype == torch.float32
        assert weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_dropout(kind: str) -> None:
    """Guards DropConnect: drawn anew for each call, one mask for all steps, none in evaluation, scaled."""
    direction = make(kind, recurrent_dropout=0.4)
    x, state = inputs(direction)
    torch.manual_seed(0)
    first, second = direction(x, state)[0], direction(x, state)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    kept = nn.functional.dropout(torch.ones_like(direction.weight_hh_l0), 0.4)
    dropped = make(kind)
    dropped.weight_hh_l0.data *= kept
    torch.testing.assert_close(first, dropped(x, state)[0])
    assert float((kept == 0).double().mean()) == pytest.approx(0.4, abs=0.25)
    plain = make(kind)
    torch.testing.assert_close(direction.eval()(x, state)[0], plain(x, state)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_initialisation(kind: str) -> None:
    """Guards each gate's own orthogonal matrix, and a forget gate that two biases would open twice."""
    cell, projection = KINDS[kind]
    torch.manual_seed(0)
    direction = make_layer(cell, 7, 16, projection=projection)
    rank = direction.output_size
    for gate in direction.weight_hh_l0.chunk(direction.gate_count):
        torch.testing.assert_close(gate.T @ gate, torch.eye(rank), rtol=0, atol=1e-5)
    bound = (6 / (7 + 16)) ** 0.5
    assert 0.9 * bound < float(direction.weight_ih_l0.detach().abs().max()) <= bound
    for name, weight in direction.named_parameters():
        if "bias" in name or name == "peepholes":
            expected = torch.zeros_like(weight)
            if name == "bias_ih_l0" and "lstm" in kind:
                expected[16:32] = 1
            assert torch.equal(weight, expected), name
