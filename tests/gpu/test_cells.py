"""Recurrent layers on a GPU: the Triton kernels, two streams, cuDNN's persistent kernels. Never run yet."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.model.recurrent import gpu_kernels, gpu_scan, layers
from asr.model.recurrent.factory import Cell, make_layer
from asr.model.recurrent.layers import RecurrentConfig, RecurrentLayer, RecurrentStack, reversal

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """No TF32 in cuDNN's layers; torch has none in matrix products, unless it is told."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.mark.parametrize("cell", ["ligru", "lstm-peephole"])
@pytest.mark.parametrize("width", [33, 320, 768])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("one_launch", [True, False])
def test_triton_kernels_equal_plain_torch(
    cell: Cell, width: int, dtype: torch.dtype, one_launch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the machine code, and the barrier between two steps, which the interpreter does not need."""
    monkeypatch.setattr(gpu_kernels, "ONE_LAUNCH_BYTES", 1 << 40 if one_launch else 0)
    torch.manual_seed(0)
    direction = make_layer(cell, 64, width).cuda()
    x = torch.randn(50, 37, 64, device="cuda", requires_grad=True)
    assert direction.implementation(x) == "gpu-scan"
    wanted = [x, *direction.parameters()]

    def run() -> list[Tensor]:
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            y, last = direction(x)
        loss = y.square().mean() + sum(part.square().mean() for part in last)
        return [y, *last, *torch.autograd.grad(loss, wanted)]

    assert gpu_scan.steps_for(x) == "triton"
    actual = run()
    monkeypatch.setattr(gpu_scan, "HAS_TRITON", False)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    for ours, plain in zip(actual, run(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, plain, rtol=0, atol=tolerance * float(plain.detach().abs().max()))


@pytest.mark.parametrize("cell", ["lstm", "ligru"])
def test_two_streams_equal_one(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the waits between streams: the same bits as in turn, again and again, while memory is reused."""
    torch.manual_seed(0)
    stack = RecurrentStack(40, RecurrentConfig(cell=cell, width=96, depth=4, dropout=0.0)).cuda()
    lengths = torch.randint(1, 200, (24,), device="cuda")
    x = torch.randn(24, int(lengths.max()), 40, device="cuda")

    def run(arrangement: Any) -> list[Tensor]:
        monkeypatch.setattr(layers, "GPU_ARRANGEMENT", arrangement)
        stack.zero_grad()
        y, _ = stack(x, lengths)
        y.square().mean().backward()
        gradients = [weight.grad for weight in stack.parameters() if weight.grad is not None]
        return [y.detach(), *(gradient.clone() for gradient in gradients)]

    expected = run("in-turn")
    for _ in range(20):
        for ours, other in zip(run("two-streams"), expected, strict=True):
            assert torch.equal(ours, other)


def test_rows_for_persistent_kernels() -> None:
    """Guards fp16 with rows of padding, for which cuDNN takes its persistent kernel, against float32."""
    torch.manual_seed(0)
    stack = RecurrentStack(128, RecurrentConfig(width=256, depth=2, dropout=0.0)).cuda()
    lengths = torch.tensor([60, 41, 7], device="cuda")
    x = torch.randn(3, 60, 128, device="cuda")
    exact, _ = stack(x, lengths)
    with torch.autocast("cuda", torch.float16):
        layer = stack.layers[0]
        assert isinstance(layer, RecurrentLayer)
        if layer.persistent_rows(x.transpose(0, 1)) is None:
            pytest.skip("torch takes cuDNN's persistent kernels only on larger GPUs, such as A100 and H100")
        y, _ = stack(x, lengths)
    assert y.shape == exact.shape
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(y[row, :length].float(), exact[row, :length], rtol=0, atol=0.02)


def test_directions_read_their_own_lengths() -> None:
    """Guards the reversal on the side stream: an utterance alone and in a batch."""
    torch.manual_seed(0)
    layer = RecurrentLayer(16, RecurrentConfig(width=64)).cuda()
    lengths = torch.tensor([30, 11], device="cuda")
    x = torch.randn(30, 2, 16, device="cuda")
    assert layer.arrangement(x) == layers.GPU_ARRANGEMENT
    together, _ = layer(x, reversal(lengths, 30))
    alone, _ = layer(x[:11, 1:].contiguous(), reversal(lengths[1:], 11))
    torch.testing.assert_close(together[:11, 1:], alone, rtol=0, atol=1e-4)
