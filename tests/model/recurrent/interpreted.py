"""The Triton kernels against the cells' definition. Run by test_gpu_scan.py with TRITON_INTERPRET=1, in a
process of its own: Triton reads the variable when it is imported."""

from typing import Any

import pytest
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from asr.model.recurrent import gpu_kernels, gpu_scan
from asr.model.recurrent.factory import Cell, make_layer
from asr.model.recurrent.unidirectional import UnidirectionalLayer
from tests.model.recurrent.definition import loss

CELLS: list[Cell] = ["ligru", "lstm-peephole", "lstm"]
SHAPES = [(1, 5, 3), (3, 33, 3), (17, 64, 2)]  # batch, width, steps


def make(cell: Cell, width: int) -> UnidirectionalLayer:
    """A direction whose weights are all random, so that none can be left out unnoticed."""
    direction = make_layer(cell, 4, width)
    generator = torch.Generator().manual_seed(1)
    for weight in direction.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 2 / width**0.5
    return direction


def inputs(direction: UnidirectionalLayer, batch: int, steps: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Noise to run over, and a state to begin with; both want gradients."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(steps, batch, 4, generator=generator)
    state = [torch.randn(part.shape, generator=generator) for part in direction.initial_state(x)]
    return x.requires_grad_(), tuple(part.requires_grad_() for part in state)


def run(
    direction: UnidirectionalLayer, way: str, dtype: torch.dtype, x: Tensor, state: tuple[Tensor, ...]
) -> Any:
    """Outputs, last state and all gradients, by `gpu_scan` with products in `dtype` or by `loop`."""
    gates = direction.input_gates(x.flatten(0, 1))
    if way == "loop":
        y, last = direction.loop(gates.view(*x.shape[:2], -1), state, direction.weight_hh_l0)
    else:
        y, last = direction.gpu_scan(gates.to(dtype), state, direction.weight_hh_l0.to(dtype))
    return (y, *last), torch.autograd.grad(loss(y, last), [x, *state, *direction.parameters()])


@pytest.fixture(params=["one launch", "a launch per step"])
def launches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to launch, whatever the width."""
    monkeypatch.setattr(gpu_kernels, "ONE_LAUNCH_BYTES", 1 << 40 if request.param == "one launch" else 0)


@pytest.mark.usefixtures("launches")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("batch", "width", "steps"), SHAPES)
def test_equals_the_definition(cell: Cell, batch: int, width: int, steps: int) -> None:
    """Guards blocks that are partly outside of batch or width, carried states, and every gradient, in
    float32."""
    direction = make(cell, width)
    x, state = inputs(direction, batch, steps)
    assert gpu_scan.steps_for(x) == "triton"
    outputs, gradients = run(direction, "gpu_scan", torch.float32, x, state)
    expected, expected_gradients = run(direction, "loop", torch.float32, x, state)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
    for actual, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(actual, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()) + 1e-6)


@pytest.fixture
def dot_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.8's interpreter takes the bits of bf16 operands for integers in a product: make them float32
    first, which is exact. Everything else of bf16 is as the interpreter has it."""
    plain = InterpreterBuilder.create_dot

    def create_dot(self: InterpreterBuilder, a: Any, b: Any, *others: Any) -> Any:
        single = [self.cast_impl(part, tl.float32) if part.dtype == tl.bfloat16 else part for part in (a, b)]
        return plain(self, *single, *others)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


@pytest.mark.usefixtures("launches", "dot_of_bfloat16")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(cell: Cell, dtype: torch.dtype) -> None:
    """Guards mixed precision: states stay float32, and numbers near the exact ones."""
    direction = make(cell, 70)
    x, state = inputs(direction, 2, 3)
    (y, *last), gradients = run(direction, "gpu_scan", dtype, x, state)
    expected, expected_gradients = run(direction, "loop", torch.float32, x, state)
    for actual, other in zip((y, *last, *gradients), (*expected, *expected_gradients), strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, other, rtol=0, atol=0.05 * float(other.detach().abs().max()))


@pytest.mark.parametrize("cell", CELLS)
def test_nan_is_not_swallowed(cell: Cell) -> None:
    """Guards the trainer's check for broken updates; and a row must not reach its neighbours."""
    direction = make(cell, 5)
    x, state = inputs(direction, 2, 3)
    x.data[1, 0] = torch.nan
    (y, *_), gradients = run(direction, "gpu_scan", torch.float32, x, state)
    assert y[:, 1].isfinite().all()
    assert y[0, 0].isfinite().all()
    assert not y[2, 0].isfinite().any()
    assert gradients[1][1].isfinite().all()
