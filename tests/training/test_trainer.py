import copy
import json
import logging
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from asr.corpora.manifest import Utterance
from asr.errors import Interrupted, ModelError, SettingsError, TrainingError
from asr.frontend.augment import AugmentConfig
from asr.model.saved import load_model, save_model
from asr.text.tokenizer import CharTokenizer
from asr.training import speech as speech_module
from asr.training import trainer as trainer_module
from asr.training.batches import Batch
from asr.training.checkpoint import load_checkpoint
from asr.training.config import TrainConfig
from asr.training.reproducer import read_reproducer, weights_digest
from asr.training.speech import replay
from asr.training.stopping import StopSignal
from asr.training.trainer import CHECKPOINT, Trainer
from tests.training.conftest import ENCODER

Make = Callable[..., Trainer]
AUGMENT = AugmentConfig(speeds=(0.9, 1.0, 1.1), time_mask_frames=5, mel_mask_bands=5, masks_from_epoch=2)


def rows(run_dir: Path, event: str) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == event]


def same_tree(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return bool(torch.equal(left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_tree(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same_tree, left, right))
    return bool(left == right)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


class StopAfter(StopSignal):
    """A Ctrl-C that comes when so many updates have been begun."""

    def __init__(self, updates: int) -> None:
        self.left = updates

    @property
    def received(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_learns(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the loop as a whole: on a dozen utterances the loss falls to a tenth and the WER to nothing."""
    trainer = make_trainer(encoder=replace(ENCODER, width=32, dropout=0.0), epochs=30, learning_rate=3e-2)
    position = trainer.run(StopSignal())
    losses = [row["train_loss"] for row in rows(tmp_path / "run", "epoch")]
    assert losses[-1] < losses[0] / 10
    assert position.best_score == 0
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
    position = make_trainer(epochs=4).run(StopSignal())
    assert (position.best_epoch, position.best_score, position.best_loss) == (3, 40.0, 1.0)
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
    position = make_trainer(epochs=9, patience=2).run(StopSignal())
    assert (position.epoch, position.best_epoch) == (4, 1)
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
    with every tool that has a state of its own."""
    more = {"epochs": 5, **more} if more else {}
    make_trainer("whole", augment=AUGMENT, **more).run(StopSignal())
    trainer = make_trainer("parts", augment=AUGMENT, **more)
    for stop in stops:
        with pytest.raises(Interrupted, match=r"and saved\. To go on, add --train.resume"):
            trainer.run(StopAfter(stop))
        trainer = make_trainer("parts", augment=AUGMENT, **more)
        position, settings, states = load_checkpoint(tmp_path / "parts" / CHECKPOINT, torch.device("cpu"))
        assert settings == {"train.seed": 1}
        torch.manual_seed(99)  # nothing may depend on what a process drew before
        trainer.restore(position, states)
    trainer.run(StopSignal())
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def assert_same_runs(left: Path, right: Path) -> None:
    for name in ("last.safetensors", "model.safetensors"):
        assert same_tree(weights_of(left / name), weights_of(right / name)), name
    positions, states = [], []
    for run_dir in (left, right):
        position, _, state = load_checkpoint(run_dir / CHECKPOINT, torch.device("cpu"))
        positions.append({key: value for key, value in asdict(position).items() if key != "seconds"})
        states.append(state)
    assert positions[0] == positions[1]
    assert same_tree(*states)
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
        make_trainer("whole", save_every_s=0.0).run(StopSignal())
    assert len(kept) > 6
    for folder in (kept[0], kept[len(kept) // 2]):
        trainer = make_trainer(folder.name)
        position, _, states = load_checkpoint(folder / CHECKPOINT, torch.device("cpu"))
        assert position.batch > 0
        # What a crash leaves behind the checkpoint: later rows, and half a row.
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"event": "updates", "epoch": 3, "update": 99, "loss": 0.0}\n{"event": "up')
        trainer.restore(position, states)
        trainer.run(StopSignal())
        assert_same_runs(tmp_path / "whole", folder)


def test_seed_matters(make_trainer: Make) -> None:
    """Guards against dropout that is the same for every seed: torch's CPU generator ignores the high bits."""
    seeds = [trainer_module._update_seed(*key) for key in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))]
    draws = []
    for seed in seeds:
        torch.manual_seed(seed)
        draws.append(torch.rand(4))
    assert not any(torch.equal(draws[i], draws[j]) for i in range(4) for j in range(i))


class _Planted:
    """Batches in which some utterances have gone wrong."""

    def __init__(self, trainer: Trainer, change: Callable[[Batch], Batch]) -> None:
        self.inner, self.change = trainer.task.train, change
        self.examples = self.inner.examples

    def plan(self, epoch: int) -> Any:
        return self.inner.plan(epoch)

    def load(self, plan: Any) -> Iterator[Batch]:
        return map(self.change, self.inner.load(plan))


def plant(trainer: Trainer, name: str, kind: str) -> None:
    """Give one utterance NaN features, or more tokens than steps; names ending in * mean all."""

    def change(batch: Batch) -> Batch:
        hit = [row for row, other in enumerate(batch.ids) if other == name or name == "*"]
        if not hit:
            return batch
        if kind == "nan":
            audio = batch.audio.clone()
            audio[hit] = float("nan")
            return replace(batch, audio=audio)
        tokens = torch.ones(len(batch.ids), 400, dtype=torch.int64)
        tokens[:, : batch.tokens.shape[1]] = batch.tokens
        lengths = batch.token_lengths.clone()
        lengths[hit] = 400
        return replace(batch, tokens=tokens, token_lengths=lengths)

    trainer.task.train = _Planted(trainer, change)


@pytest.mark.parametrize(("kind", "value"), [("nan", "nan"), ("infinite", "inf")])
def test_bad_utterance(
    kind: str, value: str, make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Guards the weights: the utterance is named, its update changes nothing, and training goes on."""
    trainer = make_trainer(epochs=2)
    plant(trainer, "u05", kind)
    untouched: dict[int, bool] = {}
    original = trainer._update

    def update(batches: list[Batch], *rest: Any) -> Any:
        (batch,) = batches
        before = copy.deepcopy((trainer.task.net.state_dict(), trainer.optimizer.state_dict()["state"]))
        launched = original(batches, *rest)
        after = (trainer.task.net.state_dict(), trainer.optimizer.state_dict()["state"])
        if before[1]:  # before the first update there is no state to compare
            untouched[launched.number] = same_tree(list(before), list(after))
            assert untouched[launched.number] == ("u05" in batch.ids)
        return launched

    monkeypatch.setattr(trainer, "_update", update)
    position = trainer.run(StopSignal())
    assert position.epoch == 3
    assert position.bad_updates == 0  # in a row, and the last one was good
    skipped = [message for message in caplog.messages if "skipped. utterances" in message]
    numbers = [number for number, same in untouched.items() if same]
    bad = tmp_path / "run" / f"bad_update_{numbers[-1]}.pt"
    assert skipped[-1] == (
        f"update {numbers[-1]} skipped. utterances whose loss is not finite: u05 ({value}). To repeat it: "
        f"python -c 'from asr.training.speech import replay; print(replay(\"{bad}\"))'"
    )
    assert len(skipped) == 2
    assert len(list((tmp_path / "run").glob("bad_update_*.pt"))) == 2
    assert [row["skipped_updates"] for row in rows(tmp_path / "run", "epoch")] == [1, 1]
    assert all(math.isfinite(row["train_loss"]) for row in rows(tmp_path / "run", "epoch"))


def test_scaled_loss_that_is_not_finite(make_trainer: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Guards fp16, whose scaler looks at gradients alone: an infinite loss with a finite gradient (here 0) is
    reported as skipped, and must be; an overflow is skipped too, and lowers the scale."""
    trainer = make_trainer(epochs=1, ema=0.5)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    original = trainer.task.losses

    def losses(batch: Batch, precision: torch.dtype) -> Any:
        found = original(batch, precision)
        bad = float("inf") if trainer.position.update == 1 else 0.0
        return replace(found, losses=found.losses * (0.0 if bad else 1.0) + bad)

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return value * float("inf") if trainer.position.update == 2 else value

    trainer.task.losses = losses
    trainer.task.net.encoder.output.weight.register_hook(gradient)
    same, scales = [], []
    update = trainer._update

    def watched(*arguments: Any) -> Any:
        before = copy.deepcopy((trainer.task.net.state_dict(), trainer.optimizer.state_dict()["state"]))
        launched = update(*arguments)
        after = (trainer.task.net.state_dict(), trainer.optimizer.state_dict()["state"])
        same.append(same_tree(list(before), list(after)))
        scales.append(trainer.scaler.get_scale())
        return launched

    trainer._update = watched
    trainer.run(StopSignal())
    assert same[:4] == [False, True, True, False]
    assert scales[:4] == [2.0**10, 2.0**10, 2.0**9, 2.0**9]
    told = [message for message in caplog.messages if "skipped" in message]
    assert "update 2 skipped. utterances whose loss is not finite: u" in told[0]
    assert told[1] == (
        "update 3 skipped. a gradient overflowed in fp16, and the loss scale is lowered; usual now and then"
    )


@pytest.mark.parametrize("kind", ["nan", "infinite"])
def test_bad_update_can_be_repeated(kind: str, make_trainer: Make, tmp_path: Path) -> None:
    """Guards the reproducer: the command that the log names gives the very losses of the update."""
    trainer = make_trainer(epochs=2, accumulate=2, augment=AUGMENT, max_bad_updates=99)
    plant(trainer, "u05", kind)
    reports: list[Any] = []
    original = trainer._report_bad
    trainer._report_bad = lambda launched: (reports.append(launched), original(launched))
    trainer.run(StopSignal())
    assert len(reports) == 2
    for launched in reports:
        path = tmp_path / "run" / f"bad_update_{launched.number}.pt"
        assert len(launched.batches) == 2
        results = replay(path)
        norm = results.pop("gradient norm")
        assert not math.isfinite(norm)
        assert tuple(results) == launched.ids
        assert torch.equal(
            torch.tensor(list(results.values())).nan_to_num(1e9), launched.losses.nan_to_num(1e9)
        )
        record = read_reproducer(path)
        assert record["weights_after_update"] == launched.number  # no later one was made
        model = load_model(path.with_suffix(".safetensors"))
        assert record["weights_sha256"] == weights_digest(model.state_dict())


def test_reproducers_do_not_fill_the_disk(make_trainer: Make, tmp_path: Path) -> None:
    """Guards a corpus with many bad utterances: a session keeps three bad updates."""
    trainer = make_trainer(max_bad_updates=8)
    plant(trainer, "*", "nan")
    with pytest.raises(TrainingError):
        trainer.run(StopSignal())
    assert len(list((tmp_path / "run").glob("bad_update_*.pt"))) == 3


def test_too_many_bad_updates(make_trainer: Make, tmp_path: Path) -> None:
    """Guards against a run that never updates again: it ends, with names, causes and the weights as they
    were."""
    trainer = make_trainer(max_bad_updates=3)
    plant(trainer, "*", "nan")
    before = copy.deepcopy(trainer.task.net.state_dict())
    with pytest.raises(TrainingError, match=r"^3 updates in a row .*The last, 3: .*u\d\d \(nan\)") as caught:
        trainer.run(StopSignal())
    assert "--train.learning-rate 0.001" in str(caught.value)
    assert "Nothing was saved yet." in str(caught.value)
    assert same_tree(before, trainer.task.net.state_dict())


def test_gradient_that_is_not_finite(make_trainer: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the other cause: finite losses, but the gradient overflows on its way back."""
    trainer = make_trainer(epochs=1, max_bad_updates=99)
    trainer.task.net.encoder.output.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = copy.deepcopy(trainer.task.net.state_dict())
    trainer.run(StopSignal())
    assert "update 1 skipped. every loss is finite, but the gradient is not; utterances: u" in caplog.text
    assert same_tree(before, trainer.task.net.state_dict())


@pytest.mark.parametrize(("clip_norm", "share"), [(1e-6, 1.0), (1e6, 0.0), (0.0, 0.0)])
def test_clipping(clip_norm: float, share: float, make_trainer: Make, tmp_path: Path) -> None:
    """Guards the limit on the gradient, that 0 means none, and the norm that is reported: before clipping."""
    trainer = make_trainer(epochs=1, clip_norm=clip_norm)
    norms: list[float] = []
    gradients = list(trainer.task.net.parameters())
    hook = trainer.optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(torch.stack([weight.grad.norm() for weight in gradients]).norm()))
    )
    trainer.run(StopSignal())
    hook.remove()
    updates = rows(tmp_path / "run", "updates")
    assert [row["clipped_share"] for row in updates] == [share] * len(updates)
    reported = [row["gradient_norm"] for row in updates]
    assert norms == pytest.approx([min(norm, clip_norm or math.inf) for norm in reported], rel=1e-3)


def test_learning_rate_follows_the_schedule(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the rate of every update, also within an epoch."""
    make_trainer(epochs=2, warmup=0.5, schedule="linear", learning_rate=0.1).run(StopSignal())
    rates = [row["learning_rate"] for row in rows(tmp_path / "run", "updates")]
    batches = len(rates) // 2
    rise = [0.1 * number / batches for number in range(batches)]
    assert rates == pytest.approx([*rise, *(0.1 - rate for rate in rise)])


def test_loss_is_a_mean_over_tokens(make_trainer: Make, tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the reported loss against means of means over batches of different size."""
    trainer = make_trainer(epochs=1, learning_rate=1e-12, encoder=replace(ENCODER, dropout=0.0))
    trainer.run(StopSignal())
    total, tokens = 0.0, 0
    for batch in trainer.task.load(trainer.task.plan(0)):
        log_probs, steps = trainer.task.net(batch.audio, batch.frame_lengths)
        losses = speech_module.ctc_loss(log_probs, steps, batch.tokens, batch.token_lengths)
        total += float(losses.detach().sum())
        tokens += int(batch.token_lengths.sum())
    (epoch,) = rows(tmp_path / "run", "epoch")
    assert epoch["train_loss"] == pytest.approx(total / tokens, rel=1e-4)


def test_uncached_features(make_trainer: Make, tones: list[Utterance], tmp_path: Path) -> None:
    """Guards training straight from the audio, where the features are made on the model's device."""
    cached, plain = make_trainer("cached", epochs=1), make_trainer("plain", epochs=1)
    plain.task.train.dataset.caches = {}
    plain.task.dev.dataset.caches = {}
    cached.run(StopSignal())
    plain.run(StopSignal())
    losses = [rows(tmp_path / name, "epoch")[0]["train_loss"] for name in ("cached", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bf16 on this processor")
def test_bf16(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the lower precision: about the same losses, and weights that stay in float32."""
    trainer = make_trainer("low", precision="bf16")
    trainer.run(StopSignal())
    make_trainer("full").run(StopSignal())
    assert {weight.dtype for weight in trainer.task.net.parameters()} == {torch.float32}
    losses = [[row["train_loss"] for row in rows(tmp_path / name, "epoch")] for name in ("low", "full")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_full_disk(make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the files of a run: when the disk fills up, one line says so and the old ones are whole."""
    make_trainer(epochs=1).run(StopSignal())
    names = ("model.safetensors", "last.safetensors", "checkpoint.pt")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in names}

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(ModelError, match="No space left on device"):
        make_trainer(epochs=2).run(StopSignal())
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}


def test_bad_update_on_a_full_disk(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The reproducer of a bad update is a help, not a reason to stop: neither its batch nor its model is."""
    trainer = make_trainer(epochs=1)
    plant(trainer, "u05", "nan")
    original = trainer.task.save

    def save(path: Path, provenance: dict[str, Any]) -> None:
        if "bad_update" in path.name:
            raise ModelError("No space left on device")
        original(path, provenance)

    monkeypatch.setattr(trainer.task, "save", save)
    assert trainer.run(StopSignal()).epoch == 2
    assert "the bad update's model could not be kept: No space left on device" in caplog.messages
    (skipped,) = [message for message in caplog.messages if "skipped. utterances" in message]
    assert "To repeat it" not in skipped


def test_time_limit(make_trainer: Make, tmp_path: Path) -> None:
    """Guards --train.max-hours: it ends as a signal does, says why, and goes on later."""
    stop = StopSignal(max_hours=1e-9)
    with pytest.raises(Interrupted, match=r"stopped by --train\.max-hours 1e-09 in epoch 1, batch 1, and"):
        make_trainer().run(stop)
    position, _, _ = load_checkpoint(tmp_path / "run" / CHECKPOINT, torch.device("cpu"))
    assert position.update == 1
    with StopSignal(max_hours=1.0) as patient:
        assert not patient.received
        signal.raise_signal(signal.SIGTERM)
        assert patient.received
        assert patient.reason() == ""


def test_moving_average_is_the_model(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards that the averaged weights are validated and saved, and the plain ones trained."""
    seen: list[dict[str, torch.Tensor]] = []
    original = speech_module.validate

    def validate(model: Any, *rest: Any) -> Any:
        seen.append(copy.deepcopy(model.state_dict()))
        return original(model, *rest)

    monkeypatch.setattr(speech_module, "validate", validate)
    trainer = make_trainer("average", epochs=2, ema=0.9)
    trainer.run(StopSignal())
    make_trainer("plain", epochs=2).run(StopSignal())
    averaged = weights_of(tmp_path / "average" / "last.safetensors")
    assert same_tree(averaged, dict(seen[1]))
    assert same_tree({**averaged, **trainer.average.state()}, averaged)
    plain = weights_of(tmp_path / "plain" / "last.safetensors")
    assert same_tree(dict(trainer.task.net.state_dict()), plain)
    assert not same_tree(averaged, plain)


def test_average_that_is_no_longer_wanted(make_trainer: Make, tmp_path: Path) -> None:
    """A lost file of a best epoch ends the run with the advice to resume with --train.average 0, which must
    help, although the checkpoint still names the epochs and none is left to train."""
    trainer = make_trainer(epochs=2, average=2)
    trainer.run(StopSignal())
    for path in (tmp_path / "run" / "best_epochs").iterdir():
        path.unlink()
    with pytest.raises(TrainingError, match=r"--train\.resume-anyway --train\.average 0"):
        trainer.run(StopSignal())
    position, _, states = load_checkpoint(tmp_path / "run" / CHECKPOINT, torch.device("cpu"))
    trainer = make_trainer(epochs=2, average=0)
    trainer.restore(position, states)
    assert trainer.run(StopSignal()).epoch == 3


@pytest.mark.parametrize("better", [True, False])
def test_average_of_the_best_epochs(
    better: bool, make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Guards the last step of a run: the mean of the best epochs' weights is the model if it is better."""
    caplog.set_level(logging.INFO, "asr")
    scores = iter([50.0, 30.0, 40.0, 20.0, 45.0, 10.0 if better else 30.0])
    original = speech_module.validate
    kept: dict[int, dict[str, torch.Tensor]] = {}

    def validate(model: Any, *rest: Any) -> Any:
        kept[len(kept) + 1] = copy.deepcopy(dict(model.state_dict()))
        return replace(original(model, *rest), wer=next(scores))

    monkeypatch.setattr(speech_module, "validate", validate)
    trainer = make_trainer(epochs=5, average=3)
    position = trainer.run(StopSignal())
    mean = {
        name: torch.stack([kept[epoch][name].double() for epoch in (2, 3, 4)]).mean(0).to(tensor.dtype)
        for name, tensor in kept[5].items()
    }
    assert same_tree(kept[6], mean)
    assert same_tree(weights_of(tmp_path / "run" / "model.safetensors"), mean if better else kept[4])
    assert position.best_model() == ("the average of the epochs 2, 3, 4" if better else "epoch 4")
    (message,) = [
        message for message in caplog.messages if message.startswith("average of the epochs 2, 3, 4")
    ]
    assert message.endswith("best so far" if better else "; epoch 4 remains the best")
    provenance = load_model(tmp_path / "run" / "model.safetensors").settings.provenance
    assert provenance.get("averaged_epochs") == ([2, 3, 4] if better else None)
    assert len(list((tmp_path / "run" / "best_epochs").iterdir())) == 3
    assert same_tree(dict(trainer.task.net.state_dict()), kept[5])  # the net itself is left alone


def test_more_epochs_after_an_average(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the best model of a finished run that is given more epochs: one that beats the epochs before it,
    but not their average, must not take its place; one that beats the average must, under its own name."""
    scores = iter([50.0, 40.0, 20.0, 30.0, 35.0, 10.0, 60.0])
    original = speech_module.validate
    monkeypatch.setattr(speech_module, "validate", lambda *args: replace(original(*args), wer=next(scores)))
    make_trainer(epochs=2, average=2).run(StopSignal())
    best = []
    for epochs in (3, 4):
        position, _, states = load_checkpoint(tmp_path / "run" / CHECKPOINT, torch.device("cpu"))
        best.append((position.best_score, position.best_model()))
        trainer = make_trainer(epochs=epochs, average=2)
        trainer.restore(position, states)
        position = trainer.run(StopSignal())
        best.append((position.best_score, position.best_model()))
        provenance = load_model(tmp_path / "run" / "model.safetensors").settings.provenance
        assert provenance["dev_wer"] == position.best_score
    average = (20.0, "the average of the epochs 1, 2")
    assert best == [average, average, average, (10.0, "epoch 4")]


def test_plateau_halves_the_rate(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards newbob: each epoch that is not the best so far halves the rate of those after it."""
    caplog.set_level(logging.INFO, "asr")
    scores = iter([50.0, 60.0, 40.0, 45.0, 44.0])
    original = speech_module.validate
    monkeypatch.setattr(speech_module, "validate", lambda *args: replace(original(*args), wer=next(scores)))
    make_trainer(epochs=5, schedule="plateau", warmup=0.0, learning_rate=0.01).run(StopSignal())
    rates = {row["epoch"]: row["learning_rate"] for row in rows(tmp_path / "run", "updates")}
    assert rates == pytest.approx({1: 0.01, 2: 0.01, 3: 0.005, 4: 0.005, 5: 0.0025})
    assert "no better dev WER: the learning rate goes down to 5.0e-03" in caplog.messages


def test_frozen_parts(make_trainer: Make) -> None:
    """Guards --train.freeze in the loop: frozen weights keep every bit, and the optimiser knows nothing of
    them."""
    trainer = make_trainer(encoder=replace(ENCODER, depth=2), epochs=1, freeze=("front", "recurrent.0"))
    before = copy.deepcopy(trainer.task.net.state_dict())
    trainer.run(StopSignal())
    changed = {
        name for name, value in trainer.task.net.state_dict().items() if not torch.equal(value, before[name])
    }
    learning = {name for name, weight in trainer.task.net.named_parameters() if weight.requires_grad}
    assert changed == learning
    assert {name.removeprefix("encoder.").split(".")[0] for name in changed} == {"recurrent", "output"}
    assert not any(name.startswith("encoder.recurrent.layers.0") for name in changed)
    assert sum(len(group["params"]) for group in trainer.optimizer.param_groups) == len(learning)
    with pytest.raises(
        SettingsError, match=r"no such part.*: front, recurrent, recurrent\.0, recurrent\.1, output"
    ):
        make_trainer(encoder=replace(ENCODER, depth=2), freeze=("recurrent.2",))


def test_warm_start(make_trainer: Make, tmp_path: Path) -> None:
    """Guards the first weights and averages of a warm start: those of the other model."""
    make_trainer("old", epochs=1).run(StopSignal())
    trainer = make_trainer("new", seed=2, ema=0.9)
    trainer.warm_start(tmp_path / "old" / "last.safetensors")
    old = weights_of(tmp_path / "old" / "last.safetensors")
    assert same_tree(dict(trainer.task.net.state_dict()), old)
    assert all(torch.equal(value, old[name]) for name, value in trainer.average.state().items())


def test_warm_start_with_another_alphabet(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the output layer: of equal shape, it still means other characters, and is not taken."""
    caplog.set_level(logging.INFO, "asr")
    model = load_model(save_other_alphabet(make_trainer("old"), tmp_path / "other.safetensors"))
    trainer = make_trainer("new", seed=2)
    before = copy.deepcopy(trainer.task.net.state_dict())
    trainer.warm_start(tmp_path / "other.safetensors")
    after, other = trainer.task.net.state_dict(), model.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name] if "output" in name else other[name]), name
    assert (
        "not taken: encoder.output.weight (other symbols), encoder.output.bias (other symbols)" in caplog.text
    )


def save_other_alphabet(trainer: Trainer, path: Path) -> Path:
    model = trainer.task.net
    model.settings = replace(model.settings, tokenizer=CharTokenizer(tuple("wxyz")))
    save_model(path, model, {})
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number: signal.Signals) -> None:
    """Guards Ctrl-C and a batch system's SIGTERM: the first asks, the second ends, and handlers are put
    back."""
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.received
        signal.raise_signal(number)
        assert stop.received
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"train\.epochs must be at least 1. Got 0"),
        ({"patience": -1}, r"train\.patience must be at least 0"),
        ({"accumulate": 0}, r"train\.accumulate must be at least 1"),
        ({"max_bad_updates": 0}, r"train\.max-bad-updates must be at least 1"),
        ({"save_every_s": -1.0}, r"train\.save-every-s must be at least 0"),
        ({"log_every_s": math.nan}, r"train\.log-every-s must be at least 0. Got nan"),
        ({"weight_decay": -0.1}, r"train\.weight-decay must be at least 0"),
        ({"clip_norm": -1.0}, r"train\.clip-norm must be at least 0"),
        ({"seed": -1}, r"train\.seed must be at least 0"),
        ({"learning_rate": 0.0}, r"train\.learning-rate must be above 0"),
        ({"learning_rate": math.inf}, r"train\.learning-rate must be above 0"),
        ({"warmup": 1.0}, r"train\.warmup is a share of all updates, in \[0, 1\). Got 1"),
        (
            {"schedule": "step"},
            r"train\.schedule must be one of cosine, linear, constant, one-cycle, noam, plateau. Got 'step'",
        ),
        ({"schedule": "noam", "warmup": 0.0}, r"train\.schedule noam peaks where train\.warmup ends"),
        ({"ema": 1.0}, r"train\.ema is a decay in \[0, 1\), such as 0\.999. Got 1"),
        ({"average": -1}, r"train\.average must be at least 0"),
        ({"max_hours": -1.0}, r"train\.max-hours must be at least 0"),
        ({"threads": 0}, r"train\.threads must be at least 1. Got 0"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    """Guards the ranges, by the names that the user types."""
    with pytest.raises(SettingsError, match=message):
        TrainConfig(**settings)


def test_large_seeds(make_trainer: Make) -> None:
    """Guards seeds beyond 32 bits, of which people are fond."""
    make_trainer(epochs=1, seed=20240101123456).run(StopSignal())
