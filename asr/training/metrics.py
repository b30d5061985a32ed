"""Metrics of a run: a progress line, metrics.jsonl, and TensorBoard where it is installed."""

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from asr.files import json_line, write_text
from asr.progress import clock
from asr.training.run.checkpoint import TrainingState
from asr.training.tasks.interface import Throughput, ValidationResult

log = logging.getLogger("asr")

Item = TypeVar("Item")

METRICS = "metrics.jsonl"  # in the run folder


@dataclass(frozen=True)
class UpdateReport:
    """The numbers of one update, over all processes."""

    number: int  # counted from 1
    made: bool  # False: skipped because a loss or the gradient was not finite
    loss: float  # nats per token
    norm: float  # of the gradient, before clipping
    clipped: bool
    statistics: Mapping[str, float]  # of the task, each in [0, 1]
    learning_rate: float
    tokens: int
    size: float  # of the data, as the task's throughput counts it


@dataclass
class _Window:
    """Sums since the last line of metrics; of skipped updates only their number and their data."""

    since: float  # on the monotonic clock, s
    updates: int = 0
    made: int = 0
    loss: float = 0.0  # nats, over all tokens
    tokens: int = 0
    norm: float = 0.0
    clipped: int = 0
    statistics: dict[str, float] = field(default_factory=dict)
    size: float = 0.0  # of the data
    waited_s: float = 0.0  # for data


class Metrics:
    """Collects the numbers of a run and writes them.

    Args:
        run_dir: gets metrics.jsonl and the TensorBoard files.
        every_s: seconds between lines.
        throughput: how the speed of training is reported.
        enabled: False for processes other than the main one.
    """

    def __init__(self, run_dir: Path, every_s: float, throughput: Throughput, *, enabled: bool) -> None:
        self.run_dir, self.every_s, self.throughput, self.enabled = run_dir, every_s, throughput, enabled
        self._board: Any = None
        self._batches, self._epochs = 1, ""
        self._training_s_before = self._progress_before = 0.0
        # Up to when time counts as training: the last update, or the end of a pause after it.
        self._began = self._counted_until = time.monotonic()
        self._window = _Window(self._began)

    def begin(self, state: TrainingState, batches: int, epochs: int, progress: float = 0.0) -> None:
        """Start, or continue from a checkpoint: rows that were written after that checkpoint are discarded.

        Args:
            state: of the start or the checkpoint.
            batches: of its current epoch.
            epochs: of the whole run; 0 where it is planned by updates or by time.
            progress: fraction of the training that is done.
        """
        self._batches, self._epochs = batches, f"/{epochs}" if epochs else ""
        self._training_s_before, self._progress_before = state.training_s, progress
        self._began = self._counted_until = time.monotonic()
        self._window = _Window(self._began)
        if self.enabled:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            discard_later_rows(self.run_dir / METRICS, state)
            self._board = _open_tensorboard(self.run_dir, state)

    def total_seconds(self) -> float:
        """Seconds of training so far, over all sessions."""
        return self._training_s_before + time.monotonic() - self._began

    def epoch_items(self, items: Iterable[Item], batches: int) -> Iterator[Item]:
        """An epoch's items; measures how long each is waited for.

        Args:
            items: what is left of the epoch.
            batches: of the whole epoch.
        """
        self._batches = batches
        self._leave_out_pause()
        iterator = iter(items)
        while True:
            began = time.monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._window.waited_s += time.monotonic() - began
            yield item

    def add(self, state: TrainingState, report: UpdateReport, progress: float) -> None:
        """Add one update; write a line every `every_s` seconds.

        Args:
            state: after it.
            report: its numbers.
            progress: fraction of the training that is done.
        """
        window, totals = self._window, state.running_totals
        window.updates += 1
        window.size += report.size
        if report.made:
            window.made += 1
            window.loss += report.loss * report.tokens
            window.tokens += report.tokens
            window.norm += report.norm
            window.clipped += report.clipped
            for name, value in report.statistics.items():
                window.statistics[name] = window.statistics.get(name, 0.0) + value
            totals["loss"] = totals.get("loss", 0.0) + report.loss * report.tokens
            totals["tokens"] = totals.get("tokens", 0.0) + report.tokens
        totals["skipped"] = totals.get("skipped", 0.0) + (not report.made)
        self._counted_until = time.monotonic()
        if self._counted_until - window.since >= self.every_s:
            self._write_line(state, report, progress)
            self._window = _Window(self._counted_until)

    def validated(self, state: TrainingState, result: ValidationResult, *, every: int, better: bool) -> None:
        """Write the summary of the updates since the last validation, most often of an epoch.

        Args:
            state: of training.
            result: of the validation.
            every: updates between validations; 0 for an epoch.
            better: whether it is the best so far.
        """
        totals = state.running_totals
        loss = totals.get("loss", 0.0) / max(totals.get("tokens", 0.0), 1.0)
        skipped = int(totals.get("skipped", 0.0))
        log.info(
            "epoch %d%s%s  train loss %.3f  %s  %s%s%s",
            state.epoch, self._epochs, f"  update {state.update}" if every else "", loss,
            result.headline(), clock(self.total_seconds()),
            f"  {skipped} updates skipped" if skipped else "", "  best so far" if better else "",
        )  # fmt: skip
        self._write({
            "event": "validation" if every else "epoch", "epoch": state.epoch, "update": state.update,
            "train_loss": loss, **result.row(), "skipped_updates": skipped,
            "training_s": self.total_seconds(), "best": better,
        })  # fmt: skip
        self._leave_out_pause()

    def close(self) -> None:
        """Finish writing."""
        if self._board is not None:
            self._board.close()

    def _write_line(self, state: TrainingState, report: UpdateReport, progress: float) -> None:
        window = self._window
        elapsed = max(self._counted_until - window.since, 1e-9)
        made = max(window.made, 1)
        statistics = {name: total / made for name, total in window.statistics.items()}
        speed, waiting = window.size / elapsed, min(window.waited_s / elapsed, 1.0)
        row = {
            "event": "updates", "epoch": state.epoch, "update": report.number,
            "loss": window.loss / window.tokens if window.made else math.nan,
            "learning_rate": report.learning_rate,
            "gradient_norm": window.norm / made, "clipped_share": window.clipped / made,
            **{f"{name}_share": value for name, value in statistics.items()},
            "skipped_updates": window.updates - window.made,
            self.throughput.key: speed, "waiting_share": waiting,
        }  # fmt: skip
        log.info(
            "epoch %d%s  batch %d/%d  loss %.3f  lr %.1e  |g| %.1f%s  %s  waiting %.0f%%  left %s",
            state.epoch, self._epochs, state.batch, self._batches, row["loss"], row["learning_rate"],
            row["gradient_norm"], "".join(f"  {name} {value:.0%}" for name, value in statistics.items()),
            self.throughput.text.format(speed), 100 * waiting, self._time_left(progress),
            extra={"transient": True},
        )  # fmt: skip
        self._write(row)

    def _time_left(self, progress: float) -> str:
        """The time that is left, by the speed of this session, validation included."""
        rate = (progress - self._progress_before) / max(time.monotonic() - self._began, 1e-9)
        return clock(max(1 - progress, 0.0) / rate) if rate > 0 else "?"

    def _leave_out_pause(self) -> None:
        """Validation since the last update, or what else has taken time, does not count as training."""
        now = time.monotonic()
        self._window.since += now - self._counted_until
        self._counted_until = now

    def _write(self, row: dict[str, Any]) -> None:
        if not self.enabled:
            return
        # JSON has no infinity.
        row = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        with (self.run_dir / METRICS).open("a", encoding="utf-8") as file:
            file.write(json_line(row))
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{row['event']}/{name}", value, row["update"])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, oldest first; lines that were cut off are left out.

    Args:
        path: of the file; [] where it does not exist.
    """
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]


def discard_later_rows(path: Path, state: TrainingState) -> None:
    """Remove the rows after a state, and one that was cut off: a resumed run writes them again.

    Args:
        path: lines of JSON objects with at least `event`, `epoch` and `update`; need not exist.
        state: where the run continues.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if _is_before(line, state)]
    if kept != lines:
        write_text(path, kept)


def _is_before(line: str, state: TrainingState) -> bool:
    try:
        row = json.loads(line)
        if row["event"] == "epoch" and row["epoch"] >= state.epoch:
            return False
        if row["event"] == "validation" and row["update"] > state.validated_update:
            return False
        return bool(row["update"] <= state.update) and line.endswith("\n")
    except (ValueError, KeyError, TypeError):
        return False


def _open_tensorboard(run_dir: Path, state: TrainingState) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.debug("no TensorBoard files: they need the package tensorboard (pip install '.[tensorboard]')")
        return None
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=state.update + 1)
