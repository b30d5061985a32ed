"""The loop as a whole: learning, resuming, how long a run is, when it is validated."""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asr.errors import Interrupted, ModelError
from asr.manifests.utterance import Utterance
from asr.model.saved import load_model
from asr.training import metrics as metrics_module
from asr.training import trainer as trainer_module
from asr.training.run.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.run.stopping import StopRequest
from asr.training.tasks import speech as speech_module
from asr.training.trainer import Trainer, _update_seed
from tests.conftest import no_space
from tests.training.conftest import AUGMENT, ENCODER, StopAfter, rows, same_tree

Make = Callable[..., Trainer]


def test_learns(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the loop as a whole: on a dozen utterances the loss falls to a tenth and the WER to nothing."""
    trainer = make_trainer(encoder=replace(ENCODER, width=32, dropout=0.0), epochs=30, learning_rate=3e-2)
    state = trainer.fit(StopRequest())
    losses = [row["train_loss"] for row in rows(tmp_path / "run", "epoch")]
    assert losses[-1] < losses[0] / 10
    assert state.best_score == 0
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.settings.provenance["dev_wer"] == 0
    assert model.settings.provenance["settings"] == {"train.seed": 1}


def test_best_is_not_last(make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the choice: lowest dev WER, and between equal ones the lowest dev loss."""
    scores = iter([(50.0, 2.0), (40.0, 3.0), (40.0, 1.0), (40.0, 2.0)])
    original = speech_module.validate

    def validate(*arguments: Any) -> Any:
        wer, loss = next(scores)
        return replace(original(*arguments), wer=wer, loss=loss)

    monkeypatch.setattr(speech_module, "validate", validate)
    state = make_trainer(epochs=4).fit(StopRequest())
    assert (state.best, state.best_score, state.best_loss) == ("epoch 3", 40.0, 1.0)
    assert load_model(tmp_path / "run" / "model.safetensors").settings.provenance["epoch"] == 3
    assert load_model(tmp_path / "run" / "last.safetensors").settings.provenance["epoch"] == 4
    assert [row["best"] for row in rows(tmp_path / "run", "epoch")] == [True, True, True, False]


def test_early_stop(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards patience: so many epochs without a better score, and no more."""
    caplog.set_level(logging.INFO, "asr")
    original = speech_module.validate
    monkeypatch.setattr(speech_module, "validate", lambda *args: replace(original(*args), wer=50, loss=1))
    state = make_trainer(epochs=9, patience=2).fit(StopRequest())
    assert (state.epoch, state.best) == (4, "epoch 1")
    assert "no better dev WER for 2 epochs: stopping early" in caplog.messages


TOOLS = {"accumulate": 2, "ema": 0.9, "average": 2, "schedule": "plateau", "freeze": ("front",)}


@pytest.mark.parametrize(
    ("stops", "more"),
    [((1,), {}), ((5,), {}), ((2, 3, 4), {}), ((7,), {}), ((1, 1, 2), TOOLS), ((5,), TOOLS)],
)
def test_resumed_equals_never_stopped(
    stops: tuple[int, ...], more: dict[str, Any], make_trainer: Make, tmp_path: Path
) -> None:
    """Guards every bit: weights, optimiser, best score and epoch sums, with dropout, masks and speeds on, and
    with every component that has state."""
    more = {"epochs": 5, **more} if more else {}
    make_trainer("whole", augment=AUGMENT, **more).fit(StopRequest())
    trainer = make_trainer("parts", augment=AUGMENT, **more)
    for stop in stops:
        with pytest.raises(Interrupted, match=r"and saved\. To continue, add --train.resume"):
            trainer.fit(StopAfter(stop))
        trainer = make_trainer("parts", augment=AUGMENT, **more)
        state, settings, state_dicts = load_checkpoint(tmp_path / "parts" / CHECKPOINT, torch.device("cpu"))
        assert settings == {"train.seed": 1}
        torch.manual_seed(99)  # nothing may depend on what a process drew before
        trainer.restore(state, state_dicts)
    trainer.fit(StopRequest())
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def assert_same_runs(left: Path, right: Path) -> None:
    for name in ("last.safetensors", "model.safetensors"):
        assert same_tree(load_file(left / name), load_file(right / name)), name
    training_states, state_dicts = [], []
    for run_dir in (left, right):
        state, _, tensors = load_checkpoint(run_dir / CHECKPOINT, torch.device("cpu"))
        training_states.append({key: value for key, value in asdict(state).items() if key != "training_s"})
        state_dicts.append(tensors)
    assert training_states[0] == training_states[1]
    assert same_tree(*state_dicts)
    times = ("training_s", "audio_s_per_s", "waiting_share")
    epochs = [
        [{key: value for key, value in row.items() if key not in times} for row in rows(run_dir, "epoch")]
        for run_dir in (left, right)
    ]
    assert epochs[0] == epochs[1]
    assert update_losses(left) == update_losses(right)


def update_losses(run_dir: Path) -> list[tuple[int, float]]:
    return [(row["update"], row["loss"]) for row in rows(run_dir, "updates")]


def test_saved_within_the_epoch(make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards checkpoints on the way: going on from any of them, as after a crash, gives the same run."""
    kept: list[Path] = []
    original = trainer_module.save_checkpoint

    def save(path: Path, *rest: Any) -> None:
        original(path, *rest)
        copied = tmp_path / f"checkpoint{len(kept)}"
        copied.mkdir()
        (copied / CHECKPOINT).write_bytes(path.read_bytes())
        (copied / "metrics.jsonl").write_bytes((path.parent / "metrics.jsonl").read_bytes())
        kept.append(copied)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "save_checkpoint", save)
        make_trainer("whole", save_every_s=0.0).fit(StopRequest())
    assert len(kept) > 6
    for folder in (kept[0], kept[len(kept) // 2]):
        trainer = make_trainer(folder.name)
        state, _, state_dicts = load_checkpoint(folder / CHECKPOINT, torch.device("cpu"))
        assert state.batch > 0
        # What a crash leaves after the checkpoint: later rows, and half a row.
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"event": "updates", "epoch": 3, "update": 99, "loss": 0.0}\n{"event": "up')
        trainer.restore(state, state_dicts)
        trainer.fit(StopRequest())
        assert_same_runs(tmp_path / "whole", folder)


def test_seed_matters(make_trainer: Make) -> None:
    """Guards against dropout that is the same for every seed: torch's CPU generator ignores the high bits."""
    seeds = [trainer_module._update_seed(*key) for key in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))]
    draws = []
    for seed in seeds:
        torch.manual_seed(seed)
        draws.append(torch.rand(4))
    assert not any(torch.equal(draws[i], draws[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize(("clip_norm", "share"), [(1e-6, 1.0), (1e6, 0.0), (0.0, 0.0)])
def test_clipping(clip_norm: float, share: float, make_trainer: Make, tmp_path: Path) -> None:
    """Guards the limit on the gradient, that 0 means none, and the norm that is reported: before clipping."""
    trainer = make_trainer(epochs=1, clip_norm=clip_norm)
    norms: list[float] = []
    gradients = list(trainer.task.net.parameters())
    hook = trainer.optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(torch.stack([weight.grad.norm() for weight in gradients]).norm()))
    )
    trainer.fit(StopRequest())
    hook.remove()
    updates = rows(tmp_path / "run", "updates")
    assert [row["clipped_share"] for row in updates] == [share] * len(updates)
    reported = [row["gradient_norm"] for row in updates]
    assert norms == pytest.approx([min(norm, clip_norm or math.inf) for norm in reported], rel=1e-3)


def test_learning_rate_follows_the_schedule(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the rate of every update, also within an epoch."""
    make_trainer(epochs=2, warmup=0.5, schedule="linear", learning_rate=0.1).fit(StopRequest())
    rates = [row["learning_rate"] for row in rows(tmp_path / "run", "updates")]
    batches = len(rates) // 2
    rise = [0.1 * number / batches for number in range(batches)]
    assert rates == pytest.approx([*rise, *(0.1 - rate for rate in rise)])


def test_loss_is_a_mean_over_tokens(make_trainer: Make, tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the reported loss against means of means over batches of different size."""
    trainer = make_trainer(epochs=1, learning_rate=1e-12, encoder=replace(ENCODER, dropout=0.0))
    trainer.fit(StopRequest())
    total, tokens = 0.0, 0
    for batch in trainer.task.load(trainer.task.plan(0)):
        log_probs, steps, _ = trainer.task.net(batch.cached_features, batch.frame_lengths)
        losses = speech_module.ctc_loss(log_probs, steps, batch.tokens, batch.token_lengths)
        total += float(losses.detach().sum())
        tokens += int(batch.token_lengths.sum())
    (epoch,) = rows(tmp_path / "run", "epoch")
    assert epoch["train_loss"] == pytest.approx(total / tokens, rel=1e-4)


def test_uncached_features(make_trainer: Make, tones: list[Utterance], tmp_path: Path) -> None:
    """Guards training straight from the audio, where the features are made on the model's device."""
    cached, plain = make_trainer("cached", epochs=1), make_trainer("plain", epochs=1)
    plain.task.train_batches.dataset.caches = {}
    plain.task.dev_batches.dataset.caches = {}
    cached.fit(StopRequest())
    plain.fit(StopRequest())
    losses = [rows(tmp_path / name, "epoch")[0]["train_loss"] for name in ("cached", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bf16 on this processor")
def test_bf16(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the lower precision: about the same losses, and weights that stay in float32."""
    trainer = make_trainer("low", precision="bf16")
    trainer.fit(StopRequest())
    make_trainer("full").fit(StopRequest())
    assert {weight.dtype for weight in trainer.task.net.parameters()} == {torch.float32}
    losses = [[row["train_loss"] for row in rows(tmp_path / name, "epoch")] for name in ("low", "full")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_full_disk(make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the files of a run: when the disk fills up, one line reports it and the old ones are intact."""
    make_trainer(epochs=1).fit(StopRequest())
    names = ("model.safetensors", "last.safetensors", "checkpoint.pt")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    (tmp_path / "run" / "metrics.jsonl").unlink()  # or its rows would be the first to be written again

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(ModelError, match="No space left on device"):
        make_trainer(epochs=2).fit(StopRequest())
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}


def test_plateau_halves_the_rate(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards newbob: each epoch that is not the best so far halves the rate of those after it."""
    caplog.set_level(logging.INFO, "asr")
    scores = iter([50.0, 60.0, 40.0, 45.0, 44.0])
    original = speech_module.validate
    monkeypatch.setattr(speech_module, "validate", lambda *args: replace(original(*args), wer=next(scores)))
    make_trainer(epochs=5, schedule="plateau", warmup=0.0, learning_rate=0.01).fit(StopRequest())
    rates = {row["epoch"]: row["learning_rate"] for row in rows(tmp_path / "run", "updates")}
    assert rates == pytest.approx({1: 0.01, 2: 0.01, 3: 0.005, 4: 0.005, 5: 0.0025})
    assert "no better dev WER: the learning rate goes down to 5.0e-03" in caplog.messages


def test_large_seeds(make_trainer: Make) -> None:
    """Guards seeds of more than 32 bits, of which torch's generator on a CPU uses the lowest 32."""
    make_trainer(epochs=1, seed=20240101123456).fit(StopRequest())
    draws = []
    for seed in (1, 1 + 2**32):
        torch.manual_seed(_update_seed(seed, update=0, rank=0))
        draws.append(float(torch.rand(())))
    assert draws[0] != draws[1]


CPU = torch.device("cpu")


def resume(make_trainer: Make, run_dir: Path, **config: Any) -> Trainer:
    trainer = make_trainer(run_dir.name, **config)
    state, _, state_dicts = load_checkpoint(run_dir / CHECKPOINT, CPU)
    trainer.restore(state, state_dicts)
    return trainer


def test_validated_every_so_many_updates(make_trainer: Make, tmp_path: Path) -> None:
    """Guards --train.validate-every: in mid-epoch and over more than one, and once more at the end."""
    state = make_trainer(validate_every=4).fit(StopRequest())
    total = state.update
    validations = rows(tmp_path / "run", "validation")
    assert [row["update"] for row in validations] == [*range(4, total, 4), total]
    assert state.best.startswith("update ")
    assert not rows(tmp_path / "run", "epoch")
    assert state.epoch == 4


@pytest.mark.parametrize("stops", [(3, 2), (4,), (1, 7)])
def test_resumed_between_validations(stops: tuple[int, ...], make_trainer: Make, tmp_path: Path) -> None:
    """Guards validations by updates against being left out, or made twice, where a session ends: also one
    that ends when a validation is due."""
    more = {"validate_every": 5, "updates": 17, "average": 2, "ema": 0.9, "schedule": "plateau"}
    make_trainer("whole", augment=AUGMENT, **more).fit(StopRequest())
    trainer = make_trainer("parts", augment=AUGMENT, **more)
    for stop in stops:
        with pytest.raises(Interrupted):
            trainer.fit(StopAfter(stop))
        trainer = resume(make_trainer, tmp_path / "parts", augment=AUGMENT, **more)
    trainer.fit(StopRequest())
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
    pairs = [[row["update"] for row in rows(tmp_path / name, "validation")] for name in ("whole", "parts")]
    assert pairs[0] == pairs[1] == [5, 10, 15, 17]


def test_patience_counts_validations(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards early stopping within an epoch."""
    trainer = make_trainer(validate_every=2, epochs=50, patience=2)
    original = trainer.task.validate
    monkeypatch.setattr(trainer.task, "validate", lambda *args: replace(original(*args), wer=50, loss=1))
    state = trainer.fit(StopRequest())
    assert (state.best, state.update) == ("update 2", 6)


def test_planned_by_updates(make_trainer: Make, tmp_path: Path) -> None:
    """Guards --train.updates: their number, whatever --train.epochs is; the learning rate falls over them."""
    state = make_trainer(epochs=1, updates=12, schedule="linear", warmup=0.0, learning_rate=0.12).fit(
        StopRequest()
    )
    assert state.update == 12
    rates = [row["learning_rate"] for row in rows(tmp_path / "run", "updates")]
    assert rates == pytest.approx([0.12 - 0.01 * number for number in range(12)])
    assert state.validated_update == 12  # the last weights are scored, in mid-epoch
    assert resume(make_trainer, tmp_path / "run", updates=12).fit(StopRequest()).update == 12


class Clock:
    """A clock by which each update takes 10 seconds."""

    def __init__(self, trainer: Trainer) -> None:
        self.now = 1000.0
        original = trainer._update

        def update(*arguments: Any) -> None:
            self.now += 10.0
            original(*arguments)

        trainer._update = update

    def monotonic(self) -> float:
        return self.now


def test_planned_by_time(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards --train.minutes: the learning rate falls with the clock and is 0 at the end, the time of earlier
    sessions counts, and the progress line knows what is left."""
    caplog.set_level("INFO", "asr")
    plan = {"minutes": 2.0, "schedule": "linear", "warmup": 0.0, "learning_rate": 0.12}
    trainer = make_trainer(**plan)
    monkeypatch.setattr(metrics_module, "time", Clock(trainer))
    with pytest.raises(Interrupted):
        trainer.fit(StopAfter(4))
    trainer = resume(make_trainer, tmp_path / "run", **plan)
    monkeypatch.setattr(metrics_module, "time", Clock(trainer))
    state = trainer.fit(StopRequest())
    assert state.update == 12
    assert state.training_s == 120
    rates = [row["learning_rate"] for row in rows(tmp_path / "run", "updates")]
    assert rates == pytest.approx([0.12 - 0.01 * number for number in range(12)])
    lines = [record.getMessage() for record in caplog.records if "  left " in record.getMessage()]
    assert lines[0].startswith("epoch 1  batch 1/")
    assert lines[0].endswith("left 0:01:50")
    assert lines[-1].endswith("left 0:00:00")
    assert state.validated_update == 12


@pytest.mark.parametrize(("before", "after"), [(False, True), (True, False), (True, True)])
def test_resumed_into_another_precision(
    before: bool, after: bool, make_trainer: Make, tmp_path: Path
) -> None:
    """Guards --train.resume-anyway with another --train.precision: the loss scale of fp16 is reset, or is
    left aside; it was a bare RuntimeError."""

    def make(scaled: bool) -> Trainer:
        trainer = make_trainer(epochs=2)
        trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        return trainer

    trainer = make(before)
    with pytest.raises(Interrupted):
        trainer.fit(StopAfter(1))
    state, _, state_dicts = load_checkpoint(tmp_path / "run" / CHECKPOINT, CPU)
    assert bool(state_dicts["scaler"]) == before
    trainer = make(after)
    trainer.restore(state, state_dicts)
    assert trainer.fit(StopRequest()).epoch == 3
    assert same_tree(trainer.scaler.is_enabled(), after)
