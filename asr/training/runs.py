"""What every training command does around the loop: the log, whether to resume, beginning and ending."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from asr.errors import SettingsError
from asr.training.checkpoint import CHECKPOINT, Position, load_checkpoint
from asr.training.config import TrainConfig
from asr.training.distributed import Process
from asr.training.stopping import StopRequest
from asr.training.trainer import Trainer

log = logging.getLogger("asr")

# Settings that say where and how fast, not what is learned: a resumed run may change them.
FREE = {
    "train.run_dir", "train.resume", "train.device", "train.threads", "train.save_every_s",
    "train.log_every_s", "train.diagnose_every", "train.max_bad_updates", "train.patience",
    "train.resume_anyway", "train.max_hours",
    "batch.workers", "batch.cache_dir", "batch.cache_workers",
}  # fmt: skip

# Among the settings of a run:
SHARDS = "batch.shards"
DATA_DIGEST = "digest of the training and dev data"
TOKENIZER_DIGEST = "digest of the tokenizer"
SOUNDS_DIGEST = "digest of the recordings of noise and rooms"


@contextmanager
def run_log(run_dir: Path, process: Process) -> Iterator[None]:
    """Keep what is logged in run_dir/train.log as well; only the main process says more than errors."""
    if not process.is_main:
        before = log.level
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(before)
        return
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        for half_written in run_dir.glob("*.part"):  # by a session that was killed
            half_written.unlink()
        handler = logging.FileHandler(run_dir / "train.log", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise SettingsError(
            f"train.run-dir {run_dir}: cannot be used as a folder: {error.strerror or error}. Choose another."
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.addFilter(lambda record: not getattr(record, "transient", False))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def plain_settings(settings: Any, topics: Iterable[str]) -> dict[str, Any]:
    """Settings as plain values under the dotted names of the command line, as JSON gives them back.

    Args:
        settings: a dataclass with a dataclass for each topic.
        topics: names of its fields.
    """
    return {
        f"{topic}.{name}": _plain(value)
        for topic in topics
        for name, value in _flat(asdict(getattr(settings, topic)))
    }


def changes(settings: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What differs between two records of settings, as a user would say it; the free ones may.

    Args:
        settings: of today.
        before: of then, with a value for every name.
    """
    return [
        f"{_key(name)} was {before[name]} and is now {value}"
        for name, value in settings.items()
        if name not in FREE and before[name] != value
    ]


def find_checkpoint(
    config: TrainConfig, settings: dict[str, Any], defaults: dict[str, Any], process: Process
) -> bool:
    """Whether to resume; the run folder and the wish must agree.

    Args:
        config: names the run folder and the wish.
        settings: of this run, as `plain_settings` gives them.
        defaults: what a setting is that the version of the run's beginning did not have.
        process: all see the same, or this fails.

    Raises:
        SettingsError: the folder holds a run that is not to be resumed, or one with other settings.
        ModelError: the checkpoint cannot be read.
    """
    path = config.run_dir / CHECKPOINT
    seen = process.gather(path.exists())
    if len(set(seen)) > 1:
        raise SettingsError(
            f"only some of {process.world_size} processes see {path}. Expected a --train.run-dir that all "
            f"machines share. Choose one."
        )
    if not (config.resume or config.resume_anyway):
        if seen[0]:
            raise SettingsError(
                f"{config.run_dir} already holds a run. Add --train.resume to go on with it, or choose "
                f"another --train.run-dir."
            )
        return False
    if not seen[0]:
        log.info("nothing to resume in %s: starting from the beginning", config.run_dir)
        return False
    _, before, _ = load_checkpoint(path, torch.device("cpu"))
    changed = changes(settings, {**defaults, **before})
    if changed and config.resume_anyway:
        log.warning("going on with other settings than before: %s", "; ".join(changed))
    elif changed:
        raise SettingsError(
            f"{config.run_dir} was trained with other settings: {'; '.join(changed)}. Resume with the same "
            f"ones, go on with today's (--train.resume-anyway), or start anew in another --train.run-dir."
        )
    return True


def run_to_end(trainer: Trainer[Any], resumed: bool, stop: StopRequest) -> Position:
    """Begin, or go on from the checkpoint, and train; then every process may use the best model.

    Args:
        trainer: with weights from the beginning of a run.
        resumed: what `find_checkpoint` said.
        stop: entered while training.

    Raises:
        AsrError: what is begun from cannot be read or does not fit; `Interrupted` after Ctrl-C.
    """
    config = trainer.config
    if resumed:
        position, _, states = load_checkpoint(config.run_dir / CHECKPOINT, trainer.device)
        trainer.restore(position, states)
        log.info("resuming in epoch %d, after batch %d", position.epoch, position.batch)
    elif config.warm_start:
        trainer.warm_start(config.warm_start)
    with stop:
        position = trainer.run(stop)
    trainer.process.gather(None)  # no process goes on to use the best model before it is written
    return position


def _flat(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings with those of a contained dataclass among them, as on the command line."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield name, value


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _key(name: str) -> str:
    if name == SHARDS:  # most often nobody has typed it: it is the number of processes that has changed
        return "--batch.shards (parts of a batch; unless it is given, one for each process)"
    return f"the {name}" if name.startswith("digest") else "--" + name.replace("_", "-")
