"""Widening: a wider encoder that computes the same."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from asr.model.encoder import Encoder, EncoderConfig
from asr.model.recurrent.layers import LayerConfig
from asr.model.widen import can_widen, widened_weights

N_MELS, VOCAB = 8, 5


def _encoder(width: int, **layers: Any) -> Encoder:
    torch.manual_seed(width)
    config = EncoderConfig(width=width, depth=2, dropout=0, layers=LayerConfig(**layers), channels=4)
    encoder = Encoder(config, N_MELS, VOCAB).eval()
    with torch.no_grad():  # biases and peepholes start at special values
        for parameter in encoder.parameters():
            parameter.uniform_(-0.5, 0.5)
    return encoder


def _widened(source: Encoder, width: int) -> Encoder:
    wide = Encoder(replace(source.config, width=width), N_MELS, VOCAB).eval()
    wide.load_state_dict(widened_weights(source, width, torch.Generator().manual_seed(1)))
    return wide


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("cell", ["rnn", "gru", "ligru", "lstm", "lstm-peephole"])
def test_a_widened_encoder_computes_the_same(cell: str, residual: bool, bidirectional: bool) -> None:
    source = _encoder(6, cell=cell, residual=residual, bidirectional=bidirectional)
    x, lengths = torch.randn(2, 40, N_MELS), torch.tensor([40, 31])
    expected, steps, _ = source(x, lengths)
    log_probs, _, _ = _widened(source, 12)(x, lengths)
    for row, valid in enumerate(steps.tolist()):
        torch.testing.assert_close(log_probs[row, :valid], expected[row, :valid], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [7, 9, 17])
def test_any_larger_width_serves_without_layer_norm(width: int) -> None:
    source = _encoder(6, cell="gru", layer_norm=False)
    x, lengths = torch.randn(1, 40, N_MELS), torch.tensor([40])
    torch.testing.assert_close(
        _widened(source, width)(x, lengths)[0], source(x, lengths)[0], atol=1e-5, rtol=1e-5
    )


def test_copies_of_a_unit_have_different_gradients() -> None:
    wide = _widened(_encoder(6, cell="ligru"), 12)
    wide(torch.randn(1, 40, N_MELS), torch.tensor([40]))[0][..., 0].sum().backward()
    gradient = wide.recurrent.layers[0].forwards.weight_hh_l0.grad
    assert gradient is not None
    gates = gradient.view(2, 12, 12)
    assert not torch.allclose(gates[:, :6], gates[:, 6:], rtol=0.01)


@pytest.mark.parametrize(
    ("layers", "width"),
    [
        ({"cell": "gru"}, 12),
        ({"cell": "lstm", "bidirectional": False}, 12),
        ({"cell": "lstm", "layer_norm": False}, 12),
        ({"cell": "lstm", "bottleneck": 4}, 12),
        ({"cell": "lstm"}, 6),
        ({"cell": "lstm"}, 5),
    ],
)
def test_other_nets_are_not_widened(layers: dict[str, Any], width: int) -> None:
    source = _encoder(6, cell="lstm")
    assert can_widen(source, _encoder(12, cell="lstm"))
    assert not can_widen(source, _encoder(width, **layers))
