"""The cells: Elman, GRU, light GRU, and LSTM with peepholes and projection.

Each cell is a `UnidirectionalLayer`; its `step` is its definition.
"""

import warnings
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr.device import has_bf16_recurrence
from asr.model.recurrent.unidirectional import State, UnidirectionalLayer

# cuDNN needs the weights contiguous in memory. torch copies them there at each call, which takes
# microseconds and has to be done anyway for mixed precision and after dropout. Its warning is filtered once,
# here: `catch_warnings` at each call would make Python show other warnings again.
warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")


class TorchCell(UnidirectionalLayer):
    """The cells that torch has too, with its two biases."""

    def __init__(self, input_size: int, width: int, *, recurrent_dropout: float = 0.0) -> None:
        super().__init__(input_size, width, recurrent_dropout=recurrent_dropout)
        self.bias_ih_l0 = nn.Parameter(torch.empty(self.gate_count * width))
        self.bias_hh_l0 = nn.Parameter(torch.empty(self.gate_count * width))

    def input_gates(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias_ih_l0 + self.bias_hh_l0, x, self.weight_ih_l0.t())

    def is_fused(self, x: Tensor) -> bool:
        return x.is_cuda

    def _call(self, function: str, x: Tensor, state: Tensor | State, *weights: Tensor) -> tuple[Tensor, ...]:
        """One of torch's functions for recurrent layers: one layer, one direction, time-major."""
        dtype = _fused_dtype(x)
        # Not left to autocast: for cuDNN's recurrent layers, torch's wrapper casts to fp16 under bf16 too.
        states = state.to(dtype) if isinstance(state, Tensor) else tuple(part.to(dtype) for part in state)
        arguments = x.to(dtype), states, [weight.to(dtype) for weight in weights]
        with torch.autocast(x.device.type, enabled=False):
            result = getattr(torch, function)(*arguments, True, 1, 0.0, self.training, False, False)
        return cast(tuple[Tensor, ...], result)


def _fused_dtype(x: Tensor) -> torch.dtype:
    """The number format in which torch's fused layer runs over `x`: autocast's, if the device has it."""
    device = x.device
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device.type):
        return x.dtype
    dtype = torch.get_autocast_dtype(device.type)
    if dtype == torch.bfloat16 and device.type == "cuda" and not has_bf16_recurrence(device):
        return torch.float32
    return dtype


class Elman(TorchCell):
    """h = tanh(W x + U h + b), or with relu.

    Args:
        input_size: values per step.
        width: units.
        relu: the nonlinearity.
        recurrent_dropout: as for every layer.

    Source: Elman 1990, "Finding structure in time"; with relu: Le et al. 2015. torch.nn.RNN gives the same.
    """

    gate_count = 1

    def __init__(
        self, input_size: int, width: int, *, relu: bool = False, recurrent_dropout: float = 0.0
    ) -> None:
        super().__init__(input_size, width, recurrent_dropout=recurrent_dropout)
        self.relu = relu

    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        total = torch.addmm(gates, state[0], recurrent.t())
        h = total.relu() if self.relu else total.tanh()
        return (h,), (h,)

    def cpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        from asr.model.recurrent.cpu_scan import ElmanScan  # only here, since numba takes a second to load

        y = ElmanScan.apply(gates, recurrent, state[0], self.relu).view(-1, *state[0].shape)
        return y, (y[-1],)

    def fused(self, x: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        weights = self.weight_ih_l0, recurrent, self.bias_ih_l0, self.bias_hh_l0
        y, h = self._call("rnn_relu" if self.relu else "rnn_tanh", x, state[0].unsqueeze(0), *weights)
        return y, (h[0],)


class Gru(TorchCell):
    """The GRU of cuDNN and torch, whose reset gate acts after the matrix product.

    Source: Cho et al. 2014; this variant: torch.nn.GRU.
    """

    gate_count = 3

    def input_gates(self, x: Tensor) -> Tensor:
        """In the order new, reset, update, and without the bias inside of new."""
        width = self.width
        bias = self.bias_ih_l0 + F.pad(self.bias_hh_l0[: 2 * width], (0, width))
        return torch.addmm(bias.roll(width), x, self.weight_ih_l0.roll(width, 0).t())

    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        (h,) = state
        n, r, z = gates.chunk(3, dim=1)
        r_h, z_h, n_h = (h @ recurrent.t()).chunk(3, dim=1)
        r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
        n = (n + r * (n_h + self.bias_hh_l0[2 * self.width :])).tanh()
        return ((1 - z) * n + z * h,), (r, z, n)

    def cpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        from asr.model.recurrent.cpu_scan import GruScan

        _, y = GruScan.apply(gates, recurrent, self.bias_hh_l0[2 * self.width :], state[0])
        return y, (y[-1],)

    def fused(self, x: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        weights = self.weight_ih_l0, recurrent, self.bias_ih_l0, self.bias_hh_l0
        y, h = self._call("gru", x, state[0].unsqueeze(0), *weights)
        return y, (h[0],)


class LiGru(UnidirectionalLayer):
    """Light GRU: a = relu(Wa x + Ua h), z = sigmoid(Wz x + Uz h), h = z h + (1 - z) a.

    The input's part W x is normalised over its 2 * width values of one step (layer norm, with gain and bias),
    where the paper has batch norm: relu needs one of them, and batch norm would make an utterance's result
    depend on the others in its batch.

    Source: Ravanelli et al. 2018, "Light gated recurrent units for speech recognition", eq. 9 and 10;
        speechbrain's LiGRU with normalization="layernorm" gives the same.
    """

    gate_count = 2
    has_gpu_scan = True

    def __init__(self, input_size: int, width: int, *, recurrent_dropout: float = 0.0) -> None:
        super().__init__(input_size, width, recurrent_dropout=recurrent_dropout)
        self.norm = nn.LayerNorm(2 * width)

    def input_gates(self, x: Tensor) -> Tensor:
        normalized: Tensor = self.norm(x @ self.weight_ih_l0.t())
        return normalized

    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        a, z = torch.addmm(gates, state[0], recurrent.t()).chunk(2, dim=1)
        a, z = a.relu(), z.sigmoid()
        return ((1 - z) * a + z * state[0],), (a, z)

    def cpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        from asr.model.recurrent.cpu_scan import LiGruScan

        _, y = LiGruScan.apply(gates, recurrent, state[0])
        return y, (y[-1],)

    def gpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        from asr.model.recurrent.gpu_scan import GpuLiGruScan  # only here: Triton takes a while to load

        _, y = GpuLiGruScan.apply(gates, recurrent, state[0])
        return y, (y[-1],)


class Lstm(TorchCell):
    """LSTM with forget gate; on request with peepholes, and with a recurrent projection.

    Peepholes show the previous cell state to the input and forget gates, and the new one to the output
    gate. A projection P makes h = P (o * tanh(c)), which is the output and fed back, smaller than the cell
    state.

    Args:
        input_size: values per step.
        width: units.
        projection: values of the hidden state; 0 for `width` without a projection.
        peephole: whether gates see the cell state.
        recurrent_dropout: as for every layer.

    Source: Hochreiter & Schmidhuber 1997, Gers et al. 2000; peepholes: Gers et al. 2002, in the form of
        Graves 2013, "Generating sequences with recurrent neural networks", eq. 7 to 11; projection: Sak
        et al. 2014, "Long short-term memory recurrent neural network architectures for large scale acoustic
        modeling". Without peepholes torch.nn.LSTM gives the same, with proj_size too.
    """

    gate_count = 4
    has_gpu_scan = True

    def __init__(
        self,
        input_size: int,
        width: int,
        *,
        projection: int = 0,
        peephole: bool = False,
        recurrent_dropout: float = 0.0,
    ) -> None:
        super().__init__(input_size, width, recurrent_dropout=recurrent_dropout)
        self.output_size = projection or width
        if projection:
            self.weight_hh_l0 = nn.Parameter(torch.empty(4 * width, projection))
        self.weight_hr_l0 = nn.Parameter(torch.empty(projection, width)) if projection else None
        self.peepholes = nn.Parameter(torch.empty(3, width)) if peephole else None

    def initial_state(self, x: Tensor) -> State:
        (h,) = super().initial_state(x)
        return h, x.new_zeros(len(h), self.width)

    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        h, c = state
        i, f, g, o = torch.addmm(gates, h, recurrent.t()).chunk(4, dim=1)
        if self.peepholes is not None:
            i, f = i + self.peepholes[0] * c, f + self.peepholes[1] * c
        i, f, g = i.sigmoid(), f.sigmoid(), g.tanh()
        c = f * c + i * g
        if self.peepholes is not None:
            o = o + self.peepholes[2] * c
        o = o.sigmoid()
        h = o * c.tanh()
        return (h if self.weight_hr_l0 is None else h @ self.weight_hr_l0.t(), c), (i, f, g, o)

    def cpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        from asr.model.recurrent.cpu_scan import LstmScan

        _, y, c = LstmScan.apply(gates, recurrent, self.weight_hr_l0, self.peepholes, *state)
        return y, (y[-1], c)

    def gpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        from asr.model.recurrent.gpu_scan import GpuLstmScan

        projection = None if self.weight_hr_l0 is None else self.weight_hr_l0.to(gates.dtype)
        peepholes = None if self.peepholes is None else self.peepholes.to(state[0].dtype)
        _, y, c = GpuLstmScan.apply(gates, recurrent, projection, peepholes, *state)
        return y, (y[-1], c)

    def is_fused(self, x: Tensor) -> bool:
        """On a CPU by oneDNN's kernel, for float32 and bf16, without projection."""
        if self.peepholes is not None:
            return False
        if x.is_cuda:  # torch infers a projection from its size
            return self.weight_hr_l0 is None or self.output_size < self.width
        return (
            x.device.type == "cpu"
            and self.weight_hr_l0 is None
            and self.weight_ih_l0.dtype == torch.float32
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        )

    def fused(self, x: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        weights = [self.weight_ih_l0, recurrent, self.bias_ih_l0, self.bias_hh_l0]
        if self.weight_hr_l0 is not None:
            weights.append(self.weight_hr_l0)
        y, h, c = self._call("lstm", x, tuple(part.unsqueeze(0) for part in state), *weights)
        return y, (h[0], c[0])
