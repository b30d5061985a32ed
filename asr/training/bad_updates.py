"""Updates whose loss or gradient was not finite: who is to blame, what is kept, and when to give up."""

import logging
import math
from typing import Any, Generic, TypeVar

import torch

from asr.errors import ModelError, TrainingError
from asr.files import weights_digest
from asr.training.checkpoint import CHECKPOINT, Position
from asr.training.config import TrainConfig
from asr.training.distributed import Process
from asr.training.pending import PendingUpdate
from asr.training.reproducer import write_reproducer
from asr.training.task import Task, TaskBatch

log = logging.getLogger("asr")

_KEPT = 3  # bad updates that a session keeps on disk

B = TypeVar("B", bound=TaskBatch)


class BadUpdates(Generic[B]):
    """Reports bad updates, keeps a few on disk, and ends a run that makes no others.

    Args:
        task: what is trained.
        config: says how many in a row are too many, and where the run is.
        process: all processes report together.
        settings: all settings of the run, kept in the models of bad updates.
        precision: number format of the net's arithmetic.
    """

    def __init__(
        self,
        task: Task[B],
        config: TrainConfig,
        process: Process,
        settings: dict[str, Any],
        precision: torch.dtype,
    ) -> None:
        self.task, self.config, self.process = task, config, process
        self.settings, self.precision = settings, precision
        self._kept = 0

    def report(self, update: PendingUpdate[B], position: Position) -> None:
        """Log which utterances have spoiled an update, or what else has.

        Args:
            update: it has changed nothing, and no later one has been made: the weights are those it had.
            position: of training, after this update.

        Raises:
            TrainingError: it is one too many in a row.
        """
        position.bad_updates += 1
        losses = zip(update.ids, update.losses.tolist(), strict=True)
        bad = [f"{name} ({loss})" for name, loss in losses if not math.isfinite(loss)]
        parts = self.process.gather((bad, update.ids))
        names = [name for part in parts for name in part[0]]
        scaled = self.precision is torch.float16
        if names:
            blame = f"utterances whose loss is not finite: {', '.join(names)}"
        elif scaled:
            blame = "a gradient overflowed in fp16, and the loss scale is lowered; usual now and then"
        else:
            ids = ", ".join(name for part in parts for name in part[1])
            blame = f"every loss is finite, but the gradient is not; utterances: {ids}"
        keep = (bad or not names) and not scaled
        log.warning("update %d skipped. %s%s", update.number, blame, self._keep(update) if keep else "")
        if position.bad_updates >= self.config.max_bad_updates:
            checkpoint = self.config.run_dir / CHECKPOINT
            raise TrainingError(
                f"{position.bad_updates} updates in a row had a loss or gradient that is not finite. The "
                f"last, {update.number}: {blame}. Usual causes: a learning rate that is too high (try a "
                f"third of --train.learning-rate {self.config.learning_rate:g}), fp16 (try --train.precision "
                f"bf16), or damaged audio. "
                + (
                    f"The newest checkpoint is {checkpoint}."
                    if checkpoint.exists()
                    else "Nothing was saved yet."
                )
            )

    def _keep(self, update: PendingUpdate[B]) -> str:
        """Keep a bad update on disk; the text says how to repeat it."""
        if self._kept >= _KEPT:
            return ""
        self._kept += 1
        rank = "" if self.process.is_main else f"_rank{self.process.rank}"
        path = self.config.run_dir / f"bad_update_{update.number}{rank}.pt"
        model = path.with_suffix(".safetensors")
        weights = self.task.net.state_dict()
        record = {
            "update": update.number, "weights_after_update": update.number, "seed": update.seed,
            "tokens": sum(batch.global_tokens for batch in update.batches), "ids": list(update.ids),
            "losses": update.losses, "precision": str(self.precision), "model": model.name,
            "weights_sha256": weights_digest(weights),
        }  # fmt: skip
        if not write_reproducer(path, update.batches, record):
            return ""
        try:
            self.task.save(model, weights, {"settings": self.settings, "updates": update.number})
        except ModelError as error:  # a full disk is no reason to stop before something has to be saved
            log.warning("the bad update's model could not be kept: %s", error)
            return ""
        if self.task.replay_module is None:
            return f". Kept in {path}"
        return (
            f". To repeat it: python -c 'from {self.task.replay_module} import replay; "
            f'print(replay("{path}"))\''
        )
