"""The whole training loop on a card, and what only a card shows. Written without one: see the README."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asr.corpora.manifest import Utterance
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.model.ctc import ctc_loss
from asr.model.ctc_deterministic import deterministic_ctc_loss
from asr.model.encoder import EncoderConfig
from asr.train import Settings, train
from asr.training.batches import BatchConfig
from asr.training.config import TrainConfig
from tests.training.conftest import RATE, write_tones

pytestmark = pytest.mark.gpu

# cuBLAS reads it when it starts, which an earlier test may make it do.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Undo what a deterministic training tells torch."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    texts = ["ab", "cad", "bbd", "dacb", "abcd", "ca", "dd", "bca"]
    return write_tones(tmp_path_factory.mktemp("tones"), texts)


def settings(run_dir: Path, cache_dir: Path | None = None, **config: Any) -> Settings:
    return Settings(
        features=FeatureConfig(sample_rate=RATE, n_mels=20),
        augment=AugmentConfig(speeds=(0.9, 1.0), time_mask_frames=5, mel_mask_bands=5, masks_from_epoch=1),
        model=EncoderConfig(width=16, depth=2, channels=4, dropout=0.1),
        batch=BatchConfig(seconds=2.0, cache_dir=cache_dir, workers=0),
        train=TrainConfig(
            **{"run_dir": run_dir, "epochs": 3, "device": "cuda", "log_every_s": 0.0, **config}
        ),
    )


def epochs_of(run_dir: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == "epoch"]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_training(precision: str, cached: bool, utterances: list[Utterance], tmp_path: Path) -> None:
    """Guards what no test of a single step reaches: loss scaling, results read an update late, pinned copies,
    features made on the card, validation, and a model that can be written."""
    if precision == "bf16" and not torch.cuda.is_bf16_supported():
        pytest.skip("no bf16 on this card")
    run_dir = tmp_path / "run"
    train(utterances, utterances, settings(run_dir, tmp_path if cached else None, precision=precision))
    losses = [row["train_loss"] for row in epochs_of(run_dir)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]  # of a net that has just begun
    weights = load_file(run_dir / "last.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_resumed_on_a_card(utterances: list[Utterance], tmp_path: Path) -> None:
    """Guards the checkpoint of a card's optimiser and loss scale: a run goes on from it."""
    run_dir = tmp_path / "run"
    train(utterances, utterances, settings(run_dir, precision="fp16", epochs=2))
    checkpoint = torch.load(run_dir / "checkpoint.pt", weights_only=True)
    assert checkpoint  # loads without a card's tensors becoming code
    train(utterances, utterances, settings(run_dir, precision="fp16", epochs=2, resume=True))
    assert len(epochs_of(run_dir)) == 2  # nothing was left to do


def test_deterministic_training_twice(utterances: list[Utterance], tmp_path: Path) -> None:
    """Guards --train.deterministic: two runs end with the same bits, and no operation is refused."""
    weights = []
    for name in ("one", "other"):
        made = settings(tmp_path / name, precision="float32", deterministic=True)
        train(utterances, utterances, made)
        weights.append(load_file(tmp_path / name / "last.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def test_deterministic_ctc_twice() -> None:
    """Guards the loss itself, where many states share a symbol: the same bits, and the numbers of a CPU."""
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 300, 5, generator=generator)
    tokens = torch.randint(1, 5, (16, 120), generator=generator)
    steps, counts = torch.arange(285, 301), torch.arange(105, 121)
    gradients = []
    for _ in range(5):
        there = logits.cuda().requires_grad_()
        losses = deterministic_ctc_loss(there.log_softmax(-1), steps, tokens.cuda(), counts)
        losses.sum().backward()
        assert there.grad is not None
        gradients.append(there.grad.cpu())
    assert all(torch.equal(gradients[0], gradient) for gradient in gradients[1:])
    here = logits.clone().requires_grad_()
    expected = ctc_loss(here.log_softmax(-1), steps, tokens, counts)
    expected.sum().backward()
    assert here.grad is not None
    torch.testing.assert_close(losses.cpu(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradients[0], here.grad, rtol=1e-3, atol=1e-3)
