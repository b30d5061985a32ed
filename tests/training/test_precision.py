import pytest
import torch

from asr.errors import SettingsError
from asr.training import precision
from asr.training.precision import autocast, choose_precision

CPU = torch.device("cpu")


def test_cpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards an old processor: auto takes float32, and asking for bf16 says what to do instead."""
    monkeypatch.setattr(precision, "_has_bf16_kernels", lambda: False)
    assert choose_precision("auto", CPU) is torch.float32
    with pytest.raises(SettingsError, match=r"bf16: this processor has no instructions for it\. Use float32"):
        choose_precision("bf16", CPU)


def test_cpu_that_only_emulates_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against auto choosing bf16 where it is slower than float32."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_precision("auto", CPU) is torch.float32


def test_cpu_with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards that auto takes bf16 where it gains."""
    monkeypatch.setattr(precision, "_has_bf16_kernels", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_precision("auto", CPU) is torch.bfloat16
    assert choose_precision("bf16", CPU) is torch.bfloat16
    assert choose_precision("float32", CPU) is torch.float32


def test_refusals() -> None:
    """Guards the messages for fp16 without a card and for an unknown name."""
    with pytest.raises(SettingsError, match="fp16 is for CUDA cards"):
        choose_precision("fp16", CPU)
    with pytest.raises(SettingsError, match=r"must be auto, float32, bf16 or fp16\. Got 'half'"):
        choose_precision("half", CPU)  # type: ignore[arg-type]


def test_autocast_computes_in_the_format() -> None:
    """Guards against a context that leaves matrices in float32, and against one that lowers float32."""
    matrix = torch.ones(4, 4)
    with autocast(torch.bfloat16, CPU):
        assert (matrix @ matrix).dtype is torch.bfloat16
    with autocast(torch.float32, CPU):
        assert (matrix @ matrix).dtype is torch.float32


@pytest.mark.gpu
def test_cuda() -> None:
    """Guards the choice on a card: bf16 from compute capability 8.0 on."""
    device = torch.device("cuda")
    modern = torch.cuda.get_device_capability(device) >= (8, 0)
    assert choose_precision("auto", device) is (torch.bfloat16 if modern else torch.float32)
    assert choose_precision("fp16", device) is torch.float16
