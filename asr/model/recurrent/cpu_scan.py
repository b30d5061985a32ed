"""Recurrences over time on a CPU, forward and backward by hand, where torch has no fused kernel.

The caller computes the input's part of the gates for all steps in one matrix product. Each function here
adds the hidden state's part step by step, one small product and one compiled kernel at a time, and keeps
what its backward pass needs in the buffers that it fills anyway. Backward, each step is one small product
again, and the gradient of the recurrent weights is one large product over all steps at the end.

All tensors are float32 or float64, on a CPU. Under autocast the matrix products of the input are bf16 and the
recurrence is float32. The gates passed in are overwritten. There are no second derivatives.

Source: the arrangement of Appleyard et al. 2016, "Optimizing performance of recurrent neural networks on
GPUs".
"""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr.model.recurrent import cpu_kernels
from asr.model.recurrent.unidirectional import save_scan


class ElmanScan(torch.autograd.Function):
    """h = activation(gates + W h). Arguments: gates (steps * batch, width), W, h0 (batch, width), relu.

    Returns h of all steps, (steps * batch, width), in the memory of the gates.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, h0: Tensor, relu: bool) -> Tensor:
        y = gates.view(-1, *h0.shape)
        step = cpu_kernels.relu_forward if relu else cpu_kernels.tanh_forward
        array, transposed, h = _arrays(y)[0], weight.t().contiguous(), h0
        for t, row in enumerate(y.unbind()):
            row.addmm_(h, transposed)
            step(array, t)
            h = row
        ctx.relu = relu
        ctx.mark_dirty(gates)
        ctx.save_for_backward(gates, weight, h0)
        return gates

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, weight, h0 = ctx.saved_tensors
        y = y.view(-1, *h0.shape)
        dy = gradients[0].contiguous().view_as(y)
        d, dh = torch.empty_like(y), torch.zeros_like(h0)
        step = cpu_kernels.relu_backward if ctx.relu else cpu_kernels.tanh_backward
        arrays = _arrays(y, dy, dh, d)
        rows = d.unbind()
        for t in range(len(y) - 1, -1, -1):
            step(*arrays, t)
            torch.mm(rows[t], weight, out=dh)
        return d.flatten(0, 1), _weight_gradient(d, y, h0), dh, None


class GruScan(torch.autograd.Function):
    """torch's GRU.

    Arguments: gates (steps * batch, 3 * width) in the order new, reset, update; W (3 * width, width) in
    torch's order reset, update, new; the bias of W's last third; h0 (batch, width).

    Returns the gates' buffer, to be ignored, and h of all steps (steps, batch, width).
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        batch, width = h0.shape
        buffer = gates.view(-1, batch, 3 * width)
        y, kept = (buffer.new_empty(len(buffer), batch, width) for _ in range(2))
        product = buffer.new_empty(batch, 3 * width)
        arrays = _arrays(buffer, product, bias, h0, y, kept)
        transposed, h = weight.t().contiguous(), h0
        for t, row in enumerate(y.unbind()):
            torch.mm(h, transposed, out=product)
            cpu_kernels.gru_forward(*arrays, t)
            h = row
        save_scan(ctx, gates, weight, h0, y, kept)
        return gates, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gates, weight, h0, y, kept = ctx.saved_tensors
        width = h0.shape[1]
        gates, dy = gates.view(len(y), -1, 3 * width), _dense(gradients[1], y)
        # New, reset, update, and once more new as the recurrent product sees it: the first three belong to
        # the gates, the last three to W, and neither needs a copy.
        d, dh = y.new_empty(len(y), len(h0), 4 * width), torch.zeros_like(h0)
        recurrent = d[:, :, width:]
        arrays = _arrays(gates, h0, y, kept, dy, dh, d)
        rows = recurrent.unbind()
        for t in range(len(y) - 1, -1, -1):
            cpu_kernels.gru_backward(*arrays, t)
            dh.addmm_(rows[t], weight)
        bias = recurrent[:, :, 2 * width :].sum((0, 1))
        return d.flatten(0, 1)[:, : 3 * width], _weight_gradient(recurrent, y, h0), bias, dh


class LiGruScan(torch.autograd.Function):
    """Light GRU.

    Arguments: gates (steps * batch, 2 * width) in the order candidate, update; W of the same order; h0
    (batch, width).

    Returns the gates' buffer, to be ignored, and h of all steps (steps, batch, width).
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        batch, width = h0.shape
        buffer = gates.view(-1, batch, 2 * width)
        y = buffer.new_empty(len(buffer), batch, width)
        arrays = _arrays(buffer, h0, y)
        transposed, h = weight.t().contiguous(), h0
        for t, (row, out) in enumerate(zip(buffer.unbind(), y.unbind(), strict=True)):
            row.addmm_(h, transposed)
            cpu_kernels.ligru_forward(*arrays, t)
            h = out
        save_scan(ctx, gates, weight, h0, y)
        return gates, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gates, weight, h0, y = ctx.saved_tensors
        gates, dy = gates.view(len(y), len(h0), -1), _dense(gradients[1], y)
        d, dh = torch.empty_like(gates), torch.zeros_like(h0)
        arrays = _arrays(gates, h0, y, dy, dh, d)
        rows = d.unbind()
        for t in range(len(y) - 1, -1, -1):
            cpu_kernels.ligru_backward(*arrays, t)
            dh.addmm_(rows[t], weight)
        return d.flatten(0, 1), _weight_gradient(d, y, h0), dh


class LstmScan(torch.autograd.Function):
    """LSTM with peepholes and recurrent projection, both optional.

    Arguments: gates (steps * batch, 4 * width) in torch's order input, forget, cell, output; W
    (4 * width, outputs); the projection (outputs, width), or None; peepholes (3, width) of input, forget and
    output gate, or None; h0 (batch, outputs); c0 (batch, width).

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
        batch, width = c0.shape
        buffer = gates.view(-1, batch, 4 * width)
        c, m = (buffer.new_empty(len(buffer), batch, width) for _ in range(2))
        y = m if projection is None else buffer.new_empty(len(buffer), *h0.shape)
        peeps = c0.new_zeros(3, width) if peepholes is None else peepholes
        arrays = _arrays(buffer, peeps, c0, c, m)
        transposed, h = weight.t().contiguous(), h0
        for t, (row, out, wide) in enumerate(zip(buffer.unbind(), y.unbind(), m.unbind(), strict=True)):
            row.addmm_(h, transposed)
            cpu_kernels.lstm_forward(*arrays, t)
            if projection is not None:
                torch.mm(wide, projection.t(), out=out)
            h = out
        save_scan(ctx, gates, weight, h0, y, projection, peepholes, c0, c, None if projection is None else m)
        return gates, y, c[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gates, weight, h0, y, projection, peepholes, c0, c, m = ctx.saved_tensors
        gates = gates.view(*c.shape[:2], -1)
        # The gradient from the next step will be added to both.
        dy, dc = torch.zeros_like(y), torch.zeros_like(c0)
        for total, gradient in zip((dy, dc), gradients[1:], strict=True):
            if gradient is not None:
                total.copy_(gradient)
        d, dm = torch.empty_like(gates), torch.empty_like(c0)
        peeps = c0.new_zeros(3, c0.shape[1]) if peepholes is None else peepholes
        arrays = _arrays(gates, peeps, c0, c, dm, dc, d)
        rows, dh = d.unbind(), dy.unbind()
        for t in range(len(y) - 1, -1, -1):
            if projection is None:
                dm.copy_(dh[t])
            else:
                torch.mm(dh[t], projection, out=dm)
            cpu_kernels.lstm_backward(*arrays, t)
            if t > 0:
                dh[t - 1].addmm_(rows[t], weight)
        d_projection = None if projection is None else dy.flatten(0, 1).t() @ m.flatten(0, 1)
        d_peepholes = None if peepholes is None else _peephole_gradient(d, c, c0)
        return (
            d.flatten(0, 1),
            _weight_gradient(d, y, h0),
            d_projection,
            d_peepholes,
            rows[0] @ weight,
            dc,
        )


def _arrays(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    """The tensors' memory as the kernels take it, without copies."""
    return tuple(tensor.detach().numpy() for tensor in tensors)


def _dense(gradient: Tensor | None, like: Tensor) -> Tensor:
    """A gradient as the kernels take it; autograd's are None for zeros, and often expanded."""
    return torch.zeros_like(like) if gradient is None else gradient.contiguous()


def _weight_gradient(d: Tensor, y: Tensor, h0: Tensor) -> Tensor:
    """Of W, from those (steps, batch, gates * width) of its products with the previous hidden states."""
    first = d[0].t() @ h0
    return first if len(d) == 1 else first.addmm_(d[1:].flatten(0, 1).t(), y[:-1].flatten(0, 1))


def _peephole_gradient(d: Tensor, c: Tensor, c0: Tensor) -> Tensor:
    """(3, width): the input and forget gates see the previous cell state, the output gate the new one."""
    di, df, _, do = d.chunk(4, dim=-1)
    seen_before = [torch.einsum("sbh,sbh->h", gate[1:], c[:-1]) + (gate[0] * c0).sum(0) for gate in (di, df)]
    return torch.stack([*seen_before, torch.einsum("sbh,sbh->h", do, c)])
