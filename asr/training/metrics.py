"""What a run reports: a progress line, metrics.jsonl, and TensorBoard where it is installed."""

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.training.checkpoint import Position
from asr.training.validation import Validation

log = logging.getLogger("asr")


@dataclass
class _Window:
    """Sums since the last line of metrics."""

    updates: int = 0
    made: int = 0  # updates that were not skipped
    loss: float = 0.0  # nats, over all tokens
    tokens: int = 0
    norm: float = 0.0
    clipped: int = 0
    blank_share: float = 0.0
    seconds: float = 0.0  # of audio
    waited_s: float = 0.0  # for data
    since: float = field(default_factory=time.monotonic)


class Metrics:
    """Collects the numbers of a run and writes them.

    Args:
        run_dir: gets metrics.jsonl and the TensorBoard files.
        every_s: seconds between lines.
        enabled: False for processes that do not write.
    """

    def __init__(self, run_dir: Path, every_s: float, *, enabled: bool) -> None:
        self.run_dir, self.every_s, self.enabled = run_dir, every_s, enabled
        self._began = time.monotonic()
        self._seconds_before = 0.0
        self._done_before = 0.0
        self._window = _Window()
        self._board = _open_tensorboard(run_dir) if enabled else None
        self._batches = self._epochs = 1

    def restore(self, position: Position) -> None:
        """Go on counting from a checkpoint."""
        self._seconds_before = position.seconds

    def total_seconds(self) -> float:
        """Seconds of training so far, over all sessions."""
        return self._seconds_before + time.monotonic() - self._began

    def start_epoch(self, position: Position, batches: int, epochs: int) -> None:
        """An epoch of so many batches begins, or goes on."""
        self._batches, self._epochs = batches, epochs
        self._window = _Window()
        if not self._done_before:
            self._done_before = self._share_done(position)
            self._began_epochs = time.monotonic()
        self._asked = time.monotonic()

    def data_arrived(self) -> None:
        """The next batch is there: the time since the last update was spent waiting for it."""
        self._window.waited_s += time.monotonic() - self._asked

    def update(
        self, position: Position, *, loss: float, norm: float, clipped: bool, blank_share: float, made: bool,
        rate: float, tokens: int, seconds: float,
    ) -> None:  # fmt: skip
        """Take in one update; write a line when it is time."""
        window, sums = self._window, position.epoch_sums
        window.updates += 1
        window.seconds += seconds
        window.blank_share += blank_share
        if made:
            window.made += 1
            window.loss += loss * tokens
            window.tokens += tokens
            window.norm += norm
            window.clipped += clipped
            sums["loss"] = sums.get("loss", 0.0) + loss * tokens
            sums["tokens"] = sums.get("tokens", 0.0) + tokens
        sums["skipped"] = sums.get("skipped", 0.0) + (not made)
        if time.monotonic() - window.since >= self.every_s:
            self._write_line(position, rate)
            self._window = _Window()
        self._asked = time.monotonic()

    def finish_epoch(self, position: Position, result: Validation, *, better: bool) -> None:
        """Write an epoch's summary."""
        sums = position.epoch_sums
        loss = sums.get("loss", 0.0) / max(sums.get("tokens", 0.0), 1.0)
        skipped = int(sums.get("skipped", 0.0))
        log.info(
            "epoch %d/%d  train loss %.3f  dev loss %.3f  dev WER %.2f%%  CER %.2f%%  blank %.0f%%  %s%s%s",
            position.epoch, self._epochs, loss, result.loss, result.wer, result.cer, 100 * result.blank_share,
            clock(self.total_seconds()), f"  {skipped} updates skipped" if skipped else "", "  best so far" if better else "",
        )  # fmt: skip
        for reference, hypothesis in result.examples:
            log.debug("reference  %s\nhypothesis %s", reference, hypothesis)
        self._write(
            {
                "event": "epoch", "epoch": position.epoch, "update": position.update, "train_loss": loss,
                "dev_loss": result.loss, "dev_wer": result.wer, "dev_cer": result.cer, "blank_share": result.blank_share,
                "skipped_updates": skipped, "training_s": self.total_seconds(), "best": better,
                "examples": result.examples,
            }  # fmt: skip
        )

    def close(self) -> None:
        """Finish writing."""
        if self._board is not None:
            self._board.close()

    def _write_line(self, position: Position, rate: float) -> None:
        window = self._window
        elapsed = time.monotonic() - window.since
        loss = window.loss / max(window.tokens, 1)
        made = max(window.made, 1)
        speed = window.seconds / elapsed
        waiting = min(window.waited_s / elapsed, 1.0)
        log.info(
            "epoch %d/%d  batch %d/%d  loss %.3f  lr %.1e  |g| %.1f  blank %.0f%%  audio %.0f s/s  waiting %.0f%%  left %s",
            position.epoch, self._epochs, position.batch, self._batches, loss, rate, window.norm / made,
            100 * window.blank_share / window.updates, speed, 100 * waiting, self._time_left(position),
            extra={"transient": True},
        )  # fmt: skip
        self._write(
            {
                "event": "updates", "epoch": position.epoch, "update": position.update, "loss": loss, "learning_rate": rate,
                "gradient_norm": window.norm / made, "clipped_share": window.clipped / made,
                "blank_share": window.blank_share / window.updates, "audio_s_per_s": speed, "waiting_share": waiting,
            }  # fmt: skip
        )

    def _share_done(self, position: Position) -> float:
        return (position.epoch - 1 + position.batch / self._batches) / self._epochs

    def _time_left(self, position: Position) -> str:
        done = self._share_done(position)
        rate = (done - self._done_before) / (time.monotonic() - self._began_epochs)
        return clock((1 - done) / rate) if rate > 0 else "?"

    def _write(self, row: dict[str, Any]) -> None:
        if not self.enabled:
            return
        with (self.run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{row['event']}/{name}", value, row["update"])


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _open_tensorboard(run_dir: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.debug("TensorBoard is not installed: pip install 'asr-rnn[tensorboard]' adds its files to the run folder")
        return None
    return SummaryWriter(str(run_dir / "tensorboard"))  # type: ignore[no-untyped-call]
