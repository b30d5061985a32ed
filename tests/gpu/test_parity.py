"""A GPU gives what a CPU gives: features, log-probabilities, loss and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from asr.frontend.augment import Masks
from asr.frontend.features import FeatureConfig, frame_count, frame_mask, log_mel
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.loss.ctc import ctc_loss
from asr.model.recurrent.factory import Cell
from asr.text.characters import CharTokenizer
from tests.shapes import encoder_config

# float32 sums in another order; TF32, which conftest.py switches off, would need a hundred times this.
TOLERANCE = 1e-4


def make(**encoder: Any) -> AcousticModel:
    torch.manual_seed(0)
    shape = {"width": 64, "depth": 3, "dropout": 0.0, "channels": 8, **encoder}
    settings = ModelSettings(
        FeatureConfig(), encoder_config(**shape), CharTokenizer(tuple("abcdefgh")), "verbatim"
    )
    return AcousticModel(settings)


def padded_waveforms() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    samples = torch.tensor([48_000, 16_000, 31_999, 4000])
    waveform = 0.1 * torch.randn(4, 48_000, generator=generator)
    return waveform * frame_mask(samples, 48_000), samples


def step(model: AcousticModel, device: torch.device) -> dict[str, Tensor]:
    """Features, log-probabilities, losses and all gradients of one training step, on the CPU."""
    model = model.to(device).train()
    model.zero_grad()
    waveform, samples = (tensor.to(device) for tensor in padded_waveforms())
    config = model.settings.features
    features, lengths = log_mel(waveform, config), frame_count(samples, config)
    masks = Masks(torch.tensor([[[5, 10]]] * 4, device=device), torch.tensor([[[3, 7]]] * 4, device=device))
    log_probs, steps, _ = model(features, lengths, masks)
    tokens = torch.tensor([[1, 2, 2, 3], [4, 5, 0, 0], [6, 6, 7, 0], [8, 0, 0, 0]], device=device)
    losses = ctc_loss(log_probs, steps, tokens, torch.tensor([4, 2, 3, 1], device=device))
    losses.mean().backward()
    results = {
        "features": features,
        "log_probs": log_probs * frame_mask(steps, log_probs.shape[1]).unsqueeze(-1),
    }
    results |= {"losses": losses, "steps": steps}
    results |= {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return {name: tensor.detach().cpu().clone() for name, tensor in results.items()}


@pytest.mark.parametrize("front", ["conv", "stack"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "ligru", "lstm-peephole"])
@pytest.mark.parametrize("both", [True, False])
def test_training_step_equals_the_cpus(front: Any, cell: Cell, both: bool, device: torch.device) -> None:
    """Guards every kernel that differs between the two: FFT, convolutions, cuDNN's layers, CTC, the
    reversal."""
    model = make(front=front, cell=cell, bidirectional=both)
    expected = step(model, torch.device("cpu"))
    actual = step(model, device)
    assert expected.keys() == actual.keys()
    assert len(expected) > 10
    for name, tensor in expected.items():
        scale = max(float(tensor.abs().max()), 1e-3)
        torch.testing.assert_close(
            actual[name] / scale, tensor / scale, rtol=0, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_alone_equals_in_a_batch(cell: Cell, device: torch.device) -> None:
    """Guards padding on the GPU: cuDNN picks other kernels for other batch sizes, to the same numbers."""
    model = make(cell=cell).to(device)
    waveform, samples = padded_waveforms()
    parts = [row[:count] for row, count in zip(waveform, samples.tolist(), strict=True)]
    together, steps, _ = model.outputs(parts)
    for row, part in enumerate(parts):
        alone, [count], _ = model.outputs([part])
        assert int(count) == int(steps[row])
        torch.testing.assert_close(together[row, : int(count)], alone[0], rtol=0, atol=TOLERANCE)
