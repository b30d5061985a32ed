"""Triton kernels that run all time steps of a light GRU or an LSTM, forward and backward.

A program owns `block_rows` rows of the batch. Rows never read each other, so that no program waits for
another. There are two ways to launch the same kernel:

- Small recurrent matrices: one launch for the whole sequence. A program computes all units of its rows, step
  after step, reads the matrix from the L2 cache at each step, and a barrier between two steps is all that
  keeps the order.
- Large ones: one launch for each step, with one program for each block of rows and each block of units, so
  that the whole GPU reads the matrix.

Products take their operands in the type of the weights and add up in float32. The rest of a step is float32,
and so are the hidden and the cell states; gates are stored in their own type. Shapes and buffers are those of
asr/model/recurrent/gpu_steps.py, which has the same functions in plain torch. NaN and infinity go through.

Tested in Triton's interpreter (TRITON_INTERPRET=1). Never compiled for or run on a GPU so far: block sizes
and `ONE_LAUNCH_BYTES` are estimates. Next measure for somebody with a GPU: the launches of a large matrix in
a CUDA graph.

Source: the kernel that keeps the loop over time inside follows Diamos et al. 2016, "Persistent RNNs: stashing
recurrent weights on-chip", but the weights stay in the L2 cache here.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# One launch for all steps up to this size of the recurrent matrix. One multiprocessor reads about 100 GB/s
# from the L2 cache: 10 us a step for 1 MiB, about what a launch costs. bf16: light GRU of 512 units, LSTM of
# 362.
ONE_LAUNCH_BYTES = 1 << 20

_BLOCK_ROWS = 16  # the fewest rows that a tensor core takes
# By bytes of a weight: what an LSTM's copies of blocks may take of shared memory.
_BLOCK_UNITS = {2: 64, 4: 32}

_inline: Callable[[Callable[..., Any]], Any] = triton.jit
_compile: Callable[[Callable[..., None]], Any] = triton.jit(do_not_specialize=["steps", "batch", "blocks"])


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, which takes tensors of a CPU."""
    return bool(triton.knobs.runtime.interpret)


def ligru_forward(gates: Tensor, weight: Tensor, y: Tensor) -> None:
    """As `gpu_steps.ligru_forward`."""
    _launch(_ligru_forward, y.shape[2], weight, (gates, y), reverse=False)


def ligru_backward(gates: Tensor, weight: Tensor, y: Tensor, dy: Tensor, dh: Tensor, d: Tensor) -> None:
    """As `gpu_steps.ligru_backward`."""
    _launch(_ligru_backward, y.shape[2], weight, (gates, y, dy, d), dh, reverse=True)


def lstm_forward(gates: Tensor, weight: Tensor, peepholes: Tensor | None, y: Tensor, c: Tensor) -> None:
    """As `gpu_steps.lstm_forward`, without projection."""
    peeps = c if peepholes is None else peepholes  # some pointer, never read
    _launch(_lstm_forward, c.shape[2], weight, (gates, y, c), peeps, peepholes is not None, reverse=False)


def lstm_backward(
    gates: Tensor, weight: Tensor, peepholes: Tensor | None, c: Tensor, dy: Tensor, dc: Tensor, d: Tensor
) -> None:
    """As `gpu_steps.lstm_backward`, without projection."""
    peeps = c if peepholes is None else peepholes
    arguments = dc, peeps, peepholes is not None
    _launch(_lstm_backward, c.shape[2], weight, (gates, c, dy, d), *arguments, reverse=True)


def _launch(
    kernel: Any, width: int, weight: Tensor, sequences: tuple[Tensor, ...], *others: Any, reverse: bool
) -> None:
    """Run a kernel over all steps, in one launch or in one launch per step.

    Args:
        kernel: takes weight, sequences, others, and what `_launch` adds.
        width: units.
        weight: (gates * width, width), contiguous.
        sequences: (steps, batch, size) or with one step more, contiguous; the first has `steps` of them.
        others: arguments that are the same for all steps.
        reverse: from the last step to the first.
    """
    steps, batch = sequences[0].shape[:2]
    block_units = _BLOCK_UNITS[weight.element_size()]
    blocks = triton.cdiv(width, block_units)
    one_launch = weight.numel() * weight.element_size() <= ONE_LAUNCH_BYTES
    grid = (triton.cdiv(batch, _BLOCK_ROWS), 1 if one_launch else blocks)
    order = [*range(steps)][:: -1 if reverse else 1]
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(weight):  # type: ignore[no-untyped-call]
        for t in order[:1] if one_launch else order:
            kernel[grid](
                weight,
                *(sequence[t] for sequence in sequences),
                *others,
                steps=steps if one_launch else 1,
                batch=batch,
                blocks=blocks if one_launch else 1,
                width=width,
                block_rows=_BLOCK_ROWS,
                block_units=block_units,
                precision="tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee",
            )


@_inline
def _sigmoid(x: tl.tensor) -> tl.tensor:
    return 1 / (1 + tl.exp(-x))


@_inline
def _tanh(x: tl.tensor) -> tl.tensor:
    return 2 / (1 + tl.exp(-2 * x)) - 1


@_compile
def _ligru_forward(
    weight: tl.tensor,
    gates: tl.tensor,
    y: tl.tensor,
    steps: tl.tensor,
    batch: tl.tensor,
    blocks: tl.tensor,
    width: tl.constexpr,
    block_rows: tl.constexpr,
    block_units: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Light GRU, forward.

    Args:
        weight: (2H, H) candidate and update, in the type of the products, row stride H.
        gates: (steps, B, 2H) from the first step on, step stride 2BH, row stride 2H; the input's part in,
            activations out.
        y: (steps + 1, B, H) float32, step stride BH, row stride H; y[0] is the state before the first step.
        steps: of this launch: all, or one.
        batch: rows B.
        blocks: blocks of units that this program computes: all, or one.
        width: units H.
        block_rows: rows of a program.
        block_units: units of a block.
        precision: of products of float32, as `tl.dot` takes it.
    """
    rows = (tl.program_id(0) * block_rows + tl.arange(0, block_rows))[:, None]
    for _ in range(steps):
        for block in range(blocks):
            units = (tl.program_id(1) * blocks + block) * block_units + tl.arange(0, block_units)[None, :]
            inside = (rows < batch) & (units < width)
            at = gates + rows * 2 * width + units
            a = tl.load(at, inside, 0).to(tl.float32)
            z = tl.load(at + width, inside, 0).to(tl.float32)
            for first in range(0, width, block_units):
                k = first + tl.arange(0, block_units)
                h = tl.load(y + rows * width + k[None, :], (rows < batch) & (k[None, :] < width), 0)
                h = h.to(weight.dtype.element_ty)
                at_w = weight + units * width + k[:, None]
                inside_w = (units < width) & (k[:, None] < width)
                a = tl.dot(h, tl.load(at_w, inside_w, 0), a, input_precision=precision)
                z = tl.dot(h, tl.load(at_w + width * width, inside_w, 0), z, input_precision=precision)
            a = tl.where(a < 0, 0.0, a)  # unlike a maximum, it keeps NaN
            z = _sigmoid(z)
            tl.store(at, a, inside)
            tl.store(at + width, z, inside)
            before = tl.load(y + rows * width + units, inside, 0)
            tl.store(y + batch * width + rows * width + units, a + z * (before - a), inside)
        tl.debug_barrier()  # the next step reads what all threads have written
        gates += batch * 2 * width
        y += batch * width


@_compile
def _ligru_backward(
    weight: tl.tensor,
    gates: tl.tensor,
    y: tl.tensor,
    dy: tl.tensor,
    d: tl.tensor,
    dh: tl.tensor,
    steps: tl.tensor,
    batch: tl.tensor,
    blocks: tl.tensor,
    width: tl.constexpr,
    block_rows: tl.constexpr,
    block_units: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """Light GRU, backward. The pointers of sequences are at the last step and move to the first.

    Args:
        weight: (2H, H) as forward.
        gates: (steps, B, 2H) activations, step stride 2BH, row stride 2H.
        y: (steps, B, H) float32 hidden states before each step, step stride BH, row stride H.
        dy: (steps, B, H) gradient of the hidden states after each step, strides of y.
        d: (steps + 1, B, 2H) gradient of the gates before their nonlinearity, out, strides of gates; the step
            after the last is zero.
        dh: (B, H) float32 zeros in; out what reaches the first state, but not through the weights.
        steps: of this launch: all, or one.
        batch: rows B.
        blocks: blocks of units that this program computes: all, or one.
        width: units H.
        block_rows: rows of a program.
        block_units: units of a block.
        precision: of products of float32, as `tl.dot` takes it.
    """
    rows = (tl.program_id(0) * block_rows + tl.arange(0, block_rows))[:, None]
    for _ in range(steps):
        for block in range(blocks):
            units = (tl.program_id(1) * blocks + block) * block_units + tl.arange(0, block_units)[None, :]
            inside = (rows < batch) & (units < width)
            at = rows * width + units
            at_gates = rows * 2 * width + units
            total = tl.load(dy + at, inside, 0).to(tl.float32) + tl.load(dh + at, inside, 0)
            after = d + batch * 2 * width  # the gradient of the gates one step later
            for first in range(0, 2 * width, block_units):
                k = first + tl.arange(0, block_units)
                part = tl.load(
                    after + rows * 2 * width + k[None, :], (rows < batch) & (k[None, :] < 2 * width), 0
                )
                inside_w = (units < width) & (k[:, None] < 2 * width)
                w = tl.load(weight + k[:, None] * width + units, inside_w, 0)
                total = tl.dot(part, w, total, input_precision=precision)
            a = tl.load(gates + at_gates, inside, 0).to(tl.float32)
            z = tl.load(gates + at_gates + width, inside, 0).to(tl.float32)
            before = tl.load(y + at, inside, 0)
            tl.store(d + at_gates, tl.where(a <= 0, 0.0, total * (1 - z)), inside)
            tl.store(d + at_gates + width, total * (before - a) * z * (1 - z), inside)
            tl.store(dh + at, total * z, inside)
        tl.debug_barrier()
        gates -= batch * 2 * width
        d -= batch * 2 * width
        y -= batch * width
        dy -= batch * width


@_compile
def _lstm_forward(
    weight: tl.tensor,
    gates: tl.tensor,
    y: tl.tensor,
    c: tl.tensor,
    peepholes: tl.tensor,
    has_peepholes: tl.constexpr,
    steps: tl.tensor,
    batch: tl.tensor,
    blocks: tl.tensor,
    width: tl.constexpr,
    block_rows: tl.constexpr,
    block_units: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """LSTM, forward.

    Args:
        weight: (4H, H) input, forget, cell, output, in the type of the products, row stride H.
        gates: (steps, B, 4H) from the first step on, step stride 4BH, row stride 4H; the input's part in,
            activations out.
        y: (steps + 1, B, H) float32, step stride BH, row stride H; y[0] is the state before the first step.
        c: (steps + 1, B, H) float32 cell states, as y.
        peepholes: (3, H) float32 of input, forget and output gate, row stride H; any pointer without them.
        has_peepholes: whether they are read.
        steps: of this launch: all, or one.
        batch: rows B.
        blocks: blocks of units that this program computes: all, or one.
        width: units H.
        block_rows: rows of a program.
        block_units: units of a block.
        precision: of products of float32, as `tl.dot` takes it.
    """
    rows = (tl.program_id(0) * block_rows + tl.arange(0, block_rows))[:, None]
    for _ in range(steps):
        for block in range(blocks):
            units = (tl.program_id(1) * blocks + block) * block_units + tl.arange(0, block_units)[None, :]
            inside = (rows < batch) & (units < width)
            at = rows * width + units
            at_gates = gates + rows * 4 * width + units
            i = tl.load(at_gates, inside, 0).to(tl.float32)
            f = tl.load(at_gates + width, inside, 0).to(tl.float32)
            g = tl.load(at_gates + 2 * width, inside, 0).to(tl.float32)
            o = tl.load(at_gates + 3 * width, inside, 0).to(tl.float32)
            for first in range(0, width, block_units):
                k = first + tl.arange(0, block_units)
                h = tl.load(y + rows * width + k[None, :], (rows < batch) & (k[None, :] < width), 0)
                h = h.to(weight.dtype.element_ty)
                at_w = weight + units * width + k[:, None]
                inside_w = (units < width) & (k[:, None] < width)
                i = tl.dot(h, tl.load(at_w, inside_w, 0), i, input_precision=precision)
                f = tl.dot(h, tl.load(at_w + width * width, inside_w, 0), f, input_precision=precision)
                g = tl.dot(h, tl.load(at_w + 2 * width * width, inside_w, 0), g, input_precision=precision)
                o = tl.dot(h, tl.load(at_w + 3 * width * width, inside_w, 0), o, input_precision=precision)
            before = tl.load(c + at, inside, 0)
            if has_peepholes:
                i += tl.load(peepholes + units, units < width, 0) * before
                f += tl.load(peepholes + width + units, units < width, 0) * before
            i = _sigmoid(i)
            f = _sigmoid(f)
            g = _tanh(g)
            now = f * before + i * g
            if has_peepholes:
                o += tl.load(peepholes + 2 * width + units, units < width, 0) * now
            o = _sigmoid(o)
            tl.store(at_gates, i, inside)
            tl.store(at_gates + width, f, inside)
            tl.store(at_gates + 2 * width, g, inside)
            tl.store(at_gates + 3 * width, o, inside)
            tl.store(c + batch * width + at, now, inside)
            tl.store(y + batch * width + at, o * _tanh(now), inside)
        tl.debug_barrier()
        gates += batch * 4 * width
        y += batch * width
        c += batch * width


@_compile
def _lstm_backward(
    weight: tl.tensor,
    gates: tl.tensor,
    c: tl.tensor,
    dy: tl.tensor,
    d: tl.tensor,
    dc: tl.tensor,
    peepholes: tl.tensor,
    has_peepholes: tl.constexpr,
    steps: tl.tensor,
    batch: tl.tensor,
    blocks: tl.tensor,
    width: tl.constexpr,
    block_rows: tl.constexpr,
    block_units: tl.constexpr,
    precision: tl.constexpr,
) -> None:
    """LSTM, backward. The pointers of sequences are at the last step and move to the first.

    Args:
        weight: (4H, H) as forward.
        gates: (steps, B, 4H) activations, step stride 4BH, row stride 4H.
        c: (steps + 1, B, H) float32 cell states, at the one before the step, step stride BH, row stride H.
        dy: (steps, B, H) gradient of the hidden states after each step, strides of c.
        d: (steps + 1, B, 4H) gradient of the gates before their nonlinearity, out, strides of gates; the step
            after the last is zero.
        dc: (B, H) float32 gradient of the last cell state in; of the first out.
        peepholes: as forward.
        has_peepholes: whether they are read.
        steps: of this launch: all, or one.
        batch: rows B.
        blocks: blocks of units that this program computes: all, or one.
        width: units H.
        block_rows: rows of a program.
        block_units: units of a block.
        precision: of products of float32, as `tl.dot` takes it.
    """
    rows = (tl.program_id(0) * block_rows + tl.arange(0, block_rows))[:, None]
    for _ in range(steps):
        for block in range(blocks):
            units = (tl.program_id(1) * blocks + block) * block_units + tl.arange(0, block_units)[None, :]
            inside = (rows < batch) & (units < width)
            at = rows * width + units
            at_gates = rows * 4 * width + units
            dh = tl.load(dy + at, inside, 0).to(tl.float32)
            after = d + batch * 4 * width  # the gradient of the gates one step later
            for first in range(0, 4 * width, block_units):
                k = first + tl.arange(0, block_units)
                part = tl.load(
                    after + rows * 4 * width + k[None, :], (rows < batch) & (k[None, :] < 4 * width), 0
                )
                inside_w = (units < width) & (k[:, None] < 4 * width)
                w = tl.load(weight + k[:, None] * width + units, inside_w, 0)
                dh = tl.dot(part, w, dh, input_precision=precision)
            i = tl.load(gates + at_gates, inside, 0).to(tl.float32)
            f = tl.load(gates + at_gates + width, inside, 0).to(tl.float32)
            g = tl.load(gates + at_gates + 2 * width, inside, 0).to(tl.float32)
            o = tl.load(gates + at_gates + 3 * width, inside, 0).to(tl.float32)
            before = tl.load(c + at, inside, 0)
            squashed = _tanh(tl.load(c + batch * width + at, inside, 0))
            do = dh * squashed * o * (1 - o)
            total = tl.load(dc + at, inside, 0) + dh * o * (1 - squashed * squashed)
            if has_peepholes:
                total += do * tl.load(peepholes + 2 * width + units, units < width, 0)
            di = total * g * i * (1 - i)
            df = total * before * f * (1 - f)
            carry = total * f
            if has_peepholes:
                carry += di * tl.load(peepholes + units, units < width, 0)
                carry += df * tl.load(peepholes + width + units, units < width, 0)
            tl.store(d + at_gates, di, inside)
            tl.store(d + at_gates + width, df, inside)
            tl.store(d + at_gates + 2 * width, total * i * (1 - g * g), inside)
            tl.store(d + at_gates + 3 * width, do, inside)
            tl.store(dc + at, carry, inside)
        tl.debug_barrier()
        gates -= batch * 4 * width
        d -= batch * 4 * width
        c -= batch * width
        dy -= batch * width
