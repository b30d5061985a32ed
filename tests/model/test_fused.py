"""torch's fused recurrent layers: their number format on each device, and the warnings around them."""

import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from asr.device import has_bf16_recurrence
from asr.model.recurrent import cells
from asr.model.recurrent.factory import CELL_NAMES, Cell, make_layer
from asr.model.recurrent.unidirectional import UnidirectionalLayer
from tests.fake_gpu import fake_gpu, gpu_autocast

FUSED: dict[str, tuple[Cell, int]] = {
    "rnn": ("rnn", 0),
    "rnn-relu": ("rnn-relu", 0),
    "gru": ("gru", 0),
    "lstm": ("lstm", 0),
    "lstm-projection": ("lstm", 3),
}
CUDNN = {"rnn": "rnn_tanh", "rnn-relu": "rnn_relu", "gru": "gru", "lstm": "lstm"}


def make_on_gpu(kind: str, dtype: torch.dtype = torch.float32) -> tuple[UnidirectionalLayer, Tensor]:
    """A direction and an input, fake, on the GPU."""
    cell, projection = FUSED[kind]
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cuda"):
            return make_layer(cell, 4, 5, projection=projection), torch.zeros(7, 3, 4)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_format_of_cudnns_layers(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards bf16 on a GPU against fp16, to which torch's autocast casts for cuDNN whatever it is told: the
    format of all that cuDNN gets, of the hidden states, and so of the gradients that come back to them."""
    monkeypatch.setattr(cells, "has_bf16_recurrence", lambda device: True)
    with fake_gpu() as calls:
        direction, x = make_on_gpu(kind)
        if dtype == torch.float32:
            y, state = direction(x)
        else:
            with gpu_autocast(dtype):
                y, state = direction(x)
                assert torch.is_autocast_enabled("cuda")  # as before
    [call] = calls
    assert call.function == CUDNN[FUSED[kind][0]]
    assert call.formats == {dtype}
    assert not call.autocast
    assert {part.dtype for part in (y, *state)} == {dtype}
    assert y.shape == (7, 3, direction.output_size)


@pytest.mark.parametrize("kind", FUSED)
def test_gpu_without_bf16_in_cudnn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards an older cuDNN or GPU against torch's fallback, step by step: the layer runs in float32. Every
    cuDNN has fp16."""
    monkeypatch.setattr(cells, "has_bf16_recurrence", lambda device: False)
    with fake_gpu() as calls:
        direction, x = make_on_gpu(kind)
        with gpu_autocast(torch.bfloat16):
            y, _ = direction(x.bfloat16())
        with gpu_autocast(torch.float16):
            direction(x)
    assert y.dtype == torch.float32
    assert [call.formats for call in calls] == [{torch.float32}, {torch.float16}]


def test_the_real_condition_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the connection: a cell asks for the input's own device, and only where bf16 is wanted."""
    assert cells.has_bf16_recurrence is has_bf16_recurrence
    asked: list[torch.device] = []
    monkeypatch.setattr(cells, "has_bf16_recurrence", lambda device: bool(asked.append(device)))
    with fake_gpu():
        direction, x = make_on_gpu("lstm")
        direction(x)
        assert not asked
        with gpu_autocast(torch.bfloat16):
            direction(x)
    assert asked == [torch.device("cuda", 0)]


class Products(TorchDispatchMode):
    """Records the number formats of matrix products and of oneDNN's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.formats: dict[str, list[set[torch.dtype]]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_", "mkldnn_rnn_layer"):
            used = {part.dtype for part in arguments if isinstance(part, Tensor)}
            self.formats.setdefault(name, []).append(used)
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("kind", [*CELL_NAMES, "lstm-projection"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_formats_on_a_cpu(kind: str, dtype: torch.dtype) -> None:
    """Guards bf16 on a CPU: oneDNN's LSTM is bf16 throughout; elsewhere the input's product is, and the steps
    are float32. Gradients reach the hidden states in their format, and the weights in float32."""
    fused = kind == "lstm"
    if fused and dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN's LSTM needs instructions for bf16")
    cell, projection = FUSED.get(kind, (kind, 0))
    direction = make_layer(cell, 4, 5, projection=projection)  # type: ignore[arg-type]
    x = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0))
    with Products() as products, torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y, state = direction(x)
    arriving: list[Tensor] = []
    y.register_hook(arriving.append)
    y.float().square().sum().backward()
    if fused:
        assert products.formats == {"mkldnn_rnn_layer": [{dtype}]}
    else:
        first, *others = products.formats["mm" if cell == "ligru" else "addmm"]
        assert first == {dtype}
        steps = [*others, *products.formats.get("addmm_", [])]
        assert all(step == {torch.float32} for step in steps)
    expected = dtype if fused else torch.float32
    assert {part.dtype for part in (y, *state, *arriving)} == {expected}
    assert all(
        weight.grad is not None and weight.grad.dtype == torch.float32 for weight in direction.parameters()
    )


@pytest.mark.parametrize("kind", FUSED)
def test_float64_is_not_lowered(kind: str) -> None:
    """Guards exact checks under autocast, which leaves float64 alone."""
    with fake_gpu() as calls:
        direction, x = make_on_gpu(kind, torch.float64)
        with gpu_autocast(torch.float16):
            y, _ = direction(x)
    assert [call.formats for call in calls] == [{torch.float64}]
    assert y.dtype == torch.float64


# -------------------------------------------------------------------------------------------------- warnings


def test_other_warnings_are_shown_once() -> None:
    """Guards a program's own warnings: `warnings.catch_warnings` in a cell's call would make Python forget at
    each update which ones it has shown."""
    direction, x = make_layer("lstm", 4, 5), torch.zeros(7, 3, 4)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            warnings.warn("of the program", UserWarning, stacklevel=1)
            direction(x)
    assert len(shown) == 1


def test_no_warning_of_scattered_weights() -> None:
    """Guards a user of a GPU against torch's warning at every layer, about which nothing can be done."""
    script = (
        "import warnings, asr.model.recurrent.cells\n"
        "warnings.warn('RNN module weights are not part of single contiguous chunk of memory. This means '\n"
        "              'they need to be compacted at every call, possibly increasing memory usage.')\n"
        "warnings.warn('another')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert "another" in done.stderr
    assert "contiguous" not in done.stderr
