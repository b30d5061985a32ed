"""Exported graphs: the numbers of torch for each cell, alone and padded, whole and in blocks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from asr.errors import SettingsError
from asr.export.engine import OnnxModel, OnnxStream
from asr.export.model import export_model, export_streaming
from asr.frontend.features import FeatureConfig, Normalization
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig
from asr.model.recurrent.factory import CELL_NAMES
from asr.model.recurrent.layers import LayerConfig
from asr.text.characters import CharTokenizer

FEATURES = FeatureConfig(n_mels=10)
TOKENIZER = CharTokenizer(("a", "b", " "))


def make(layers: LayerConfig, features: FeatureConfig = FEATURES, **options: object) -> AcousticModel:
    """A tiny model with weights that are not those of a fresh one."""
    torch.manual_seed(1)
    encoder = EncoderConfig(width=6, depth=2, dropout=0.0, channels=3, layers=layers, **options)  # type: ignore[arg-type]
    model = AcousticModel(ModelSettings(features, encoder, TOKENIZER, "lower")).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
        model.normalize.mean.normal_()
        model.normalize.deviation.uniform_(0.5, 2)
    return model


VARIANTS = [
    *[(LayerConfig(cell=cell), {}) for cell in CELL_NAMES],
    (LayerConfig(cell="lstm", projection=4), {"subsampling": 3}),
    (LayerConfig(cell="lstm-peephole", projection=4, layer_norm=False), {"subsampling": 1}),
    (LayerConfig(cell="ligru", residual=True, bottleneck=5), {"front": "stack"}),
    (LayerConfig(cell="gru", residual=True), {"subsampling": 7}),
]
NAMES = [" ".join([layers.cell, *map(str, options.values())]) for layers, options in VARIANTS]


@pytest.mark.parametrize(("layers", "options"), VARIANTS, ids=NAMES)
def test_whole_utterances(layers: LayerConfig, options: dict[str, object]) -> None:
    """Gates in another order, a direction that reads padding, a mask that is forgotten."""
    model = make(layers, **options)
    engine = OnnxModel(export_model(model).SerializeToString())
    features, lengths = torch.randn(3, 41, 10), torch.tensor([41, 12, 29])
    with torch.inference_mode():
        wanted, steps, _ = model(features, lengths)
        found, found_steps, _ = engine(features, lengths)
        assert torch.equal(found_steps, steps)
        for row, (count, frames) in enumerate(zip(steps, lengths, strict=True)):
            assert torch.allclose(found[row, :count], wanted[row, :count], atol=1e-4)
            alone, _, _ = engine(features[row : row + 1, :frames], lengths[row : row + 1])
            assert torch.allclose(alone[0], found[row, :count], atol=1e-5)


@pytest.mark.parametrize(("layers", "options"), VARIANTS, ids=NAMES)
def test_streams(layers: LayerConfig, options: dict[str, object]) -> None:
    """A state that is lost between two blocks, a convolution that sees zeros there, a last step too few."""
    model = make(replace(layers, bidirectional=False), replace(FEATURES, normalize="global"), **options)
    graph = export_streaming(model).SerializeToString()
    for frames in (60, 67):
        features = torch.randn(frames, 10)
        with torch.inference_mode():
            wanted, _, _ = model(features[None], torch.tensor([frames]))
        for block in (1, 23, 100):
            stream = OnnxStream(graph)
            found = [stream.accept(part.numpy()) for part in features.split(block)]
            found = np.concatenate([*found, stream.finish()])
            assert found.shape == wanted[0].shape
            assert np.abs(found - wanted[0].numpy()).max() < 1e-4


@pytest.mark.parametrize(
    ("normalize", "prior"),
    [("utterance", 10.0), ("running", None), ("running", 3.0), ("global", None), ("none", None)],
)
def test_normalisation(normalize: Normalization, prior: float | None) -> None:
    """Statistics of the training set that stay behind, alone or beside those of an utterance, which is longer
    than the window of running ones."""
    model = make(LayerConfig(cell="rnn"), replace(FEATURES, normalize=normalize, prior_frames=prior))
    features, lengths = torch.randn(2, 700, 10), torch.tensor([700, 11])
    engine = OnnxModel(export_model(model).SerializeToString())
    with torch.inference_mode():
        wanted, steps, _ = model(features, lengths)
        found, _, _ = engine(features, lengths)
    for row, count in enumerate(steps):
        assert torch.allclose(found[row, :count], wanted[row, :count], atol=1e-4)


def test_bidirectional_models_cannot_stream() -> None:
    """A graph whose backward half begins again in each block."""
    with pytest.raises(SettingsError, match="no-bidirectional"):
        export_streaming(make(LayerConfig(cell="gru")))
