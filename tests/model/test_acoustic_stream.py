"""The acoustic model on a stream against the whole utterance."""

from typing import Any

import pytest
import torch
from torch import Tensor

from asr.errors import SettingsError
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.acoustic_stream import AcousticStream
from asr.model.recurrent.factory import CELL_NAMES
from asr.text.characters import CharTokenizer
from tests.shapes import encoder_config

SAMPLES = 16_000 + 77


def make(normalize: Any = "running", **settings: Any) -> AcousticModel:
    torch.manual_seed(1)
    settings = {"width": 8, "depth": 2, "channels": 4, "dropout": 0.0, "bidirectional": False, **settings}
    features = FeatureConfig(n_mels=20, normalize=normalize)
    model = AcousticModel(
        ModelSettings(features, encoder_config(**settings), CharTokenizer(tuple("abc ")), "english")
    )
    model.normalize.set_statistics(torch.full((20,), -5.0), torch.full((20,), 2.0))
    return model.eval()


def waveform(samples: int = SAMPLES) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def run(stream: AcousticStream, samples: Tensor, block: int) -> Tensor:
    return torch.cat([*(stream.accept(part) for part in torch.split(samples, block)), stream.finish()])


@pytest.mark.parametrize("front", ["conv", "stack"])
@pytest.mark.parametrize("subsampling", range(1, 9))
def test_blocks_equal_the_whole(front: Any, subsampling: int) -> None:
    """Guards the front's context for every stride, all carried states, and the next utterance."""
    model = make(front=front, subsampling=subsampling)
    expected = model.outputs([waveform()])[0][0]
    stream = AcousticStream(model, 0.6, 0.9)
    for block in (160, 1777, SAMPLES):
        torch.testing.assert_close(run(stream, waveform(), block), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_cell_carries_its_state(cell: Any) -> None:
    """Guards the state of each cell, and normalisation by global statistics."""
    model = make("global", cell=cell, residual=True, bottleneck=8)
    expected = model.outputs([waveform()])[0][0]
    found = run(AcousticStream(model, 0, 0), waveform(), 1000)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 399, 800])
def test_utterances_of_a_few_samples(samples: int) -> None:
    """Guards the end of utterances that are shorter than the front's context."""
    found = run(AcousticStream(make(), 0, 0), waveform(samples), 100)
    assert len(found) == -(-(1 + samples // 160) // 4)


def test_a_bidirectional_model_reads_the_chunk_and_its_right_context() -> None:
    """Guards latency control: forward halves carry on, backward ones begin after the right context."""
    model = make("none", bidirectional=True, depth=1)
    model.encoder.recurrent.norms[0] = torch.nn.Identity()
    features = torch.randn(1, 30, model.encoder.front.output_size)
    layer = model.encoder.recurrent.layers[0]
    states, found = None, []
    for begin in (0, 10, 20):
        y, states = model.encoder.recurrent.chunk(features[:, begin : begin + 15], states, min(5, 20 - begin))
        found.append(y)
    forward = layer.forwards(features.transpose(0, 1))[0]
    backward = torch.cat(
        [
            layer.backwards(features[:, begin : begin + 15].flip(1).transpose(0, 1))[0].flip(0)[:10]
            for begin in (0, 10, 20)
        ]
    )
    expected = torch.cat([forward, backward], dim=2).transpose(0, 1)
    torch.testing.assert_close(torch.cat(found, dim=1), expected)


@pytest.mark.parametrize("normalize", ["running", "utterance"])
def test_chunks_of_a_bidirectional_model_do_not_depend_on_blocks(normalize: Any) -> None:
    """Guards against a text that depends on how samples arrive; one chunk of all is the whole."""
    model = make(normalize, bidirectional=True)
    few, many = (run(AcousticStream(model, 0.2, 0.1), waveform(), block) for block in (8000, 100))
    torch.testing.assert_close(few, many, rtol=0, atol=1e-5)
    expected = model.outputs([waveform()])[0][0]
    assert (few - expected).abs().max() > 1e-3
    found = run(AcousticStream(model, 100, 0), waveform(), 8000)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_steps_come_as_soon_as_they_can() -> None:
    """Guards the latency: chunk and right context, and no more than the front needs."""
    model = make("none", bidirectional=True, subsampling=4)  # a step of 40 ms, a front of 5 frames
    stream = AcousticStream(model, 0.2, 0.08)
    steps = [len(stream.accept(part)) for part in torch.split(waveform(), 160)]
    first = next(index for index, count in enumerate(steps) if count)
    assert set(steps) == {0, 5}
    assert first * 0.01 <= 0.28 + 0.1


def test_what_is_kept_does_not_grow() -> None:
    """Guards memory and time of a block against the length of the utterance."""
    for model in (make("running"), make("utterance", bidirectional=True)):
        stream = AcousticStream(model, 0.2, 0.1)
        sizes = []
        for part in torch.split(waveform(8 * 16_000), 800):
            stream.accept(part)
            sizes.append((len(stream._frames), len(stream._log_mel._samples)))
        assert max(sizes[80:]) <= max(sizes[:80])


def test_negative_seconds() -> None:
    """Guards the settings."""
    with pytest.raises(SettingsError, match=r"--right-context-s must be at least 0 seconds\. Got -1"):
        AcousticStream(make(), 0.5, -1)
