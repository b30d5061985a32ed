"""The encoder: its step formula, its deafness to padding, its sizes."""

import itertools
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from asr.errors import SettingsError
from asr.model.encoder import SIZES, Encoder, EncoderConfig, parameter_count, step_count
from asr.model.recurrent.factory import CELL_NAMES, Cell
from tests.shapes import encoder_config

FRONTS: tuple[Literal["conv", "stack"], ...] = ("conv", "stack")


def make(n_mels: int = 20, **settings: Any) -> Encoder:
    torch.manual_seed(0)
    settings = {"width": 8, "depth": 2, "channels": 4, "dropout": 0.0, **settings}
    return Encoder(encoder_config(**settings), n_mels=n_mels, vocab_size=7).eval()


def batch(lengths: list[int], n_mels: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(frames, n_mels, generator=generator) for frames in lengths]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), torch.tensor(lengths)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("subsampling", range(1, 9))
def test_step_count_is_what_comes_out(front: Literal["conv", "stack"], subsampling: int) -> None:
    """Guards the one step formula against the layers, for every factor and remainder, down to one frame: CTC
    and every time stamp rest on it."""
    encoder = make(front=front, subsampling=subsampling)
    for frames in (*range(1, 20), 63, 64, 65, 101):
        log_probs, steps, _ = encoder(torch.randn(1, frames, 20), torch.tensor([frames]))
        expected = -(-frames // subsampling)
        assert step_count(frames, subsampling) == expected
        assert log_probs.shape == (1, expected, 7)
        assert steps.tolist() == [expected]
        assert steps.dtype == torch.int64
    assert step_count(torch.tensor([0, 1, 8, 9]), 8).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("subsampling", range(1, 9))
def test_every_frame_is_heard(front: Literal["conv", "stack"], subsampling: int) -> None:
    """Guards large strides against kernels that skip frames between two steps, or after the last."""
    encoder = make(front=front, subsampling=subsampling)
    for frames in range(40, 49):
        features = batch([frames])[0].requires_grad_()
        encoder.front(features, torch.tensor([frames])).square().sum().backward()
        assert features.grad is not None
        assert (features.grad.abs().sum(dim=-1) > 0).all(), frames


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("n_mels", [1, 2, 5, 23, 80])
def test_any_number_of_bands(front: Literal["conv", "stack"], n_mels: int) -> None:
    """Guards the size between front and recurrent layers, where bands do not divide by four."""
    features, lengths = batch([9, 4], n_mels)
    log_probs, _, _ = make(n_mels=n_mels, front=front)(features, lengths)
    assert log_probs.shape == (2, 3, 7)


COMBINATIONS = list(itertools.product(FRONTS, CELL_NAMES, (True, False)))


@pytest.mark.parametrize(("front", "cell", "both"), COMBINATIONS)
@pytest.mark.parametrize("subsampling", [1, 4, 6, 7])
def test_alone_equals_in_a_batch(
    front: Literal["conv", "stack"], cell: Cell, both: bool, subsampling: int
) -> None:
    """Guards against convolutions or a backward direction that hear padding: the same log-probabilities
    alone."""
    encoder = make(front=front, cell=cell, bidirectional=both, subsampling=subsampling)
    features, lengths = batch([1, 57, 30, 2, 29, 8])
    together, steps, _ = encoder(features, lengths)
    for row, frames in enumerate(lengths.tolist()):
        alone, [count], _ = encoder(features[row : row + 1, :frames], lengths[row : row + 1])
        assert int(steps[row]) == int(count) == alone.shape[1]
        torch.testing.assert_close(together[row, : int(count)], alone[0], rtol=0, atol=1e-5)


def test_gradients_do_not_see_padding() -> None:
    """Guards training: a batch's gradient is the sum of its utterances' own."""
    encoder = make(residual=True, projection=6, bottleneck=6).double()
    features, lengths = batch([13, 40, 22])
    features = features.double()

    def gradient(rows: list[int]) -> list[Tensor]:
        encoder.zero_grad()
        for row in rows:
            alone, _, _ = encoder(features[row : row + 1, : lengths[row]], lengths[row : row + 1])
            alone[:, :, 2].sum().backward()
        return [weight.grad for weight in encoder.parameters() if weight.grad is not None]

    apart = gradient([0, 1, 2])
    encoder.zero_grad()
    log_probs, steps, _ = encoder(features, lengths)
    log_probs[:, :, 2][torch.arange(log_probs.shape[1]) < steps[:, None]].sum().backward()
    for weight, expected in zip(encoder.parameters(), apart, strict=True):
        # the output is float32, so the gradient is
        torch.testing.assert_close(weight.grad, expected, rtol=1e-4, atol=1e-4)


def test_log_probabilities_sum_to_one() -> None:
    """Guards the output: normalised over the vocabulary, in float32, and never the same at every step."""
    log_probs = make()(*batch([50, 20]))[0].detach()
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 13), rtol=0, atol=1e-5)
    assert float(log_probs.std(dim=1).min()) > 0


@pytest.mark.parametrize("front", FRONTS)
def test_every_weight_learns(front: Literal["conv", "stack"]) -> None:
    """Guards against a layer that is built but not used."""
    encoder = make(front=front, projection=6, bottleneck=6, residual=True).train()
    log_probs, _, _ = encoder(*batch([50, 20]))
    log_probs[:, :, 1].sum().backward()
    for name, weight in encoder.named_parameters():
        assert weight.grad is not None, name
        assert float(weight.grad.abs().max()) > 0, name


@pytest.mark.parametrize("both", [True, False])
def test_final_states(both: bool) -> None:
    """Guards the vector that an utterance is classified by: the same alone and in a batch, and all recurrent
    weights are in it."""
    encoder = make(bidirectional=both, residual=True, bottleneck=5)
    features, lengths = batch([1, 57, 30, 2, 29, 8])
    final = encoder.final_states(features, lengths)
    assert final.shape == (6, 16 if both else 8)
    for row, frames in enumerate(lengths.tolist()):
        alone = encoder.final_states(features[row : row + 1, :frames], lengths[row : row + 1])
        torch.testing.assert_close(final[row], alone[0], rtol=0, atol=1e-5)
    final.square().sum().backward()
    for name, weight in encoder.named_parameters():
        learns = "output" not in name and "bottlenecks.1" not in name
        assert (weight.grad is not None) is learns, name


@pytest.mark.parametrize(("size", "millions"), [("small", 6.6), ("medium", 30.0), ("large", 79.6)])
def test_sizes(size: Any, millions: float) -> None:
    """Guards the dial, and the numbers of weights that the comments and the README promise."""
    with torch.device("meta"):
        encoder = Encoder(EncoderConfig(size=size), n_mels=80, vocab_size=29)
    assert parameter_count(encoder) / 1e6 == pytest.approx(millions, abs=0.05)
    recurrent = encoder.recurrent.config
    assert (recurrent.width, recurrent.depth, recurrent.dropout) == SIZES[size]


def test_given_values_win_over_the_dial() -> None:
    """Guards against a zero that is taken for "not given"."""
    recurrent = EncoderConfig(size="large", width=100, dropout=0.0).recurrent()
    assert (recurrent.width, recurrent.depth, recurrent.dropout) == (100, 6, 0.0)


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_bf16_on_this_processor(front: Literal["conv", "stack"], cell: Cell) -> None:
    """Guards mixed precision: it runs, gives float32 log-probabilities near the exact ones, and gradients."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no instructions for bf16")
    encoder = make(front=front, cell=cell).train()
    features, lengths = batch([50, 20])
    exact, _, _ = encoder(features, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        log_probs, _, _ = encoder(features, lengths)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs[0], exact[0], rtol=0, atol=0.1)
    log_probs.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in encoder.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": "huge"}, "--model.size must be one of small, medium, large. Got 'huge'"),
        ({"subsampling": 0}, r"--model.subsampling must be in 1\.\.8. Got 0"),
        ({"subsampling": 9}, r"--model.subsampling must be in 1\.\.8. Got 9"),
        ({"front": "cnn"}, "--model.front must be one of conv, stack. Got 'cnn'"),
        ({"channels": 0}, "--model.channels must be at least 1. Got 0"),
        ({"width": 0}, "--model.width must be at least 1. Got 0"),
        ({"projection": 257}, "--model.projection larger than width: 257 > 256"),
        ({"depth": -1}, "--model.depth must be at least 1. Got -1"),
        ({"dropout": 1.5}, "--model.dropout must be in .* Got 1.5"),
        (
            {"cell": "cnn"},
            "--model.cell must be one of rnn, rnn-relu, gru, ligru, lstm, lstm-peephole. Got 'cnn'",
        ),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """Guards ranges, also of what the recurrent layers check; the message names the key."""
    with pytest.raises(SettingsError, match=message):
        encoder_config(**settings)
