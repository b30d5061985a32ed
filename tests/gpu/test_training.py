"""The whole training loop on a GPU, and the same on a CPU. Not yet run on a GPU: see the README."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import asr.training.run.start
from asr.batching.batches import BatchConfig
from asr.device import has_bf16_recurrence, has_tf32, set_tf32
from asr.errors import Interrupted
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.manifests.utterance import Utterance
from asr.model.encoder import EncoderConfig
from asr.model.loss.crf import crf_loss, log_partition
from asr.model.loss.ctc import ctc_loss, deterministic_ctc_loss
from asr.model.loss.denominator import DenominatorLm, count_ngrams, witten_bell
from asr.model.recurrent.unidirectional import UnidirectionalLayer
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings, train_recogniser
from tests.training.conftest import RATE, StopAfter, same_tree, write_tones

# cuBLAS reads it when it starts, which an earlier test may make it do.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

FORMATS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    texts = ["ab", "cad", "bbd", "dacb", "abcd", "ca", "dd", "bca"]
    return write_tones(tmp_path_factory.mktemp("tones"), texts)


@pytest.fixture
def settings(device: torch.device) -> Callable[..., Settings]:
    """Settings of a small training on the device."""

    def make(run_dir: Path, cache_dir: Path | None = None, **config: Any) -> Settings:
        return Settings(
            features=FeatureConfig(sample_rate=RATE, n_mels=20),
            augment=AugmentConfig(
                speeds=(0.9, 1.0), time_mask_frames=5, mel_mask_bands=5, masks_from_epoch=1
            ),
            model=EncoderConfig(width=16, depth=2, channels=4, dropout=0.1),
            batch=BatchConfig(seconds=2.0, cache_dir=cache_dir, workers=0),
            train=TrainConfig(
                **{"run_dir": run_dir, "epochs": 3, "device": device.type, "log_every_s": 0.0, **config}
            ),
        )

    return make


def skip_unless_possible(device: torch.device, precision: str) -> None:
    if device.type == "cpu":
        if precision in ("fp16", "tf32"):
            pytest.skip(f"{precision} is for GPUs")
        if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            pytest.skip("this processor has no instructions for bf16")
    elif precision in ("bf16", "tf32") and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip(f"no {precision} on this GPU")


def rows_of(run_dir: Path, event: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == event]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("precision", FORMATS)
def test_training(
    precision: str, cached: bool, device: torch.device, utterances: list[Utterance], tmp_path: Path,
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Guards what no test of a single step reaches: loss scaling, results read an update late, pinned copies,
    features made on the GPU, validation, and a model that can be written, in the number format asked for."""
    skip_unless_possible(device, precision)
    used: set[tuple[str, torch.dtype]] = set()
    forward = UnidirectionalLayer.forward

    def record(self: UnidirectionalLayer, x: Tensor, state: Any = None) -> Any:
        y, last = forward(self, x, state)
        used.add((y.device.type, y.dtype))
        return y, last

    monkeypatch.setattr(UnidirectionalLayer, "forward", record)
    run_dir = tmp_path / "run"
    train_recogniser(
        utterances, utterances, settings(run_dir, tmp_path if cached else None, precision=precision)
    )
    expected = FORMATS[precision]
    if precision == "bf16" and device.type == "cuda" and not has_bf16_recurrence(torch.device("cuda", 0)):
        expected = torch.float32
    assert used == {(device.type, expected)}
    assert has_tf32() is (precision == "tf32")
    losses = [row["train_loss"] for row in rows_of(run_dir, "epoch")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]  # of a net that has just begun
    weights = load_file(run_dir / "last.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_resumed_equals_never_stopped(
    precision: str, device: torch.device, utterances: list[Utterance], tmp_path: Path,
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Guards the checkpoint of a GPU's optimiser, loss scale and moving average: a run that is stopped within
    an epoch and resumed ends with the bits of one that never was."""
    skip_unless_possible(device, precision)
    config = {"precision": precision, "deterministic": True, "ema": 0.9}
    train_recogniser(utterances, utterances, settings(tmp_path / "whole", **config))
    updates = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["position"]["update"]
    assert updates >= 6  # at least two an epoch
    with monkeypatch.context() as patch:
        patch.setattr(asr.training.run.start, "StopRequest", lambda max_hours: StopAfter(updates // 2))
        with pytest.raises(Interrupted):
            train_recogniser(utterances, utterances, settings(tmp_path / "stopped", **config))
    assert len(rows_of(tmp_path / "stopped", "epoch")) < 3
    train_recogniser(utterances, utterances, settings(tmp_path / "stopped", **config, resume=True))
    ends = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "stopped")]
    assert ends[0]["position"]["update"] == ends[1]["position"]["update"]
    for part in ("net", "optimizer", "scaler", "average"):
        assert same_tree(ends[0]["states"][part], ends[1]["states"][part]), part


def test_deterministic_training_twice(
    device: torch.device, utterances: list[Utterance], tmp_path: Path, settings: Callable[..., Settings]
) -> None:
    """Guards --train.deterministic: two runs end with the same bits, and no operation is refused."""
    weights = []
    for name in ("one", "other"):
        made = settings(tmp_path / name, precision="float32", deterministic=True)
        train_recogniser(utterances, utterances, made)
        weights.append(load_file(tmp_path / name / "last.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def test_deterministic_ctc_twice(device: torch.device) -> None:
    """Guards the loss itself, where many states share a symbol: the same bits, and the numbers of a CPU."""
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 300, 5, generator=generator)
    tokens = torch.randint(1, 5, (16, 120), generator=generator)
    steps, counts = torch.arange(285, 301), torch.arange(105, 121)
    gradients = []
    for _ in range(5):
        there = logits.to(device, copy=True).requires_grad_()
        losses = deterministic_ctc_loss(there.log_softmax(-1), steps, tokens.to(device), counts)
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


@pytest.mark.parametrize("order", [2, 3])
def test_crf(order: int, device: torch.device) -> None:
    """Guards CTC-CRF in torch's operations: the numbers of the compiled ones, the same bits twice, in
    deterministic mode, and with TF32 chosen; on a GPU, nothing waits for it."""
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 200, 41, generator=generator)
    tokens = torch.randint(1, 41, (6, 40), generator=generator)
    steps, counts = torch.arange(195, 201), torch.arange(35, 41)
    denominator = DenominatorLm(order, 41)
    denominator.set_probs(witten_bell(count_ngrams(tokens.tolist(), order, 41)))

    def run(where: torch.device) -> tuple[Tensor, Tensor]:
        table, there = copy.deepcopy(denominator).to(where), logits.to(where, copy=True).requires_grad_()
        losses = crf_loss(
            there.log_softmax(-1), steps, tokens.to(where), counts,
            denominator_lm=table, ctc_weight=0.1, ctc=deterministic_ctc_loss,
        )  # fmt: skip
        losses.sum().backward()
        assert there.grad is not None
        return losses.detach().cpu(), there.grad.cpu()

    set_tf32(True)
    results = [run(device) for _ in range(2)]
    set_tf32(False)
    assert same_tree(results[0], results[1])
    expected = run(torch.device("cpu"))
    torch.testing.assert_close(results[0][0], expected[0], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(results[0][1], expected[1], rtol=1e-3, atol=1e-3)
    if device.type == "cuda":
        emissions = logits.to(device).log_softmax(-1)
        lengths, table = steps.to(device), denominator.to(device).probs
        torch.cuda.set_sync_debug_mode("error")
        try:
            log_partition(emissions.requires_grad_(), lengths, table).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
