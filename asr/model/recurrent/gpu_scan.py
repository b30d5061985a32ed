"""Recurrences over time on a GPU, for the cells that cuDNN does not have: light GRU and LSTM with peepholes.

The arrangement is that of cpu_scan.py: the caller computes the input's part of the gates for all steps
in one product, the steps add the hidden state's part, and the gradient of the recurrent weights is one
product over all steps at the end. All steps together are one launch of a Triton kernel
(`gpu_kernels`), or a loop in plain torch (`gpu_steps`): `steps_for` selects one.

Types: gates, recurrent weights and projection have one type, that of the products (bf16 or float16 under
autocast); states, outputs and peepholes are float32, or float64 with gates in float64. The gates passed in
are overwritten. There are no second derivatives.

Never run on a GPU so far; the tests run it on a CPU, the kernels in Triton's interpreter.
"""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr.model.recurrent import gpu_steps
from asr.model.recurrent.unidirectional import save_scan

try:
    from asr.model.recurrent import gpu_kernels
except ImportError:  # torch without CUDA comes without Triton
    HAS_TRITON = False
else:
    HAS_TRITON = True

Steps = Literal["triton", "torch"]


def steps_for(gates: Tensor) -> Steps:
    """What runs the steps.

    Args:
        gates: as the scan gets them.
    """
    # A tensor of another class, such as a fake one, has no memory that a kernel could read.
    readable = type(gates) is Tensor and gates.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if not HAS_TRITON or not readable:
        return "torch"
    if gates.is_cuda:  # Triton's tensor core products need a compute capability of 8.0
        return "triton" if torch.cuda.get_device_capability(gates.device) >= (8, 0) else "torch"
    return "triton" if gpu_kernels.is_interpreted() else "torch"


class GpuLiGruScan(torch.autograd.Function):
    """Light GRU.

    Arguments: gates (steps * batch, 2 * width) in the order candidate, update; W (2 * width, width) of the
    same order; h0 (batch, width).

    Returns the gates' buffer, to be ignored, and h of all steps (steps, batch, width).
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        buffer, weight = gates.view(-1, len(h0), 2 * h0.shape[1]), weight.contiguous()
        y = _sequence(h0, len(buffer))
        steps = gpu_kernels if steps_for(gates) == "triton" else gpu_steps
        steps.ligru_forward(buffer, weight, y)
        save_scan(ctx, gates, weight, y)
        return gates, y[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gates, weight, y = ctx.saved_tensors
        dy, d = _gradients(gradients[1], gates, y)
        dh = torch.zeros_like(y[0])
        steps = gpu_kernels if steps_for(gates) == "triton" else gpu_steps
        steps.ligru_backward(gates.view_as(d[:-1]), weight, y, dy, dh, d)
        return d[:-1].flatten(0, 1), _weight_gradient(d, y), dh + d[0] @ weight


class GpuLstmScan(torch.autograd.Function):
    """LSTM with peepholes and recurrent projection, both optional.

    Arguments: gates (steps * batch, 4 * width) in torch's order input, forget, cell, output;
    W (4 * width, outputs); the projection (outputs, width), or None; peepholes (3, width) of input, forget
    and output gate, or None; h0 (batch, outputs); c0 (batch, width).

    Returns the gates' buffer, to be ignored, h of all steps (steps, batch, outputs), and the last c.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        weight: Tensor,
        projection: Tensor | None,
        peepholes: Tensor | None,
        h0: Tensor,
        c0: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        buffer, weight = gates.view(-1, len(c0), 4 * c0.shape[1]), weight.contiguous()
        peepholes = None if peepholes is None else peepholes.contiguous()
        y, c, m = _sequence(h0, len(buffer)), _sequence(c0, len(buffer)), None
        if projection is not None:
            m = gates.new_empty(len(buffer), *c0.shape)
            gpu_steps.lstm_forward(buffer, weight, peepholes, y, c, projection, m)
        else:
            steps = gpu_kernels if steps_for(gates) == "triton" else gpu_steps
            steps.lstm_forward(buffer, weight, peepholes, y, c)
        save_scan(ctx, gates, weight, projection, peepholes, y, c, m)
        return gates, y[1:], c[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gates, weight, projection, peepholes, y, c, m = ctx.saved_tensors
        dy, d = _gradients(gradients[1], gates, y)
        activations = gates.view_as(d[:-1])
        dc = torch.zeros_like(c[0]) if gradients[2] is None else gradients[2].clone()
        d_projection = None
        if projection is not None:
            dh = torch.empty_like(dy, dtype=gates.dtype)
            gpu_steps.lstm_backward(activations, weight, peepholes, c, dy, dc, d, projection, dh)
            d_projection = dh.flatten(0, 1).t() @ m.flatten(0, 1)
        else:
            steps = gpu_kernels if steps_for(gates) == "triton" else gpu_steps
            steps.lstm_backward(activations, weight, peepholes, c, dy, dc, d)
        d_peepholes = None if peepholes is None else _peephole_gradient(d[:-1], c)
        dh0 = (d[0] @ weight).to(y.dtype)
        return d[:-1].flatten(0, 1), _weight_gradient(d, y), d_projection, d_peepholes, dh0, dc


def _sequence(start: Tensor, steps: int) -> Tensor:
    """A buffer (steps + 1, batch, size) for states, with the one before the first step at index 0."""
    buffer = start.new_empty(steps + 1, *start.shape)
    buffer[0] = start
    return buffer


def _gradients(dy: Tensor | None, gates: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient (steps, batch, outputs) of the hidden states, and an empty one of the gates.

    The latter is (steps + 1, batch, gates * width) and zero after the last step.
    """
    steps, batch = len(y) - 1, y.shape[1]
    d = gates.new_empty(steps + 1, batch, gates.shape[1])
    d[-1].zero_()
    return torch.zeros_like(y[1:]) if dy is None else dy.contiguous(), d


def _weight_gradient(d: Tensor, y: Tensor) -> Tensor:
    """Of W: the sum over all steps of the gates' gradients times the previous hidden states."""
    return d[:-1].flatten(0, 1).t() @ y[:-1].flatten(0, 1).to(d.dtype)


def _peephole_gradient(d: Tensor, c: Tensor) -> Tensor:
    """(3, width): the input and forget gates see the previous cell state, the output gate the new one."""
    di, df, _, do = d.to(c.dtype).chunk(4, dim=-1)
    pairs = (di, c[:-1]), (df, c[:-1]), (do, c[1:])
    return torch.stack([(gate * cell).sum((0, 1)) for gate, cell in pairs])
