"""The training loop: one loop for a laptop, one GPU and many, for speech and for text.

Read `Trainer.fit`, then `_train_epoch`, then `_update`: forward, backward, reduce, clip, step, report. Two
things are in update.py: what happens when a batch does not fit into memory (`OomSplitter`), and why an
update's results are read one update later on a GPU (`PendingUpdate`). What is trained is a `Task`.

Every random draw of an update is a pure function of (seed, update, rank), and every draw of the data one of
(seed, epoch, utterance). So a resumed run continues bit for bit on a CPU without any generator state.
"""

import copy
import hashlib
import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from asr.device import HostCopy, is_asynchronous
from asr.errors import Interrupted, SettingsError
from asr.training.context import TrainingContext
from asr.training.data_parallel import ParallelTask, dry_run
from asr.training.diagnostics import Microscope
from asr.training.finetuning import copy_matching_weights, freeze
from asr.training.metrics import Metrics
from asr.training.run.background import BackgroundWriter
from asr.training.run.checkpoint import CHECKPOINT, TrainingState, save_checkpoint
from asr.training.run.faults import BadUpdateReporter
from asr.training.run.stopping import StopRequest
from asr.training.schedule import learning_rate_factor
from asr.training.tasks.interface import TaskBatch, TaskOutput
from asr.training.update import (
    OomSplitter,
    PendingUpdate,
    make_optimizer,
    restore_optimizer,
    set_learning_rate,
    step_unless,
    sum_statistics,
)
from asr.training.validation import ModelSelection

log = logging.getLogger("asr")

B = TypeVar("B", bound=TaskBatch)


class Trainer(Generic[B]):
    """Trains a net; writes model.safetensors (the best), last.safetensors and checkpoint.pt into run_dir.

    Args:
        context: what is trained, how, and where.

    Raises:
        SettingsError: the net has no such parts to freeze.
    """

    def __init__(self, context: TrainingContext[B]) -> None:
        task, config, process = context.task, context.config, context.process
        self.context, self.task, self.config, self.process = context, task, config, process
        freeze(task.submodules(), config.freeze)
        self.parameters = [parameter for parameter in task.net.parameters() if parameter.requires_grad]
        self.copied_weights: list[str] = []  # names of those that a warm start has copied
        self.parallel_task = ParallelTask(task, process)
        self.splitter: OomSplitter[B] = OomSplitter(task.memory_advice)
        self.optimizer = self._make_optimizer()
        self.scaler = torch.amp.GradScaler(process.device.type, enabled=context.precision is torch.float16)
        self.bad_update_reporter = BadUpdateReporter(context)
        self.metrics = Metrics(config.run_dir, config.log_every_s, task.throughput, enabled=process.is_main)
        self.microscope = Microscope(context)
        self.writer = BackgroundWriter()
        self.selection = ModelSelection(context, self.metrics, self.writer)
        self.state = TrainingState()
        self.pending: PendingUpdate[B] | None = None  # the newest update, if its results are not read yet
        # What all processes agree on, as of the results that were read last.
        self.stop_requested = self.save_requested = False
        self.elapsed_s = 0.0  # of training, over all sessions
        self.last_save = time.monotonic()
        self.epoch_batches = 1  # of the current epoch
        self.out_of_patience = False

    def fit(self, stop: StopRequest) -> TrainingState:
        """Train until the configured length is reached, patience is exhausted, or a stop is requested.

        Returns:
            The state at the end; the best model is in run_dir/model.safetensors.

        Raises:
            Interrupted: a stop was requested; everything is saved.
            TrainingError: too many updates in a row had a loss that is not finite, or memory ran out.
            ModelError: a file cannot be written.
        """
        state, config, selection = self.state, self.config, self.selection
        plan = self.task.plan(state.epoch)
        self.epoch_batches, self.elapsed_s, self.stop_requested = len(plan), state.training_s, False
        self.out_of_patience = selection.out_of_patience(state)
        epochs = 0 if config.updates or config.minutes else config.epochs
        self.metrics.begin(state, len(plan), epochs, self._progress())
        self.microscope.begin(state)
        try:
            with self.writer:
                selection.recover_average(state, self._save)
                if self.process.world_size > 1 and not self._finished():
                    dry_run(self.parallel_task, self.splitter, plan, self.context.precision)
                while not (self._finished() or self.out_of_patience):
                    self._train_epoch(stop)
                    if self.stop_requested:
                        self.writer.wait()
                        raise Interrupted(
                            f"stopped{stop.reason()} in epoch {state.epoch}, batch {state.batch}, and "
                            f"saved. To continue, add --train.resume to the same command."
                        )
                    self.microscope.draw()
                selection.try_average(state, self._save)
        finally:
            self.microscope.draw(at_end=True)
            self.metrics.close()
        return state

    def _train_epoch(self, stop: StopRequest) -> None:
        """Train to the end of the epoch, of training or of patience, or until all processes agree to stop."""
        plan = self.task.plan(self.state.epoch)
        self.epoch_batches = len(plan)
        self.task.net.train()
        groups = _grouped(self.task.load(plan[self.state.batch :]), self.config.accumulate)
        for batches in self.metrics.epoch_items(groups, len(plan)):
            if self._progress() >= 1:
                break
            if self._validation_is_due():  # before the update: a resumed run begins with it
                self._read_pending()
                if self.stop_requested:
                    break
                self._validate()
                if self.out_of_patience:
                    break
                self._save()
            self.microscope.before_update(self.state.update + 1, batches)
            self._update(batches, stop.received)
            self.microscope.after_update(self.state.update, self.state.epoch)
            if self.save_requested and not self.stop_requested:  # else it is saved below
                self._read_pending()
                self.writer.wait()
                self._save()
            if self.stop_requested:
                break
        self._read_pending()  # which may request a stop
        if self.stop_requested:
            self.writer.wait()
        else:
            self._end_epoch()
        self._save()

    def _end_epoch(self) -> None:
        """Validate, unless that is due within epochs; after its last batch, the next epoch begins."""
        state, last = self.state, self._progress() >= 1
        if state.validated_update < state.update and (last or not self.config.validate_every):
            self._validate()
        if state.batch >= self.epoch_batches:
            state.epoch, state.batch = state.epoch + 1, 0

    def _update(self, batches: Sequence[B], stop_requested: bool) -> None:
        """One update of the weights: forward, backward, reduce, clip, step, report.

        Nothing in here waits for the device, except for the results of the previous update, while the
        device computes the gradient of this one. The two functions below compute the gradient of a part; the
        splitter calls them, normally once for each batch, and the task computes the losses.
        """
        config, state, number = self.config, self.state, self.state.update + 1
        learning_rate = self._learning_rate()
        tokens = sum(batch.global_tokens for batch in batches)  # of all processes
        seed = _update_seed(config.seed, state.update, self.process.rank)
        task_state = self.task.state()

        def restart() -> None:
            torch.manual_seed(seed)
            self.task.net.zero_grad(set_to_none=True)
            self.task.restore(task_state)

        def forward_backward(part: B, last: bool) -> TaskOutput:
            output = self.parallel_task.forward(part, self.context.precision, sync=last)
            # A mean over the tokens of all processes: the update is that of one process with all the data.
            loss = self.scaler.scale(output.losses.sum() / tokens)
            self.parallel_task.backward(loss, sync=last)  # and reduce: adds up all processes' gradients
            return output

        done = self.splitter.run(batches, forward_backward, restart, number)
        self._read_pending()  # of the previous update, while the device computes this one's gradient

        # reduce: what else is the sum over all processes
        losses = torch.cat([output.losses.detach() for _, output in done])
        statistics = sum_statistics([output for _, output in done])
        results, statistics = self._reduce(losses.sum() / tokens, statistics, stop_requested)

        # clip
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip_norm or math.inf)

        # step, unless something is not finite; all processes decide the same, by the same sums
        set_learning_rate(self.optimizer, learning_rate)
        skipped = ~(torch.isfinite(norm) & torch.isfinite(results["loss"]))
        step_unless(self.optimizer, skipped)  # in place of scaler.step, which checks the gradient alone
        self.scaler.update()
        if self.selection.moving_average:
            self.selection.moving_average.update(number, skipped)

        # report
        results |= {"norm": norm, "skipped": skipped.to(norm)}
        self.pending = PendingUpdate(
            number=number, batches=batches, ids=tuple(chain(*(part.ids for part, _ in done))), losses=losses,
            seed=seed, learning_rate=learning_rate, results=results, statistics=statistics,
        )  # fmt: skip
        state.batch, state.update = state.batch + len(batches), number
        if not is_asynchronous(self.process.device):
            self._read_pending()

    def _reduce(
        self, loss: Tensor, statistics: dict[str, Tensor], stop_requested: bool
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Sums over all processes, in one message, on the device.

        Returns:
            "loss"; "stop" and "save", above 0 if any process requests it; "seconds" of training, by the main
            process's clock: all of them (). And the statistics, as `sum_statistics` gives them.
        """
        save = self.process.is_main and time.monotonic() - self.last_save > self.config.save_every_s
        seconds = self.metrics.total_seconds() if self.process.is_main else 0.0
        results = {
            "loss": loss, "stop": loss.new_full((), stop_requested), "save": loss.new_full((), save),
            "seconds": loss.new_full((), seconds),
        }  # fmt: skip
        sums = self.process.sums(results | {f"statistic {name}": pair for name, pair in statistics.items()})
        reduced = {name: sums[name] for name in results}
        return reduced, {name: sums[f"statistic {name}"] for name in statistics}

    def _read_pending(self) -> None:
        """Read the results of the newest update: requests, metrics, and if it was skipped, the cause."""
        update, self.pending = self.pending, None
        if update is None:
            return
        results = update.read()
        self.stop_requested |= results["stop"] > 0
        self.save_requested |= results["save"] > 0
        self.elapsed_s = results["seconds"]
        report = update.report(results, self.config.clip_norm)
        self.metrics.add(self.state, report, self._progress())
        self.microscope.observe(report)
        if report.made:
            self.state.bad_updates = 0
            self.task.observe(report.number, report.statistics)
        else:
            self.bad_update_reporter.report(update, self.state)

    def _learning_rate(self) -> float:
        """The learning rate of the next update."""
        config = self.config
        factor = learning_rate_factor(min(self._progress(), 1.0), config.warmup, config.schedule)
        return config.learning_rate * factor * self.state.learning_rate_scale

    def _progress(self) -> float:
        """The fraction of the training that is done, by time, updates or epochs."""
        state, config = self.state, self.config
        if config.minutes:
            return self.elapsed_s / (60 * config.minutes)
        if config.updates:
            return state.update / config.updates
        return (state.epoch - 1 + state.batch / self.epoch_batches) / config.epochs

    def _finished(self) -> bool:
        return self._progress() >= 1 and self.state.validated_update == self.state.update

    def _validation_is_due(self) -> bool:
        every = self.config.validate_every
        return every > 0 and self.state.update - self.state.validated_update >= every

    def _validate(self) -> None:
        self.selection.validate(self.state)
        self.out_of_patience = self.selection.out_of_patience(self.state)
        self.elapsed_s = self.process.gather(self.metrics.total_seconds())[0]  # including the validation

    def state_dicts(self) -> dict[str, Any]:
        """The state of the net, the optimiser and every process's task, for a checkpoint."""
        average = self.selection.moving_average
        return {
            "net": self.task.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": average.state() if average else {},
            "copied": self.copied_weights,
            "tasks": self.process.gather(HostCopy(self.task.state()).get()),
        }

    def restore(self, state: TrainingState, state_dicts: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            SettingsError: the checkpoint is of another net.
        """
        self.state = state
        try:
            self.task.net.load_state_dict(state_dicts["net"])
        except RuntimeError as error:
            reason = " ".join(str(error).split()).rstrip(".")  # torch's message has many lines
            raise SettingsError(
                f"{self.config.run_dir / CHECKPOINT}: its weights do not fit these settings: {reason}. "
                f"Resume with the model settings of the run, or start a new one with --train.warm-start."
            ) from error
        self.copied_weights = state_dicts["copied"]
        self.optimizer = self._make_optimizer()
        if not restore_optimizer(self.optimizer, state_dicts["optimizer"]):
            log.warning("other parts are frozen than before: the optimiser's state is reset")
        if state_dicts["scaler"]:  # empty of a run in another precision
            self.scaler.load_state_dict(state_dicts["scaler"])
        self.selection.reset_moving_average()
        if self.selection.moving_average and state_dicts["average"]:
            self.selection.moving_average.restore(state_dicts["average"])
        self.task.restore(state_dicts["tasks"][self.process.rank % len(state_dicts["tasks"])])

    def warm_start(self, path: Path) -> None:
        """Start from the weights of another model, as far as they fit.

        Raises:
            ModelError: it cannot be read.
            SettingsError: none of them fits.
        """
        source_weights = self.task.source_weights(path)
        self.copied_weights = copy_matching_weights(self.task.net, source_weights, str(path))
        self.optimizer = self._make_optimizer()
        self.process.broadcast(self.task.net.state_dict().values())
        self.selection.reset_moving_average()

    def _make_optimizer(self) -> torch.optim.AdamW:
        """A new optimiser, for which weights that were copied may learn at a rate of their own."""
        config = self.config
        return make_optimizer(
            self.task.net, config.learning_rate, config.weight_decay,
            self.copied_weights, config.warm_start_rate,
        )  # fmt: skip

    def _save(self) -> None:
        """Write a checkpoint, in the background."""
        self.save_requested, self.last_save = False, time.monotonic()
        self.state.training_s = self.metrics.total_seconds()
        state_dicts = self.state_dicts()  # of all processes
        if self.process.is_main:
            path, state = self.config.run_dir / CHECKPOINT, copy.deepcopy(self.state)
            snapshot = HostCopy(state_dicts)
            record = self.context.settings_record
            self.writer.submit(lambda: save_checkpoint(path, state, record, snapshot.get()))
            self.selection.remove_unused(state)


def _grouped(batches: Iterable[B], size: int) -> Iterator[list[B]]:
    """Groups of `size` batches; the last may be smaller."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _update_seed(seed: int, update: int, rank: int) -> int:
    # Hashed, because torch's CPU generator uses the lowest 32 bits only.
    return int.from_bytes(
        hashlib.blake2b(f"{seed}/{update}/{rank}".encode(), digest_size=8).digest(), "little"
    )
