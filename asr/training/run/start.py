"""A run around the loop: its processes and log, whether to resume, its beginning and end."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from asr.device import describe_precision, make_deterministic, share_cores, use_precision
from asr.errors import SettingsError, option_name
from asr.model.encoder import parameter_count
from asr.training.config import TrainConfig
from asr.training.context import TrainingContext
from asr.training.distributed import Process, processes
from asr.training.run.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.run.faults import translate_errors
from asr.training.run.stopping import StopRequest
from asr.training.tasks.interface import Task
from asr.training.trainer import Trainer
from asr.training.validation import BEST_MODEL

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


@dataclass(frozen=True)
class Run:
    """A run of `open_run`: what trains a recogniser and a language model alike.

    Attributes:
        config: the settings of training.
        process: this process among those that train together.
        stop: request to stop, active while training.
    """

    config: TrainConfig
    process: Process
    stop: StopRequest

    def should_resume(self, settings_record: dict[str, Any], defaults: dict[str, Any]) -> bool:
        """Whether to resume: the run folder and --train.resume must agree.

        Args:
            settings_record: of this run, as `flatten_settings` gives it.
            defaults: values of settings that the version that started the run did not have yet.

        Raises:
            SettingsError: the folder holds a run that is not to be resumed, or one with other settings.
            ModelError: the checkpoint cannot be read.
        """
        config, process = self.config, self.process
        path = config.run_dir / CHECKPOINT
        seen = process.gather(path.exists())
        if len(set(seen)) > 1:
            raise SettingsError(
                f"only some of {process.world_size} processes see {path}. Expected a --train.run-dir that "
                f"all machines share. Choose one."
            )
        if not (config.resume or config.resume_anyway):
            if seen[0]:
                raise SettingsError(
                    f"{config.run_dir} already holds a run. Add --train.resume to continue it, or choose "
                    f"another --train.run-dir."
                )
            return False
        if not seen[0]:
            log.info("nothing to resume in %s: starting from the beginning", config.run_dir)
            return False
        _, before, _ = load_checkpoint(path, torch.device("cpu"))
        changed = changed_settings(settings_record, {**defaults, **before})
        if changed and config.resume_anyway:
            log.warning("going on with other settings than before: %s", "; ".join(changed))
        elif changed:
            raise SettingsError(
                f"{config.run_dir} was trained with other settings: {'; '.join(changed)}. Resume with the "
                f"same ones, accept the new ones (--train.resume-anyway), or choose another --train.run-dir."
            )
        return True

    def seed(self, loaders: int = 0) -> None:
        """Seed the initial weights, which are drawn next; divide the cores between training and loading.

        Args:
            loaders: processes that load batches.
        """
        if self.process.device.type == "cpu":
            share_cores(self.config.threads, loaders)
        torch.manual_seed(self.config.seed)

    def start(self, task: Task[Any], settings_record: dict[str, Any], data: str, *, resumed: bool) -> Path:
        """Start, or resume from the checkpoint, and train; then every process may use the best model.

        Args:
            task: with freshly initialised weights.
            settings_record: all settings of the run as plain values, kept in checkpoints and models.
            data: how much there is of it, for the log.
            resumed: of `should_resume`.

        Returns:
            The best model's file.

        Raises:
            AsrError: the checkpoint or the source model cannot be read or does not fit; `Interrupted` after
                Ctrl-C.
        """
        config, device = self.config, self.process.device
        precision = use_precision(config.precision, device)
        trainer = Trainer(TrainingContext(task, config, self.process, settings_record, precision))
        log.info(
            "training on %s: %.1f M weights, precision %s, %s",
            data, parameter_count(task.net) / 1e6, describe_precision(precision, device),
            torch.cuda.get_device_name(device) if device.type == "cuda"
            else f"CPU, threads: {torch.get_num_threads()}",
        )  # fmt: skip
        if resumed:
            state, _, state_dicts = load_checkpoint(config.run_dir / CHECKPOINT, device)
            trainer.restore(state, state_dicts)
            log.info("resuming in epoch %d, after batch %d", state.epoch, state.batch)
        elif config.warm_start:
            trainer.warm_start(config.warm_start)
        with self.stop:
            state = trainer.fit(self.stop)
        self.process.gather(None)  # the best model is written before any process uses it
        best = task.score_format.format(state.best_score)
        log.info("best %s %s in %s", task.score_name, best, state.best_model())
        return config.run_dir / BEST_MODEL


@contextmanager
def open_run(config: TrainConfig, batch_setting: str = "--batch.seconds") -> Iterator[Run]:
    """Begin a run: join the other processes, log to its folder, translate torch's errors for the user.

    Args:
        config: the settings of training.
        batch_setting: the option that makes batches smaller, for messages.

    Raises:
        AsrError: the device or the folder cannot be used, memory is short, or another process has ended.
    """
    if config.deterministic:
        make_deterministic()
    stop = StopRequest(config.max_hours)
    with (
        processes(config.device) as process,
        run_log(config.run_dir, process),
        translate_errors(batch_setting),
    ):
        yield Run(config, process, stop)


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
            f"--train.run-dir {run_dir}: cannot be used as a folder: {error.strerror or error}. "
            f"Choose another."
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
        f"{topic}.{name}": _json_value(value)
        for topic in topics
        for name, value in _flatten(asdict(getattr(settings, topic)))
    }


def settings_record(settings: Any, data_digest: str) -> dict[str, Any]:
    """All settings of a training, as `flatten_settings` gives them, with a digest of its data."""
    topics = [topic.name for topic in fields(settings)]
    return {**flatten_settings(settings, topics), DATA_DIGEST: data_digest}


def changed_settings(settings: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What differs between two records of settings, by the names that a user types; `CHANGEABLE` ones may.

    Args:
        settings: of this session.
        before: of the session that wrote the checkpoint.
    """
    return [
        f"{_key(name)} was {before.get(name)} and is now {value}"
        for name, value in settings.items()
        if name not in CHANGEABLE and before.get(name) != value
    ]


def _flatten(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings, those of contained dataclasses on the same level, as on the command line."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value)
        else:
            yield name, value


def _json_value(value: Any) -> Any:
    """A value as JSON gives it back."""
    if isinstance(value, tuple):
        return [_json_value(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _key(name: str) -> str:
    if name == SHARDS:  # most often the number of processes has changed, not this option
        return "--batch.shards (parts of a batch; unless it is given, one for each process)"
    return f"the {name}" if name.startswith("digest") else option_name(name)
