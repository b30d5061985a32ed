"""The scan of a GPU, run on a CPU: plain torch in float64, and the Triton kernels in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from asr.model.recurrent import gpu_scan
from asr.model.recurrent.factory import Cell, make_layer
from asr.model.recurrent.unidirectional import UnidirectionalLayer
from tests.model.recurrent.definition import by_definition, loss

KINDS: dict[str, tuple[Cell, int]] = {
    "ligru": ("ligru", 0),
    "lstm": ("lstm", 0),
    "lstm, projection of full width": ("lstm", 5),
    "lstm-peephole": ("lstm-peephole", 0),
    "lstm-peephole, projection": ("lstm-peephole", 3),
}


def make(kind: str) -> UnidirectionalLayer:
    """A direction in float64 whose weights are all random, so that none can be left out unnoticed."""
    cell, projection = KINDS[kind]
    direction = make_layer(cell, 4, 5, projection=projection).double()
    generator = torch.Generator().manual_seed(1)
    for weight in direction.parameters():
        weight.data = torch.randn(weight.shape, generator=generator).double() * 0.5
    return direction


def inputs(direction: UnidirectionalLayer, steps: int, batch: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Noise to run over, and a state to begin with; both want gradients."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(steps, batch, 4, generator=generator).double()
    state = [torch.randn(part.shape, generator=generator).double() for part in direction.initial_state(x)]
    return x.requires_grad_(), tuple(part.requires_grad_() for part in state)


def scan(direction: UnidirectionalLayer, x: Tensor, state: tuple[Tensor, ...]) -> Any:
    """What `forward` does on a GPU."""
    return direction.gpu_scan(direction.input_gates(x.flatten(0, 1)), state, direction.weight_hh_l0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("steps", "batch"), [(1, 3), (7, 1), (7, 3)])
def test_plain_torch_equals_the_definition(kind: str, steps: int, batch: int) -> None:
    """Guards the backward pass by hand: outputs, states and all gradients are those that autograd finds."""
    direction = make(kind)
    x, state = inputs(direction, steps, batch)
    assert gpu_scan.steps_for(x) == "torch"
    y, last = scan(direction, x, state)
    y_plain, last_plain = by_definition(direction, x, state)
    torch.testing.assert_close((y, *last), (y_plain, *last_plain), rtol=1e-12, atol=1e-12)
    wanted = [x, *state, *direction.parameters()]
    ours = torch.autograd.grad(loss(y, last), wanted)
    theirs = torch.autograd.grad(loss(y_plain, last_plain), wanted)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_the_loss_does_not_use(kind: str) -> None:
    """Guards gradients that autograd leaves out: only the last state, then only the hidden states."""
    direction = make(kind)
    x, state = inputs(direction, 4, 2)
    for part in (lambda y, last: last[-1].square().sum(), lambda y, last: y.square().sum()):
        ours = torch.autograd.grad(part(*scan(direction, x, state)), [x, *state])
        theirs = torch.autograd.grad(part(*by_definition(direction, x, state)), [x, *state])
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_in_plain_torch(kind: str) -> None:
    """Guards the types: products in bf16, outputs, states and gradients in float32, near the exact ones."""
    direction = make(kind).float()
    x, state = inputs(direction, 5, 3)
    x, state = x.detach().float(), tuple(part.detach().float() for part in state)
    exact, _ = by_definition(direction, x, state)
    gates = direction.input_gates(x.flatten(0, 1)).bfloat16()
    y, last = direction.gpu_scan(gates, state, direction.weight_hh_l0.bfloat16())
    assert all(part.dtype == torch.float32 for part in (y, *last))
    torch.testing.assert_close(y, exact, rtol=0, atol=0.1)
    loss(y, last).backward()
    for weight in direction.parameters():
        assert weight.grad is not None
        assert weight.grad.dtype == torch.float32
        assert weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["ligru", "lstm-peephole", "lstm-peephole, projection"])
def test_autocast(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what `forward` hands over on a GPU: gates and weights cast once, to autocast's type; float32
    states, and no autocast inside, which would cast at each step."""
    direction = make(kind).float()
    handed: list[torch.dtype] = []

    def spy(gates: Tensor, state: tuple[Tensor, ...], recurrent: Tensor) -> Any:
        assert not torch.is_autocast_enabled("cpu")
        handed.extend([gates.dtype, recurrent.dtype, *(part.dtype for part in state)])
        return type(direction).gpu_scan(direction, gates, state, recurrent)

    monkeypatch.setattr(direction, "implementation", lambda _: "gpu-scan")
    monkeypatch.setattr(direction, "gpu_scan", spy)
    x = inputs(direction, 4, 2)[0].detach().float()
    exact, _ = direction(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, last = direction(x)
    states = [torch.float32] * len(last)
    assert handed == [torch.float32, torch.float32, *states, torch.bfloat16, torch.bfloat16, *states]
    assert all(part.dtype == torch.float32 for part in (y, *last))
    torch.testing.assert_close(y, exact, rtol=0, atol=0.1)
    y.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in direction.parameters())


def test_paths() -> None:
    """Guards which way each cell takes: a slower one gives the same numbers, and nobody would see it."""
    with FakeTensorMode():
        on_gpu = torch.empty(1, 1, 4, device="cuda")
    on_cpu, nowhere = torch.empty(1, 1, 4), torch.empty(1, 1, 4, device="meta")
    paths = {
        kind: [make(kind).float().implementation(x) for x in (on_cpu, on_gpu, nowhere)]
        for kind in KINDS
        if kind != "lstm"  # on a CPU as its torch was built
    }
    assert paths == {
        "ligru": ["cpu-scan", "gpu-scan", "loop"],
        "lstm, projection of full width": ["cpu-scan", "gpu-scan", "loop"],
        "lstm-peephole": ["cpu-scan", "gpu-scan", "loop"],
        "lstm-peephole, projection": ["cpu-scan", "gpu-scan", "loop"],
    }
    assert make("lstm").float().implementation(on_gpu) == "fused"
    assert gpu_scan.steps_for(on_gpu) == "torch"  # no memory to read


def test_no_gradient_of_a_gradient() -> None:
    """Guards against a second derivative that would be wrong without a word."""
    direction = make("ligru")
    x, state = inputs(direction, 3, 2)
    y, _ = scan(direction, x, state)
    [gradient] = torch.autograd.grad(y.square().sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_triton_kernels() -> None:
    """Guards the kernels, as far as a CPU can: interpreted.py in Triton's interpreter."""
    pytest.importorskip("triton", reason="Triton comes with torch for CUDA")
    tests = Path(__file__).with_name("interpreted.py")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert "skipped" not in result.stdout


@pytest.mark.parametrize(("bits", "capability"), [("bf16", 90), ("fp32", 80)])
@pytest.mark.parametrize("kernel", ["_ligru_forward", "_ligru_backward", "_lstm_forward", "_lstm_backward"])
def test_triton_kernels_compile(
    kernel: str, bits: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards what the interpreter lets pass: each kernel compiles to machine code, which needs no GPU, and
    its shared memory is what every GPU since 8.0 has. bf16 products use the tensor cores."""
    pytest.importorskip("triton", reason="Triton comes with torch for CUDA")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from asr.model.recurrent import gpu_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(gpu_kernels, kernel)
    kinds = dict.fromkeys(("weight", "gates", "d"), f"*{bits}")
    kinds |= dict.fromkeys(("y", "c", "dy", "dh", "dc", "peepholes"), "*fp32")
    kinds |= dict.fromkeys(("steps", "batch", "blocks"), "i32")
    constants = {"width": 320, "block_rows": 16, "precision": "ieee", "has_peepholes": True}
    constants["block_units"] = gpu_kernels._BLOCK_UNITS[2 if bits == "bf16" else 4]
    names = function.arg_names
    source = ASTSource(
        fn=function,
        signature={name: kinds.get(name, "constexpr") for name in names},
        constexprs={name: value for name, value in constants.items() if name in names},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if "*" in kinds.get(name, "")},
    )
    compiled = compile(source, target=GPUTarget("cuda", capability, 32))
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 99 << 10
    assert ("mma" in compiled.asm["ptx"]) == (bits == "bf16")
