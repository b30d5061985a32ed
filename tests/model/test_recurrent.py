"""Recurrent layers: equal to torch's packed ones, deaf to padding, and exact in blocks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.errors import SettingsError
from asr.model.recurrent import (
    Cell,
    RecurrentConfig,
    RecurrentLayer,
    RecurrentStack,
    locked_dropout,
    reversal,
    reverse,
)

CELLS: dict[Cell, type[nn.RNN | nn.GRU | nn.LSTM]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
LENGTHS = torch.tensor([9, 1, 17, 6, 17, 2])
CONFIG = RecurrentConfig(width=6, depth=3, dropout=0.0)


def batch(lengths: Tensor, size: int, padding: float = 0.0, seed: int = 0) -> Tensor:
    """(batch, steps, size) float64 noise, `padding` beyond each length."""
    x = torch.randn(
        len(lengths), int(lengths.max()), size, generator=torch.Generator().manual_seed(seed)
    ).double()
    x[~valid(lengths)] = padding
    return x


def valid(lengths: Tensor) -> Tensor:
    return torch.arange(int(lengths.max())) < lengths.unsqueeze(1)


def make_stack(config: RecurrentConfig, input_size: int = 5) -> RecurrentStack:
    """A stack whose weights are all random, biases and norms too, so that none can be left out unnoticed."""
    stack = RecurrentStack(input_size, config).double()
    generator = torch.Generator().manual_seed(1)
    for weight in stack.parameters():
        weight.data = torch.randn(weight.shape, generator=generator).double() * 0.4
    return stack


# ------------------------------------------------------------------------------------- the padded-reversed
# layer


@pytest.mark.parametrize("cell", CELLS)
def test_equals_torchs_packed_layer(cell: Cell) -> None:
    """Guards the claim that the speed rests on: outputs, input gradients and weight gradients of the padded,
    reversed layer are those of torch's bidirectional layer over packed sequences."""
    ours = RecurrentLayer(cell, 5, 6, bidirectional=True).double()
    theirs = CELLS[cell](5, 6, bidirectional=True, batch_first=True).double()
    ours.forwards.load_state_dict({k: v for k, v in theirs.state_dict().items() if "reverse" not in k})
    assert ours.backwards is not None
    ours.backwards.load_state_dict(
        {k[: -len("_reverse")]: v for k, v in theirs.state_dict().items() if "reverse" in k}
    )

    x_ours = batch(LENGTHS, 5, padding=1e6).requires_grad_()
    x_theirs = batch(LENGTHS, 5).requires_grad_()
    y_ours = ours(x_ours.transpose(0, 1), LENGTHS)[0].transpose(0, 1)
    packed = pack_padded_sequence(x_theirs, LENGTHS, batch_first=True, enforce_sorted=False)
    y_theirs, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    mask = valid(LENGTHS)
    torch.testing.assert_close(y_ours[mask], y_theirs[mask], rtol=1e-12, atol=1e-12)

    weights = torch.randn(y_theirs[mask].shape, generator=torch.Generator().manual_seed(2)).double()
    (y_ours[mask] * weights).sum().backward()
    (y_theirs[mask] * weights).sum().backward()
    assert x_ours.grad is not None
    assert x_theirs.grad is not None
    torch.testing.assert_close(x_ours.grad[mask], x_theirs.grad[mask], rtol=1e-11, atol=1e-12)
    assert (x_ours.grad[~mask] == 0).all()
    gradients = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, weight in ours.forwards.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-11, atol=1e-11)
    for name, weight in ours.backwards.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[f"{name}_reverse"], rtol=1e-11, atol=1e-11)


def test_reversal_by_hand() -> None:
    """Guards the order: each utterance by its own length, padding where it was, twice is the identity."""
    x = torch.tensor([[1, 5, 8], [2, 6, 0], [3, 0, 0], [4, 0, 0]]).unsqueeze(2)  # (steps, batch, 1)
    order = reversal(torch.tensor([4, 2, 1]), 4)
    expected = torch.tensor([[4, 6, 8], [3, 5, 0], [2, 0, 0], [1, 0, 0]]).unsqueeze(2)
    assert torch.equal(reverse(x, order), expected)
    assert torch.equal(reverse(expected, order), x)
    assert torch.equal(reverse(x, reversal(torch.tensor([0, 0, 0]), 4)), x)


def test_gradient_of_reverse() -> None:
    """Guards the hand-written gradient, the second one too, against finite differences."""
    order = reversal(torch.tensor([4, 2, 1]), 4)
    x = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scale = torch.arange(24, dtype=torch.float64).view(4, 3, 2)
    assert torch.autograd.gradcheck(lambda t: reverse(t, order) * scale, (x,))
    assert torch.autograd.gradgradcheck(lambda t: reverse(t, order).square() * scale, (x,))


# -------------------------------------------------------------------------------------------------------
# stacks

STACKS = {
    f"{cell}-{'both' if both else 'one'}-{option}": replace(CONFIG, cell=cell, bidirectional=both, **settings)
    for cell in CELLS
    for both in (True, False)
    for option, settings in {
        "plain": {"layer_norm": False},
        "norm": {"layer_norm": True},
        "all": {"layer_norm": True, "residual": True, "projection": 5},
    }.items()
}


@pytest.mark.parametrize("name", STACKS)
def test_padding_is_never_heard(name: str) -> None:
    """Guards against padding that reaches valid steps, or gradients that come out of it: an utterance
    alone and in a batch, whose padding is full of 1e6, gives the same."""
    stack = make_stack(STACKS[name])
    x = batch(LENGTHS, 5, padding=1e6).requires_grad_()
    y, _ = stack(x, LENGTHS)
    mask = valid(LENGTHS)
    y[mask].square().sum().backward()
    assert x.grad is not None
    assert (x.grad[~mask] == 0).all()
    together = [weight.grad.clone() for weight in stack.parameters() if weight.grad is not None]
    stack.zero_grad()
    for row, length in enumerate(LENGTHS.tolist()):
        alone = x.detach()[row : row + 1, :length].requires_grad_()
        y_alone, _ = stack(alone, LENGTHS[row : row + 1])
        torch.testing.assert_close(y[row : row + 1, :length], y_alone, rtol=1e-11, atol=1e-12)
        y_alone.square().sum().backward()
        torch.testing.assert_close(x.grad[row : row + 1, :length], alone.grad, rtol=1e-10, atol=1e-10)
    for weight, gradient in zip(stack.parameters(), together, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in STACKS if "-one-" in name])
@pytest.mark.parametrize("block", [1, 4, 20])
def test_blocks_equal_the_whole(name: str, block: int) -> None:
    """Guards streaming: carried states make blocks give the same numbers as the whole sequence."""
    stack = make_stack(STACKS[name]).eval()
    lengths = torch.tensor([20, 20])
    x = batch(lengths, 5)
    whole, last = stack(x, lengths)
    states, parts = None, []
    for part in x.split(block, dim=1):
        y, states = stack(part, torch.tensor([part.shape[1]] * 2), states)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-11, atol=1e-12)
    assert len(last) == stack.config.depth
    for state, expected in zip(states, last, strict=True):
        assert len(state) == (2 if stack.config.cell == "lstm" else 1)
        for ours, theirs in zip(state, expected, strict=True):
            assert ours.shape == (2, 6)
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_no_state_for_both_directions(cell: Cell) -> None:
    """Guards against streaming through a bidirectional model, whose backward half would start anew in
    silence."""
    stack = make_stack(replace(CONFIG, cell=cell))
    x, lengths = batch(LENGTHS, 5), LENGTHS
    _, states = stack(x, lengths)
    with pytest.raises(
        SettingsError, match=r"bidirectional layer cannot continue from a state.*no-bidirectional"
    ):
        stack(x, lengths, states)


@pytest.mark.parametrize(
    ("settings", "sizes", "output"),
    [
        ({}, [12, 12, 12], 12),
        ({"bidirectional": False}, [6, 6, 6], 6),
        ({"projection": 4}, [4, 4, 4], 4),
        ({"projection": 4, "bidirectional": False}, [4, 4, 4], 4),
    ],
)
def test_sizes(settings: dict[str, Any], sizes: list[int], output: int) -> None:
    """Guards output_size, which the layer behind relies on, for every combination of the options."""
    config = replace(CONFIG, **settings)
    stack = make_stack(config)
    assert config.output_size == output
    assert [layer.forwards.input_size for layer in stack.layers] == [5, *sizes[:-1]]
    y, _ = stack(batch(LENGTHS, 5), LENGTHS)
    assert y.shape == (6, 17, output)


def test_residual_by_hand() -> None:
    """Guards where the residual goes: around layer norm, layer and projection, only where sizes agree."""
    lengths = torch.tensor([4])
    config = replace(CONFIG, depth=2, projection=5, residual=True)
    stack = make_stack(config)
    x = batch(lengths, 5)
    expected = x
    for norm, layer, projection in zip(stack.norms, stack.layers, stack.projections, strict=True):
        y = layer(norm(expected).transpose(0, 1), lengths)[0].transpose(0, 1)
        expected = projection(y) + expected
    torch.testing.assert_close(stack(x, lengths)[0], expected, rtol=1e-12, atol=1e-12)
    # 7 values in, 5 out: the first layer has no residual, the second has
    unequal, equal = (
        make_stack(config, input_size=7),
        make_stack(replace(config, residual=False), input_size=7),
    )
    wide = batch(lengths, 7)
    first = make_stack(replace(config, depth=1), input_size=7)
    first.load_state_dict({k: v for k, v in unequal.state_dict().items() if ".1." not in k})
    difference = unequal(wide, lengths)[0] - equal(wide, lengths)[0]
    torch.testing.assert_close(difference, first(wide, lengths)[0], rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------------- initialisation and
# dropout


@pytest.mark.parametrize("cell", CELLS)
def test_initialisation(cell: Cell) -> None:
    """Guards each gate's own orthogonal matrix, and a forget gate that torch's two biases would open
    twice."""
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 7, 16, bidirectional=True)
    assert layer.backwards is not None
    for direction in (layer.forwards, layer.backwards):
        for gate in direction.weight_hh_l0.chunk({"rnn": 1, "gru": 3, "lstm": 4}[cell]):
            torch.testing.assert_close(gate @ gate.T, torch.eye(16), rtol=0, atol=1e-5)
        bound = (6 / (7 + 16)) ** 0.5
        assert 0.9 * bound < float(direction.weight_ih_l0.detach().abs().max()) <= bound
        bias = direction.bias_ih_l0 + direction.bias_hh_l0
        expected = torch.zeros(len(bias))
        if cell == "lstm":
            expected[16:32] = 1
        assert torch.equal(bias, expected)
    assert not torch.equal(layer.forwards.weight_hh_l0, layer.backwards.weight_hh_l0)


def test_forget_gate_is_the_second() -> None:
    """Guards the order of torch's gates: with zero weights and inputs, the cell keeps sigmoid(1) of
    itself."""
    layer = RecurrentLayer("lstm", 1, 2, bidirectional=False)
    for name, weight in layer.named_parameters():
        if "weight" in name:
            nn.init.zeros_(weight)
    _, (_, c) = layer(torch.zeros(1, 1, 1), torch.tensor([1]), (torch.zeros(1, 2), torch.ones(1, 2)))
    torch.testing.assert_close(c, torch.full((1, 2), torch.tensor(1.0).sigmoid().item()))


def test_locked_dropout() -> None:
    """Guards one mask for all steps, another for each utterance, the right scale, and nothing in
    evaluation."""
    torch.manual_seed(0)
    x = torch.ones(11, 40, 50)
    y = locked_dropout(x, 0.3, training=True)
    assert (y == y[:1]).all()
    assert not torch.equal(y[0, 0], y[0, 1])
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=4 * (0.21 / 2000) ** 0.5)
    assert locked_dropout(x, 0.3, training=False) is x
    assert locked_dropout(x, 0.0, training=True) is x


def test_dropout_between_layers_only() -> None:
    """Guards where dropout acts: not on the first layer's input, not on the last layer's output, not in
    evaluation."""
    lengths = torch.tensor([5, 5])
    x = batch(lengths, 5)
    single = make_stack(replace(CONFIG, depth=1, dropout=0.5)).train()
    assert torch.equal(single(x, lengths)[0], single(x, lengths)[0])
    deep = make_stack(replace(CONFIG, depth=2, dropout=0.5)).train()
    torch.manual_seed(0)
    assert not torch.equal(deep(x, lengths)[0], deep(x, lengths)[0])
    assert (deep(x, lengths)[0] != 0).all()
    deep.eval()
    assert torch.equal(deep(x, lengths)[0], deep(x, lengths)[0])


# ------------------------------------------------------------------------------------------------------
# settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "sru"}, "model.cell must be one of rnn, gru, lstm. Got 'sru'"),
        ({"width": 0}, "model.width must be at least 1. Got 0"),
        ({"depth": 0}, "model.depth must be at least 1. Got 0"),
        ({"projection": -1}, "model.projection must be at least 0. Got -1"),
        ({"dropout": 1.0}, r"model.dropout must be in \[0, 1\). Got 1"),
        ({"dropout": -0.1}, r"model.dropout must be in \[0, 1\). Got -0.1"),
        ({"dropout": float("nan")}, r"model.dropout must be in \[0, 1\). Got nan"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """Guards ranges; the message names the key that the user types."""
    with pytest.raises(SettingsError, match=message):
        RecurrentConfig(**settings)
