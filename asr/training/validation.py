"""Validation and model selection: the last weights, the best, and the average of the best."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

from torch import Tensor

from asr.device import HostCopy
from asr.training.averaging import BestWeights, MovingAverage
from asr.training.context import TrainingContext
from asr.training.metrics import Metrics
from asr.training.run.background import BackgroundWriter
from asr.training.run.checkpoint import TrainingState
from asr.training.schedule import PLATEAU_FACTOR
from asr.training.tasks.interface import TaskBatch, ValidationResult

log = logging.getLogger("asr")

# In the run folder:
BEST_MODEL, LAST_MODEL = "model.safetensors", "last.safetensors"
BEST_WEIGHTS = "best_epochs"  # folder of the weights to average at the end

B = TypeVar("B", bound=TaskBatch)


class ModelSelection(Generic[B]):
    """Validates the net and keeps the best of its weights.

    Args:
        context: of the training; all processes validate together, the main one writes.
        metrics: logs the results.
        writer: writes the files.
    """

    def __init__(self, context: TrainingContext[B], metrics: Metrics, writer: BackgroundWriter) -> None:
        self.context, self.metrics, self.writer = context, metrics, writer
        self.task, self.config, self.process = context.task, context.config, context.process
        self.moving_average = MovingAverage(self.task.net, self.config.ema) if self.config.ema else None
        self.best_weights = BestWeights(self.config.run_dir / BEST_WEIGHTS)

    def reset_moving_average(self) -> None:
        """Restart the moving average at the current weights of the net."""
        if self.moving_average:
            self.moving_average = MovingAverage(self.task.net, self.config.ema)

    def validate(self, state: TrainingState) -> None:
        """Score the net, write its model, and keep it if it is among the best. The state is updated.

        Raises:
            ModelError: an earlier file could not be written.
        """
        self.writer.wait()  # so that at most one snapshot is in memory
        with self._averaged_weights():
            result = self.task.validate(self.process, self.context.precision)
            weights = HostCopy(dict(self.task.net.state_dict())) if self.process.is_main else None
        name = f"update {state.update}" if self.config.validate_every else f"epoch {state.epoch}"
        better = (result.score, result.loss) < (state.best_score, state.best_loss)
        if better:
            state.best, state.averaged, state.average_unsaved = name, [], False
            state.best_score, state.best_loss = result.score, result.loss
        state.since_best = 0 if better else state.since_best + 1
        # Of equal ones the older comes first.
        ranking = sorted([*state.ranking, (result.score, result.loss, name)], key=lambda row: row[:2])
        state.ranking = ranking[: self.config.average]
        self.metrics.validated(state, result, every=self.config.validate_every, better=better)
        if weights is not None:
            provenance = self._provenance(state, result, epoch=state.epoch)
            self._write(LAST_MODEL, weights, provenance)
            if better:
                self._write(BEST_MODEL, weights, provenance)
            if name in _names(state):
                self.writer.submit(lambda: self.best_weights.save(name, weights.get()))
        if self.config.schedule == "plateau" and not better:
            state.learning_rate_scale *= PLATEAU_FACTOR
            log.info(
                "no better %s: the learning rate goes down to %.1e",
                self.task.score_name, self.config.learning_rate * state.learning_rate_scale,
            )  # fmt: skip
        state.validated_update, state.running_totals = state.update, {}

    def remove_unused(self, state: TrainingState) -> None:
        """Remove kept weights to which this state, of the newest checkpoint, does not refer."""
        names = _names(state)
        self.writer.submit(lambda: self.best_weights.keep_only(names))

    def out_of_patience(self, state: TrainingState) -> bool:
        """Whether there have been too many validations without a better score."""
        patience = self.config.patience
        if patience and state.since_best >= patience:
            what = "validations" if self.config.validate_every else "epochs"
            log.info("no better %s for %d %s: stopping early", self.task.score_name, patience, what)
            return True
        return False

    def try_average(self, state: TrainingState, save: Callable[[], None]) -> None:
        """Average the best weights; if the average is better than the best model, it becomes the best model.

        Args:
            state: at the end of training.
            save: writes a checkpoint. One is written before the model: a run that is killed in between and
                continued for more epochs must not prefer a model that is worse than the average.

        Raises:
            TrainingError: kept weights are missing or damaged.
        """
        # A resumed run may average fewer.
        names = _in_order(_names(state)[: self.config.average])
        if len(names) < 2:
            return
        weights, result = self._average_of(names)
        better = (result.score, result.loss) < (state.best_score, state.best_loss)
        log.info(
            "average of %s: %s%s", ", ".join(names), result.headline(),
            "  best so far" if better else f"; {state.best_model()} remains the best",
        )  # fmt: skip
        if better:
            state.averaged, state.average_unsaved = names, True
            state.best_score, state.best_loss = result.score, result.loss
            save()
            self._write_average(state, weights, result, save)

    def recover_average(self, state: TrainingState, save: Callable[[], None]) -> None:
        """Write the average that an earlier session selected, if it was killed before it was written."""
        if state.average_unsaved and self.config.average:
            weights, result = self._average_of(state.averaged)
            self._write_average(state, weights, result, save)

    def _average_of(self, names: Sequence[str]) -> tuple[HostCopy[dict[str, Tensor]], ValidationResult]:
        """The mean of kept weights, and its validation; the net's weights are unchanged."""
        self.writer.wait()  # for the newest of them to be on disk
        net = self.task.net
        kept = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        if self.process.is_main:
            net.load_state_dict(self.best_weights.mean(names))
        self.process.broadcast(net.state_dict().values())
        result = self.task.validate(self.process, self.context.precision)
        weights = HostCopy(dict(net.state_dict()))
        net.load_state_dict(kept)
        return weights, result

    def _write_average(
        self,
        state: TrainingState,
        weights: HostCopy[dict[str, Tensor]],
        result: ValidationResult,
        save: Callable[[], None],
    ) -> None:
        if self.process.is_main:
            self._write(BEST_MODEL, weights, self._provenance(state, result, average_of=state.averaged))
        state.average_unsaved = False
        save()

    def _write(self, name: str, weights: HostCopy[dict[str, Tensor]], provenance: dict[str, Any]) -> None:
        path = self.config.run_dir / name
        self.writer.submit(lambda: self.task.save(path, weights.get(), provenance))

    def _averaged_weights(self) -> AbstractContextManager[None]:
        """A context in which the net has the weights that are validated and saved."""
        return self.moving_average.applied() if self.moving_average else nullcontext()

    def _provenance(self, state: TrainingState, result: ValidationResult, **more: Any) -> dict[str, Any]:
        """What a saved model records of its training."""
        scores = {name: value for name, value in result.row().items() if isinstance(value, float)}
        return {
            "settings": self.context.settings_record, **more, "updates": state.update, **scores,
            "training_s": round(self.metrics.total_seconds()),
        }  # fmt: skip


def _names(state: TrainingState) -> list[str]:
    """The names of the weights to average, best first."""
    return [name for _, _, name in state.ranking]


def _in_order(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: int(name.split()[1]))
