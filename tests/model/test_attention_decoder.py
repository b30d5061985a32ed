"""The attention decoder in an acoustic model: it is a part beside the encoder, which stays what it is."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr.errors import SettingsError
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.attention_decoder import AttentionDecoderConfig
from asr.model.encoder import EncoderConfig
from asr.model.saved import load_model, save_model
from asr.text.characters import CharTokenizer

SMALL = AttentionDecoderConfig("dot", decoder_width=6, decoder_embedding=3)
ENCODER = EncoderConfig(width=5, depth=1, channels=2)


def make(decoder: AttentionDecoderConfig) -> AcousticModel:
    torch.manual_seed(1)
    features = FeatureConfig(sample_rate=8000, n_mels=8)
    encoder = replace(ENCODER, decoder=decoder)
    return AcousticModel(ModelSettings(features, encoder, CharTokenizer(("a", "b")), "verbatim")).eval()


def test_the_encoder_is_the_same_with_and_without() -> None:
    """Guards every bit of models without a decoder, and of the encoder beside one: first weights, outputs."""
    plain, both = make(AttentionDecoderConfig()), make(SMALL)
    assert plain.attention_decoder is None
    weights = both.state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    waveforms = [torch.randn(4000, generator=torch.Generator().manual_seed(2))]
    log_probs, steps, encoded = plain.outputs(waveforms)
    assert encoded is None
    ours = both.outputs(waveforms)
    assert torch.equal(ours[0], log_probs)
    assert torch.equal(ours[1], steps)
    assert ours[2] is not None
    assert torch.equal(both.encoder.output(ours[2].clone()).log_softmax(dim=-1), log_probs)


def test_it_is_saved_with_the_model(tmp_path: Path) -> None:
    """Guards the file: settings and weights of the decoder come back with those of the encoder."""
    model = make(replace(SMALL, attention_loss_weight=0.4))
    save_model(tmp_path / "model.safetensors", model, {})
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.settings.encoder == model.settings.encoder
    assert loaded.attention_decoder is not None
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["dot", "additive"])
def test_guide(kind: str) -> None:
    """Guards the loss that keeps attention near the diagonal: the formula, by each row's own lengths, in
    training only."""
    shape = replace(
        SMALL, attention_decoder=kind, decoder_dropout=0.0, decoder_label_smoothing=0.0, attention_guide=0.5
    )  # type: ignore[arg-type]
    decoder = make(shape).attention_decoder
    assert decoder is not None
    memory, lengths = torch.randn(2, 7, 10), torch.tensor([7, 4])
    target, target_lengths = torch.tensor([[1, 2, 2], [2, 0, 0]]), torch.tensor([3, 1])
    with torch.no_grad():
        plain = decoder.target_losses(decoder.source(memory, lengths), target, target_lengths)
        decoder.train()
        source = decoder.source(memory, lengths)
        guided = decoder.target_losses(source, target, target_lengths)
        _, weights = decoder.step_through(source, target)
    for row, (steps, count) in enumerate(zip((7, 4), (4, 2), strict=True)):
        expected = sum(
            float(weights[row, n, t]) * (1 - math.exp(-((n / count - t / steps) ** 2) / (2 * 0.1**2)))
            for n in range(count)
            for t in range(steps)
        )
        assert expected > 0.1
        assert float(guided[row] - plain[row]) == pytest.approx(0.5 * expected, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attention_decoder": "local"}, "--model.attention-decoder must be one of none, additive, dot. Got"),
        ({"decoder_width": 0}, "--model.decoder-width must be at least 1. Got 0"),
        ({"decoder_depth": 0}, "--model.decoder-depth must be at least 1. Got 0"),
        ({"decoder_embedding": 0}, "--model.decoder-embedding must be at least 1. Got 0"),
        ({"decoder_dropout": 1.0}, "--model.decoder-dropout must be in [0, 1). Got 1"),
        ({"decoder_label_smoothing": -0.1}, "--model.decoder-label-smoothing must be in [0, 1). Got -0.1"),
        ({"attention_guide": -1.0}, "--model.attention-guide must be at least 0. Got -1"),
        ({"attention_loss_weight": 1.0}, "--model.attention-loss-weight must be in (0, 1). Got 1"),
    ],
)
def test_wrong_settings(values: dict[str, object], message: str) -> None:
    """One line that names the key."""
    with pytest.raises(SettingsError) as caught:
        replace(SMALL, **values)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
