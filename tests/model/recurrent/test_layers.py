"""Recurrent layers: equal to torch's packed ones, deaf to padding, and exact in blocks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.errors import SettingsError
from asr.model.recurrent.cells import Elman, Gru, LiGru, Lstm
from asr.model.recurrent.factory import CELL_NAMES, Cell
from asr.model.recurrent.layers import (
    RecurrentConfig,
    RecurrentLayer,
    RecurrentStack,
    locked_dropout,
    reversal,
    reverse,
)
from asr.model.recurrent.unidirectional import UnidirectionalLayer

PACKED: dict[Cell, tuple[type[torch.nn.RNNBase], dict[str, Any]]] = {
    "rnn": (torch.nn.RNN, {}),
    "rnn-relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
    "gru": (torch.nn.GRU, {}),
    "lstm": (torch.nn.LSTM, {}),
}
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


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The implementations that directions run, in order: fused, cpu_scan or loop."""
    taken: list[str] = []

    def record(kind: type[UnidirectionalLayer], name: str) -> None:
        original = getattr(kind, name)

        def recorded(self: UnidirectionalLayer, *arguments: Any) -> Any:
            taken.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(kind, name, recorded)

    for kind in (UnidirectionalLayer, Elman, Gru, LiGru, Lstm):
        for name in ("fused", "cpu_scan", "loop"):
            if name in vars(kind):
                record(kind, name)
    return taken


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("cell", "projection"), [*((cell, 0) for cell in PACKED), ("lstm", 3)])
def test_equals_torchs_packed_layer(
    cell: Cell, projection: int, dtype: torch.dtype, paths: list[str]
) -> None:
    """Guards the claim that the speed rests on: outputs, input gradients and weight gradients of the padded,
    reversed layer are those of torch's bidirectional layer over packed sequences. float32 is what trainings
    run in, and takes another way for LSTMs than float64: torch's fused layer."""
    kind, options = PACKED[cell]
    ours = RecurrentLayer(5, replace(CONFIG, cell=cell, projection=projection)).to(dtype)
    options = {**options, "proj_size": projection} if projection else options
    theirs = kind(5, 6, bidirectional=True, batch_first=True, **options).to(dtype)
    near = {"rtol": 1e-11, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    ours.forwards.load_state_dict({k: v for k, v in theirs.state_dict().items() if "reverse" not in k})
    assert ours.backwards is not None
    ours.backwards.load_state_dict(
        {k[: -len("_reverse")]: v for k, v in theirs.state_dict().items() if "reverse" in k}
    )

    x_ours = batch(LENGTHS, 5, padding=1e6).to(dtype).requires_grad_()
    x_theirs = batch(LENGTHS, 5).to(dtype).requires_grad_()
    y_ours = ours(x_ours.transpose(0, 1), reversal(LENGTHS, 17))[0].transpose(0, 1)
    packed = pack_padded_sequence(x_theirs, LENGTHS, batch_first=True, enforce_sorted=False)
    y_theirs, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    mask = valid(LENGTHS)
    torch.testing.assert_close(y_ours[mask], y_theirs[mask], **near)
    fused = (
        cell == "lstm" and not projection and dtype == torch.float32 and torch.backends.mkldnn.is_available()
    )
    assert paths == ["fused" if fused else "cpu_scan"] * 2

    weights = torch.randn(y_theirs[mask].shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    (y_ours[mask] * weights).sum().backward()
    (y_theirs[mask] * weights).sum().backward()
    assert x_ours.grad is not None
    assert x_theirs.grad is not None
    torch.testing.assert_close(x_ours.grad[mask], x_theirs.grad[mask], **near)
    assert (x_ours.grad[~mask] == 0).all()
    gradients = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, weight in ours.forwards.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], **near)
    for name, weight in ours.backwards.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[f"{name}_reverse"], **near)


def test_directions_on_two_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the arrangement of a GPU, as far as a CPU can: the second direction does not need the first."""
    layer = RecurrentLayer(5, CONFIG).double()
    x, order = batch(LENGTHS, 5).transpose(0, 1), reversal(LENGTHS, 17)
    expected, (h, c) = layer(x, order)
    assert layer.arrangement(x) == "in-turn"
    calls = []

    def second_first(first: Any, second: Any, shared: Any, device: torch.device) -> Any:
        assert [id(tensor) for tensor in shared] == [id(x), id(order)]
        calls.append(device)
        result = second()
        return first(), result

    monkeypatch.setattr("asr.model.recurrent.layers.on_two_streams", second_first)
    monkeypatch.setattr(RecurrentLayer, "arrangement", lambda *_: "two-streams")
    y, last = layer(x, order)
    assert calls == [torch.device("cpu")]
    torch.testing.assert_close((y, *last), (expected, h, c), rtol=0, atol=0)


@pytest.mark.parametrize("both", [True, False])
def test_rows_of_padding_change_nothing(both: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the rows that cuDNN's persistent kernels want: outputs, final states and gradients are those
    without them, and nobody sees them."""
    stack = make_stack(replace(CONFIG, bidirectional=both, residual=True, bottleneck=5))
    x = batch(LENGTHS, 5)
    results = []
    for rows in (None, 8):
        monkeypatch.setattr(RecurrentLayer, "persistent_rows", lambda *_, rows=rows: rows)
        stack.zero_grad()
        y, states = stack(x, LENGTHS)
        final = stack.final_states(x, LENGTHS)
        (y[valid(LENGTHS)].square().sum() + final.square().sum()).backward()
        gradients = [weight.grad for weight in stack.parameters()]
        results.append((y[valid(LENGTHS)], final, *(part for state in states for part in state), *gradients))
    torch.testing.assert_close(results[1], results[0], rtol=1e-11, atol=1e-11)


def test_blocks_get_no_rows_of_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards streaming: states that an earlier block has left fit the batch."""
    stack = make_stack(replace(CONFIG, bidirectional=False))
    monkeypatch.setattr(RecurrentLayer, "persistent_rows", lambda *_: 8)
    x = batch(torch.tensor([6, 6]), 5)
    whole, _ = stack(x, torch.tensor([6, 6]))
    first, states = stack(x[:, :4], torch.tensor([4, 4]))
    second, _ = stack(x[:, 4:], torch.tensor([2, 2]), states)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, rtol=1e-12, atol=1e-12)


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
    for cell in CELL_NAMES
    for both in (True, False)
    for option, settings in {
        "plain": {"layer_norm": False},
        "norm": {"layer_norm": True},
        "all": {"residual": True, "bottleneck": 5, "projection": 4 if cell.startswith("lstm") else 0},
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
        widths = [stack.config.projection or 6, 6] if stack.config.cell.startswith("lstm") else [6]
        for ours, theirs, width in zip(state, expected, widths, strict=True):
            assert ours.shape == (2, width)
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in STACKS if "-one-" in name])
def test_a_block_without_steps_changes_nothing(name: str) -> None:
    """Guards a stream that has nothing new for a while: no output, the same state, from the start as well."""
    stack = make_stack(STACKS[name]).eval()
    lengths = torch.tensor([4, 4])
    x = batch(lengths, 5)
    nothing, none = x[:, :0], torch.tensor([0, 0])
    y, states = stack(nothing, none)
    assert y.shape == (2, 0, stack.config.output_size)
    _, states = stack(x, lengths, states)
    torch.testing.assert_close(states, stack(x, lengths)[1], rtol=0, atol=0)
    _, after = stack(nothing, none, states)
    torch.testing.assert_close(after, states, rtol=0, atol=0)


@pytest.mark.parametrize("cell", CELL_NAMES)
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
        ({"bottleneck": 4}, [4, 4, 4], 4),
        ({"bottleneck": 4, "bidirectional": False}, [4, 4, 4], 4),
        ({"projection": 4}, [8, 8, 8], 8),
        ({"projection": 4, "bidirectional": False}, [4, 4, 4], 4),
        ({"projection": 4, "bottleneck": 3}, [3, 3, 3], 3),
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
    """Guards where the residual goes: around layer norm, layer and bottleneck, only where sizes agree."""
    lengths = torch.tensor([4])
    config = replace(CONFIG, depth=2, bottleneck=5, residual=True)
    stack = make_stack(config)
    x = batch(lengths, 5)
    expected = x
    for norm, layer, bottleneck in zip(stack.norms, stack.layers, stack.bottlenecks, strict=True):
        y = layer(norm(expected).transpose(0, 1))[0].transpose(0, 1)
        expected = bottleneck(y) + expected
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


# -------------------------------------------------------------------------------------------- final states


@pytest.mark.parametrize("name", STACKS)
def test_final_states(name: str) -> None:
    """Guards classification against padding: each direction's state is the one of the utterance's own end,
    and for the forward half the very state that streaming would carry on."""
    stack = make_stack(STACKS[name]).eval()
    x = batch(LENGTHS, 5, padding=1e6)
    final = stack.final_states(x, LENGTHS)
    assert final.shape == (6, stack.config.hidden_size)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, lengths = x[row : row + 1, :length], LENGTHS[row : row + 1]
        torch.testing.assert_close(final[row : row + 1], stack.final_states(alone, lengths))
        if not stack.config.bidirectional:
            torch.testing.assert_close(final[row : row + 1], stack(alone, lengths)[1][-1][0])
    if stack.config.bidirectional and "plain" in name:
        y, _ = stack(x, LENGTHS)
        half = stack.config.hidden_size // 2
        torch.testing.assert_close(final[:, :half], y[torch.arange(6), LENGTHS - 1, :half])
        torch.testing.assert_close(final[:, half:], y[:, 0, half:])


def test_final_state_of_nothing() -> None:
    """Guards an utterance without steps against the state of another's padding."""
    stack = make_stack(CONFIG).eval()
    final = stack.final_states(torch.ones(2, 3, 5).double(), torch.tensor([3, 0]))
    assert (final[1] == 0).all()
    assert (final[0] != 0).all()


# ------------------------------------------------------------------------------------------------- dropout


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
        (
            {"cell": "sru"},
            "--model.cell must be one of rnn, rnn-relu, gru, ligru, lstm, lstm-peephole. Got 'sru'",
        ),
        ({"width": 0}, "--model.width must be at least 1. Got 0"),
        ({"depth": 0}, "--model.depth must be at least 1. Got 0"),
        ({"width": -3}, "--model.width must be at least 1. Got -3"),
        ({"projection": -1}, "--model.projection must be at least 0. Got -1"),
        ({"bottleneck": -1}, "--model.bottleneck must be at least 0. Got -1"),
        ({"projection": 300}, "--model.projection larger than width: 300 > 256.*at most --model.width"),
        (
            {"projection": 9, "cell": "gru"},
            "--model.projection is 9, but a gru cell has no .* --model.bottleneck",
        ),
        ({"recurrent_dropout": 1.0}, r"--model.recurrent-dropout must be in \[0, 1\). Got 1"),
        ({"dropout": 1.0}, r"--model.dropout must be in \[0, 1\). Got 1"),
        ({"dropout": -0.1}, r"--model.dropout must be in \[0, 1\). Got -0.1"),
        ({"dropout": float("nan")}, r"--model.dropout must be in \[0, 1\). Got nan"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """Guards ranges; the message names the key that the user types."""
    with pytest.raises(SettingsError, match=message):
        RecurrentConfig(**settings)
