"""The encoder-decoder: its equations against a plain loop, padding, gradients, and its two ways to run."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from asr.errors import ModelError, SettingsError
from asr.model.recurrent.layers import LayerConfig
from asr.model.recurrent_decoder import END
from asr.model.sequence.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

SOURCES, TARGETS = ("a", "b", "c"), ("X", "Y")
LSTM = LayerConfig(layer_norm=False)
KINDS = {
    "none": EncoderDecoderConfig(attention="none"),
    "additive": EncoderDecoderConfig(attention="additive"),
    "dot": EncoderDecoderConfig(attention="dot"),
    "dot fed": EncoderDecoderConfig(attention="dot", input_feeding=True),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only the test of gradients has some."""
    with torch.set_grad_enabled("gradients" in request.node.name):
        yield


def make(kind: str, **changes: object) -> EncoderDecoder:
    torch.manual_seed(1)
    small = {"width": 5, "embedding": 3, "dropout": 0.0, "layers": LSTM, **changes}
    return EncoderDecoder(SOURCES, TARGETS, replace(KINDS[kind], **small)).double().eval()


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three pairs of different lengths, one target empty."""
    source = torch.tensor([[1, 2, 3, 2], [3, 1, 0, 0], [2, 0, 0, 0]])
    target = torch.tensor([[2, 1, 1], [1, 2, 0], [0, 0, 0]])
    return source, torch.tensor([4, 2, 1]), target, torch.tensor([3, 2, 0])


def plain_log_probs(net: EncoderDecoder, source: list[int], target: list[int]) -> Tensor:
    """(steps, symbols + 1) of one pair, by torch's own LSTM layers and the papers' equations, one by one."""
    config, size = net.config, net.config.width

    def torch_lstm(direction: nn.Module, inputs: int) -> nn.LSTMCell:
        cell = nn.LSTMCell(inputs, size).double()
        cell.load_state_dict({
            name.removesuffix("_l0"): value for name, value in direction.state_dict().items()
        })  # fmt: skip
        return cell

    embedded = net.source_embedding.weight[torch.tensor(source)]
    halves = []
    for direction, order in ((net.encoder.layers[0].forwards, 1), (net.encoder.layers[0].backwards, -1)):
        cell, state, rows = torch_lstm(direction, config.embedding), None, []
        for row in embedded.flip(0) if order < 0 else embedded:
            state = cell(row.unsqueeze(0), state)
            rows.append(state[0][0])
        halves.append(torch.stack(rows[::order]))
    memory = torch.cat(halves, 1)
    summary = (net.summary.weight @ torch.cat([memory[-1], memory[0]]) + net.summary.bias).tanh()
    h, c = (net.bridge.weight @ summary + net.bridge.bias).tanh().split(size)
    cell = torch_lstm(net.decoder.layers[0].forwards, net.decoder.layers[0].forwards.input_size)
    made, results = torch.zeros(size, dtype=torch.float64), []
    for symbol in [END, *target]:
        x = net.target_embedding.weight[symbol]
        if config.attention == "none":
            x = torch.cat([x, summary])
        if config.attention == "additive":
            attention = net.attention
            query = attention.query.weight @ h + attention.query.bias
            scores = [attention.comparison @ (attention.key.weight @ row + query).tanh() for row in memory]
            context = torch.stack(scores).softmax(0) @ memory
            x = torch.cat([x, context])
        if config.input_feeding:
            x = torch.cat([x, made])
        h, c = (part[0] for part in cell(x.unsqueeze(0), (h.unsqueeze(0), c.unsqueeze(0))))
        if config.attention == "dot":
            scores = [h @ net.attention.key.weight @ row for row in memory]
            context = torch.stack(scores).softmax(0) @ memory
        if config.attention == "none":
            context = summary
        made = (net.combination.weight @ torch.cat([h, context]) + net.combination.bias).tanh()
        results.append((net.output.weight @ made + net.output.bias).log_softmax(0))
    return torch.stack(results)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_equations(kind: str) -> None:
    """Guards every term of the papers' equations, in a batch with padding, against one word at a time."""
    net = make(kind)
    source, lengths, target, target_lengths = batch()
    log_probs = net(source, lengths, target, target_lengths)
    losses = net.losses(source, lengths, target, target_lengths)
    for row in range(3):
        symbols = target[row, : target_lengths[row]].tolist()
        expected = plain_log_probs(net, source[row, : lengths[row]].tolist(), symbols)
        torch.testing.assert_close(log_probs[row, : len(expected)], expected)
        total = -sum(expected[step, symbol] for step, symbol in enumerate([*symbols, END]))
        torch.testing.assert_close(losses[row], total)


@pytest.mark.parametrize("cell", ["rnn", "rnn-relu", "gru", "ligru", "lstm", "lstm-peephole"])
@pytest.mark.parametrize("kind", ["none", "additive", "dot"])
def test_steps_equal_all_at_once_for_every_cell(kind: str, cell: str) -> None:
    """Guards the state between calls: symbol by symbol, as a search goes, gives the log-probabilities of the
    pass over given outputs; padding and the other rows change nothing."""
    layers = replace(LSTM, cell=cell, layer_norm=True, residual=True, bottleneck=4,
                     projection=3 if cell.startswith("lstm") else 0)  # fmt: skip
    net = make(kind, layers=layers, depth=2, decoder_depth=2)
    source, lengths, target, target_lengths = batch()
    whole = net(source, lengths, target, target_lengths)
    for row in range(3):
        encoded = net.encode(source[row : row + 1, : lengths[row]], lengths[row : row + 1])
        state = net.initial_state(encoded)
        for step, symbol in enumerate([END, *target[row, : target_lengths[row]].tolist()]):
            log_probs, state, weights = net.step(encoded, state, torch.tensor([symbol]))
            torch.testing.assert_close(log_probs[0], whole[row, step])
            assert float(weights.sum()) == pytest.approx(0 if kind == "none" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    """Guards the backward pass in float64, with respect to every weight, against finite differences."""
    net = make(kind, width=2, embedding=2)
    source, lengths, target, target_lengths = (part[:2] for part in batch())
    names, weights = zip(*net.named_parameters(), strict=True)

    def loss(*values: Tensor) -> Tensor:
        log_probs = torch.func.functional_call(
            net, dict(zip(names, values, strict=True)), (source, lengths, target, target_lengths)
        )
        return log_probs.gather(2, nn.functional.pad(target, (0, 1)).unsqueeze(2)).sum()

    assert torch.autograd.gradcheck(loss, weights)


def test_only_what_has_to_runs_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the speed: without attention, or with dot attention without feeding, no single step is run."""

    def forbidden(*_: object) -> None:
        raise AssertionError("a single step")

    monkeypatch.setattr(EncoderDecoder, "_advance", forbidden)
    for kind in ("none", "dot"):
        make(kind)(*batch())
    for kind in ("additive", "dot fed"):
        with pytest.raises(AssertionError, match="a single step"):
            make(kind)(*batch())


def test_label_smoothing_is_of_training_only() -> None:
    """Guards the loss against the definition: the mean over targets that are a little uniform."""
    net = make("dot", label_smoothing=0.3)
    source, lengths, target, target_lengths = batch()
    plain = net.losses(source, lengths, target, target_lengths)
    log_probs = net(source, lengths, target, target_lengths)
    net.train()
    smooth = net.losses(source, lengths, target, target_lengths)
    for row in range(3):
        steps = int(target_lengths[row]) + 1
        uniform = -log_probs[row, :steps].mean(1).sum()
        assert float(smooth[row]) == pytest.approx(0.7 * float(plain[row]) + 0.3 * float(uniform), rel=1e-5)


def test_dropout_is_of_training_only() -> None:
    """Guards a loss without dropout in training, or a search with it."""
    net = make("additive", dropout=0.5)
    assert torch.equal(net.losses(*batch()), net.losses(*batch()))
    net.train()
    assert not torch.equal(net.losses(*batch()), net.losses(*batch()))


def test_greedy_takes_the_best_symbol_of_each_step() -> None:
    """Guards the greedy output, alone and in a batch, against the pass over given outputs."""
    for kind, seed in itertools.product(KINDS, range(3)):
        net = make(kind)
        torch.manual_seed(seed)
        nn.init.normal_(net.output.weight, std=3)
        source, lengths, *_ = batch()
        outputs = net.greedy(source, lengths)
        for row, output in enumerate(outputs):
            alone = source[row : row + 1, : lengths[row]], lengths[row : row + 1]
            assert net.greedy(*alone) == [output]
            ids = torch.tensor([output], dtype=torch.int64)
            best = net(*alone, ids, torch.tensor([len(output)]))[0].argmax(1).tolist()
            longest = 2 * int(lengths[row]) + 6
            assert best[: len(output)] == list(output)
            assert len(output) == longest or best[len(output)] == END


def test_settings_that_make_no_network() -> None:
    """Each is one line that names the key as it is typed."""
    for changes, message in (
        ({"embedding": 0}, r"--model\.embedding must be at least 1. Got 0"),
        ({"width": 0}, r"--model\.width must be at least 1"),
        ({"decoder_depth": 0}, r"--model\.decoder-depth must be at least 1"),
        ({"label_smoothing": 1.0}, r"--model\.label-smoothing must be in \[0, 1\)\. Got 1"),
        ({"attention": "soft"}, r"--model\.attention must be one of none, additive, dot. Got 'soft'"),
        (
            {"attention": "none", "input_feeding": True},
            r"--model\.input-feeding is a choice of dot attention",
        ),
    ):
        with pytest.raises(SettingsError, match=message):
            EncoderDecoderConfig(**changes)
    with pytest.raises(ModelError, match="output symbols"):
        EncoderDecoder(SOURCES, ("X", "X"), EncoderDecoderConfig())
