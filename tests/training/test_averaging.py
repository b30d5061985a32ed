import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from asr.errors import TrainingError
from asr.model.saved import load_model
from asr.training.averaging import BestWeights, MovingAverage
from asr.training.run.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.run.stopping import StopRequest
from asr.training.tasks import speech as speech_module
from asr.training.trainer import Trainer
from tests.training.conftest import same_tree

Make = Callable[..., Trainer]
MADE, SKIPPED = torch.tensor(False), torch.tensor(True)


def change(net: nn.Module) -> None:
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight))


def test_moving_average_equals_the_recursion() -> None:
    """Guards the decay, its lower values at the beginning, and that an update left out changes nothing."""
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    average = MovingAverage(net, 0.9)
    expected = copy.deepcopy(net.state_dict())
    for number in range(1, 200):
        change(net)
        skipped = number % 7 == 0
        average.update(number, SKIPPED if skipped else MADE)
        decay = min(0.9, (1 + number) / (10 + number))
        if not skipped:
            expected = {k: decay * v + (1 - decay) * net.state_dict()[k] for k, v in expected.items()}
    torch.testing.assert_close(average.state(), dict(expected), rtol=1e-4, atol=1e-5)


def test_applied_and_taken_back() -> None:
    """Guards training against going on with the averaged weights, also after an error in validation."""
    net = nn.Linear(3, 2)
    average = MovingAverage(net, 0.5)
    before = {name: value.clone() for name, value in average.state().items()}
    change(net)
    original = copy.deepcopy(net.state_dict())
    with average.applied():
        torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    torch.testing.assert_close(net.state_dict(), original, rtol=0, atol=0)
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    torch.testing.assert_close(net.state_dict(), original, rtol=0, atol=0)
    torch.testing.assert_close(average.state(), before, rtol=0, atol=0)


def test_average_survives_a_checkpoint() -> None:
    """Guards the state: restored, it goes on with the same numbers."""
    net = nn.Linear(3, 2)
    first = MovingAverage(net, 0.5)
    change(net)
    first.update(1, MADE)
    second = MovingAverage(net, 0.5)
    second.restore(copy.deepcopy(first.state()))
    change(net)
    for average in (first, second):
        average.update(2, MADE)
    torch.testing.assert_close(first.state(), second.state(), rtol=0, atol=0)


def test_mean_of_epochs(tmp_path: Path) -> None:
    """Guards the mean of three, counters that have none, and the clearing of what is no longer among the
    best."""
    net = nn.BatchNorm1d(2)
    epochs = BestWeights(tmp_path / "best")
    for epoch, value in ((2, 1.0), (5, 2.0), (7, 6.0), (9, 100.0)):
        with torch.no_grad():
            net.weight.fill_(value)
            net.num_batches_tracked.fill_(epoch)
        epochs.save(f"epoch {epoch}", net.state_dict())
    (tmp_path / "best" / "epoch_00011.safetensors.part").write_bytes(b"half")
    epochs.keep_only(["epoch 2", "epoch 5", "epoch 7"])
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        f"epoch_0000{epoch}.safetensors" for epoch in (2, 5, 7)
    ]
    mean = epochs.mean(["epoch 2", "epoch 5", "epoch 7"])
    assert mean["weight"].tolist() == [3.0, 3.0]
    assert mean["num_batches_tracked"].item() == 2
    with pytest.raises(TrainingError, match=r"epoch_00009\.safetensors: cannot be read for the average"):
        epochs.mean(["epoch 2", "epoch 9"])


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
    trainer.fit(StopRequest())
    make_trainer("plain", epochs=2).fit(StopRequest())
    averaged = load_file(tmp_path / "average" / "last.safetensors")
    assert same_tree(averaged, dict(seen[1]))
    assert same_tree({**averaged, **trainer.selection.moving_average.state()}, averaged)
    plain = load_file(tmp_path / "plain" / "last.safetensors")
    assert same_tree(dict(trainer.task.net.state_dict()), plain)
    assert not same_tree(averaged, plain)


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
    state = trainer.fit(StopRequest())
    mean = {
        name: torch.stack([kept[epoch][name].double() for epoch in (2, 3, 4)]).mean(0).to(tensor.dtype)
        for name, tensor in kept[5].items()
    }
    assert same_tree(kept[6], mean)
    assert same_tree(load_file(tmp_path / "run" / "model.safetensors"), mean if better else kept[4])
    assert state.best_model() == ("the average of epoch 2, epoch 3, epoch 4" if better else "epoch 4")
    (message,) = [
        message for message in caplog.messages if message.startswith("average of epoch 2, epoch 3, epoch 4")
    ]
    assert message.endswith("best so far" if better else "; epoch 4 remains the best")
    provenance = load_model(tmp_path / "run" / "model.safetensors").settings.provenance
    assert provenance.get("average_of") == (["epoch 2", "epoch 3", "epoch 4"] if better else None)
    assert len(list((tmp_path / "run" / "best_epochs").iterdir())) == 3
    assert same_tree(dict(trainer.task.net.state_dict()), kept[5])  # the net itself is left alone


def test_more_epochs_after_an_average(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the best model of a finished run that is given more epochs: one that beats the epochs before it,
    but not their average, must not replace it; one that beats the average must, under its name."""
    scores = iter([50.0, 40.0, 20.0, 30.0, 35.0, 10.0, 60.0])
    original = speech_module.validate
    monkeypatch.setattr(speech_module, "validate", lambda *args: replace(original(*args), wer=next(scores)))
    make_trainer(epochs=2, average=2).fit(StopRequest())
    best = []
    for epochs in (3, 4):
        state, _, state_dicts = load_checkpoint(tmp_path / "run" / CHECKPOINT, torch.device("cpu"))
        best.append((state.best_score, state.best_model()))
        trainer = make_trainer(epochs=epochs, average=2)
        trainer.restore(state, state_dicts)
        state = trainer.fit(StopRequest())
        best.append((state.best_score, state.best_model()))
        provenance = load_model(tmp_path / "run" / "model.safetensors").settings.provenance
        assert provenance["dev_wer"] == state.best_score
    average = (20.0, "the average of epoch 1, epoch 2")
    assert best == [average, average, average, (10.0, "epoch 4")]


def test_killed_before_the_average_is_written(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a run that is killed when its average has been chosen, and is then given more epochs: one that
    beats the best epoch, but not the average, replaced the average."""
    scores = iter([50.0, 40.0, 20.0, 20.0, 30.0, 35.0])
    original = speech_module.validate
    monkeypatch.setattr(speech_module, "validate", lambda *args: replace(original(*args), wer=next(scores)))

    class Killed(BaseException):
        pass

    def kill(*arguments: Any) -> None:
        raise Killed

    trainer = make_trainer(epochs=2, average=2)
    monkeypatch.setattr(trainer.selection, "_write_average", kill)
    with pytest.raises(Killed):
        trainer.fit(StopRequest())
    state, _, state_dicts = load_checkpoint(tmp_path / "run" / CHECKPOINT, torch.device("cpu"))
    trainer = make_trainer(epochs=3, average=2)
    trainer.restore(state, state_dicts)
    state = trainer.fit(StopRequest())
    assert (state.best_score, state.best_model()) == (20.0, "the average of epoch 1, epoch 2")
    provenance = load_model(tmp_path / "run" / "model.safetensors").settings.provenance
    assert (provenance["dev_wer"], provenance["average_of"]) == (20.0, ["epoch 1", "epoch 2"])


def test_average_that_is_no_longer_wanted(make_trainer: Make, tmp_path: Path) -> None:
    """A lost file of a best epoch ends the run with the advice to resume with --train.average 0, which must
    help, although the checkpoint still names the epochs and none is left to train."""
    trainer = make_trainer(epochs=2, average=2)
    trainer.fit(StopRequest())
    for path in (tmp_path / "run" / "best_epochs").iterdir():
        path.unlink()
    with pytest.raises(TrainingError, match=r"--train\.resume-anyway --train\.average 0"):
        trainer.fit(StopRequest())
    state, _, state_dicts = load_checkpoint(tmp_path / "run" / CHECKPOINT, torch.device("cpu"))
    trainer = make_trainer(epochs=2, average=0)
    trainer.restore(state, state_dicts)
    assert trainer.fit(StopRequest()).epoch == 3
