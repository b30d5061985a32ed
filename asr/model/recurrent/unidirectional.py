"""A recurrent layer in one direction: the interface of every cell, and the ways to run it.

`layer(x, state)` runs over all steps and gives the hidden states and the state to continue from. There are
four implementations with the same numbers; `UnidirectionalLayer.implementation` chooses the fastest that the
device has:

- fused: torch's kernel, for rnn, rnn-relu, gru and lstm on a GPU, and for lstm without projection on a CPU;
- cpu-scan: asr/model/recurrent/cpu_scan.py, for all others on a CPU;
- gpu-scan: asr/model/recurrent/gpu_scan.py, for light GRU and peepholes on a GPU;
- loop: a plain loop over `step`, the cell's definition, which is slow and runs anywhere.

Parameters are named as in torch's layers, so that weights can be exchanged.
"""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Implementation = Literal["fused", "cpu-scan", "gpu-scan", "loop"]

State = tuple[Tensor, ...]  # (h,) or, for the LSTMs, (h, c); (batch, output_size) and (batch, width)


class UnidirectionalLayer(nn.Module, ABC):
    """One layer in one direction: a cell and its weights, run over time.

    Args:
        input_size: values per step.
        width: units.
        recurrent_dropout: share of the recurrent weights that is set to zero, drawn for each call in
            training and the same at all steps; 0 for none.

    Source: the dropout is DropConnect on the hidden-to-hidden weights, Merity et al. 2018, "Regularizing and
        optimizing LSTM language models": unlike a mask on the hidden state, fused kernels can take it.
    """

    gate_count: int  # blocks of `width` rows in the weights
    has_gpu_scan = False

    def __init__(self, input_size: int, width: int, *, recurrent_dropout: float = 0.0) -> None:
        super().__init__()
        self.input_size, self.width, self.recurrent_dropout = input_size, width, recurrent_dropout
        self.output_size = width
        self.weight_ih_l0 = nn.Parameter(torch.empty(self.gate_count * width, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(self.gate_count * width, width))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over all steps.

        Args:
            x: (steps, batch, input_size).
            state: as an earlier call returned it, to continue its sequences; None starts from zeros.

        Returns:
            (steps, batch, output_size) hidden states, and the state after the last step. Blocks with carried
            states give the same numbers as the whole sequence; a block without steps leaves the state as it
            is. Under autocast, cpu-scan and gpu-scan give float32 (gpu_scan.py states what is rounded), the
            others what torch gives.
        """
        recurrent = F.dropout(self.weight_hh_l0, self.recurrent_dropout, self.training)
        state = state or self.initial_state(x)
        if len(x) == 0:  # torch's layers refuse it
            return x.new_zeros(0, x.shape[1], self.output_size), state
        implementation = self.implementation(x)
        if implementation == "fused":
            return self.fused(x, state, recurrent)
        gates = self.input_gates(x.flatten(0, 1))
        if implementation == "gpu-scan":
            dtype = product_dtype(x, recurrent)
            state = tuple(part.to(torch.promote_types(dtype, torch.float32)).contiguous() for part in state)
            with torch.autocast(x.device.type, enabled=False):
                return self.gpu_scan(gates.to(dtype), state, recurrent.to(dtype))
        gates = gates.to(recurrent.dtype)
        state = tuple(part.to(recurrent.dtype).contiguous() for part in state)
        if implementation == "cpu-scan":
            with torch.autocast("cpu", enabled=False):
                return self.cpu_scan(gates, state, recurrent)
        return self.loop(gates.view(*x.shape[:2], -1), state, recurrent)

    def implementation(self, x: Tensor) -> Implementation:
        """How `forward` runs an input (steps, batch, input_size)."""
        if self.is_fused(x):
            return "fused"
        if x.device.type == "cpu" and self.weight_hh_l0.dtype in (torch.float32, torch.float64):
            return "cpu-scan"
        return "gpu-scan" if x.is_cuda and self.has_gpu_scan else "loop"

    def initial_state(self, x: Tensor) -> State:
        """Zeros for a batch (steps, batch, input_size), of its device and type."""
        return (x.new_zeros(x.shape[1], self.output_size),)

    @abstractmethod
    def input_gates(self, x: Tensor) -> Tensor:
        """The input's part of the gates: (rows, input_size) -> (rows, gate_count * width), not a view."""

    @abstractmethod
    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        """The cell's definition: one step.

        Args:
            gates: (batch, gate_count * width), from `input_gates`.
            state: before the step.
            recurrent: weight_hh_l0, after dropout.

        Returns:
            The state after the step, and each gate's values (batch, width) after its nonlinearity, in the
            order of the blocks of weight_hh_l0.
        """

    @abstractmethod
    def cpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """All steps on a CPU, fast: gates (steps * batch, gate_count * width), which it overwrites."""

    def gpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """All steps on a GPU, fast; only where `has_gpu_scan`.

        Args:
            gates: (steps * batch, gate_count * width), which it overwrites, in the type of the products.
            state: float32 at least.
            recurrent: weight_hh_l0 after dropout, in the type of the gates.
        """
        raise NotImplementedError

    def loop(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """All steps anywhere, slowly: gates (steps, batch, gate_count * width)."""
        outputs = []
        for row in gates.unbind():
            state, _ = self.step(row, state, recurrent)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def is_fused(self, x: Tensor) -> bool:
        """Whether torch has a fused layer for it, which is then the fastest."""
        return False

    def fused(self, x: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """All steps by torch's fused layer."""
        raise NotImplementedError


def product_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """The type of matrix products: autocast's where it is on, else the weights' own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def save_scan(ctx: Any, gates: Tensor, *tensors: Tensor | None) -> None:
    """End a scan's forward pass: keep what its backward pass needs.

    Args:
        ctx: of the autograd function.
        gates: the argument, which the scan has overwritten.
        tensors: what else is needed; None for what this cell lacks.
    """
    ctx.mark_dirty(gates)
    ctx.set_materialize_grads(False)  # None instead of zeros for an output that the loss does not use
    ctx.save_for_backward(gates, *tensors)
