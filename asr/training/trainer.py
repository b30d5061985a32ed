"""The training loop: one visible loop, the same on a laptop, one GPU and many, for speech and for text.

Every random draw of an update is a pure function of (seed, update, rank), and every draw of the data one of
(seed, epoch, utterance). So a resumed run continues bit for bit on a CPU, and there is no generator state to
save. What is trained is a `Task`.
"""

import hashlib
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from asr.device import use_precision
from asr.errors import Interrupted, SettingsError
from asr.training.averaging import BestEpochs, MovingAverage
from asr.training.bad_updates import BadUpdates, Update
from asr.training.checkpoint import CHECKPOINT, Position, save_checkpoint
from asr.training.config import TrainConfig
from asr.training.distributed import Process
from asr.training.gradients import add_up, compute_gradients
from asr.training.metrics import Metrics, UpdateReport
from asr.training.microscope import Microscope
from asr.training.optimizer import make_optimizer, restore_optimizer, step_unless
from asr.training.schedule import PLATEAU_FACTOR, learning_rate_factor
from asr.training.start import freeze, take_weights
from asr.training.stopping import StopSignal
from asr.training.task import Result, Task, TaskBatch

log = logging.getLogger("asr")

# In the run folder:
BEST_MODEL, LAST_MODEL = "model.safetensors", "last.safetensors"
BEST_EPOCHS = "best_epochs"  # weights that are to be averaged

B = TypeVar("B", bound=TaskBatch)


@dataclass(frozen=True)
class _Wishes:
    """What some process asked of all when an update was launched; all read the same."""

    stop: bool = False
    save: bool = False


@dataclass(frozen=True)
class _Launched(Generic[B]):
    """An update that the device may still be working on; its results are read one update later."""

    update: Update[B]
    # (5 + 2 shares,): loss a token, stop wishes, save wishes, counts of the shares, gradient norm, skipped
    totals: Tensor
    share_names: tuple[str, ...]
    ready: torch.cuda.Event | None  # when losses and totals have arrived; None on a CPU: at once
    learning_rate: float


class Trainer(Generic[B]):
    """Trains a net and leaves in run_dir: model.safetensors (the best), last.safetensors, checkpoint.pt.

    Args:
        task: the net, on the process's device, its data and its loss.
        config: the settings.
        process: this process among all that train.
        settings: all settings of the run, kept in checkpoints and models.

    Raises:
        SettingsError: the device has no such precision, or the net no such parts to freeze.
    """

    def __init__(
        self, task: Task[B], config: TrainConfig, process: Process, settings: dict[str, Any]
    ) -> None:
        self.task, self.config, self.process, self.settings = task, config, process, settings
        self.device = process.device
        self.precision = use_precision(config.precision, self.device)
        freeze(task.parts(), config.freeze)
        process.share(task.net.state_dict().values())
        self.weights = [weight for weight in task.net.parameters() if weight.requires_grad]
        self.optimizer = make_optimizer(task.net, config.learning_rate, config.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.average = MovingAverage(task.net, config.ema) if config.ema else None
        self.best_epochs = BestEpochs(config.run_dir / BEST_EPOCHS)
        self.bad_updates = BadUpdates(task, config, process, settings, self.precision)
        self.position = Position()
        self.metrics = Metrics(config.run_dir, config.log_every_s, task.pace, enabled=process.is_main)
        self.microscope = Microscope(task, config, enabled=process.is_main)

    def states(self) -> dict[str, Any]:
        """What a checkpoint keeps of the net, the optimiser and the task of every process."""
        return {
            "net": self.task.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state() if self.average else {},
            "tasks": self.process.gather(_on_cpu(self.task.state())),
        }

    def restore(self, position: Position, states: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            SettingsError: the net has changed since.
        """
        self.position = position
        try:
            self.task.net.load_state_dict(states["net"])
        except RuntimeError as error:
            reason = " ".join(str(error).split()).rstrip(".")  # torch's message has many lines
            raise SettingsError(
                f"{self.config.run_dir / CHECKPOINT}: its weights do not fit these settings: {reason}. "
                f"Resume with the model's settings of before, or begin anew with --train.warm-start."
            ) from error
        if not restore_optimizer(self.optimizer, states["optimizer"]):
            log.warning("other parts are frozen than before: the optimiser starts anew")
        self.scaler.load_state_dict(states["scaler"])
        self._reset_average()
        if self.average and states["average"]:
            self.average.restore(states["average"])
        self.task.restore(states["tasks"][self.process.rank % len(states["tasks"])])

    def warm_start(self, path: Path) -> None:
        """Begin with the weights of another model, as far as they fit.

        Raises:
            ModelError: it cannot be read.
            SettingsError: nothing fits.
        """
        take_weights(self.task.net, self.task.donor(path), str(path))
        self.process.share(self.task.net.state_dict().values())
        self._reset_average()

    def _reset_average(self) -> None:
        """Let the moving average begin at the weights of now."""
        if self.average:
            self.average = MovingAverage(self.task.net, self.config.ema)

    def _averaged(self) -> AbstractContextManager[None]:
        """While entered, the net has the weights that users get."""
        return self.average.applied() if self.average else nullcontext()

    def run(self, stop: StopSignal) -> Position:
        """Train until the last epoch, the end of patience, or a signal.

        Returns:
            Where training stands; the best model is in run_dir/model.safetensors.

        Raises:
            Interrupted: there was a signal; all is saved.
            TrainingError: too many updates in a row had a loss that is not finite, or memory did not suffice.
            ModelError: the disk is full.
        """
        position = self.position
        self.metrics.begin(position, len(self.task.plan(position.epoch)), self.config.epochs)
        self.microscope.begin(position)
        try:
            while position.epoch <= self.config.epochs and not self._out_of_patience():
                if not self._train_epoch(stop):
                    raise Interrupted(
                        f"stopped{stop.reason()} in epoch {position.epoch}, batch {position.batch}, and "
                        f"saved. To go on, add --train.resume to the same command."
                    )
                self._finish_epoch()
                self.microscope.draw()
            self._try_average()
        finally:
            self.microscope.draw(at_end=True)
            self.metrics.close()
        return position

    def _train_epoch(self, stop: StopSignal) -> bool:
        """Train to the end of the epoch, from the batch that the position names; False when told to stop."""
        position = self.position
        plan = self.task.plan(position.epoch)
        launched: _Launched[B] | None = None
        last_save = time.monotonic()
        self.task.net.train()
        groups = _grouped(self.task.load(plan[position.batch :]), self.config.accumulate)
        for batches in self.metrics.epoch_items(groups, len(plan)):
            save = self.process.is_main and time.monotonic() - last_save > self.config.save_every_s
            done = (position.epoch - 1 + position.batch / len(plan)) / self.config.epochs
            factor = learning_rate_factor(done, self.config.warmup, self.config.schedule)
            self.microscope.before(position.update + 1, batches)
            rate = self.config.learning_rate * factor * position.rate_scale
            before, launched = launched, self._update(batches, rate, _Wishes(stop.received, save))
            position.batch += len(batches)
            position.update += 1
            wishes = self._inspect(before)
            self.microscope.after(position.update, position.epoch)
            if launched.ready is None:  # a CPU has nothing to wait for
                wishes, launched = self._inspect(launched), None
            if wishes.stop or wishes.save:
                self._inspect(launched)
                launched = None
                self._save()
                last_save = time.monotonic()
            if wishes.stop:
                return False
        self._inspect(launched)
        return True

    def _update(self, batches: Sequence[B], learning_rate: float, wishes: _Wishes) -> _Launched[B]:
        """One update of the weights. Nothing in here reads from the device."""
        config, process, number = self.config, self.process, self.position.update + 1
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        seed = _update_seed(config.seed, number - 1, process.rank)
        computed = compute_gradients(self.task, batches, self.precision, self.scaler, seed, number)
        loss, shares = computed.loss, computed.shares
        totals = torch.stack(
            [
                loss,
                loss.new_full((), wishes.stop),
                loss.new_full((), wishes.save),
                *(count.to(loss) for pair in shares.values() for count in pair),
            ]
        )
        totals = add_up(process, totals, self.weights)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.weights, config.clip_norm or math.inf)
        # All processes decide the same: they share the loss and the gradient.
        skipped = ~(torch.isfinite(norm) & torch.isfinite(totals[0]))
        # Not the scaler's own step, which would look at the gradient alone.
        step_unless(self.optimizer, skipped)
        self.scaler.update()
        if self.average:
            self.average.update(number, skipped)
        totals = torch.cat([totals, torch.stack([norm, skipped.to(norm)])])
        ready: torch.cuda.Event | None = None
        if self.device.type == "cuda":
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        launched = _Launched(
            update=Update(number, batches, computed.ids, computed.losses.to("cpu", non_blocking=True), seed),
            totals=totals.to("cpu", non_blocking=True),
            share_names=tuple(shares),
            ready=ready,
            learning_rate=learning_rate,
        )
        if ready is not None:
            ready.record()
        return launched

    def _inspect(self, launched: _Launched[B] | None) -> _Wishes:
        """Read an update's results: name bad utterances, let the task see its shares, write metrics."""
        if launched is None:
            return _Wishes()
        if launched.ready is not None:
            launched.ready.synchronize()
        loss, stop, save, *counts, norm, skipped = launched.totals.tolist()
        report = UpdateReport(
            number=launched.update.number,
            made=not skipped,
            loss=loss,
            norm=norm,
            clipped=0 < self.config.clip_norm < norm,
            shares={
                name: counts[2 * place] / max(counts[2 * place + 1], 1)
                for place, name in enumerate(launched.share_names)
            },
            learning_rate=launched.learning_rate,
            tokens=sum(batch.global_tokens for batch in launched.update.batches),
            amount=sum(batch.global_amount for batch in launched.update.batches),
        )
        self.metrics.update(self.position, report)
        self.microscope.observe(report)
        if report.made:
            self.position.bad_updates = 0
            self.task.observe(report.number, report.shares)
        else:
            self.bad_updates.report(launched.update, self.position)
        return _Wishes(stop > 0, save > 0)

    def _finish_epoch(self) -> None:
        """Validate, keep the best model, and move on to the next epoch."""
        position, metrics = self.position, self.metrics
        with self._averaged():
            result = self.task.validate(self.process, self.precision)
            better = (result.score, result.loss) < (position.best_score, position.best_loss)
            if better:
                position.best_epoch, position.averaged = position.epoch, []
                position.best_score, position.best_loss = result.score, result.loss
            metrics.finish_epoch(position, result, better=better)
            ranked = sorted([*position.top_epochs, (result.score, result.loss, position.epoch)])
            position.top_epochs = ranked[: self.config.average]
            if self.process.is_main:
                provenance = self._provenance(result, epoch=position.epoch)
                self.task.save(self.config.run_dir / LAST_MODEL, provenance)
                if better:
                    self.task.save(self.config.run_dir / BEST_MODEL, provenance)
                if position.epoch in _epochs(position):
                    self.best_epochs.save(position.epoch, self.task.net)
        if self.config.schedule == "plateau" and not better:
            position.rate_scale *= PLATEAU_FACTOR
            log.info(
                "no better %s: the learning rate goes down to %.1e",
                self.task.score_name, self.config.learning_rate * position.rate_scale,
            )  # fmt: skip
        position.epoch, position.batch, position.epoch_sums = position.epoch + 1, 0, {}
        self._save()
        if self.process.is_main:
            self.best_epochs.remove_others(_epochs(position))

    def _try_average(self) -> None:
        """Make the average of the best epochs the best model, if it is."""
        position, net = self.position, self.task.net
        epochs = sorted(_epochs(position)[: self.config.average])  # a resumed run may ask for fewer
        if len(epochs) < 2:
            return
        kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        if self.process.is_main:
            net.load_state_dict(self.best_epochs.mean(epochs))
        self.process.share(net.state_dict().values())
        result = self.task.validate(self.process, self.precision)
        better = (result.score, result.loss) < (position.best_score, position.best_loss)
        log.info(
            "average of the epochs %s: %s%s", ", ".join(map(str, epochs)), result.headline(),
            "  best so far" if better else f"; {position.best_model()} remains the best",
        )  # fmt: skip
        if better:
            position.averaged = epochs
            position.best_score, position.best_loss = result.score, result.loss
            if self.process.is_main:
                provenance = self._provenance(result, averaged_epochs=epochs)
                self.task.save(self.config.run_dir / BEST_MODEL, provenance)
        net.load_state_dict(kept)
        if better:
            self._save()  # a run that is given more epochs has to beat the average

    def _provenance(self, result: Result, **what: Any) -> dict[str, Any]:
        """What a saved model tells of its training."""
        scores = {name: value for name, value in result.row().items() if isinstance(value, float)}
        return {
            "settings": self.settings, **what, "updates": self.position.update, **scores,
            "training_s": round(self.metrics.total_seconds()),
        }  # fmt: skip

    def _out_of_patience(self) -> bool:
        position, patience = self.position, self.config.patience
        if patience and position.epoch - 1 - position.best_epoch >= patience:
            log.info("no better %s for %d epochs: stopping early", self.task.score_name, patience)
            return True
        return False

    def _save(self) -> None:
        self.position.seconds = self.metrics.total_seconds()
        states = self.states()  # of all processes
        if self.process.is_main:
            save_checkpoint(self.config.run_dir / CHECKPOINT, self.position, self.settings, states)


def _epochs(position: Position) -> list[int]:
    """The epochs that are to be averaged."""
    return [epoch for _, _, epoch in position.top_epochs]


def _grouped(batches: Iterable[B], size: int) -> Iterator[list[B]]:
    """So many batches at a time, and at the end what is left."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _on_cpu(value: Any) -> Any:
    """A tree of plain values with its tensors in the host's memory, so that processes can exchange it."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_on_cpu(part) for part in value]
    return value


def _update_seed(seed: int, update: int, rank: int) -> int:
    # Hashed, because torch's generator of the CPU looks at the lowest 32 bits only.
    return int.from_bytes(
        hashlib.blake2b(f"{seed}/{update}/{rank}".encode(), digest_size=8).digest(), "little"
    )
