"""Recurrent layers and stacks of them: one or both directions, any depth, state in and out.

Toolkits run a bidirectional layer over packed sequences, which on a CPU leaves torch's fused kernels and
costs up to an order of magnitude. Here each direction is its own one-directional layer over the padded
batch: the backward one reads every utterance reversed *by its own length*, so that padding comes after the
valid steps in both directions and never affects them. The result equals the packed one, gradients included.

On a GPU the two directions run at the same time (`GPU_ARRANGEMENT`); a packed bidirectional call is not an
alternative: it takes the lengths on the host, and torch uses cuDNN's persistent kernels neither for packed
sequences nor for two directions in one call.
"""

import logging
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr.errors import SettingsError, check_number
from asr.model.recurrent.cudnn import has_persistent_kernels, persistent_obstacle, persistent_rows
from asr.model.recurrent.factory import Cell, check_cell, check_projection, make_layer
from asr.model.recurrent.streams import on_two_streams
from asr.model.recurrent.unidirectional import State, UnidirectionalLayer, product_dtype

Arrangement = Literal["in-turn", "two-streams"]

# How the two directions of a layer run on a GPU: the line to change after a measurement.
GPU_ARRANGEMENT: Arrangement = "two-streams"

log = logging.getLogger("asr")


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """What each recurrent layer of a stack is made of, whatever its size."""

    cell: Cell = "lstm"  # rnn is Elman's, with tanh; ligru is the light GRU of Ravanelli 2018
    bidirectional: bool = True  # a second set of layers reads each utterance from its end; False to stream
    # share of the recurrent weights that are set to zero in an update, the same ones at all steps
    recurrent_dropout: float = 0.0
    layer_norm: bool = True  # on the input of every recurrent layer
    residual: bool = False  # around recurrent layers whose input and output sizes agree
    projection: int = 0  # lstm, lstm-peephole: hidden state's size, at most width (Sak 2014); 0 for width
    bottleneck: int = 0  # outputs of a linear layer after each recurrent layer; 0 for none

    def __post_init__(self) -> None:
        check_number("--model.projection", self.projection, least=0)
        check_number("--model.bottleneck", self.bottleneck, least=0)
        check_number("--model.recurrent-dropout", self.recurrent_dropout, least=0, below=1)
        check_cell(self.cell, self.projection)

    def stack(self, *, width: int, depth: int, dropout: float) -> "RecurrentConfig":
        """The settings of a stack of such layers."""
        return RecurrentConfig(**vars(self), width=width, depth=depth, dropout=dropout)


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(LayerConfig):
    """The recurrent layers of an encoder or a language model."""

    width: int = 256  # units per layer and direction
    depth: int = 4  # layers
    dropout: float = 0.3  # on the input of every layer but the first; one mask for all steps of an utterance

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("--model.width", self.width, least=1)
        check_number("--model.depth", self.depth, least=1)
        check_number("--model.dropout", self.dropout, least=0, below=1)
        check_projection(self.projection, self.width)

    @property
    def hidden_size(self) -> int:
        """Values a step that a layer gives, both directions together, before a bottleneck."""
        return (self.projection or self.width) * (2 if self.bidirectional else 1)

    @property
    def output_size(self) -> int:
        """Values a step that the last layer gives."""
        return self.bottleneck or self.hidden_size


class RecurrentLayer(nn.Module):
    """One recurrent layer over a padded, time-major batch.

    Args:
        input_size: values per step.
        config: the settings; those of a stack are not used.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        directions = [
            make_layer(
                config.cell,
                input_size,
                config.width,
                projection=config.projection,
                recurrent_dropout=config.recurrent_dropout,
            )
            for _ in range(2 if config.bidirectional else 1)
        ]
        self.forwards = directions[0]
        self.backwards = directions[1] if config.bidirectional else None

    def forward(
        self, x: Tensor, order: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State]:
        """Run the layer.

        Args:
            x: (steps, batch, input_size).
            order: of `reversal`, for a second direction; None where every row fills all steps.
            state: as an earlier call returned it, to continue its sequences; None starts from zeros.

        Returns:
            (steps, batch, hidden size), or twice as many values for both directions; those after a
            row's length are meaningless. And the state after the last step, exact for rows that fill all
            steps.

        Raises:
            SettingsError: a state is given to a bidirectional layer, whose second half begins at the end.
        """
        if self.backwards is None:
            y, last = self.forwards(x, state)
            return y, last
        if state is not None:
            raise SettingsError(
                "a bidirectional layer cannot continue from a state: its backward half begins at the end of "
                "the utterance. Use --model.no-bidirectional for streaming."
            )
        if self.arrangement(x) == "two-streams":
            shared = (x,) if order is None else (x, order)
            (y, last), y_backwards = on_two_streams(
                partial(self.forwards, x), partial(_run_reversed, self.backwards, x, order), shared, x.device
            )
        else:
            y, last = self.forwards(x)
            y_backwards = _run_reversed(self.backwards, x, order)
        return torch.cat([y, y_backwards], dim=-1), last

    def chunk(self, x: Tensor, state: State | None, right_context: int) -> tuple[Tensor, State]:
        """Run the layer over the next chunk of a stream, see `RecurrentStack.chunk`.

        Args:
            x: (steps, batch, input_size): the chunk, and after it the right context.
            state: of the forward half before the chunk; None starts from zeros.
            right_context: steps of it.

        Returns:
            (steps, batch, hidden size), right context included, and the forward half's state after the chunk.
        """
        end = len(x) - right_context
        y, state = self.forwards(x[:end], state)
        if right_context:
            y = torch.cat([y, self.forwards(x[end:], state)[0]])
        if self.backwards is not None:
            y = torch.cat([y, _run_reversed(self.backwards, x, None)], dim=-1)
        return y, state

    def arrangement(self, x: Tensor) -> Arrangement:
        """How the directions run for an input (steps, batch, input_size)."""
        if not _is_on_gpu(x):
            return "in-turn"
        # A persistent kernel may wait until all of its blocks are on the GPU at once: two could wait for each
        # other. One fills the GPU anyway.
        return "in-turn" if self.persistent_rows(x) == x.shape[1] else GPU_ARRANGEMENT

    def persistent_rows(self, x: Tensor) -> int | None:
        """The batch that cuDNN's persistent kernel takes, rows of padding included.

        Args:
            x: (steps, batch, any size); only its batch, type and device matter.

        Returns:
            The smallest such batch, or None where torch does not choose that kernel.
        """
        if not _is_on_gpu(x) or not has_persistent_kernels(
            product_dtype(x, self.forwards.weight_hh_l0), torch.cuda.get_device_properties(x.device)
        ):
            return None
        config = self.config
        obstacle = persistent_obstacle(config.cell, config.width, config.projection, self.forwards.input_size)
        if obstacle is not None:
            _log_once(f"cuDNN's persistent kernels, which are faster, cannot be used: {obstacle}.")
            return None
        return persistent_rows(config.cell, config.width, x.shape[1])


class RecurrentStack(nn.Module):
    """Recurrent layers on top of each other, with the options of `RecurrentConfig`.

    Args:
        input_size: values per step.
        config: the settings.
    """

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.norms, self.layers, self.bottlenecks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        size = input_size
        for _ in range(config.depth):
            self.norms.append(nn.LayerNorm(size) if config.layer_norm else nn.Identity())
            self.layers.append(RecurrentLayer(size, config))
            linear = nn.Linear(config.hidden_size, config.bottleneck) if config.bottleneck else nn.Identity()
            self.bottlenecks.append(linear)
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
        y, _, new_states = self._run(x, lengths, states)
        return y.transpose(0, 1), new_states

    def final_states(self, x: Tensor, lengths: Tensor) -> Tensor:
        """One vector for each whole utterance, from the last layer, for classification.

        Args:
            x: (batch, steps, input_size).
            lengths: (batch,) int64 valid steps.

        Returns:
            (batch, config.hidden_size): the last layer's hidden state, before a bottleneck and a residual,
            of the forward half at each utterance's last valid step, followed, if there is one, by that of the
            backward half at the first step. Zeros for an utterance without steps. Padding changes nothing.
        """
        _, hidden, _ = self._run(x, lengths, None)
        last = (lengths - 1).clamp(min=0)
        final = hidden[last, torch.arange(len(lengths), device=hidden.device)]
        if self.config.bidirectional:
            width = self.config.hidden_size // 2
            final = torch.cat([final[:, :width], hidden[0, :, width:]], dim=1)
        return final.masked_fill((lengths == 0).unsqueeze(1), 0)

    def chunk(
        self, x: Tensor, states: list[State] | None, right_context: int = 0
    ) -> tuple[Tensor, list[State]]:
        """Run all layers over the next chunk of a stream, latency-controlled where they are bidirectional.

        The forward halves continue from the states. The backward halves begin with zeros at the end of the
        right context, which is computed again with the next chunk.

        Args:
            x: (batch, steps, input_size): the chunk, and after it the right context.
            states: one forward state a layer, of the chunk before; None at the beginning.
            right_context: steps of it; 0 for unidirectional layers, for which chunks then equal the whole.

        Returns:
            (batch, steps - right_context, config.output_size), and the states after the chunk.

        Source: Zhang et al. 2016, "Highway long short-term memory RNNs for distant speech recognition",
            section 3 (latency-controlled BLSTM).
        """
        end = x.shape[1] - right_context
        lengths = torch.full((len(x),), x.shape[1], device=x.device)
        y, _, new_states = self._run(x, lengths, states, right_context)
        return y.transpose(0, 1)[:, :end], new_states

    def _run(
        self,
        x: Tensor,
        lengths: Tensor,
        states: list[State] | None,
        right_context: int | None = None,
    ) -> tuple[Tensor, Tensor, list[State]]:
        """Time-major outputs, hidden states of the last layer, and the states to continue from.

        A right context makes it a chunk of a stream.
        """
        # Time-major inside, as torch's fused kernels take it; otherwise they would copy at every layer.
        x = x.transpose(0, 1)
        batch = x.shape[1]
        is_chunk = right_context is not None
        padding = 0 if states or is_chunk else (self._persistent_rows(x) or batch) - batch
        if padding:
            x, lengths = F.pad(x, (0, 0, 0, padding)), F.pad(lengths, (0, padding))
        order = reversal(lengths, x.shape[0]) if self.config.bidirectional and not is_chunk else None
        new_states: list[State] = []
        for index, (norm, layer, bottleneck) in enumerate(
            zip(self.norms, self.layers, self.bottlenecks, strict=True)
        ):
            inputs = x
            x = norm(x)
            if index > 0:
                x = locked_dropout(x, self.config.dropout, training=self.training)
            state = states[index] if states else None
            if right_context is None:
                hidden, state = layer(x, order, state)
            else:
                hidden, state = layer.chunk(x, state, right_context)  # type: ignore[operator]
            new_states.append(state)
            x = bottleneck(hidden)
            if self.config.residual and x.shape == inputs.shape:
                x = x + inputs
        if padding:
            x, hidden = x[:, :batch], hidden[:, :batch]
            new_states = [tuple(part[:batch] for part in state) for state in new_states]
        return x, hidden, new_states

    def _persistent_rows(self, x: Tensor) -> int | None:
        """The batch that the first layer with a persistent kernel takes; None if no layer has one."""
        for layer in self.layers:
            rows: int | None = layer.persistent_rows(x)  # type: ignore[operator]
            if rows is not None:
                return rows
        return None


def _is_on_gpu(x: Tensor) -> bool:
    """Whether a tensor is on a real GPU: a fake one has a CUDA device, but no streams and no properties."""
    return x.is_cuda and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


def _run_reversed(layer: UnidirectionalLayer, x: Tensor, order: Tensor | None) -> Tensor:
    """Hidden states (steps, batch, hidden size) of a layer that reads each utterance from its end."""
    y, _ = layer(x.flip(0) if order is None else reverse(x, order))
    return y.flip(0) if order is None else reverse(y, order)


@cache
def _log_once(message: str) -> None:
    """Log a message the first time only."""
    log.info(message)


def locked_dropout(x: Tensor, rate: float, *, training: bool) -> Tensor:
    """Dropout with one mask for all steps of an utterance.

    Args:
        x: (steps, batch, size).
        rate: probability of a value to be zeroed; the others are scaled up.
        training: False changes nothing.

    Source: Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural
        networks". The mask is also `steps` times cheaper to draw than one for every value.
    """
    if not training or rate == 0:
        return x
    keep = torch.empty(1, x.shape[1], x.shape[2], device=x.device, dtype=x.dtype).bernoulli_(1 - rate)
    return x * (keep / (1 - rate))


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
