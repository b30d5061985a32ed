import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asr.training import metrics as metrics_module
from asr.training.metrics import Metrics, UpdateReport
from asr.training.run.checkpoint import TrainingState
from asr.training.run.stopping import StopRequest
from asr.training.tasks.speech import SpeechTask, SpeechValidation
from asr.training.trainer import Trainer

REPORT = UpdateReport(
    number=1,
    made=True,
    loss=2.0,
    norm=3.0,
    clipped=True,
    statistics={"blank": 0.5},
    learning_rate=1e-3,
    tokens=10,
    size=50.0,
)
PACE = SpeechTask.throughput
RESULT = SpeechValidation(wer=12.5, cer=5.0, loss=0.5, blank_share=0.75, examples=(("a b", "a c"),))


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hands = Clock()
    monkeypatch.setattr(metrics_module.time, "monotonic", hands)
    return hands


@pytest.fixture
def no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "_open_tensorboard", lambda *_: None)


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def progress(state: TrainingState, batches: int, epochs: int) -> float:
    return (state.epoch - 1 + state.batch / batches) / epochs


def feed(
    metrics: Metrics,
    hands: Clock,
    state: TrainingState,
    updates: int,
    wait_s: float,
    work_s: float,
    batches: int = 4,
    epochs: int = 2,
) -> None:
    """An epoch of which every batch is waited for and worked on."""

    def items() -> Iterator[int]:
        for number in range(updates):
            hands.now += wait_s
            yield number

    for _ in metrics.epoch_items(items(), batches):
        hands.now += work_s
        state.batch += 1
        state.update += 1
        metrics.add(state, REPORT, progress(state, batches, epochs))


@pytest.mark.usefixtures("no_board")
def test_speed_waiting_and_time_left(tmp_path: Path, hands: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the numbers of the progress line: 50 s of audio in 2 s, of which 0.5 s were spent waiting."""
    caplog.set_level(logging.INFO, "asr")
    metrics, state = Metrics(tmp_path, 8.0, PACE, enabled=True), TrainingState()
    metrics.begin(state, batches=4, epochs=2)
    feed(metrics, hands, state, 4, wait_s=0.5, work_s=1.5)
    (row,) = rows(tmp_path)
    assert row["audio_s_per_s"] == 25
    assert row["waiting_share"] == 0.25
    assert (row["loss"], row["gradient_norm"]) == (2.0, 3.0)
    assert (row["clipped_share"], row["blank_share"]) == (1.0, 0.5)
    (record,) = caplog.records
    assert record.transient
    assert record.getMessage() == (
        "epoch 1/2  batch 4/4  loss 2.000  lr 1.0e-03  |g| 3.0  blank 50%  audio 25 s/s  waiting 25%  left "
        "0:00:08"
    )


@pytest.mark.usefixtures("no_board")
def test_short_epochs_still_get_lines(tmp_path: Path, hands: Clock) -> None:
    """Guards small corpora, whose epochs end before it is time for a line; validation does not count as
    time."""
    metrics, state = Metrics(tmp_path, 8.0, PACE, enabled=True), TrainingState()
    metrics.begin(state, batches=2, epochs=4)
    for epoch in (1, 2):
        state.epoch, state.batch = epoch, 0
        feed(metrics, hands, state, 2, wait_s=0.0, work_s=2.0)
        hands.now += 1000
    (row,) = rows(tmp_path)
    assert row["audio_s_per_s"] == 25


@pytest.mark.usefixtures("no_board")
def test_resumed_session(tmp_path: Path, hands: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Guards a session that goes on: hours add up, and the time left is by the speed of this session."""
    caplog.set_level(logging.INFO, "asr")
    hands.now = 5000.0
    metrics = Metrics(tmp_path, 4.0, PACE, enabled=True)
    state = TrainingState(epoch=3, batch=2, update=10, training_s=100.0)
    hands.now = 6000.0
    metrics.begin(state, batches=4, epochs=4, progress=progress(state, 4, 4))
    feed(metrics, hands, state, 2, wait_s=0.0, work_s=2.0, epochs=4)
    assert metrics.total_seconds() == 104
    assert caplog.messages[-1].endswith("left 0:00:08")  # 2 of 16 batches in 4 s, 4 batches are left


@pytest.mark.usefixtures("no_board")
def test_rows_behind_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    """Guards against two rows for one update, after a crash or in a folder whose run never saved."""
    lines = [
        {"event": "updates", "epoch": 1, "update": 2},
        {"event": "epoch", "epoch": 1, "update": 4},
        {"event": "updates", "epoch": 2, "update": 6},
        {"event": "updates", "epoch": 2, "update": 8},
        {"event": "epoch", "epoch": 2, "update": 8},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "upd')
    Metrics(tmp_path, 1.0, PACE, enabled=True).begin(TrainingState(epoch=2, batch=4, update=8), 4, 4)
    assert rows(tmp_path) == lines[:4]
    Metrics(tmp_path, 1.0, PACE, enabled=True).begin(TrainingState(epoch=2, batch=2, update=6), 4, 4)
    assert rows(tmp_path) == lines[:3]
    Metrics(tmp_path, 1.0, PACE, enabled=True).begin(TrainingState(), 4, 4)
    assert rows(tmp_path) == []


@pytest.mark.usefixtures("no_board")
def test_epoch_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards the one line a person reads for every epoch."""
    caplog.set_level(logging.INFO, "asr")
    metrics, state = Metrics(tmp_path, 99.0, PACE, enabled=True), TrainingState(epoch=2, training_s=3723.0)
    metrics.begin(state, 4, 5)
    state.running_totals = {"loss": 30.0, "tokens": 20.0, "skipped": 2.0}
    metrics.validated(state, RESULT, every=0, better=True)
    assert caplog.messages == [
        "epoch 2/5  train loss 1.500  dev loss 0.500  dev WER 12.50%  CER 5.00%  blank 75%  1:02:03  "
        "2 updates skipped  best so far"
    ]
    (row,) = rows(tmp_path)
    assert row["examples"] == [["a b", "a c"]]
    assert row["dev_wer"] == 12.5


@pytest.mark.usefixtures("no_board")
def test_json_has_no_infinity(tmp_path: Path) -> None:
    """Guards readers of metrics.jsonl that are stricter than Python's."""
    metrics, state = Metrics(tmp_path, 99.0, PACE, enabled=True), TrainingState()
    metrics.begin(state, 4, 5)
    infinite = SpeechValidation(wer=float("inf"), cer=5.0, loss=float("nan"), blank_share=1.0, examples=())
    metrics.validated(state, infinite, every=0, better=False)

    def refuse(text: str) -> None:
        pytest.fail(f"{text} is not JSON")

    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=refuse)["dev_wer"] is None


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    """Guards the main process's files against the other processes."""
    metrics, state = Metrics(tmp_path / "run", 0.0, PACE, enabled=False), TrainingState()
    metrics.begin(state, 4, 5)
    metrics.add(state, REPORT, 0.0)
    metrics.validated(state, RESULT, every=0, better=True)
    metrics.close()
    assert not (tmp_path / "run").exists()


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the optional dependency: without it, all but its files is written."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    metrics, state = Metrics(tmp_path, 0.0, PACE, enabled=True), TrainingState()
    metrics.begin(state, 4, 5)
    metrics.validated(state, RESULT, every=0, better=True)
    metrics.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_real_run(
    make_trainer: Callable[..., Trainer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards a real run's files: every row parses, fractions lie in [0, 1], TensorBoard's file is there."""
    caplog.set_level(logging.INFO, "asr")
    pytest.importorskip("tensorboard")
    make_trainer(epochs=2).fit(StopRequest())
    written = rows(tmp_path / "run")
    assert [row["update"] for row in written if row["event"] == "updates"] == list(range(1, len(written) - 1))
    for row in written[:-1]:
        assert 0 <= row.get("waiting_share", 0.5) <= 1
        assert 0 <= row["blank_share"] <= 1
        assert row.get("audio_s_per_s", 1) > 0
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    progress = [record.getMessage() for record in caplog.records if getattr(record, "transient", False)]
    assert any("  left 0:00:0" in line for line in progress)
