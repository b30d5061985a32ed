r"""Measures gradients through time: how far back a loss reaches, layer by layer, and the state of the gates.

The weights of a recurrent layer learn from a step T - k, for a loss at step T, through the product of the
k Jacobians between them (Pascanu et al. 2013, equations 3 to 5, whose x is our state s):

    dL/dtheta = sum_T sum_k  dL_T/ds_T  ds_T/ds_{T-k}  d+s_{T-k}/dtheta,
    ds_T/ds_{T-k} = prod_{i=T-k+1..T} ds_i/ds_{i-1}

If the product shrinks exponentially with k, dependencies over long times cannot be learned; if it grows,
single updates become huge. The microscope measures what remains of it at every lag k:

    h(k) = mean | dL_T/dh_{T-k} |        state(k) = mean | dL_T/ds_{T-k} |

L_T is the part of the loss that enters a layer at step T alone: the loss's gradient dL/dy_T that arrives at
the layer's output y_T from everything above it, with the outputs of all other steps held fixed. For the top
layer that is the CTC loss's gradient of step T. From T on back, only the layer's own path through time is
followed. The mean is over several T and utterances. A layer's state s is h, for an LSTM (h, c), as it is
passed from step to step; at lag 0 both curves are |dL/dy_T|.

An LSTM's h_T is a reading of its memory c_T through the output gate, a constant factor that has nothing to do
with time. What is *left* after k steps is therefore counted from lag 1, the first state that is passed on:

    left(k) = state(k) / state(1)

and the **gradient horizon** is the number of steps in which left falls to 1%. Where every step shrinks the
gradient by the same factor a, that is ln 0.01 / ln a. Not 1/e: the units of a trained LSTM forget at very
different rates, most of its gradient is lost to the fast ones in a step or two, and 1/e would hide the few
that carry the rest over tens of steps.

Fused layers do not show their inner states to autograd, but a state is an argument and a result of every
direction: the probe runs a direction step by step over a window of the sequence and reads the gradient of
the states between. It uses no random numbers, leaves no gradients, and runs in float32 without dropout.

Source: Bengio, Simard & Frasconi 1994, "Learning long-term dependencies with gradient descent is difficult";
    Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from asr.errors import ModelError
from asr.model.modes import evaluating
from asr.model.recurrent.gates import (
    Saturation,
    gate_values,
    memory_steps,
    recurrent_weights,
    saturation,
    spectral_radius,
)
from asr.model.recurrent.layers import RecurrentStack
from asr.model.recurrent.unidirectional import State, UnidirectionalLayer

HORIZON_SHARE = 0.01  # of the gradient that is left at the horizon
MAX_LAG = 100  # steps; 4 s of speech at 40 ms a step
_UTTERANCES = 4  # at most, the longest of the batch
_WINDOWS = 4  # steps T an utterance


@dataclass(frozen=True)
class Horizon:
    """In how many steps the gradient of a layer's state falls to 1%."""

    layer: int  # counted from 1, the one next to the input
    direction: str  # forwards or backwards
    steps: float  # a lower bound where it was not reached
    reached: bool  # False: it had not fallen so far at the largest lag that was measured

    def __str__(self) -> str:
        return f"{self.steps:.1f}" if self.reached else f"> {self.steps:.0f}"


@dataclass(frozen=True)
class Measurement:
    """What the microscope measures in one direction of one layer."""

    layer: int  # counted from 1, the one next to the input
    direction: str  # forwards or backwards
    h: tuple[float, ...]  # (lags + 1,) mean |dL_T/dh_{T-k}|, nats per token; lag 0 first
    state: tuple[float, ...]  # (lags + 1,) the same for the whole state
    spectral_radius: Mapping[str, float]  # of the recurrent weights, by gate
    saturation: Mapping[str, Saturation]  # by gate
    memory_gate: str | None  # the gate that controls how much memory is kept
    # steps that 10%, 50% and 90% of the units remember at most; None for a cell without such a gate
    memory: tuple[float, float, float] | None

    @property
    def name(self) -> str:
        """Such as "layer 3 forwards"."""
        return f"layer {self.layer} {self.direction}"

    def remaining_fraction(self) -> tuple[float, ...]:
        """(lags,) what is left of the state's gradient after 0, 1, 2, … steps; empty where there is none."""
        if len(self.state) < 2 or not 0 < self.state[1] < math.inf:
            return ()
        return tuple(value / self.state[1] for value in self.state[1:])

    def horizon(self) -> Horizon:
        """The steps after which 1% is left, interpolated between lags on a logarithmic scale."""
        left, goal = self.remaining_fraction(), -math.log(HORIZON_SHARE)
        for steps, value in enumerate(left):
            if not math.isfinite(value):
                return Horizon(self.layer, self.direction, steps - 1, False)
            if value <= HORIZON_SHARE:
                before = -math.log(left[steps - 1])
                after = -math.log(value) if value > 0 else math.inf
                steps_there = steps - 1 + (goal - before) / (after - before)
                return Horizon(self.layer, self.direction, steps_there, True)
        return Horizon(self.layer, self.direction, max(len(left) - 1, 0), False)


def measure_layers(net: nn.Module, loss: Callable[[], Tensor], max_lag: int = MAX_LAG) -> list[Measurement]:
    """Measure every direction of every recurrent layer of a net.

    Args:
        net: holds a `RecurrentStack`, of any cell.
        loss: runs the net on one batch, in float32, and gives () the loss in nats per token. It is called
            once, in evaluation mode.
        max_lag: steps to go back, at most; four fifths of the utterances' length are the limit, so that
            there is more than one step T to start from.

    Returns:
        From the input up, forwards before backwards. Empty where the loss is not finite.

    Raises:
        ModelError: there is no recurrent layer, or one of a cell whose gates have no names.
    """
    # cuDNN differentiates recurrent layers in training mode only, which has dropout.
    with evaluating(net), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        calls, total = _record(net, loss)
        if not total.isfinite():
            return []
        outputs = [call.output for call in calls]
        arriving = torch.autograd.grad(total, outputs, materialize_grads=True)
        del total, outputs  # this frees the graph, the larger part of the memory
        for call in calls:
            call.output = call.output.detach()
        return [
            _measure(call, gradient.float(), max_lag)
            for call, gradient in zip(*_joined(calls, arriving), strict=True)
        ]


@dataclass
class _Call:
    """One run of one direction inside the net, in that direction's order of steps."""

    layer: int
    name: str
    direction: UnidirectionalLayer
    x: Tensor  # (steps, batch, size)
    state: State | None
    output: Tensor  # (steps, batch, width), in the loss's graph
    lengths: Tensor  # (batch,)


def _record(net: nn.Module, loss: Callable[[], Tensor]) -> tuple[list[_Call], Tensor]:
    """Run the loss and record inputs and outputs of every direction."""
    calls: list[_Call] = []
    lengths: list[Tensor] = []  # of the stack that runs
    numbers: dict[nn.Module, int] = {}  # of the layers, in the order in which they run

    def enter(_: nn.Module, arguments: Any) -> None:
        lengths[:] = [arguments[1]]

    def keep(layer: nn.Module, name: str, module: UnidirectionalLayer, arguments: Any, result: Any) -> Any:
        number = numbers.setdefault(layer, len(numbers) + 1)
        state = arguments[1] if len(arguments) > 1 else None
        # A tensor of its own, since the state that is passed on may be a part of the output.
        y = result[0].view_as(result[0])
        if not y.requires_grad:  # all below is frozen
            y.requires_grad_()
        calls.append(_Call(number, name, module, arguments[0].detach(), state, y, lengths[0]))
        return y, result[1]

    with ExitStack() as hooks:
        for stack in net.modules():
            if not isinstance(stack, RecurrentStack):
                continue
            hooks.callback(stack.register_forward_pre_hook(enter).remove)
            for layer in stack.layers:
                for name in ("forwards", "backwards"):
                    direction = getattr(layer, name)
                    if direction is not None:
                        hook = direction.register_forward_hook(partial(keep, layer, name))
                        hooks.callback(hook.remove)
        total = loss()
    if not calls:
        raise ModelError(
            "the gradient microscope found no recurrent layer that runs in this net. Expected a "
            "RecurrentStack. Leave out --train.diagnose-every."
        )
    return calls, total


def _joined(calls: list[_Call], arriving: Sequence[Tensor]) -> tuple[list[_Call], list[Tensor]]:
    """Calls and gradients with those of a direction that ran step by step, as some decoders do, made one.

    What then reaches an output through the input of the next step counts as arriving from above.
    """
    pairs: dict[UnidirectionalLayer, list[tuple[_Call, Tensor]]] = {}
    for call, gradient in zip(calls, arriving, strict=True):
        pairs.setdefault(call.direction, []).append((call, gradient))
    joined, gradients = [], []
    for group in pairs.values():
        call = group[0][0]
        if len(group) > 1:
            call = replace(
                call,
                x=torch.cat([one.x for one, _ in group]),
                state=None if call.state is None else tuple(part.detach() for part in call.state),
                output=torch.cat([one.output for one, _ in group]),
                lengths=torch.full_like(call.lengths, sum(len(one.x) for one, _ in group)),
            )
        joined.append(call)
        gradients.append(torch.cat([gradient for _, gradient in group]))
    return joined, gradients


def _measure(call: _Call, arriving: Tensor, max_lag: int) -> Measurement:
    """One direction, from the gradient (steps, batch, width) that arrives at its outputs."""
    # A copy, whose weights take no part in the graph, and which is without hooks.
    direction = deepcopy(call.direction).requires_grad_(False)
    rows = _longest(call.lengths)
    steps = int(call.lengths[rows].min())
    lags = min(max_lag, max(1, 4 * steps // 5))
    starts = sorted({(steps - lags) * window // (_WINDOWS - 1) for window in range(_WINDOWS)})
    x = call.x[:, rows].float()
    state = None if call.state is None else tuple(part[rows].float() for part in call.state)
    states = _states_before(direction, x, state, starts)
    # Every window becomes a row, so that all run together.
    windows = torch.cat([x[start : start + lags] for start in starts], dim=1)
    injected = torch.cat([arriving[start + lags - 1, rows] for start in starts])
    path = [tuple(torch.cat(parts).requires_grad_() for parts in zip(*states, strict=True))]
    y = windows
    for step in range(lags):
        y, after = direction(windows[step : step + 1], path[-1])
        path.append(after)
    leaves = [part for between in path[:-1] for part in between]
    gradients = torch.autograd.grad(y, leaves, injected.unsqueeze(0))
    norms = torch.stack([gradient.double().norm(dim=-1) for gradient in gradients])
    norms = norms.view(lags, len(path[0]), -1).flip(0)  # (lags, parts of the state, rows), lag 1 first
    at_once = injected.double().norm(dim=-1).mean()
    before = tuple(
        torch.cat([between[part] for between in path[:-1]]).detach() for part in range(len(path[0]))
    )
    gates = gate_values(direction, windows.flatten(0, 1), before)
    memory_gate = next((name for name, gate in gates.items() if gate.retains_memory), None)
    return Measurement(
        layer=call.layer,
        direction=call.name,
        h=(at_once.item(), *norms[:, 0].mean(dim=-1).tolist()),
        state=(at_once.item(), *norms.norm(dim=1).mean(dim=-1).tolist()),
        spectral_radius={
            name: spectral_radius(weight) for name, weight in recurrent_weights(direction).items()
        },
        saturation={name: saturation(gate) for name, gate in gates.items()},
        memory_gate=memory_gate,
        memory=None if memory_gate is None else _quantiles(memory_steps(gates[memory_gate])),
    )


def _longest(lengths: Tensor) -> list[int]:
    """The rows to measure: the longest, and those that are almost as long."""
    order = lengths.argsort(descending=True, stable=True)
    enough = lengths[order] >= 0.7 * lengths.max()
    return [int(row) for row in order[enough][:_UTTERANCES]]


@torch.no_grad()
def _states_before(
    direction: UnidirectionalLayer, x: Tensor, state: State | None, starts: list[int]
) -> list[State]:
    """The state before each of some steps, given the state before the first."""
    if state is None:
        state = direction.initial_state(x)
    states, done = [], 0
    for start in starts:
        if start > done:
            _, state = direction(x[done:start], state)
        states.append(state)
        done = start
    return states


def _quantiles(values: Tensor) -> tuple[float, float, float]:
    """The 10%, 50% and 90% quantiles."""
    low, middle, high = values.quantile(values.new_tensor([0.1, 0.5, 0.9])).tolist()
    return low, middle, high
