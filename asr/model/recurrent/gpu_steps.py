"""All time steps of a light GRU or an LSTM in plain torch: what `gpu_kernels` does, on any device.

It serves where Triton is missing, in float64, and for a recurrent projection. One product and about ten small
operations a step make it slow on a GPU, but its weights are cast once and its memory is that of the kernels.

Shapes and types: gates (steps, batch, gates * width) and weights have the type of the products, states and
their gradients are float32, or float64 for gates in float64. Sequences of states have one step more than the
gates: index 0 is the state before the first step. `d` too has one step more, of zeros, after the last.
"""

import torch
from torch import Tensor


def ligru_forward(gates: Tensor, weight: Tensor, y: Tensor) -> None:
    """Light GRU.

    Args:
        gates: (steps, batch, 2 * width) candidate and update; the input's part in, activations out.
        weight: (2 * width, width) of the same order.
        y: (steps + 1, batch, width); y[0] in, the others out.
    """
    for t, row in enumerate(gates.unbind()):
        a, z = torch.addmm(row, y[t].to(row.dtype), weight.t()).to(y.dtype).chunk(2, dim=1)
        a, z = a.relu(), z.sigmoid()
        row.copy_(torch.cat([a, z], dim=1))
        torch.add(a, z * (y[t] - a), out=y[t + 1])


def ligru_backward(gates: Tensor, weight: Tensor, y: Tensor, dy: Tensor, dh: Tensor, d: Tensor) -> None:
    """Gradient of `ligru_forward`.

    Args:
        gates: activations.
        weight: as forward.
        y: as forward.
        dy: (steps, batch, width) gradient of y[1:].
        dh: (batch, width) zeros in; out what reaches y[0], but not through the weights.
        d: (steps + 1, batch, 2 * width) gradient of the gates before their nonlinearity, out.
    """
    for t in range(len(gates) - 1, -1, -1):
        a, z = gates[t].to(y.dtype).chunk(2, dim=1)
        total = dy[t] + dh + d[t + 1] @ weight
        da = torch.where(a <= 0, 0, total * (1 - z))
        d[t].copy_(torch.cat([da, total * (y[t] - a) * z * (1 - z)], dim=1))
        torch.mul(total, z, out=dh)


def lstm_forward(
    gates: Tensor,
    weight: Tensor,
    peepholes: Tensor | None,
    y: Tensor,
    c: Tensor,
    projection: Tensor | None = None,
    m: Tensor | None = None,
) -> None:
    """LSTM, with peepholes and a recurrent projection where they are given.

    Args:
        gates: (steps, batch, 4 * width) input, forget, cell, output; the input's part in, activations out.
        weight: (4 * width, outputs) of the same order.
        peepholes: (3, width) of input, forget and output gate.
        y: (steps + 1, batch, outputs) hidden states; y[0] in, the others out.
        c: (steps + 1, batch, width) cell states; c[0] in, the others out.
        projection: (outputs, width).
        m: (steps, batch, width) what is projected, out; wanted with a projection.
    """
    for t, row in enumerate(gates.unbind()):
        i, f, g, o = torch.addmm(row, y[t].to(row.dtype), weight.t()).to(c.dtype).chunk(4, dim=1)
        if peepholes is not None:
            i, f = i + peepholes[0] * c[t], f + peepholes[1] * c[t]
        i, f, g = i.sigmoid(), f.sigmoid(), g.tanh()
        torch.add(f * c[t], i * g, out=c[t + 1])
        o = (o if peepholes is None else o + peepholes[2] * c[t + 1]).sigmoid()
        row.copy_(torch.cat([i, f, g, o], dim=1))
        h = o * c[t + 1].tanh()
        if projection is not None and m is not None:
            m[t].copy_(h)
            h = m[t] @ projection.t()
        y[t + 1].copy_(h)


def lstm_backward(
    gates: Tensor,
    weight: Tensor,
    peepholes: Tensor | None,
    c: Tensor,
    dy: Tensor,
    dc: Tensor,
    d: Tensor,
    projection: Tensor | None = None,
    dh: Tensor | None = None,
) -> None:
    """Gradient of `lstm_forward`.

    Args:
        gates: activations.
        weight: as forward.
        peepholes: as forward.
        c: as forward.
        dy: (steps, batch, outputs) gradient of y[1:].
        dc: (batch, width) gradient of the last cell state in; of c[0] out.
        d: (steps + 1, batch, 4 * width) gradient of the gates before their nonlinearity, out.
        projection: as forward.
        dh: (steps, batch, outputs) gradient of the hidden states with what flows back from later steps, out;
            in the type of the products; wanted with a projection.
    """
    for t in range(len(gates) - 1, -1, -1):
        i, f, g, o = gates[t].to(c.dtype).chunk(4, dim=1)
        total = dy[t] + d[t + 1] @ weight
        if projection is not None and dh is not None:
            dh[t].copy_(total)
            total = (dh[t] @ projection).to(c.dtype)
        squashed = c[t + 1].tanh()
        do = total * squashed * o * (1 - o)
        dc += total * o * (1 - squashed * squashed)
        if peepholes is not None:
            dc += do * peepholes[2]
        di, df = dc * g * i * (1 - i), dc * c[t] * f * (1 - f)
        d[t].copy_(torch.cat([di, df, dc * i * (1 - g * g), do], dim=1))
        dc *= f
        if peepholes is not None:
            dc += di * peepholes[0] + df * peepholes[1]
