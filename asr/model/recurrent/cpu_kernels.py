"""The arithmetic of one time step between two matrix products, compiled: forward and backward of every cell.

A step's gates are read and written once, where torch would pass over them five to fifteen times, and its tanh
is the slowest of those passes. All arrays are C-contiguous, of one type (float32 or float64), and time-major;
a kernel works on step `t` of those that have three axes. NaN and infinity go through: the trainer looks for
them.

A row goes through in short loops with one output each, because the compiler makes vector instructions only of
those whose arrays it can cheaply test not to overlap. Names: B batch, H width, S steps; `d…` is the gradient
of `…`; carry is the gradient that reaches the step before other than through the matrix product.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from asr.compiled import kernel

# A rational function in place of tanh: unlike libm's it becomes vector instructions. Within 3e-7 of tanh, the
# most at the clamp. Source: Eigen's ptanh_float, which TensorFlow and XLA use.
_CLAMP = np.float32(7.90531110763549805)
_ODD = tuple(
    np.float32(value)
    for value in (
        -2.76076847742355e-16,
        2.00018790482477e-13,
        -8.60467152213735e-11,
        5.12229709037114e-08,
        1.48572235717979e-05,
        6.37261928875436e-04,
        4.89352455891786e-03,
    )
)
_EVEN = tuple(
    np.float32(value)
    for value in (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
)
_HALF = np.float32(0.5)

# Multiply and add in one instruction, but nothing that would assume away NaN or infinity.
_compile: Callable[[Callable[..., None]], Callable[..., None]] = kernel(fastmath={"contract"})


def _tanh(x: float) -> float:
    return math.tanh(x)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@overload(_tanh)
def _compile_tanh(x: Any) -> Any:
    if x == types.float32:
        a0, a1, a2, a3, a4, a5, a6 = _ODD
        b0, b1, b2, b3 = _EVEN

        def single(x: Any) -> Any:
            x = _CLAMP if x > _CLAMP else x  # comparisons, since min and max would swallow NaN
            x = -_CLAMP if x < -_CLAMP else x
            u = x * x
            above = (((((a0 * u + a1) * u + a2) * u + a3) * u + a4) * u + a5) * u + a6
            below = ((b0 * u + b1) * u + b2) * u + b3
            return x * above / below

        return single

    def double(x: Any) -> Any:
        return math.tanh(x)

    return double


@overload(_sigmoid)
def _compile_sigmoid(x: Any) -> Any:
    if x == types.float32:

        def single(x: Any) -> Any:
            return _HALF + _HALF * _tanh(_HALF * x)

        return single

    def double(x: Any) -> Any:
        return 1.0 / (1.0 + math.exp(-x))

    return double


@_compile
def tanh_forward(y: Any, t: int) -> None:
    """Elman: y (S, B, H), pre-activations in, hidden states out."""
    for b in range(y.shape[1]):
        row = y[t, b]
        for i in range(row.size):
            row[i] = _tanh(row[i])


@_compile
def relu_forward(y: Any, t: int) -> None:
    """Elman: y (S, B, H), pre-activations in, hidden states out."""
    zero = y.dtype.type(0)
    for b in range(y.shape[1]):
        row = y[t, b]
        for i in range(row.size):
            row[i] = zero if row[i] < zero else row[i]


@_compile
def tanh_backward(y: Any, dy: Any, dh: Any, d: Any, t: int) -> None:
    """Elman: dh (B, H) from the next step, without dy, in; d (S, B, H) of the pre-activations out."""
    one = y.dtype.type(1)
    for b in range(y.shape[1]):
        row, h, above, later = d[t, b], y[t, b], dy[t, b], dh[b]
        for i in range(row.size):
            row[i] = (later[i] + above[i]) * (one - h[i] * h[i])


@_compile
def relu_backward(y: Any, dy: Any, dh: Any, d: Any, t: int) -> None:
    """Elman: dh (B, H) from the next step, without dy, in; d (S, B, H) of the pre-activations out."""
    zero = y.dtype.type(0)
    for b in range(y.shape[1]):
        row, h, above, later = d[t, b], y[t, b], dy[t, b], dh[b]
        for i in range(row.size):
            row[i] = zero if h[i] <= zero else later[i] + above[i]


@_compile
def gru_forward(gates: Any, product: Any, bias: Any, h0: Any, y: Any, kept: Any, t: int) -> None:
    """GRU: gates (S, B, 3H), new, reset, update; the input's part in, activations out.

    Product (B, 3H): reset, update, new of the hidden state; bias (H,) of the last, which is kept (S, B, H).
    """
    size = y.shape[2]
    before = h0 if t == 0 else y[t - 1]
    for b in range(y.shape[1]):
        n, both = gates[t, b, :size], gates[t, b, size:]
        r, z = both[:size], both[size:]
        h, inner, previous = y[t, b], kept[t, b], before[b]
        product_rz, product_n = product[b, : 2 * size], product[b, 2 * size :]
        for i in range(2 * size):
            both[i] = _sigmoid(both[i] + product_rz[i])
        for i in range(size):
            inner[i] = product_n[i] + bias[i]
        for i in range(size):
            n[i] = _tanh(n[i] + r[i] * inner[i])
        for i in range(size):
            h[i] = n[i] + z[i] * (previous[i] - n[i])


@_compile
def gru_backward(gates: Any, h0: Any, y: Any, kept: Any, dy: Any, dh: Any, d: Any, t: int) -> None:
    """GRU: dh (B, H) from the next step, without dy, in; carry out.

    Writes d (S, B, 4H): new, reset, update, and kept.
    """
    one = y.dtype.type(1)
    size = y.shape[2]
    before = h0 if t == 0 else y[t - 1]
    for b in range(y.shape[1]):
        n, r, z = gates[t, b, :size], gates[t, b, size : 2 * size], gates[t, b, 2 * size :]
        dn, dr = d[t, b, :size], d[t, b, size : 2 * size]
        dz, dinner = d[t, b, 2 * size : 3 * size], d[t, b, 3 * size :]
        total, above, inner, previous = dh[b], dy[t, b], kept[t, b], before[b]
        for i in range(size):
            total[i] += above[i]
        for i in range(size):
            dn[i] = total[i] * (one - z[i]) * (one - n[i] * n[i])
        for i in range(size):
            dinner[i] = dn[i] * r[i]
        for i in range(size):
            dr[i] = dn[i] * inner[i] * r[i] * (one - r[i])
        for i in range(size):
            dz[i] = total[i] * (previous[i] - n[i]) * z[i] * (one - z[i])
        for i in range(size):
            total[i] *= z[i]


@_compile
def ligru_forward(gates: Any, h0: Any, y: Any, t: int) -> None:
    """Light GRU: gates (S, B, 2H), candidate and update; pre-activations in, activations out."""
    zero = y.dtype.type(0)
    size = y.shape[2]
    before = h0 if t == 0 else y[t - 1]
    for b in range(y.shape[1]):
        a, z, h, previous = gates[t, b, :size], gates[t, b, size:], y[t, b], before[b]
        for i in range(size):
            a[i] = zero if a[i] < zero else a[i]
        for i in range(size):
            z[i] = _sigmoid(z[i])
        for i in range(size):
            h[i] = a[i] + z[i] * (previous[i] - a[i])


@_compile
def ligru_backward(gates: Any, h0: Any, y: Any, dy: Any, dh: Any, d: Any, t: int) -> None:
    """Light GRU: dh (B, H) from the next step, without dy, in; carry out; writes d (S, B, 2H)."""
    one, zero = y.dtype.type(1), y.dtype.type(0)
    size = y.shape[2]
    before = h0 if t == 0 else y[t - 1]
    for b in range(y.shape[1]):
        a, z, da, dz = gates[t, b, :size], gates[t, b, size:], d[t, b, :size], d[t, b, size:]
        total, above, previous = dh[b], dy[t, b], before[b]
        for i in range(size):
            total[i] += above[i]
        for i in range(size):
            da[i] = zero if a[i] <= zero else total[i] * (one - z[i])
        for i in range(size):
            dz[i] = total[i] * (previous[i] - a[i]) * z[i] * (one - z[i])
        for i in range(size):
            total[i] *= z[i]


@_compile
def lstm_forward(gates: Any, peepholes: Any, c0: Any, c: Any, m: Any, t: int) -> None:
    """LSTM: gates (S, B, 4H), input, forget, cell, output; pre-activations in, activations out.

    Peepholes (3, H). Writes the cell state c (S, B, H) and what it lets out, m (S, B, H).
    """
    size = c.shape[2]
    before = c0 if t == 0 else c[t - 1]
    peep_i, peep_f, peep_o = peepholes[0], peepholes[1], peepholes[2]
    for b in range(c.shape[1]):
        i, f = gates[t, b, :size], gates[t, b, size : 2 * size]
        g, o = gates[t, b, 2 * size : 3 * size], gates[t, b, 3 * size :]
        previous, now, out = before[b], c[t, b], m[t, b]
        for k in range(size):
            i[k] = _sigmoid(i[k] + peep_i[k] * previous[k])
        for k in range(size):
            f[k] = _sigmoid(f[k] + peep_f[k] * previous[k])
        for k in range(size):
            g[k] = _tanh(g[k])
        for k in range(size):
            now[k] = f[k] * previous[k] + i[k] * g[k]
        for k in range(size):
            o[k] = _sigmoid(o[k] + peep_o[k] * now[k])
        for k in range(size):
            out[k] = o[k] * _tanh(now[k])


@_compile
def lstm_backward(gates: Any, peepholes: Any, c0: Any, c: Any, dm: Any, dc: Any, d: Any, t: int) -> None:
    """LSTM: dc (B, H) from the next step in, carry out; dm (B, H) is complete. Writes d (S, B, 4H)."""
    one = c.dtype.type(1)
    size = c.shape[2]
    before = c0 if t == 0 else c[t - 1]
    peep_i, peep_f, peep_o = peepholes[0], peepholes[1], peepholes[2]
    squashed = np.empty(size, c.dtype)
    for b in range(c.shape[1]):
        i, f = gates[t, b, :size], gates[t, b, size : 2 * size]
        g, o = gates[t, b, 2 * size : 3 * size], gates[t, b, 3 * size :]
        di, df = d[t, b, :size], d[t, b, size : 2 * size]
        dg, do = d[t, b, 2 * size : 3 * size], d[t, b, 3 * size :]
        previous, now, dout, total = before[b], c[t, b], dm[b], dc[b]
        for k in range(size):
            squashed[k] = _tanh(now[k])
        for k in range(size):
            do[k] = dout[k] * squashed[k] * o[k] * (one - o[k])
        for k in range(size):
            total[k] += dout[k] * o[k] * (one - squashed[k] * squashed[k]) + do[k] * peep_o[k]
        for k in range(size):
            di[k] = total[k] * g[k] * i[k] * (one - i[k])
        for k in range(size):
            df[k] = total[k] * previous[k] * f[k] * (one - f[k])
        for k in range(size):
            dg[k] = total[k] * i[k] * (one - g[k] * g[k])
        for k in range(size):
            total[k] = total[k] * f[k] + di[k] * peep_i[k] + df[k] * peep_f[k]
