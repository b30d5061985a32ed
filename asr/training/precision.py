"""Which number format the encoder computes in."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from asr.errors import SettingsError

Precision = Literal["auto", "float32", "bf16", "fp16"]


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format of the encoder's arithmetic; weights, CTC and the optimiser stay in float32.

    Args:
        precision: the setting; auto is bf16 where the device has instructions for it, else float32.
        device: where the model is.

    Raises:
        SettingsError: the device cannot do it.
    """
    if precision == "auto":
        return torch.bfloat16 if _has_fast_bf16(device) else torch.float32
    if precision == "float32":
        return torch.float32
    if precision == "bf16":
        if device.type == "cpu" and not _has_bf16_kernels():
            raise SettingsError(
                "train.precision bf16: this processor has no instructions for it. Use float32 or auto."
            )
        return torch.bfloat16
    if precision == "fp16":
        if device.type == "cpu":
            raise SettingsError("train.precision fp16 is for CUDA cards. Use bf16, float32 or auto on a CPU.")
        return torch.float16
    raise SettingsError(f"train.precision must be auto, float32, bf16 or fp16. Got {precision!r}.")


def autocast(precision: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a model computes in a number format."""
    if precision is torch.float32:
        return nullcontext()
    return torch.autocast(device.type, precision)


def _has_bf16_kernels() -> bool:
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # older cards emulate it
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(fast) and _has_bf16_kernels()
