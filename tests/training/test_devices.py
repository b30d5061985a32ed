"""No operation of training or validation mixes devices, shown without a GPU.

Forward passes and updates run on fake CUDA tensors. The backward pass of those needs a driver (torch 2.14),
so it runs on "meta", which has no values either and refuses to be mixed as well.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asr.batching.batches import Batch
from asr.frontend.augment import Masks
from asr.frontend.features import FeatureConfig
from asr.lm.wordrnn import Vocabulary, WordRnn
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.attention_decoder import AttentionDecoderConfig
from asr.model.encoder import EncoderConfig, LossConfig
from asr.model.loss.ctc import blank_steps, ctc_loss, deterministic_ctc_loss
from asr.model.recurrent.factory import CELL_NAMES
from asr.text.characters import CharTokenizer
from asr.training.averaging import MovingAverage
from asr.training.distributed import Process
from asr.training.tasks.speech import loss_of, speech_losses
from asr.training.tasks.wordrnn import SentenceBatch, SentenceConfig, Sentences, WordRnnTask
from asr.training.update import make_optimizer, step_unless
from tests.fake_gpu import fake_gpu
from tests.shapes import encoder_config, wordrnn_config

FEATURES = FeatureConfig(sample_rate=8000, n_mels=20)
ENCODER = encoder_config(width=8, depth=2, channels=4, dropout=0.2, recurrent_dropout=0.2)
GPU, META = torch.device("cuda", 0), torch.device("meta")

SHAPES = {
    **{f"{cell}-{'both' if both else 'one'}": encoder_config(ENCODER, cell=cell, bidirectional=both)
       for cell in CELL_NAMES for both in (True, False)},
    "projection": encoder_config(ENCODER, projection=4),
    "bottleneck": encoder_config(ENCODER, bottleneck=16, residual=True),
    **{f"{kind} attention": replace(ENCODER, decoder=AttentionDecoderConfig(kind, decoder_width=6))
       for kind in ("dot", "additive")},
    "stack": encoder_config(ENCODER, front="stack", subsampling=3, layer_norm=False),
}  # fmt: skip


def make(device: torch.device, encoder: EncoderConfig, features: FeatureConfig = FEATURES) -> AcousticModel:
    settings = ModelSettings(features, encoder, CharTokenizer(tuple("abcd")), "verbatim")
    with device:
        return AcousticModel(settings)


def make_batch(waveforms: bool = False) -> Batch:
    """Three utterances in the host's memory, with masks, and from waveforms with warps."""
    frames = torch.tensor([40, 31, 12])
    masks = Masks(torch.tensor([[[5, 10]]] * 3), torch.tensor([[[3, 7]]] * 3))
    return Batch(
        ids=("a", "b", "c"),
        cached_features=None if waveforms else torch.zeros(3, 40, 20),
        waveforms=torch.zeros(3, 39 * FEATURES.hop_length) if waveforms else None,
        frame_lengths=frames,
        tokens=torch.ones(3, 2, dtype=torch.int64),
        token_lengths=torch.tensor([2, 1, 2]),
        masks=masks,
        global_tokens=5,
        global_seconds=1.0,
        warps=torch.tensor([0.9, 1.0, 1.1]).double() if waveforms else None,
    )


@pytest.mark.parametrize("loss", [ctc_loss, deterministic_ctc_loss])
@pytest.mark.parametrize("name", SHAPES)
def test_training_forward(name: str, loss: Callable[..., Tensor]) -> None:
    """Guards the forward pass of every cell, with dropout and masks, and both losses, from a batch in the
    host's memory."""
    with fake_gpu():
        model = make(GPU, SHAPES[name]).train()
        losses = speech_losses(model, make_batch(), torch.float32, loss)
        results = [losses.losses, *(part for pair in losses.statistics.values() for part in pair)]
        assert {part.device for part in results} == {GPU}
        assert losses.losses.shape == (3,)


@pytest.mark.parametrize("order", [2, 3])
def test_crf(order: Any) -> None:
    """Guards CTC-CRF, forward and backward: torch's operations, with lengths and tables from both sides."""
    encoder = replace(ENCODER, loss=LossConfig("crf", denominator_order=order))
    with fake_gpu():
        losses = speech_losses(make(GPU, encoder).train(), make_batch(), torch.float32).losses
        assert losses.device == GPU
        assert losses.shape == (3,)
    model = make(META, encoder).train()
    losses = speech_losses(model, make_batch(), torch.float32, loss_of(model, deterministic_ctc_loss)).losses
    (losses.sum() / 5).backward()
    assert all(weight.grad is not None and weight.grad.device == META for weight in model.parameters())


@pytest.mark.parametrize("normalize", ["utterance", "global", "none"])
def test_waveforms(normalize: Any) -> None:
    """Guards features that the GPU makes, warped and normalised."""
    features = replace(FEATURES, normalize=normalize)
    with fake_gpu():
        model = make(GPU, ENCODER, features).train()
        assert speech_losses(model, make_batch(waveforms=True), torch.float32).losses.device == GPU


@pytest.mark.parametrize("name", SHAPES)
def test_validation(name: str) -> None:
    """Guards what validation computes on the GPU: here the lengths are there too."""
    with fake_gpu(), torch.inference_mode():
        model = make(GPU, SHAPES[name]).eval()
        batch = make_batch().to(GPU)
        log_probs, steps, _ = model(batch.features(FEATURES), batch.frame_lengths)
        losses = ctc_loss(log_probs, steps, batch.tokens, batch.token_lengths)
        assert {part.device for part in (log_probs, steps, losses, blank_steps(log_probs, steps))} == {GPU}
        assert model.encoder.final_states(batch.cached_features, batch.frame_lengths).device == GPU


@pytest.mark.parametrize("name", SHAPES)
def test_backward(name: str) -> None:
    """Guards the backward pass, much of it written by hand: reversal, deterministic loss, loops."""
    model = make(META, SHAPES[name]).train()
    losses = speech_losses(model, make_batch(), torch.float32, deterministic_ctc_loss)
    (losses.losses.sum() / 5).backward()
    assert all(weight.grad is not None and weight.grad.device == META for weight in model.parameters())


def test_update() -> None:
    """Guards clipping, an update that a flag on the device may leave out, and the moving average."""
    with fake_gpu():
        model = make(GPU, ENCODER).train()
        optimizer = make_optimizer(model, 1e-3, 0.01)
        average = MovingAverage(model, 0.999)
        for number in (1, 2):  # the optimiser makes its moments in the first
            for weight in model.parameters():
                weight.grad = torch.zeros_like(weight)
            norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            skipped = ~torch.isfinite(norm)
            step_unless(optimizer, skipped)
            average.update(number, skipped)
        moments = [value for state in optimizer.state.values() for value in state.values()]
        assert len(moments) > 10
        assert {tensor.device for tensor in (norm, *moments, *average.state().values())} == {GPU}


@pytest.mark.parametrize("device", [GPU, META])
def test_mixing_is_noticed(device: torch.device) -> None:
    """Guards these tests: on both devices, an operation with the host's memory fails."""

    def mixed() -> Tensor:
        with device:
            there = torch.ones(3)
        return there < torch.arange(3)

    with fake_gpu() if device == GPU else nullcontext(), pytest.raises(RuntimeError, match="device"):
        mixed()


@pytest.mark.parametrize("device", [GPU, META], ids=["gpu", "meta"])
def test_word_rnn(device: torch.device) -> None:
    """Its sentences come from the host, and its outputs are all computed on a GPU."""
    config = wordrnn_config(width=16, depth=1, embedding=4, cutoffs=(2, 4), dropout=0.1)
    with fake_gpu() if device == GPU else nullcontext():
        with device:
            net = WordRnn(Vocabulary(tuple("abcdef"), 1), config)
        words, lengths = torch.ones(3, 6, dtype=torch.int64), torch.tensor([5, 3, 0])
        batch = SentenceBatch(("a", "b", "c"), words, lengths, 8, 8.0)
        nothing = Sentences.from_lines(["a"], {}, 1)
        task = WordRnnTask(net, nothing, nothing, SentenceConfig(), Process(0, 1, device), seed=1)
        losses = task.forward(batch, torch.float32).losses
        assert losses.device.type == device.type
        assert losses.shape == (3,)
        if device == META:
            losses.sum().backward()
            assert all(weight.grad is not None for weight in net.parameters())
