import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asr.errors import ModelError
from asr.microscope.measure import Measurement, measure_layers
from asr.model.recurrent.factory import CELL_NAMES
from asr.model.recurrent.layers import RecurrentConfig, RecurrentStack

WIDTH = 4
ONE_WAY = RecurrentConfig(
    cell="rnn", bidirectional=False, width=WIDTH, depth=1, dropout=0.0, layer_norm=False
)


def planted(cell: Any, recurrent: float, **more: Any) -> RecurrentStack:
    """One layer without biases, with recurrent weights of so many times the identity, and 1 for inputs."""
    stack = RecurrentStack(WIDTH, replace(ONE_WAY, cell=cell, **more))
    direction = stack.layers[0].forwards
    with torch.no_grad():
        for name, weight in direction.named_parameters():
            for gate in weight.view(-1, WIDTH, *weight.shape[1:]):
                if name.startswith("bias"):
                    gate.zero_()
                else:
                    gate.copy_((recurrent if "hh" in name else 1.0) * torch.eye(WIDTH))
    return stack


def measure(stack: RecurrentStack, x: Tensor, max_lag: int = 100) -> list[Measurement]:
    """With a loss whose gradient is 1 at every value of every output."""
    steps = torch.full((len(x),), x.shape[1])
    return measure_layers(stack, lambda: stack(x, steps)[0].sum(), max_lag)


def test_vanishing_is_seen_by_hand() -> None:
    """Guards the curve against a hand-made case: with U = 0.5 I and inputs of 0 the Jacobian of every step is
    exactly 0.5 I, so the gradient at lag k is 0.5^k, from |(1, 1, 1, 1)| = 2 on."""
    (layer,) = measure(planted("rnn", 0.5), torch.zeros(2, 60, WIDTH), max_lag=30)
    assert layer.h == pytest.approx([2 * 0.5**lag for lag in range(31)], rel=1e-5)
    assert layer.state == layer.h
    assert layer.remaining_fraction() == pytest.approx([0.5**steps for steps in range(30)], rel=1e-5)
    assert layer.horizon().steps == pytest.approx(math.log(100) / math.log(2), rel=1e-5)
    assert layer.horizon().reached
    assert str(layer.horizon()) == "6.6"


def test_exploding_is_seen_by_hand() -> None:
    """Guards the other direction: U = 1.5 I with activations of 0 grows as 1.5^k, and has no horizon."""
    (layer,) = measure(planted("rnn", 1.5), torch.zeros(1, 60, WIDTH), max_lag=30)
    assert layer.h == pytest.approx([2 * 1.5**lag for lag in range(31)], rel=1e-4)
    assert not layer.horizon().reached
    assert str(layer.horizon()) == "> 29"


def test_derivatives_of_tanh_are_in_the_product() -> None:
    """Guards Pascanu's equation 5 whole: U^k times the product of tanh' at all states on the way."""
    torch.manual_seed(0)
    stack, x = planted("rnn", 0.9), torch.randn(1, 21, WIDTH)
    # Four fifths of 21 steps are 16 lags, and the four T are 15, 16, 18 and 20, counted from 0.
    h, states = torch.zeros(WIDTH), []
    for step in x[0]:
        h = (step + 0.9 * h).tanh()
        states.append(h)
    curves = []
    for last in (15, 16, 18, 20):
        gradient, curve = torch.ones(WIDTH), [2.0]
        for step in range(last, last - 16, -1):
            gradient = 0.9 * (1 - states[step] ** 2) * gradient
            curve.append(gradient.norm().item())
        curves.append(curve)
    (layer,) = measure(stack, x)
    assert layer.h == pytest.approx(torch.tensor(curves).mean(dim=0).tolist(), rel=1e-4)


def test_lstm_with_open_forget_gate_keeps_the_gradient() -> None:
    """Guards against an alarm on the cure: with a forget bias of 20 and no recurrent weights, the memory's
    gradient stays as it is, although h gets none at all beyond lag 0."""
    stack = planted("lstm", 0.0)
    stack.layers[0].forwards.bias_ih_l0.data.view(4, WIDTH)[1] = 20.0
    (layer,) = measure(stack, torch.zeros(1, 60, WIDTH))
    assert layer.remaining_fraction() == pytest.approx([1.0] * 48, rel=1e-5)
    assert layer.h[1:] == (0.0,) * 48
    # At lag 0 the loss meets h = o tanh(c) with o = 1/2 and c = 0: the state behind it gets half.
    assert layer.state[:2] == pytest.approx([2.0, 1.0], rel=1e-5)
    assert layer.memory_gate == "forget"
    assert layer.memory == pytest.approx([1e6] * 3, rel=1e-3)
    assert layer.saturation["forget"].high == 1
    assert layer.saturation["input"] == layer.saturation["output"]
    assert layer.saturation["input"].high == layer.saturation["input"].low == 0


def test_gates_by_hand() -> None:
    """Guards what the gates are computed from: a GRU whose update gate is at logit(0.8) remembers 5 steps."""
    stack = planted("gru", 0.0)
    stack.layers[0].forwards.bias_ih_l0.data.view(3, WIDTH)[1] = math.log(0.8 / 0.2)
    (layer,) = measure(stack, torch.zeros(1, 40, WIDTH))
    assert layer.memory_gate == "update"
    assert layer.memory == pytest.approx([5.0] * 3, rel=1e-5)
    assert layer.remaining_fraction() == pytest.approx([0.8**steps for steps in range(32)], rel=1e-4)
    assert layer.horizon().steps == pytest.approx(math.log(0.01) / math.log(0.8), rel=1e-4)


def random_stack(cell: str, **more: Any) -> RecurrentStack:
    torch.manual_seed(0)
    config = RecurrentConfig(cell=cell, width=6, depth=2, dropout=0.3, **more)  # type: ignore[arg-type]
    return RecurrentStack(5, config)


def whole_jacobian(direction: nn.Module, x: Tensor, arriving: Tensor, last: int, lag: int) -> float:
    """|dL_T/ds_{T-lag}| of one utterance, with the sequence cut in two instead of run step by step."""
    with torch.no_grad():
        _, state = direction(x[: last - lag + 1])
    cut = tuple(part.clone().requires_grad_() for part in state)
    y, _ = direction(x[last - lag + 1 : last + 1], cut)
    gradients = torch.autograd.grad(y[-1], cut, arriving[last].expand_as(y[-1]))
    return math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_stacked_and_both_directions(cell: str) -> None:
    """Guards whose gradient is injected where: in a bidirectional stack, each direction's curve is its own
    path through time from what arrives at its own output, its own order of steps included."""
    stack = random_stack(cell)
    x, lengths = torch.randn(3, 20, 5), torch.tensor([20, 20, 20])
    weights = torch.randn(3, 20, stack.config.output_size)

    captured: dict[str, Any] = {}
    hooks = []
    for number, layer in enumerate(stack.layers, start=1):
        for name in ("forwards", "backwards"):

            def keep(_: nn.Module, arguments: Any, result: Any, key: str = f"layer {number} {name}") -> None:
                result[0].retain_grad()
                captured[key] = (arguments[0].detach(), result[0])

            hooks.append(getattr(layer, name).register_forward_hook(keep))
    stack.eval()
    (stack(x, lengths)[0] * weights).sum().backward()
    for hook in hooks:
        hook.remove()

    seen = measure_layers(stack, lambda: (stack(x, lengths)[0] * weights).sum(), max_lag=10)
    assert [layer.name for layer in seen] == list(captured)
    for layer in seen:
        inputs, y = captured[layer.name]
        direction = getattr(stack.layers[layer.layer - 1], layer.direction)
        for lag in (1, 4, 10):
            expected = [
                whole_jacobian(direction, inputs[:, row : row + 1], y.grad[:, row : row + 1], last, lag)
                for last in (9, 12, 15, 19)  # the ends of the four windows
                for row in range(3)
                if last - lag + 1 > 0
            ]
            if lag < 10:  # at lag 10 the first window reaches back to before the first step
                assert layer.state[lag] == pytest.approx(sum(expected) / len(expected), rel=1e-3)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_nothing_is_changed(cell: str) -> None:
    """Guards training: no draw, no gradient, no changed weight or mode, and no hook left behind."""
    stack = random_stack(cell, recurrent_dropout=0.2).train()
    stack.norms[1].eval()  # a part that somebody froze
    before = {name: weight.clone() for name, weight in stack.state_dict().items()}
    generator = torch.get_rng_state()
    first = measure(stack, torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(weight.grad is None and weight.requires_grad for weight in stack.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in stack.state_dict().items())
    assert stack.training
    assert not stack.norms[1].training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in stack.modules())
    again = measure(stack, torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(1)))
    assert first == again  # dropout would differ


def test_inside_inference_it_works_too() -> None:
    """Guards a call from a place where gradients are switched off, such as a validation."""
    with torch.no_grad():
        assert measure(planted("rnn", 0.5), torch.zeros(1, 10, WIDTH))[0].h[1] == pytest.approx(1.0)


def test_frozen_layers_are_seen() -> None:
    """Guards a warm start with a frozen encoder: its outputs need no gradient, the microscope's do."""
    stack = random_stack("gru").requires_grad_(False)
    seen = measure(stack, torch.randn(2, 12, 5))
    assert len(seen) == 4
    assert all(layer.h[0] > 0 for layer in seen)
    assert not any(weight.requires_grad for weight in stack.parameters())


def test_carried_state_is_the_start() -> None:
    """Guards language models with a carried state: the first window begins from it, not from zeros."""
    stack = planted("rnn", 1.0)
    x, lengths = torch.zeros(1, 5, WIDTH), torch.tensor([5])
    carried = [(torch.full((1, WIDTH), 2.0),)]
    (zero,) = measure_layers(stack, lambda: stack(x, lengths)[0].sum())
    (layer,) = measure_layers(stack, lambda: stack(x, lengths, carried)[0].sum())
    assert zero.h == pytest.approx([2.0] * 5)
    assert all(later < earlier for earlier, later in pairwise(layer.h))  # tanh' is below 1


def test_short_and_mixed_lengths() -> None:
    """Guards the edges: one step only; and that neither padding nor much shorter utterances are looked at."""
    (layer,) = measure(planted("rnn", 0.5), torch.zeros(1, 1, WIDTH))
    assert layer.h == pytest.approx([2.0, 1.0])
    assert not layer.horizon().reached
    x = torch.zeros(3, 40, WIDTH)
    x[1, 30:] = math.nan
    x[2, 5:] = math.nan
    stack, lengths = planted("rnn", 0.5), torch.tensor([40, 30, 5])
    (layer,) = measure_layers(stack, lambda: stack(x, lengths)[0].nan_to_num().sum())
    assert len(layer.h) == 1 + 4 * 30 // 5
    assert all(map(math.isfinite, layer.h))


def test_loss_that_is_not_finite_gives_no_measurement() -> None:
    """Guards the numbers of a bad batch, which would say nothing about the net."""
    stack = planted("rnn", 0.5)
    assert (
        measure_layers(stack, lambda: stack(torch.zeros(1, 3, WIDTH), torch.tensor([3]))[0].sum() / 0) == []
    )


def test_no_gradient_at_all() -> None:
    """Guards a division by 0 where nothing arrives: there is no curve of what is left, and no horizon."""
    stack = planted("rnn", 0.5)
    (layer,) = measure_layers(stack, lambda: 0 * stack(torch.zeros(1, 9, WIDTH), torch.tensor([9]))[0].sum())
    assert layer.remaining_fraction() == ()
    assert not layer.horizon().reached
    assert layer.horizon().steps == 0


def test_net_without_recurrent_layers() -> None:
    """Guards the message: an empty report would look like a healthy net."""
    net = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"found no recurrent layer"):
        measure_layers(net, lambda: net(torch.zeros(1, 2)).sum())
