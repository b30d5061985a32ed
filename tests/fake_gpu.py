"""A GPU where there is none: fake CUDA tensors have shape, number format and device, but no values.

An operation on tensors of different devices raises, as on a GPU. What torch cannot fake is replaced by a
stand-in that has the same contract.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from asr.frontend import features
from asr.frontend.augment import mel_warp

_MODES = {"rnn_relu": 0, "rnn_tanh": 1, "lstm": 2, "gru": 3}  # cudnnRNNMode_t


@dataclass(frozen=True)
class FusedCall:
    """What one call of a fused recurrent layer got from asr/model/recurrent/cells.py."""

    function: str
    formats: set[torch.dtype]  # of input, states and weights
    autocast: bool  # whether torch's wrapper around cuDNN would have cast them again


@contextmanager
def fake_gpu() -> Iterator[list[FusedCall]]:
    """Inside, tensors are fake and may lie on "cuda"; nothing made outside can be used.

    Gives:
        The calls of fused recurrent layers, as they are made.
    """
    calls: list[FusedCall] = []
    # Their caches would keep fake tensors.
    constants = features._hann_window, features._mel_filters, mel_warp._band_centres
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode():
        for name in _MODES:
            patch.setattr(torch, name, partial(_fused, calls, name))
        patch.setattr(torch.nn.functional, "ctc_loss", fake_ctc_loss)
        for constant in constants:
            constant.cache_clear()
        try:
            yield calls
        finally:
            for constant in constants:
                constant.cache_clear()


@contextmanager
def gpu_autocast(dtype: torch.dtype) -> Iterator[None]:
    """As torch.autocast("cuda", dtype), which refuses to work without a GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def fake_ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, **options: Any
) -> Tensor:
    """torch's CTC wants the targets beside the log-probabilities; lengths may lie on the host."""
    assert targets.device == log_probs.device
    assert log_probs.dtype == torch.float32
    for lengths in (input_lengths, target_lengths):
        assert lengths.device in (log_probs.device, torch.device("cpu"))
        assert lengths.shape == log_probs.shape[1:2]
    return -log_probs.sum(dim=(0, 2))


def _fused(
    calls: list[FusedCall],
    name: str,
    x: Tensor,
    state: Any,
    weights: list[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """What torch's functions do on a GPU: call cuDNN, whose operation has a fake where they have none."""
    h, c = state if name == "lstm" else (state, None)
    formats = {tensor.dtype for tensor in (x, h, *([] if c is None else [c]), *weights)}
    calls.append(FusedCall(name, formats, torch.is_autocast_enabled("cuda")))
    hidden, projection = (h if c is None else c).shape[2], h.shape[2] if len(weights) == 5 else 0
    y, h, c, *_ = torch._cudnn_rnn(
        x, weights, len(weights), None, h, c, _MODES[name], hidden, projection, layers, batch_first, dropout,
        train, bidirectional, [], None,
    )  # fmt: skip
    return (y, h, c) if name == "lstm" else (y, h)
