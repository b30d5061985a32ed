"""Every cell as a one-directional layer, all called alike: Elman, GRU, light GRU, LSTM and its relatives.

`direction(x, state)` runs over all steps and gives the hidden states and the state to go on from. There are
four ways to the same numbers; `Direction.path` tells which one is taken, the fastest that the device has:

- fused: torch's kernel, for rnn, rnn-relu, gru and lstm on a GPU, and for lstm without projection on a CPU;
- scan: asr/model/recurrent/scan.py, for all others on a CPU;
- gpu-scan: asr/model/recurrent/gpu_scan.py, for light GRU and peepholes on a GPU (never run on one so far);
- loop: a plain loop over `step`, the cell's definition, which is slow and runs anywhere.

Parameters are named as in torch's layers, so that their weights can be exchanged.
"""

import warnings
from abc import ABC, abstractmethod
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr.device import has_bf16_recurrence
from asr.errors import SettingsError

# cuDNN wants the weights side by side in memory. torch copies them there at each call, which takes
# microseconds and has to be done anyway for mixed precision and after dropout. Its warning is filtered once,
# here: `catch_warnings` at each call would make Python forget which other warnings it has shown already.
warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")

Cell = Literal["rnn", "rnn-relu", "gru", "ligru", "lstm", "lstm-peephole"]

Path = Literal["fused", "scan", "gpu-scan", "loop"]

State = tuple[Tensor, ...]  # (h,) or, for the LSTMs, (h, c); (batch, output_size) and (batch, width)


class Direction(nn.Module, ABC):
    """One layer in one direction.

    Args:
        input_size: values a step.
        width: units.
        recurrent_dropout: share of the recurrent weights that is left out, drawn anew for each call in
            training and the same at all steps; 0 for none.

    Source: the dropout is DropConnect on the hidden-to-hidden weights, Merity et al. 2018, "Regularizing and
        optimizing LSTM language models": unlike a mask on the hidden state, fused kernels can take it.
    """

    gates: int  # blocks of `width` rows in the weights
    has_gpu_scan = False

    def __init__(self, input_size: int, width: int, *, recurrent_dropout: float = 0.0) -> None:
        super().__init__()
        self.input_size, self.width, self.recurrent_dropout = input_size, width, recurrent_dropout
        self.output_size = width
        self.weight_ih_l0 = nn.Parameter(torch.empty(self.gates * width, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(self.gates * width, width))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over all steps.

        Args:
            x: (steps, batch, input_size).
            state: what an earlier call returned, to continue its sequences; None starts from zeros.

        Returns:
            (steps, batch, output_size) hidden states, and the state after the last step. Blocks with carried
            states give the same numbers as the whole sequence; a block without steps leaves
            the state as it is. Under autocast, `scan` and `gpu-scan` give float32 (see `gpu_scan`
            for what is rounded), the other paths what torch gives.
        """
        recurrent = F.dropout(self.weight_hh_l0, self.recurrent_dropout, self.training)
        state = state or self.start(x)
        if len(x) == 0:  # torch's layers refuse it
            return x.new_zeros(0, x.shape[1], self.output_size), state
        path = self.path(x)
        if path == "fused":
            return self.fused(x, state, recurrent)
        gates = self.project(x.flatten(0, 1))
        if path == "gpu-scan":
            dtype = product_dtype(x, recurrent)
            state = tuple(part.to(torch.promote_types(dtype, torch.float32)).contiguous() for part in state)
            with torch.autocast(x.device.type, enabled=False):
                return self.gpu_scan(gates.to(dtype), state, recurrent.to(dtype))
        gates = gates.to(recurrent.dtype)
        state = tuple(part.to(recurrent.dtype).contiguous() for part in state)
        if path == "scan":
            with torch.autocast("cpu", enabled=False):
                return self.scan(gates, state, recurrent)
        return self.loop(gates.view(*x.shape[:2], -1), state, recurrent)

    def path(self, x: Tensor) -> Path:
        """Which way `forward` takes for an input (steps, batch, input_size)."""
        if self.is_fused(x):
            return "fused"
        if x.device.type == "cpu" and self.weight_hh_l0.dtype in (torch.float32, torch.float64):
            return "scan"
        return "gpu-scan" if x.is_cuda and self.has_gpu_scan else "loop"

    def start(self, x: Tensor) -> State:
        """The state of zeros for a batch `x` (steps, batch, input_size), of its kind."""
        return (x.new_zeros(x.shape[1], self.output_size),)

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The input's share of the gates: (rows, input_size) -> (rows, gates * width), not a view."""

    @abstractmethod
    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        """The cell's definition: one step.

        Args:
            gates: (batch, gates * width), from `project`.
            state: before the step.
            recurrent: weight_hh_l0, after dropout.

        Returns:
            The state after the step, and each gate's values (batch, width) behind its nonlinearity, in the
            order of the blocks of weight_hh_l0.
        """

    @abstractmethod
    def scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """All steps on a CPU, fast: gates (steps * batch, gates * width), which it overwrites."""

    def gpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """All steps on a GPU, fast; only where `has_gpu_scan`.

        Args:
            gates: (steps * batch, gates * width), which it overwrites, in the type of the products.
            state: float32 at least.
            recurrent: weight_hh_l0 after dropout, in the type of the gates.
        """
        raise NotImplementedError

    def loop(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """All steps anywhere, slowly: gates (steps, batch, gates * width)."""
        outputs = []
        for row in gates.unbind():
            state, _ = self.step(row, state, recurrent)
            outputs.append(state[0])
        return torch.stack(outputs), state

    def is_fused(self, x: Tensor) -> bool:
        """Whether torch's fused layer is there and the fastest."""
        return False

    def fused(self, x: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """All steps by torch's fused layer."""
        raise NotImplementedError


class _TorchCell(Direction):
    """What the cells share that torch has too: two biases."""

    def __init__(self, input_size: int, width: int, *, recurrent_dropout: float = 0.0) -> None:
        super().__init__(input_size, width, recurrent_dropout=recurrent_dropout)
        self.bias_ih_l0 = nn.Parameter(torch.empty(self.gates * width))
        self.bias_hh_l0 = nn.Parameter(torch.empty(self.gates * width))

    def project(self, x: Tensor) -> Tensor:
        """See `Direction.project`."""
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
    """The number format in which torch's fused layer runs over `x`: as autocast says, if the device can."""
    device = x.device
    if x.dtype == torch.float64 or not torch.is_autocast_enabled(device.type):
        return x.dtype
    dtype = torch.get_autocast_dtype(device.type)
    if dtype == torch.bfloat16 and device.type == "cuda" and not has_bf16_recurrence(device):
        return torch.float32
    return dtype


class Elman(_TorchCell):
    """h = tanh(W x + U h + b), or with relu.

    Args:
        input_size: values a step.
        width: units.
        relu: the nonlinearity.
        recurrent_dropout: as for every direction.

    Source: Elman 1990, "Finding structure in time"; with relu: Le et al. 2015. torch.nn.RNN gives the same.
    """

    gates = 1

    def __init__(
        self, input_size: int, width: int, *, relu: bool = False, recurrent_dropout: float = 0.0
    ) -> None:
        super().__init__(input_size, width, recurrent_dropout=recurrent_dropout)
        self.relu = relu

    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        """See `Direction.step`."""
        total = torch.addmm(gates, state[0], recurrent.t())
        h = total.relu() if self.relu else total.tanh()
        return (h,), (h,)

    def scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """See `Direction.scan`."""
        from asr.model.recurrent.scan import ElmanScan  # only here, since numba takes a second to load

        y = ElmanScan.apply(gates, recurrent, state[0], self.relu).view(-1, *state[0].shape)
        return y, (y[-1],)

    def fused(self, x: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """See `Direction.fused`."""
        weights = self.weight_ih_l0, recurrent, self.bias_ih_l0, self.bias_hh_l0
        y, h = self._call("rnn_relu" if self.relu else "rnn_tanh", x, state[0].unsqueeze(0), *weights)
        return y, (h[0],)


class Gru(_TorchCell):
    """The GRU of cuDNN and torch, whose reset gate acts behind the matrix product.

    Source: Cho et al. 2014; this variant: torch.nn.GRU.
    """

    gates = 3

    def project(self, x: Tensor) -> Tensor:
        """See `Direction.project`; in the order new, reset, update, and without the bias inside of new."""
        width = self.width
        bias = self.bias_ih_l0 + F.pad(self.bias_hh_l0[: 2 * width], (0, width))
        return torch.addmm(bias.roll(width), x, self.weight_ih_l0.roll(width, 0).t())

    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        """See `Direction.step`."""
        (h,) = state
        n, r, z = gates.chunk(3, dim=1)
        r_h, z_h, n_h = (h @ recurrent.t()).chunk(3, dim=1)
        r, z = (r + r_h).sigmoid(), (z + z_h).sigmoid()
        n = (n + r * (n_h + self.bias_hh_l0[2 * self.width :])).tanh()
        return ((1 - z) * n + z * h,), (r, z, n)

    def scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """See `Direction.scan`."""
        from asr.model.recurrent.scan import GruScan

        _, y = GruScan.apply(gates, recurrent, self.bias_hh_l0[2 * self.width :], state[0])
        return y, (y[-1],)

    def fused(self, x: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """See `Direction.fused`."""
        weights = self.weight_ih_l0, recurrent, self.bias_ih_l0, self.bias_hh_l0
        y, h = self._call("gru", x, state[0].unsqueeze(0), *weights)
        return y, (h[0],)


class LiGru(Direction):
    """Light GRU: a = relu(Wa x + Ua h), z = sigmoid(Wz x + Uz h), h = z h + (1 - z) a.

    The input's share Wx is normalised over its 2 * width values of one step (layer norm, with gain and bias),
    where the paper has batch norm: relu needs one of them, and batch norm would make an utterance's result
    depend on its neighbours.

    Source: Ravanelli et al. 2018, "Light gated recurrent units for speech recognition", eq. 9 and 10;
        speechbrain's LiGRU with normalization="layernorm" gives the same.
    """

    gates = 2
    has_gpu_scan = True

    def __init__(self, input_size: int, width: int, *, recurrent_dropout: float = 0.0) -> None:
        super().__init__(input_size, width, recurrent_dropout=recurrent_dropout)
        self.norm = nn.LayerNorm(2 * width)

    def project(self, x: Tensor) -> Tensor:
        """See `Direction.project`."""
        normalized: Tensor = self.norm(x @ self.weight_ih_l0.t())
        return normalized

    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        """See `Direction.step`."""
        a, z = torch.addmm(gates, state[0], recurrent.t()).chunk(2, dim=1)
        a, z = a.relu(), z.sigmoid()
        return ((1 - z) * a + z * state[0],), (a, z)

    def scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """See `Direction.scan`."""
        from asr.model.recurrent.scan import LiGruScan

        _, y = LiGruScan.apply(gates, recurrent, state[0])
        return y, (y[-1],)

    def gpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """See `Direction.gpu_scan`."""
        from asr.model.recurrent.gpu_scan import LiGruScan  # only here, since Triton takes a while to load

        _, y = LiGruScan.apply(gates, recurrent, state[0])
        return y, (y[-1],)


class Lstm(_TorchCell):
    """LSTM with forget gate; on request with peepholes, and with a recurrent projection.

    Peepholes show the cell before to the input and forget gates, and the cell now to the output gate. A
    projection P makes h = P (o * tanh(c)) of what is given out and fed back: fewer values than the cell has.

    Args:
        input_size: values a step.
        width: units.
        projection: values of the hidden state; 0 for `width` without a projection.
        peephole: whether gates see the cell.
        recurrent_dropout: as for every direction.

    Source: Hochreiter & Schmidhuber 1997, Gers et al. 2000; peepholes: Gers et al. 2002, in the form of
        Graves 2013, "Generating sequences with recurrent neural networks", eq. 7 to 11; projection: Sak
        et al. 2014, "Long short-term memory recurrent neural network architectures for large scale acoustic
        modeling". Without peepholes torch.nn.LSTM gives the same, with proj_size too.
    """

    gates = 4
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

    def start(self, x: Tensor) -> State:
        """See `Direction.start`."""
        (h,) = super().start(x)
        return h, x.new_zeros(len(h), self.width)

    def step(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[State, tuple[Tensor, ...]]:
        """See `Direction.step`."""
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

    def scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """See `Direction.scan`."""
        from asr.model.recurrent.scan import LstmScan

        _, y, c = LstmScan.apply(gates, recurrent, self.weight_hr_l0, self.peepholes, *state)
        return y, (y[-1], c)

    def gpu_scan(self, gates: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """See `Direction.gpu_scan`."""
        from asr.model.recurrent.gpu_scan import LstmScan

        projection = None if self.weight_hr_l0 is None else self.weight_hr_l0.to(gates.dtype)
        peepholes = None if self.peepholes is None else self.peepholes.to(state[0].dtype)
        _, y, c = LstmScan.apply(gates, recurrent, projection, peepholes, *state)
        return y, (y[-1], c)

    def is_fused(self, x: Tensor) -> bool:
        """See `Direction.is_fused`: on a CPU oneDNN's kernel, for float32 and bf16, without projection."""
        if self.peepholes is not None:
            return False
        if x.is_cuda:  # torch tells a projection by its size
            return self.weight_hr_l0 is None or self.output_size < self.width
        return (
            x.device.type == "cpu"
            and self.weight_hr_l0 is None
            and self.weight_ih_l0.dtype == torch.float32
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        )

    def fused(self, x: Tensor, state: State, recurrent: Tensor) -> tuple[Tensor, State]:
        """See `Direction.fused`."""
        weights = [self.weight_ih_l0, recurrent, self.bias_ih_l0, self.bias_hh_l0]
        if self.weight_hr_l0 is not None:
            weights.append(self.weight_hr_l0)
        y, h, c = self._call("lstm", x, tuple(part.unsqueeze(0) for part in state), *weights)
        return y, (h[0], c[0])


def product_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """The type of matrix products: autocast's where that is on, else that of the weights."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


NAMES: tuple[Cell, ...] = get_args(Cell)


def make_direction(
    cell: Cell, input_size: int, width: int, *, projection: int = 0, recurrent_dropout: float = 0.0
) -> Direction:
    """A direction with fresh weights.

    Args:
        cell: its kind.
        input_size: values a step.
        width: units.
        projection: values of the hidden state of an LSTM, 1..width; 0 for `width` without a projection.
        recurrent_dropout: in [0, 1).

    Raises:
        SettingsError: the cell is unknown; it has no projection; or the projection is larger than the width.
    """
    check_cell(cell, projection)
    check_projection(projection, width)
    direction: Direction
    if cell in ("rnn", "rnn-relu"):
        direction = Elman(input_size, width, relu=cell == "rnn-relu", recurrent_dropout=recurrent_dropout)
    elif cell in ("lstm", "lstm-peephole"):
        direction = Lstm(
            input_size,
            width,
            projection=projection,
            peephole=cell == "lstm-peephole",
            recurrent_dropout=recurrent_dropout,
        )
    else:
        direction = {"gru": Gru, "ligru": LiGru}[cell](input_size, width, recurrent_dropout=recurrent_dropout)
    initialize(direction)
    return direction


def check_cell(cell: str, projection: int) -> None:
    """Refuse a cell that cannot be made.

    Raises:
        SettingsError: the cell is unknown, or has no projection.
    """
    if cell not in NAMES:
        raise SettingsError(f"model.cell must be one of {', '.join(NAMES)}. Got {cell!r}.")
    if projection and not cell.startswith("lstm"):
        raise SettingsError(
            f"model.projection is {projection}, but a {cell} cell has no recurrent projection, only lstm and "
            "lstm-peephole have. Set model.bottleneck for a linear layer after each recurrent layer."
        )


def check_projection(projection: int, width: int) -> None:
    """Refuse a projection that makes the hidden state larger.

    Raises:
        SettingsError: the projection is larger than the width.
    """
    if projection > width:
        raise SettingsError(
            f"model.projection larger than width: {projection} > {width}. A projection makes the hidden "
            "state smaller; expected at most model.width. Lower it, or set it to 0 for none."
        )


def initialize(direction: Direction) -> None:
    """Initialise the weights in place.

    Recurrent weights are orthogonal for every gate, which keeps the norm of what flows back through time
    (Saxe et al. 2014), and so is a projection; input weights are Xavier-uniform for every gate (Glorot &
    Bengio 2010); biases and peepholes are 0, but the LSTM's forget gate starts at 1 so that it remembers at
    first (Gers et al. 2000; Jozefowicz et al. 2015).
    """
    with torch.no_grad():
        for gate in direction.weight_ih_l0.chunk(direction.gates):
            nn.init.xavier_uniform_(gate)
        for gate in direction.weight_hh_l0.chunk(direction.gates):
            nn.init.orthogonal_(gate)
        if isinstance(direction, _TorchCell):
            nn.init.zeros_(direction.bias_ih_l0)
            nn.init.zeros_(direction.bias_hh_l0)
        if isinstance(direction, Lstm):
            nn.init.ones_(direction.bias_ih_l0.chunk(4)[1])  # input, forget, cell, output
            if direction.weight_hr_l0 is not None:
                nn.init.orthogonal_(direction.weight_hr_l0)
            if direction.peepholes is not None:
                nn.init.zeros_(direction.peepholes)
