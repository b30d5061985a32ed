"""Faults in training: losses that are not finite, killed loader processes, out of memory."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from asr.batching.loader import is_killed_loader, loader_killed
from asr.device import is_out_of_memory
from asr.errors import AsrError, ModelError, TrainingError
from asr.files import weights_digest, write_atomically
from asr.training.context import TrainingContext
from asr.training.run.checkpoint import CHECKPOINT, UNREADABLE, TrainingState
from asr.training.tasks.interface import TaskBatch
from asr.training.update import PendingUpdate

log = logging.getLogger("asr")

_MAX_SAVED = 3  # bad updates that a session keeps on disk

B = TypeVar("B", bound=TaskBatch)


class BadUpdateReporter(Generic[B]):
    """Reports updates whose loss or gradient is not finite, and ends a run after too many in a row.

    Args:
        context: of the training; all processes report together.
    """

    def __init__(self, context: TrainingContext[B]) -> None:
        self.context = context
        self._saved = 0

    def report(self, update: PendingUpdate[B], state: TrainingState) -> None:
        """Log which utterances have made an update fail, or what else has.

        Args:
            update: a skipped one, and the newest: the weights are those that it was computed with.
            state: of training, after this update.

        Raises:
            TrainingError: it is the last that is allowed in a row.
        """
        state.bad_updates += 1
        losses = zip(update.ids, update.losses.tolist(), strict=True)
        bad = [f"{name} ({loss})" for name, loss in losses if not math.isfinite(loss)]
        gathered = self.context.process.gather((bad, update.ids))  # of all processes
        all_bad = [name for names, _ in gathered for name in names]
        scaled = self.context.precision is torch.float16
        if all_bad:
            cause = f"utterances whose loss is not finite: {', '.join(all_bad)}"
        elif scaled:
            cause = "a gradient overflowed in fp16, and the loss scale is lowered; usual now and then"
        else:
            all_ids = [name for _, ids in gathered for name in ids]
            cause = f"every loss is finite, but the gradient is not; utterances: {', '.join(all_ids)}"
        keep = (bad or not all_bad) and not scaled
        log.warning("update %d skipped. %s%s", update.number, cause, self._save(update) if keep else "")
        config = self.context.config
        if state.bad_updates >= config.max_bad_updates:
            checkpoint = config.run_dir / CHECKPOINT
            raise TrainingError(
                f"{state.bad_updates} updates in a row had a loss or gradient that is not finite. The "
                f"last, {update.number}: {cause}. Try a third of --train.learning-rate "
                f"{config.learning_rate:g}, or --train.precision bf16 instead of fp16; check the audio. "
                + (
                    f"The newest checkpoint is {checkpoint}."
                    if checkpoint.exists()
                    else "Nothing was saved yet."
                )
            )

    def _save(self, update: PendingUpdate[B]) -> str:
        """Keep a bad update on disk; returns a sentence on how to repeat it."""
        if self._saved >= _MAX_SAVED:
            return ""
        self._saved += 1
        rank = "" if self.context.process.is_main else f"_rank{self.context.process.rank}"
        path = self.context.config.run_dir / f"bad_update_{update.number}{rank}.pt"
        model = path.with_suffix(".safetensors")
        weights = self.context.task.net.state_dict()
        record = {
            "update": update.number, "seed": update.seed,
            "tokens": sum(batch.global_tokens for batch in update.batches), "ids": list(update.ids),
            "losses": update.losses, "precision": str(self.context.precision), "model": model.name,
            "weights_sha256": weights_digest(weights),
        }  # fmt: skip
        if not save_bad_update(path, update.batches, record):
            return ""
        try:
            self.context.task.save(
                model, weights, {"settings": self.context.settings_record, "updates": update.number}
            )
        except ModelError as error:  # a full disk must not end training over a diagnostic file
            log.warning("the bad update's model could not be kept: %s", error)
            return ""
        if self.context.task.replay_module is None:
            return f". Kept in {path}"
        return (
            f". To repeat it: python -c 'from {self.context.task.replay_module} import replay; "
            f'print(replay("{path}"))\''
        )


_FORMAT = "asr-bad-update"


def save_bad_update(path: Path, batches: Sequence[Any], record: Mapping[str, Any]) -> bool:
    """Keep the batches of an update.

    Args:
        path: the file.
        batches: as the update had them; dataclasses of tensors and plain values.
        record: the update's number, its seed, the model's file and the like; tensors and plain values.

    Returns:
        Whether it could be written; training continues if not.
    """
    content = {"format": _FORMAT, "batches": [asdict(batch) for batch in batches], **record}
    try:
        write_atomically(path, lambda temporary: torch.save(content, temporary))
    except AsrError as error:
        log.warning("the bad update could not be kept: %s", error)
        return False
    return True


def load_bad_update(path: Path) -> dict[str, Any]:
    """Read what `save_bad_update` has written. Loading an untrusted file cannot run code.

    Raises:
        ModelError: the file is missing, damaged, or no such record.
    """
    try:
        content = torch.load(path, weights_only=True)
    except UNREADABLE as error:
        raise ModelError(f"{path}: not a readable record of a bad update: {error!r}.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ModelError(f"{path}: not a record of a bad update. Expected bad_update_N.pt of a run folder.")
    return content


@contextmanager
def translate_errors(batch_setting: str = "--batch.seconds") -> Iterator[None]:
    """Translate a killed loader process, and running out of memory, into errors for the user.

    The weights may be in the middle of an update, so nothing is saved: the newest checkpoint is valid.

    Args:
        batch_setting: the option that makes batches smaller.

    Raises:
        TrainingError: instead of torch's errors.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise TrainingError(
                f"out of memory where no batch can be halved (in validation, or for the optimiser): {error}. "
                f"Lower {batch_setting}, or make the model smaller. {_RESUME}"
            ) from error
        if is_killed_loader(error):
            raise loader_killed(error) from error
        raise
    except ModelError as error:  # torch may raise at any moment, also while a file is being written
        if error.__cause__ is not None and is_killed_loader(error.__cause__):
            raise loader_killed(error.__cause__) from error
        raise


_RESUME = "Resume from the newest checkpoint with --train.resume."
