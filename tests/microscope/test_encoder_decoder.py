"""What an encoder-decoder looks at: shares of attention and of gradients, against single weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from asr.microscope.encoder_decoder import draw_readings, read_symbols
from asr.model.recurrent.layers import LayerConfig
from asr.model.sequence.encoder_decoder import EncoderDecoder, EncoderDecoderConfig


def make(attention: str) -> EncoderDecoder:
    torch.manual_seed(2)
    config = EncoderDecoderConfig(
        width=4,
        embedding=3,
        attention=attention,
        layers=LayerConfig(layer_norm=False),  # type: ignore[arg-type]
    )
    net = EncoderDecoder(("a", "b", "c"), ("X", "Y"), config).double()
    nn.init.normal_(net.output.weight, std=2.0)
    nn.init.constant_(net.output.bias[:1].detach(), -3.0)  # it does not end at once
    return net


@pytest.mark.parametrize("attention", ["none", "additive", "dot"])
def test_gradients_are_those_of_single_values(attention: str) -> None:
    """Guards the gradients, which have to pass through encoder, summary and every step of the decoder:
    against the change of each log-probability when one value of one letter's vector is moved."""
    net = make(attention).train()
    reading = read_symbols("net", net, "abc")
    assert net.training
    assert len(reading.written) > 1
    assert all(weight.grad is None for weight in net.parameters())
    assert reading.gradient.sum(1) == pytest.approx(np.ones(len(reading.written)))
    net.eval()
    ids, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    target = torch.tensor([[net.targets.index(symbol) + 1 for symbol in reading.written[:-1]]])

    def log_probs() -> torch.Tensor:
        with torch.no_grad():
            found = net(ids, lengths, target, torch.tensor([target.shape[1]]))
        return found[0].gather(1, torch.cat([target[0], torch.tensor([0])]).unsqueeze(1))[:, 0]

    squares = np.zeros_like(reading.gradient)
    for letter in range(3):
        for value in range(3):
            moved = []
            for size in (1e-5, -1e-5):
                net.source_embedding.weight.data[letter + 1, value] += size
                moved.append(log_probs())
                net.source_embedding.weight.data[letter + 1, value] -= size
            squares[:, letter] += ((moved[0] - moved[1]) / 2e-5).numpy() ** 2
    norms = np.sqrt(squares)
    assert reading.gradient == pytest.approx(norms / norms.sum(1, keepdims=True), abs=1e-5)
    if attention == "none":
        assert reading.attention is None
    else:
        assert reading.attention is not None
        assert reading.attention.sum(1) == pytest.approx(np.ones(len(reading.written)))


def test_picture(tmp_path: Path) -> None:
    """A picture of networks with and without attention, and of words of different lengths."""
    readings = [[read_symbols(name, make(name), word) for word in ("ab", "cab")] for name in ("none", "dot")]
    draw_readings(readings, tmp_path / "attention.png", "title")
    assert (tmp_path / "attention.png").stat().st_size > 5000
