"""Number formats: what --train.precision promises is what the kernels compute in."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from asr.device import (
    autocast,
    choose_device,
    choose_precision,
    has_bf16_recurrence,
    has_tf32,
    is_out_of_memory,
    set_tf32,
    use_precision,
)
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig
from asr.model.recurrent.factory import make_layer
from asr.model.recurrent.unidirectional import UnidirectionalLayer
from asr.text.characters import CharTokenizer


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def hidden_format(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The format of a fused LSTM's hidden states."""
    if device.type == "cuda" and dtype == torch.bfloat16 and not has_bf16_recurrence(torch.device("cuda", 0)):
        return torch.float32
    return dtype


def skip_unless_possible(device: torch.device, dtype: torch.dtype) -> None:
    if device.type == "cpu" and dtype == torch.float16:
        pytest.skip("fp16 is for GPUs")
    if device.type == "cpu" and dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no instructions for bf16")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hidden_states_and_gradients(device: torch.device, dtype: torch.dtype) -> None:
    """Guards bf16 against fp16 in disguise: the hidden states of every layer are bf16, and so are the
    gradients that reach them, of a size that fp16 lacks. Log-probabilities are float32, near the exact."""
    skip_unless_possible(device, dtype)
    torch.manual_seed(0)
    encoder = EncoderConfig(width=64, depth=3, dropout=0.0, channels=8)
    settings = ModelSettings(FeatureConfig(), encoder, CharTokenizer(tuple("abcdefgh")), "verbatim")
    model = AcousticModel(settings).to(device).train()
    features, lengths = noise(4, 200, 80).to(device), torch.tensor([200, 61, 133, 8], device=device)
    with torch.no_grad():
        exact, _, _ = model(features, lengths)
    formats: set[torch.dtype] = set()
    arriving: list[Tensor] = []

    def record(module: Any, arguments: Any, results: Any) -> None:
        formats.add(results[0].dtype)
        results[0].register_hook(arriving.append)

    for module in model.modules():
        if isinstance(module, UnidirectionalLayer):
            module.register_forward_hook(record)
    with autocast(dtype, device):
        log_probs, _, _ = model(features, lengths)
    expected = hidden_format(device, dtype)
    assert formats == {expected}
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs[0], exact[0], rtol=0, atol=0.1)
    assert dtype == torch.float32 or not torch.equal(log_probs[0], exact[0])
    # 1e-9 is below what fp16 can say, which is why it has a loss scale; bf16 has float32's range.
    (1e-9 * log_probs.square().mean()).backward()
    assert len(arriving) == 6
    assert {gradient.dtype for gradient in arriving} == {expected}
    arrives = all(bool((gradient != 0).any()) for gradient in arriving)
    assert arrives is (dtype != torch.float16)
    for weight in model.parameters():
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


class Cudnn(TorchDispatchMode):
    """Records whether cuDNN's layer was called."""

    called = False

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.called |= function.overloadpacket.__name__ == "_cudnn_rnn"
        return function(*arguments, **(options or {}))


@pytest.mark.gpu
def test_condition_of_bf16_in_cudnn() -> None:
    """Guards `has_bf16_recurrence` against what torch really does with a bf16 layer."""
    with torch.device("cuda"):
        direction = make_layer("lstm", 16, 32).bfloat16()
        x = torch.zeros(5, 8, 16, dtype=torch.bfloat16)
    with Cudnn() as cudnn:
        direction(x)
    assert cudnn.called is has_bf16_recurrence(torch.device("cuda", 0))


def product(device: torch.device) -> Tensor:
    return noise(256, 256).to(device) @ noise(256, 256, seed=1).to(device)


def convolution(device: torch.device) -> Tensor:
    weights = noise(32, 32, 3, 3, seed=1).to(device)
    return torch.nn.functional.conv2d(noise(8, 32, 64, 64).to(device), weights)


def recurrence(device: torch.device) -> Tensor:
    torch.manual_seed(0)
    direction = make_layer("lstm", 128, 128).to(device)
    with torch.no_grad():
        y: Tensor = direction(noise(20, 16, 128).to(device))[0]
    return y


@pytest.mark.parametrize("operation", [product, convolution, recurrence])
def test_tf32(device: torch.device, operation: Callable[[torch.device], Tensor]) -> None:
    """Guards the policy for each kind of product: float32 is exact, tf32 is not. A CPU has no TF32."""
    exact = operation(torch.device("cpu"))
    scale = exact.abs().max()
    plain = operation(device).cpu()
    torch.testing.assert_close(plain / scale, exact / scale, rtol=0, atol=5e-5)
    set_tf32(True)
    rounded = operation(device).cpu()
    torch.testing.assert_close(rounded / scale, exact / scale, rtol=0, atol=5e-3)
    has = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    assert torch.equal(plain, rounded) is not has


@pytest.mark.gpu
def test_settings_on_a_gpu() -> None:
    """Guards the switches: a chosen GPU is exact, tf32 turns TF32 on, every other precision off."""
    device = choose_device("auto")
    assert device == torch.device("cuda", 0)
    modern = torch.cuda.get_device_capability(device) >= (8, 0)
    assert choose_precision("auto", device) is (torch.bfloat16 if modern else torch.float32)
    if not modern:
        return
    assert use_precision("tf32", device) is torch.float32
    assert has_tf32()
    assert use_precision("float32", device) is torch.float32
    assert not has_tf32()


def test_out_of_memory(device: torch.device) -> None:
    """Guards the words of an allocation that fails."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50, device=device)
    assert is_out_of_memory(caught.value)
