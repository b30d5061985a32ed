"""What a run reports: a progress line, metrics.jsonl, and TensorBoard where it is installed."""

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from asr.training.checkpoint import Position
from asr.training.task import Pace, Result

log = logging.getLogger("asr")

Item = TypeVar("Item")

METRICS = "metrics.jsonl"  # in the run folder


@dataclass(frozen=True)
class UpdateReport:
    """The numbers of one update, over all processes."""

    number: int  # counted from 1
    made: bool  # False: skipped because a loss or the gradient was not finite
    loss: float  # nats a token
    norm: float  # of the gradient, before clipping
    clipped: bool
    shares: Mapping[str, float]  # what else the task tells, in [0, 1]
    learning_rate: float
    tokens: int
    amount: float  # of data, in the unit of the task's pace


@dataclass
class _Window:
    """Sums since the last line of metrics; of skipped updates only their number and their amount of data."""

    since: float  # on the monotonic clock, s
    updates: int = 0
    made: int = 0
    loss: float = 0.0  # nats, over all tokens
    tokens: int = 0
    norm: float = 0.0
    clipped: int = 0
    shares: dict[str, float] = field(default_factory=dict)
    amount: float = 0.0  # of data
    waited_s: float = 0.0  # for data


class Metrics:
    """Collects the numbers of a run and writes them.

    Args:
        run_dir: gets metrics.jsonl and the TensorBoard files.
        every_s: seconds between lines.
        pace: how the speed of training is told.
        enabled: False for processes that do not write.
    """

    def __init__(self, run_dir: Path, every_s: float, pace: Pace, *, enabled: bool) -> None:
        self.run_dir, self.every_s, self.pace, self.enabled = run_dir, every_s, pace, enabled
        self._board: Any = None
        self._batches = self._epochs = 1
        self._seconds_before = self._done_before = 0.0
        self._began = self._paused = time.monotonic()
        self._window = _Window(self._began)

    def begin(self, position: Position, batches: int, epochs: int) -> None:
        """A run begins, or goes on from a checkpoint; what was written after that checkpoint is taken back.

        Args:
            position: where it stands.
            batches: of its current epoch.
            epochs: of the whole run.
        """
        self._batches, self._epochs = batches, epochs
        self._seconds_before, self._done_before = position.seconds, self._share_done(position)
        self._began = self._paused = time.monotonic()
        self._window = _Window(self._began)
        if self.enabled:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            take_back(self.run_dir / METRICS, position)
            self._board = _open_tensorboard(self.run_dir, position)

    def total_seconds(self) -> float:
        """Seconds of training so far, over all sessions."""
        return self._seconds_before + time.monotonic() - self._began

    def epoch_items(self, items: Iterable[Item], batches: int) -> Iterator[Item]:
        """Give an epoch's items, measuring how long each is waited for.

        Args:
            items: what is left of the epoch.
            batches: of the whole epoch.
        """
        self._batches = batches
        # Between epochs the model is validated: that is not training time.
        self._window.since += time.monotonic() - self._paused
        iterator = iter(items)
        while True:
            asked = time.monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._window.waited_s += time.monotonic() - asked
            yield item

    def update(self, position: Position, report: UpdateReport) -> None:
        """Take in one update; write a line when it is time."""
        window, sums = self._window, position.epoch_sums
        window.updates += 1
        window.amount += report.amount
        if report.made:
            window.made += 1
            window.loss += report.loss * report.tokens
            window.tokens += report.tokens
            window.norm += report.norm
            window.clipped += report.clipped
            for name, share in report.shares.items():
                window.shares[name] = window.shares.get(name, 0.0) + share
            sums["loss"] = sums.get("loss", 0.0) + report.loss * report.tokens
            sums["tokens"] = sums.get("tokens", 0.0) + report.tokens
        sums["skipped"] = sums.get("skipped", 0.0) + (not report.made)
        self._paused = time.monotonic()
        if self._paused - window.since >= self.every_s:
            self._write_line(position, report)
            self._window = _Window(self._paused)

    def finish_epoch(self, position: Position, result: Result, *, better: bool) -> None:
        """Write an epoch's summary."""
        sums = position.epoch_sums
        loss = sums.get("loss", 0.0) / max(sums.get("tokens", 0.0), 1.0)
        skipped = int(sums.get("skipped", 0.0))
        log.info(
            "epoch %d/%d  train loss %.3f  %s  %s%s%s",
            position.epoch, self._epochs, loss, result.headline(), clock(self.total_seconds()),
            f"  {skipped} updates skipped" if skipped else "", "  best so far" if better else "",
        )  # fmt: skip
        self._write({
            "event": "epoch", "epoch": position.epoch, "update": position.update, "train_loss": loss,
            **result.row(), "skipped_updates": skipped, "training_s": self.total_seconds(), "best": better,
        })  # fmt: skip

    def close(self) -> None:
        """Finish writing."""
        if self._board is not None:
            self._board.close()

    def _write_line(self, position: Position, report: UpdateReport) -> None:
        window = self._window
        elapsed = max(self._paused - window.since, 1e-9)
        made = max(window.made, 1)
        shares = {name: total / made for name, total in window.shares.items()}
        pace, waiting = window.amount / elapsed, min(window.waited_s / elapsed, 1.0)
        row = {
            "event": "updates", "epoch": position.epoch, "update": report.number,
            "loss": window.loss / window.tokens if window.made else math.nan,
            "learning_rate": report.learning_rate,
            "gradient_norm": window.norm / made, "clipped_share": window.clipped / made,
            **{f"{name}_share": share for name, share in shares.items()},
            "skipped_updates": window.updates - window.made,
            self.pace.key: pace, "waiting_share": waiting,
        }  # fmt: skip
        log.info(
            "epoch %d/%d  batch %d/%d  loss %.3f  lr %.1e  |g| %.1f%s  %s  waiting %.0f%%  left %s",
            position.epoch, self._epochs, position.batch, self._batches, row["loss"], row["learning_rate"],
            row["gradient_norm"], "".join(f"  {name} {share:.0%}" for name, share in shares.items()),
            self.pace.text.format(pace), 100 * waiting, self._time_left(position), extra={"transient": True},
        )  # fmt: skip
        self._write(row)

    def _share_done(self, position: Position) -> float:
        return (position.epoch - 1 + position.batch / self._batches) / self._epochs

    def _time_left(self, position: Position) -> str:
        """From this session's own speed, validation included."""
        done = self._share_done(position)
        rate = (done - self._done_before) / max(time.monotonic() - self._began, 1e-9)
        return clock((1 - done) / rate) if rate > 0 else "?"

    def _write(self, row: dict[str, Any]) -> None:
        if not self.enabled:
            return
        # JSON has no infinity.
        row = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        with (self.run_dir / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{row['event']}/{name}", value, row["update"])


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def take_back(path: Path, position: Position) -> None:
    """Remove the rows behind a position, and one that was cut off: a resumed run writes them again.

    Args:
        path: lines of JSON objects with at least `event`, `epoch` and `update`; need not exist.
        position: where the run goes on.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if _is_before(line, position)]
    if kept != lines:
        temporary = path.with_name(path.name + ".part")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(path)


def _is_before(line: str, position: Position) -> bool:
    try:
        row = json.loads(line)
        if row["event"] == "epoch" and row["epoch"] >= position.epoch:
            return False
        return bool(row["update"] <= position.update) and line.endswith("\n")
    except (ValueError, KeyError, TypeError):
        return False


def _open_tensorboard(run_dir: Path, position: Position) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.debug("no TensorBoard files: they need the package tensorboard (pip install '.[tensorboard]')")
        return None
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=position.update + 1)
