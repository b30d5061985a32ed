"""The whole model: waveform in, log-probabilities out, the same alone and in a batch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from asr.errors import AudioError
from asr.frontend.augment import Masks
from asr.frontend.features import FeatureConfig, frame_count, log_mel
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import step_count
from asr.text.characters import CharTokenizer
from tests.shapes import encoder_config


def make(normalize: Any = "utterance", **encoder: Any) -> AcousticModel:
    torch.manual_seed(0)
    settings = ModelSettings(
        features=FeatureConfig(normalize=normalize, n_mels=40),
        encoder=encoder_config(**{"width": 16, "depth": 2, "channels": 4, **encoder}),
        tokenizer=CharTokenizer(("a", "b", "c")),
        text_normalizer="verbatim",
    )
    model = AcousticModel(settings)
    model.normalize.set_statistics(torch.full((40,), -8.0), torch.full((40,), 3.0))
    return model


def waveforms() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(n, generator=generator) for n in (16_000, 400, 7999, 12_345, 8000)]


@pytest.mark.parametrize("normalize", ["utterance", "global", "none"])
@pytest.mark.parametrize(
    "encoder", [{}, {"front": "stack", "bidirectional": False, "cell": "gru", "subsampling": 3}]
)
def test_alone_equals_in_a_batch(normalize: Any, encoder: dict[str, Any]) -> None:
    """Guards every stage from samples to log-probabilities at once: a neighbour changes nothing."""
    model = make(normalize, **encoder)
    together, steps, _ = model.outputs(waveforms())
    for row, waveform in enumerate(waveforms()):
        alone, [count], _ = model.outputs([waveform])
        frames = frame_count(len(waveform), model.settings.features)
        assert int(steps[row]) == int(count) == step_count(frames, model.settings.encoder.subsampling)
        torch.testing.assert_close(together[row, : int(count)], alone[0], rtol=0, atol=1e-5)


def test_log_probs_is_evaluation() -> None:
    """Guards against dropout or a graph in recognition: twice the same, also for a model in training mode."""
    model = make(dropout=0.5).train()
    first, _, _ = model.outputs(waveforms())
    assert not first.requires_grad
    assert torch.equal(first, model.outputs(waveforms())[0])


def test_log_probs_keeps_the_mode() -> None:
    """Guards a training that looks at its model in between: each module keeps its mode, even on an error."""
    model = make(dropout=0.5).train()
    model.encoder.front.eval()
    model.outputs(waveforms())

    def fail(*_: Any) -> None:
        raise MemoryError

    model.encoder.output.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        model.outputs(waveforms())
    assert model.training
    assert model.encoder.recurrent.training
    assert not model.encoder.front.training


@pytest.mark.parametrize("others", [[], [16_000]])
def test_a_recording_that_is_too_short(others: list[int]) -> None:
    """Guards against a scrap of audio that is refused alone and recognised as something in a batch."""
    with pytest.raises(AudioError, match=r"a recording of 0\.010 s is shorter than one window"):
        make().outputs([torch.zeros(160), *(torch.zeros(samples) for samples in others)])


def test_silence_has_finite_output() -> None:
    """Guards against NaN from a recording without any variance."""
    log_probs, _, _ = make().outputs([torch.zeros(16_000)])
    assert log_probs.isfinite().all()


@pytest.mark.parametrize("normalize", ["utterance", "global", "none"])
def test_masks_are_the_mean_of_what_the_encoder_gets(normalize: Any) -> None:
    """Guards the order, normalisation before masks; and features whose mean is not 0 against masks of 0,
    which among log-mel energies is as loud as speech can be."""
    model = make(normalize).eval()
    features = log_mel(torch.stack([waveforms()[0]]), model.settings.features)
    lengths = torch.tensor([features.shape[1]])
    masks = Masks(time=torch.tensor([[[10, 20]]]), mel=torch.tensor([[[0, 5]]]))
    by_hand = model.normalize(features, lengths)
    mean = by_hand.mean(dim=1, keepdim=True)
    by_hand[:, 10:30] = mean
    by_hand[:, :, :5] = mean[:, :, :5]
    torch.testing.assert_close(model(features, lengths, masks)[0], model.encoder(by_hand, lengths)[0])
    assert not torch.allclose(model(features, lengths, masks)[0], model(features, lengths)[0])


def test_step_duration() -> None:
    """Guards the clock of all word times."""
    assert make(subsampling=4).step_s == pytest.approx(0.04)
    assert make(subsampling=3).step_s == pytest.approx(0.03)
    assert make().device == torch.device("cpu")
