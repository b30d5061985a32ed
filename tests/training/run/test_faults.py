import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.batching.batches import Batch
from asr.errors import ModelError, TrainingError
from asr.files import weights_digest
from asr.model.saved import load_model
from asr.training.run.faults import load_bad_update, save_bad_update, translate_errors
from asr.training.run.stopping import StopRequest
from asr.training.tasks.speech import replay
from asr.training.trainer import Trainer
from tests.conftest import no_space
from tests.training.conftest import AUGMENT, rows, same_tree

Make = Callable[..., Trainer]


class _Planted:
    """Batches in which some utterances are damaged."""

    def __init__(self, trainer: Trainer, change: Callable[[Batch], Batch]) -> None:
        self.inner, self.change = trainer.task.train_batches, change
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
            features = batch.cached_features.clone()
            features[hit] = float("nan")
            return replace(batch, cached_features=features)
        tokens = torch.ones(len(batch.ids), 400, dtype=torch.int64)
        tokens[:, : batch.tokens.shape[1]] = batch.tokens
        lengths = batch.token_lengths.clone()
        lengths[hit] = 400
        return replace(batch, tokens=tokens, token_lengths=lengths)

    trainer.task.train_batches = _Planted(trainer, change)


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
        original(batches, *rest)
        after = (trainer.task.net.state_dict(), trainer.optimizer.state_dict()["state"])
        if before[1]:  # before the first update there is no state to compare
            untouched[trainer.state.update] = same_tree(list(before), list(after))
            assert untouched[trainer.state.update] == ("u05" in batch.ids)

    monkeypatch.setattr(trainer, "_update", update)
    state = trainer.fit(StopRequest())
    assert state.epoch == 3
    assert state.bad_updates == 0  # in a row, and the last one was good
    skipped = [message for message in caplog.messages if "skipped. utterances" in message]
    numbers = [number for number, same in untouched.items() if same]
    bad = tmp_path / "run" / f"bad_update_{numbers[-1]}.pt"
    assert skipped[-1] == (
        f"update {numbers[-1]} skipped. utterances whose loss is not finite: u05 ({value}). To repeat it: "
        f"python -c 'from asr.training.tasks.speech import replay; print(replay(\"{bad}\"))'"
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
    reporter = trainer.bad_update_reporter
    reporter.context = replace(reporter.context, precision=torch.float16)
    original = trainer.task.forward

    def forward(batch: Batch, precision: torch.dtype) -> Any:
        found = original(batch, precision)
        bad = float("inf") if trainer.state.update == 1 else 0.0
        return replace(found, losses=found.losses * (0.0 if bad else 1.0) + bad)

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return value * float("inf") if trainer.state.update == 2 else value

    trainer.task.forward = forward
    trainer.task.net.encoder.output.weight.register_hook(gradient)
    same, scales = [], []
    update = trainer._update

    def watched(*arguments: Any) -> Any:
        before = copy.deepcopy((trainer.task.net.state_dict(), trainer.optimizer.state_dict()["state"]))
        update(*arguments)
        after = (trainer.task.net.state_dict(), trainer.optimizer.state_dict()["state"])
        same.append(same_tree(list(before), list(after)))
        scales.append(trainer.scaler.get_scale())

    trainer._update = watched
    trainer.fit(StopRequest())
    assert same[:4] == [False, True, True, False]
    assert scales[:4] == [2.0**10, 2.0**10, 2.0**9, 2.0**9]
    warnings = [message for message in caplog.messages if "skipped" in message]
    assert "update 2 skipped. utterances whose loss is not finite: u" in warnings[0]
    assert warnings[1] == (
        "update 3 skipped. a gradient overflowed in fp16, and the loss scale is lowered; usual now and then"
    )


@pytest.mark.parametrize("kind", ["nan", "infinite"])
def test_bad_update_can_be_repeated(kind: str, make_trainer: Make, tmp_path: Path) -> None:
    """Guards the reproducer: the command that the log names gives the very losses of the update."""
    trainer = make_trainer(epochs=2, accumulate=2, augment=AUGMENT, max_bad_updates=99)
    plant(trainer, "u05", kind)
    reports: list[Any] = []
    original = trainer.bad_update_reporter.report
    trainer.bad_update_reporter.report = lambda update, *rest: (
        reports.append(update),
        original(update, *rest),
    )
    trainer.fit(StopRequest())
    assert len(reports) == 2
    for update in reports:
        path = tmp_path / "run" / f"bad_update_{update.number}.pt"
        assert len(update.batches) == 2
        results = replay(path)
        norm = results.pop("gradient norm")
        assert not math.isfinite(norm)
        assert tuple(results) == update.ids
        assert torch.equal(
            torch.tensor(list(results.values())).nan_to_num(1e9), update.losses.nan_to_num(1e9)
        )
        record = load_bad_update(path)
        model = load_model(path.with_suffix(".safetensors"))
        assert record["weights_sha256"] == weights_digest(model.state_dict())


def test_reproducers_do_not_fill_the_disk(make_trainer: Make, tmp_path: Path) -> None:
    """Guards a corpus with many bad utterances: a session keeps three bad updates."""
    trainer = make_trainer(max_bad_updates=8)
    plant(trainer, "*", "nan")
    with pytest.raises(TrainingError):
        trainer.fit(StopRequest())
    assert len(list((tmp_path / "run").glob("bad_update_*.pt"))) == 3


def test_too_many_bad_updates(make_trainer: Make, tmp_path: Path) -> None:
    """Guards against a run that never updates again: it ends, with names, causes and the weights as they
    were."""
    trainer = make_trainer(max_bad_updates=3)
    plant(trainer, "*", "nan")
    before = copy.deepcopy(trainer.task.net.state_dict())
    with pytest.raises(TrainingError, match=r"^3 updates in a row .*The last, 3: .*u\d\d \(nan\)") as caught:
        trainer.fit(StopRequest())
    assert "--train.learning-rate 0.001" in str(caught.value)
    assert "Nothing was saved yet." in str(caught.value)
    assert same_tree(before, trainer.task.net.state_dict())


def test_gradient_that_is_not_finite(make_trainer: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the other cause: finite losses, but the gradient overflows on its way back."""
    trainer = make_trainer(epochs=1, max_bad_updates=99)
    trainer.task.net.encoder.output.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = copy.deepcopy(trainer.task.net.state_dict())
    trainer.fit(StopRequest())
    assert "update 1 skipped. every loss is finite, but the gradient is not; utterances: u" in caplog.text
    assert same_tree(before, trainer.task.net.state_dict())


def test_bad_update_on_a_full_disk(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The reproducer of a bad update is a help, not a reason to stop: neither its batch nor its model is."""
    trainer = make_trainer(epochs=1)
    plant(trainer, "u05", "nan")
    original = trainer.task.save

    def save(path: Path, *rest: Any) -> None:
        if "bad_update" in path.name:
            raise ModelError("No space left on device")
        original(path, *rest)

    monkeypatch.setattr(trainer.task, "save", save)
    assert trainer.fit(StopRequest()).epoch == 2
    assert "the bad update's model could not be kept: No space left on device" in caplog.messages
    (skipped,) = [message for message in caplog.messages if "skipped. utterances" in message]
    assert "To repeat it" not in skipped


@dataclass(frozen=True)
class Part:
    ids: tuple[str, ...]
    data: Tensor


PART = Part(("a", "b"), torch.tensor([[1.0, float("nan")], [3.0, 4.0]]))


def test_round_trip(tmp_path: Path) -> None:
    """Guards what is needed to repeat an update: every field of every batch, and the record."""
    path = tmp_path / "bad.pt"
    assert save_bad_update(path, [PART, replace(PART, ids=("c", "d"))], {"update": 7})
    content = load_bad_update(path)
    assert content["update"] == 7
    assert [part["ids"] for part in content["batches"]] == [("a", "b"), ("c", "d")]
    torch.testing.assert_close(content["batches"][0]["data"], PART.data, equal_nan=True)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Guards training against ending because of a file that is only an aid."""

    monkeypatch.setattr("os.fsync", no_space)
    assert not save_bad_update(tmp_path / "bad.pt", [PART], {})
    assert "the bad update could not be kept" in caplog.text


@pytest.mark.parametrize("content", [b"", b"hello", {"format": "other"}, [1]])
def test_other_files(content: object, tmp_path: Path) -> None:
    """Guards against a traceback, or against running code of an untrusted file."""
    path = tmp_path / "bad.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ModelError, match="of a bad update"):
        load_bad_update(path)


def test_digest_sees_every_bit() -> None:
    """Guards the digest against missing a change of name, shape, type or one bit, and against order."""
    weights = {"a": torch.arange(4.0), "b": torch.tensor(3)}
    same = weights_digest(weights)
    assert weights_digest(dict(reversed(weights.items()))) == same
    different = [
        {"a": torch.arange(4.0), "c": torch.tensor(3)},
        {"a": torch.arange(4.0).view(2, 2), "b": torch.tensor(3)},
        {"a": torch.arange(4.0), "b": torch.tensor(3, dtype=torch.int32)},
        {"a": torch.nextafter(torch.arange(4.0), torch.tensor(9.0)), "b": torch.tensor(3)},
    ]
    assert same not in [weights_digest(other) for other in different]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError("too much")])
def test_out_of_memory_elsewhere(error: Exception) -> None:
    """Guards validation and the optimiser, where there is no batch to halve."""
    with (
        pytest.raises(TrainingError, match=r"out of memory where no batch can be halved"),
        translate_errors(),
    ):
        raise error


@pytest.mark.parametrize(
    "words",
    ["DataLoader worker (pid 7) is killed by signal: Killed. ", "DataLoader worker (pid(s) 7) exit"],
)
def test_killed_loader(words: str) -> None:
    """Guards both of torch's messages; tests/commands/test_train.py kills a real one."""
    with pytest.raises(TrainingError, match=r"^a loader process was killed") as caught:
        with_failure(RuntimeError(words))
    assert "Resume from the newest checkpoint with --train.resume." in str(caught.value)


def test_loader_killed_while_a_file_is_written() -> None:
    """Guards against an error about a full disk for a loader that was killed; a full disk stays one."""
    write_error = ModelError("checkpoint.pt: cannot be written")
    write_error.__cause__ = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(TrainingError, match=r"^a loader process was killed"):
        with_failure(write_error)
    write_error.__cause__ = OSError(28, "No space left on device")
    with pytest.raises(ModelError, match="cannot be written"):
        with_failure(write_error)


def test_other_errors_pass() -> None:
    """Guards against hiding a bug behind another message."""
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        with_failure(RuntimeError("a bug"))


def with_failure(error: Exception) -> None:
    with translate_errors():
        raise error
