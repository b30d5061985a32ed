"""RNN, GRU and LSTM layers behind one interface: one or both directions, hidden state in and out.

Toolkits run a bidirectional layer over packed sequences, which on a CPU leaves torch's fused kernels and
costs up to an order of magnitude. Here each direction is its own fused one-directional layer over the padded
batch: the backward one reads every utterance reversed *by its own length*, so that padding stands behind the
valid steps in both directions and never reaches them. The result equals the packed one, gradients included.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from asr.errors import SettingsError

Cell = Literal["rnn", "gru", "lstm"]

State = tuple[Tensor, ...]  # of one layer: (h,) or, for LSTM, (h, c); each (batch, width)

_CELLS: dict[Cell, type[nn.RNN | nn.GRU | nn.LSTM]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class RecurrentConfig:
    """The recurrent layers of an encoder or a language model."""

    cell: Cell = "lstm"  # rnn is Elman's, with tanh
    bidirectional: bool = True  # a second set of layers reads each utterance from its end
    width: int = 256  # units a layer and direction
    depth: int = 4  # layers
    dropout: float = 0.3  # on the input of every layer but the first; one mask for all steps of an utterance
    layer_norm: bool = True  # normalise the input of every layer
    residual: bool = False  # add a layer's input to its output where their sizes agree
    projection: int = 0  # outputs of a linear layer behind each recurrent layer; 0 for none

    def __post_init__(self) -> None:
        if self.cell not in _CELLS:
            raise SettingsError(f"model.cell must be one of {', '.join(_CELLS)}. Got {self.cell!r}.")
        for name, low in (("width", 1), ("depth", 1), ("projection", 0)):
            if getattr(self, name) < low:
                raise SettingsError(f"model.{name} must be at least {low}. Got {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise SettingsError(f"model.dropout must be in [0, 1). Got {self.dropout:g}.")

    @property
    def output_size(self) -> int:
        """Values a step that the last layer gives."""
        return self.projection or self.width * (2 if self.bidirectional else 1)


class RecurrentLayer(nn.Module):
    """One recurrent layer over a padded, time-major batch.

    Args:
        cell: the kind of cell.
        input_size: values a step.
        width: units a direction.
        bidirectional: whether a second direction reads each utterance from its end.
    """

    def __init__(self, cell: Cell, input_size: int, width: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.forwards = _CELLS[cell](input_size, width)
        self.backwards = _CELLS[cell](input_size, width) if bidirectional else None
        for direction in (self.forwards, self.backwards):
            if direction is not None:
                initialize(direction)

    def forward(self, x: Tensor, lengths: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run the layer.

        Args:
            x: (steps, batch, input_size).
            lengths: (batch,) int64 valid steps.
            state: what an earlier call returned, to continue its sequences; None starts from zeros.

        Returns:
            (steps, batch, width), or twice the width for both directions; values beyond a length are
            meaningless. And the state after the last step, exact for rows that fill all steps.

        Raises:
            SettingsError: a state is given to a bidirectional layer, whose second half begins at the end.
        """
        if self.backwards is None:
            y, last = self.forwards(x, _pack_state(state))
            return y, _unpack_state(last)
        if state is not None:
            raise SettingsError(
                "a bidirectional layer cannot continue from a state: its backward half begins at the end of "
                "the utterance. Use --model.no-bidirectional for streaming."
            )
        order = reversal(lengths, x.shape[0])
        y, last = self.forwards(x)
        y_backwards, _ = self.backwards(reverse(x, order))
        return torch.cat([y, reverse(y_backwards, order)], dim=-1), _unpack_state(last)


class RecurrentStack(nn.Module):
    """Recurrent layers on top of each other, with the options of `RecurrentConfig`.

    Args:
        input_size: values a step.
        config: the settings.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.norms, self.layers, self.projections = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        size = input_size
        for _ in range(config.depth):
            self.norms.append(nn.LayerNorm(size) if config.layer_norm else nn.Identity())
            layer = RecurrentLayer(config.cell, size, config.width, bidirectional=config.bidirectional)
            self.layers.append(layer)
            size = config.width * (2 if config.bidirectional else 1)
            projection = nn.Linear(size, config.projection) if config.projection else nn.Identity()
            self.projections.append(projection)
            size = config.output_size

    def forward(
        self, x: Tensor, lengths: Tensor, states: list[State] | None = None
    ) -> tuple[Tensor, list[State]]:
        """Run all layers.

        Args:
            x: (batch, steps, input_size).
            lengths: (batch,) int64 valid steps.
            states: one state a layer, from an earlier call on the blocks before; None starts from zeros.

        Returns:
            (batch, steps, config.output_size) and the layers' states; blocks fed with carried states give the
            same numbers as the whole sequence.
        """
        # Time-major inside: torch's fused kernels want it, and would otherwise copy at every layer.
        x = x.transpose(0, 1)
        new_states: list[State] = []
        for index, (norm, layer, projection) in enumerate(
            zip(self.norms, self.layers, self.projections, strict=True)
        ):
            inputs = x
            x = norm(x)
            if index > 0:
                x = locked_dropout(x, self.config.dropout, training=self.training)
            x, state = layer(x, lengths, states[index] if states else None)
            new_states.append(state)
            x = projection(x)
            if self.config.residual and x.shape == inputs.shape:
                x = x + inputs
        return x.transpose(0, 1), new_states


def locked_dropout(x: Tensor, rate: float, *, training: bool) -> Tensor:
    """Dropout with one mask for all steps of an utterance.

    Args:
        x: (steps, batch, size).
        rate: share of the values that are zeroed; the others are scaled up.
        training: False changes nothing.

    Source: Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural
        networks". The mask is also `steps` times cheaper to draw than one for every value.
    """
    if not training or rate == 0:
        return x
    keep = torch.empty(1, x.shape[1], x.shape[2], device=x.device, dtype=x.dtype).bernoulli_(1 - rate)
    return x * (keep / (1 - rate))


def initialize(layer: nn.RNNBase) -> None:
    """Initialise one fused recurrent layer in place.

    Recurrent weights are orthogonal for every gate, which keeps the norm of what flows back through time
    (Saxe et al. 2014); input weights are Xavier-uniform for every gate (Glorot & Bengio 2010); biases are 0,
    but the LSTM's forget gate starts at 1 so that it remembers at first (Gers et al. 2000; Jozefowicz et al.
    2015).
    """
    for name, weight in layer.named_parameters():
        gates = weight.view(-1, layer.hidden_size, *weight.shape[1:])
        if name.startswith("bias"):
            nn.init.zeros_(weight)
            if isinstance(layer, nn.LSTM) and name == "bias_ih_l0":
                nn.init.ones_(gates[1])  # torch's order of gates: input, forget, cell, output
        else:
            for gate in gates:
                (nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_)(gate)


def reversal(lengths: Tensor, steps: int) -> Tensor:
    """The order of rows that reverses each utterance by its own length.

    Returns:
        (steps * batch,) int64 indices into a time-major batch whose steps and batch are flattened; padding
        stays where it is. Applying it twice gives the identity.
    """
    t = torch.arange(steps, device=lengths.device).unsqueeze(1)
    source = torch.where(t < lengths, lengths - 1 - t, t)
    return (source * lengths.shape[0] + torch.arange(lengths.shape[0], device=lengths.device)).flatten()


def reverse(x: Tensor, order: Tensor) -> Tensor:
    """Reverse each utterance of a time-major batch (steps, batch, size) by the order of `reversal`."""
    result: Tensor = _Reverse.apply(x, order)
    return result


class _Reverse(torch.autograd.Function):
    """A permutation of rows that is its own inverse, hence its own gradient.

    Plain indexing would do, but its gradient is a scatter with accumulation, several times slower than this.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.flatten(0, 1).index_select(0, order).view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return reverse(gradients[0].contiguous(), order), None


def _pack_state(state: State | None) -> Tensor | State | None:
    """One layer's state as torch's layers take it: a leading axis, and a bare tensor for RNN and GRU."""
    if state is None:
        return None
    axes = tuple(part.unsqueeze(0) for part in state)
    return axes if len(axes) == 2 else axes[0]


def _unpack_state(state: Tensor | State) -> State:
    parts = state if isinstance(state, tuple) else (state,)
    return tuple(part.squeeze(0) for part in parts)
