"""What surrounds the loop: the log, whether to resume, provenance, beginning and ending."""

import logging
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import asr
from asr.device import PRECISION_NAMES, Precision, choose_precision
from asr.errors import SettingsError
from asr.training.checkpoint import CHECKPOINT, Position, load_checkpoint
from asr.training.config import TrainConfig
from asr.training.distributed import Process
from asr.training.stopping import StopRequest
from asr.training.trainer import Trainer

log = logging.getLogger("asr")

# Settings of where and how fast a run is trained, not of what is learned: a resumed run may change them.
CHANGEABLE = {
    "train.run_dir", "train.resume", "train.device", "train.threads", "train.save_every_s",
    "train.log_every_s", "train.diagnose_every", "train.max_bad_updates", "train.patience",
    "train.resume_anyway", "train.max_hours",
    "batch.workers", "batch.cache_dir", "batch.cache_workers",
}  # fmt: skip

# Further entries among the recorded settings of a run:
SHARDS = "batch.shards"
DATA_DIGEST = "digest of the training and dev data"
TOKENIZER_DIGEST = "digest of the tokenizer"
SOUNDS_DIGEST = "digest of the recordings of noise and rooms"
DEV_LM_DIGEST = "digest of the dev language model and lexicon"


@contextmanager
def run_log(run_dir: Path, process: Process) -> Iterator[None]:
    """Log to run_dir/train.log as well; processes other than the main one log errors only."""
    if not process.is_main:
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
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


def flatten_settings(settings: Any, topics: Iterable[str]) -> dict[str, Any]:
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


def changed_settings(settings: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What differs between two records of settings, by the names that a user types; `CHANGEABLE` ones may.

    Args:
        settings: of this session.
        before: of the session that wrote the checkpoint, with a value for every name.
    """
    return [
        f"{_key(name)} was {before[name]} and is now {value}"
        for name, value in settings.items()
        if name not in CHANGEABLE and before[name] != value
    ]


def should_resume(
    config: TrainConfig, settings: dict[str, Any], defaults: dict[str, Any], process: Process
) -> bool:
    """Whether to resume: the run folder and --train.resume must agree.

    Args:
        config: has the run folder and whether to resume.
        settings: of this run, as `flatten_settings` gives them.
        defaults: values of settings that the version that started the run did not have yet.
        process: all processes must see the same folder.

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
    changed = changed_settings(settings, {**defaults, **before})
    if changed and config.resume_anyway:
        log.warning("going on with other settings than before: %s", "; ".join(changed))
    elif changed:
        raise SettingsError(
            f"{config.run_dir} was trained with other settings: {'; '.join(changed)}. Resume with the same "
            f"ones, accept the new ones (--train.resume-anyway), or start again in another --train.run-dir."
        )
    return True


def start_or_resume(trainer: Trainer[Any], resumed: bool, stop: StopRequest) -> Position:
    """Start, or resume from the checkpoint, and train; then every process may use the best model.

    Args:
        trainer: with freshly initialised weights.
        resumed: of `should_resume`.
        stop: request to stop, active while training.

    Raises:
        AsrError: the checkpoint or the source model cannot be read or does not fit; `Interrupted` after
            Ctrl-C.
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
    trainer.process.gather(None)  # the best model is written before any process uses it
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
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _key(name: str) -> str:
    if name == SHARDS:  # most often the number of processes has changed, not this option
        return "--batch.shards (parts of a batch; unless it is given, one for each process)"
    return f"the {name}" if name.startswith("digest") else "--" + name.replace("_", "-")


def provenance(device: torch.device, precision: Precision) -> dict[str, Any]:
    """The command, versions, commit, machine, arithmetic and date of this run; no commit outside a clone.

    Args:
        device: on which the net is trained.
        precision: the setting.

    Raises:
        SettingsError: the device has no such precision.
    """
    return {
        "command": shlex.join(sys.argv),
        "asr": asr.__version__,
        "commit": git_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "precision": PRECISION_NAMES[choose_precision(precision, device)],
        **(gpu_facts(device, precision) if device.type == "cuda" else {}),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def gpu_facts(device: torch.device, precision: Precision) -> dict[str, Any]:
    """What the numbers of a GPU depend on: its model, CUDA, cuDNN, and whether TF32 is on."""
    return {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "tf32": precision == "tf32",
    }


def git_commit() -> str:
    """The short commit of the clone that this runs from, with a plus for changes; "" outside a clone."""
    folder = Path(__file__).parent
    try:
        # An installed copy may be inside an unrelated repository, which does not track it.
        tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, cwd=folder, capture_output=True, timeout=10, check=True)
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.stdout.strip()
