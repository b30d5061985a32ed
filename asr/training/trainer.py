"""The training loop: one visible loop, the same on a laptop, one GPU and many.

Every random draw of an update is a pure function of (seed, update, rank), and every draw of the data one of
(seed, epoch, utterance). So a resumed run continues bit for bit on a CPU, and there is no generator state to
save.
"""

import hashlib
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from asr.errors import Interrupted, SettingsError, TrainingError
from asr.model.acoustic import AcousticModel
from asr.model.ctc import blank_steps, ctc_loss
from asr.model.encoder import step_count
from asr.model.saved import save_model
from asr.training.batches import Batch, Batches
from asr.training.checkpoint import Position, save_checkpoint
from asr.training.distributed import Process
from asr.training.metrics import Metrics, UpdateReport
from asr.training.optimizer import make_optimizer, step_unless
from asr.training.plateau import PlateauWatch
from asr.training.precision import Precision, autocast, choose_precision
from asr.training.schedule import Schedule, learning_rate_factor
from asr.training.stopping import StopSignal
from asr.training.validation import validate

log = logging.getLogger("asr")

BEST_MODEL, LAST_MODEL, CHECKPOINT = (
    "model.safetensors",
    "last.safetensors",
    "checkpoint.pt",
)  # in the run folder


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained, and where the run is kept."""

    run_dir: Path = Path("runs/asr")  # checkpoints, models, metrics and the log of the run
    resume: bool = False  # go on with the run in run_dir
    epochs: int = 50
    learning_rate: float = 1e-3  # the peak, after the warm-up
    warmup: float = 0.05  # share of all updates over which the learning rate rises
    schedule: Schedule = "cosine"  # how it falls to 0 afterwards; constant does not
    weight_decay: float = 0.01  # of AdamW
    clip_norm: float = 5.0  # gradients with a larger norm are scaled down to it; 0 for never
    precision: Precision = "auto"  # auto: bf16 where the processor has instructions for it, else float32
    patience: int = 0  # stop after so many epochs without a better dev WER; 0 for never
    max_bad_updates: int = 10  # stop after so many updates in a row whose loss is not finite
    save_every_s: float = 600.0  # seconds between checkpoints within an epoch
    log_every_s: float = 10.0  # seconds between lines of metrics
    seed: int = 1  # of the weights, the order of the data, augmentation and dropout
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    threads: int | None = None  # of a CPU for one operation; None: the cores that loader processes leave

    def __post_init__(self) -> None:
        at_least = {
            "epochs": 1, "patience": 0, "max_bad_updates": 1, "save_every_s": 0, "log_every_s": 0,
            "weight_decay": 0, "clip_norm": 0, "seed": 0,
        }  # fmt: skip
        for name, low in at_least.items():
            value = getattr(self, name)
            if not value >= low:
                raise SettingsError(f"train.{name.replace('_', '-')} must be at least {low}. Got {value}.")
        if not 0 < self.learning_rate < math.inf:
            raise SettingsError(f"train.learning-rate must be above 0. Got {self.learning_rate:g}.")
        if not 0 <= self.warmup < 1:
            raise SettingsError(f"train.warmup is a share of all updates, in [0, 1). Got {self.warmup:g}.")
        if self.schedule not in get_args(Schedule):
            raise SettingsError(
                f"train.schedule must be one of {', '.join(get_args(Schedule))}. Got {self.schedule!r}."
            )
        if self.threads is not None and self.threads < 1:
            raise SettingsError(f"train.threads must be at least 1. Got {self.threads}.")


@dataclass(frozen=True)
class _Launched:
    """An update that the device may still be working on; its results are read one update later."""

    number: int  # counted from 1
    ids: tuple[str, ...]
    losses: Tensor  # (batch,) nats
    totals: Tensor  # (7,) loss a token, blank steps, steps, stop wishes, save wishes, gradient norm, skipped
    ready: torch.cuda.Event | None  # when both have arrived
    learning_rate: float
    tokens: int
    seconds: float  # of audio


@dataclass(frozen=True)
class _Wishes:
    """What some process asked of all when an update was launched; all read the same."""

    stop: bool = False
    save: bool = False


class Trainer:
    """Trains a model and leaves in run_dir: model.safetensors (the best), last.safetensors, checkpoint.pt.

    Args:
        model: on the process's device.
        train: batches to learn from.
        dev: batches to choose by; never augmented.
        config: the settings.
        process: this process among all that train.
        settings: all settings of the run, kept in checkpoints and models.

    Raises:
        SettingsError: the device has no such precision.
    """

    def __init__(
        self,
        model: AcousticModel,
        train: Batches,
        dev: Batches,
        config: TrainConfig,
        process: Process,
        settings: dict[str, Any],
    ) -> None:
        self.model, self.train, self.dev = model, train, dev
        self.config, self.process, self.settings = config, process, settings
        self.device = process.device
        self.precision = choose_precision(config.precision, self.device)
        self.net: nn.Module = model
        if process.world_size > 1:
            self.net = nn.parallel.DistributedDataParallel(model)
        self.optimizer = make_optimizer(model, config.learning_rate, config.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.position = Position()
        self.metrics = Metrics(config.run_dir, config.log_every_s, enabled=process.is_main)
        self.plateau = PlateauWatch(emits=False)

    def states(self) -> dict[str, Any]:
        """What a checkpoint keeps of the model and the optimiser."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, position: Position, states: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.position = position
        self.plateau = PlateauWatch(position.emits)
        self.model.load_state_dict(states["model"])
        self.optimizer.load_state_dict(states["optimizer"])
        self.scaler.load_state_dict(states["scaler"])

    def run(self, stop: StopSignal) -> Position:
        """Train until the last epoch, the end of patience, or a signal.

        Returns:
            Where training stands; the best model is in run_dir/model.safetensors.

        Raises:
            Interrupted: there was a signal; all is saved.
            TrainingError: too many updates in a row had a loss that is not finite.
            ModelError: the disk is full.
        """
        position = self.position
        self.metrics.begin(position, len(self.train.plan(position.epoch)), self.config.epochs)
        try:
            while position.epoch <= self.config.epochs and not self._out_of_patience():
                if not self._train_epoch(stop):
                    raise Interrupted(
                        f"stopped in epoch {position.epoch}, batch {position.batch}, and saved. "
                        f"To go on, add --train.resume to the same command."
                    )
                self._finish_epoch()
        finally:
            self.metrics.close()
        return position

    def _train_epoch(self, stop: StopSignal) -> bool:
        """Train to the end of the epoch, from the batch that the position names; False when told to stop."""
        position = self.position
        plan = self.train.plan(position.epoch)
        launched: _Launched | None = None
        last_save = time.monotonic()
        self.net.train()
        for batch in self.metrics.epoch_items(self.train.load(plan[position.batch :]), len(plan)):
            save = self.process.is_main and time.monotonic() - last_save > self.config.save_every_s
            done = (position.epoch - 1 + position.batch / len(plan)) / self.config.epochs
            factor = learning_rate_factor(done, self.config.warmup, self.config.schedule)
            before, launched = (
                launched,
                self._update(batch, self.config.learning_rate * factor, _Wishes(stop.received, save)),
            )
            position.batch += 1
            position.update += 1
            wishes = self._inspect(before)
            if wishes.stop or wishes.save:
                self._inspect(launched)
                launched = None
                self._save()
                last_save = time.monotonic()
            if wishes.stop:
                return False
        self._inspect(launched)
        return True

    def _update(self, batch: Batch, learning_rate: float, wishes: _Wishes) -> _Launched:
        """One update of the weights. Nothing in here reads from the device (torch's CTC may wait)."""
        config, process, position = self.config, self.process, self.position
        torch.manual_seed(_update_seed(config.seed, position.update, process.rank))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        there = batch.to(self.device)
        features = there.features(self.model.settings.features)
        with autocast(self.precision, self.device):
            log_probs, step_lengths = self.net(features, there.frame_lengths, there.masks)
        # torch's loss wants lengths in the host's memory, and would wait for the device to send them.
        steps = step_count(batch.frame_lengths, self.model.settings.encoder.subsampling)
        losses = ctc_loss(log_probs, steps, there.tokens, batch.token_lengths)
        # A mean over the tokens of all processes, so that several make the update that one would make.
        loss = losses.sum() / batch.global_tokens
        self.optimizer.zero_grad(set_to_none=True)
        # DistributedDataParallel takes the mean of the gradients, hence the factor.
        self.scaler.scale(loss * process.world_size).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm or math.inf)
        blanks = blank_steps(log_probs.detach(), step_lengths)
        stop, save = loss.new_full((), wishes.stop), loss.new_full((), wishes.save)
        totals = torch.stack([loss.detach(), blanks.to(loss), step_lengths.sum().to(loss), stop, save])
        process.add_up(totals)
        # All processes decide the same: they share the loss here, and the gradient before.
        skipped = ~(torch.isfinite(norm) & torch.isfinite(totals[0]))
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # skips updates with infinite gradients by itself
            self.scaler.update()
        else:
            step_unless(self.optimizer, skipped)
        totals = torch.cat([totals, torch.stack([norm, skipped.to(norm)])])
        ready: torch.cuda.Event | None = None
        if self.device.type == "cuda":
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        launched = _Launched(
            number=position.update + 1,
            ids=batch.ids,
            losses=losses.detach().to("cpu", non_blocking=True),
            totals=totals.to("cpu", non_blocking=True),
            ready=ready,
            learning_rate=learning_rate,
            tokens=batch.global_tokens,
            seconds=batch.global_seconds,
        )
        if ready is not None:
            ready.record()
        return launched

    def _inspect(self, launched: _Launched | None) -> _Wishes:
        """Read an update's results: name bad utterances, follow the plateau, write metrics."""
        if launched is None:
            return _Wishes()
        if launched.ready is not None:
            launched.ready.synchronize()
        loss, blanks, steps, stop, save, norm, skipped = launched.totals.tolist()
        report = UpdateReport(
            number=launched.number,
            made=not skipped,
            loss=loss,
            norm=norm,
            clipped=0 < self.config.clip_norm < norm,
            blank_share=blanks / steps,
            learning_rate=launched.learning_rate,
            tokens=launched.tokens,
            seconds=launched.seconds,
        )
        self.metrics.update(self.position, report)
        if report.made:
            self.position.bad_updates = 0
            self.plateau.observe(report.number, report.blank_share)
            self.position.emits = self.plateau.emits
        else:
            self._report_bad(launched)
        return _Wishes(stop > 0, save > 0)

    def _report_bad(self, launched: _Launched) -> None:
        position = self.position
        position.bad_updates += 1
        losses = zip(launched.ids, launched.losses.tolist(), strict=True)
        bad = [f"{name} ({loss})" for name, loss in losses if not math.isfinite(loss)]
        parts = self.process.gather((bad, launched.ids))
        names = [name for part in parts for name in part[0]]
        if names:
            blame = f"utterances whose loss is not finite: {', '.join(names)}"
        elif self.scaler.is_enabled():
            blame = "a gradient overflowed in fp16, and the loss scale is lowered; usual now and then"
        else:
            ids = ", ".join(name for part in parts for name in part[1])
            blame = f"every loss is finite, but the gradient is not; utterances: {ids}"
        log.warning("update %d skipped. %s", launched.number, blame)
        if position.bad_updates >= self.config.max_bad_updates:
            checkpoint = self.config.run_dir / CHECKPOINT
            raise TrainingError(
                f"{position.bad_updates} updates in a row had a loss or gradient that is not finite. The "
                f"last, {launched.number}: {blame}. Usual causes: a learning rate that is too high (try a "
                f"third of --train.learning-rate {self.config.learning_rate:g}), fp16 (try --train.precision "
                f"bf16), or damaged audio. "
                + (
                    f"The newest checkpoint is {checkpoint}."
                    if checkpoint.exists()
                    else "Nothing was saved yet."
                )
            )

    def _finish_epoch(self) -> None:
        """Validate, keep the best model, and move on to the next epoch."""
        position, metrics = self.position, self.metrics
        result = validate(self.model, self.dev, self.process, self.precision)
        better = (result.wer, result.loss) < (position.best_wer, position.best_loss)
        if better:
            position.best_epoch = position.epoch
            position.best_wer, position.best_loss = result.wer, result.loss
        metrics.finish_epoch(position, result, better=better)
        if self.process.is_main:
            provenance = {
                "settings": self.settings, "epoch": position.epoch, "updates": position.update,
                "dev_wer": result.wer, "dev_cer": result.cer, "training_s": round(metrics.total_seconds()),
            }  # fmt: skip
            save_model(self.config.run_dir / LAST_MODEL, self.model, provenance)
            if better:
                save_model(self.config.run_dir / BEST_MODEL, self.model, provenance)
        position.epoch, position.batch, position.epoch_sums = position.epoch + 1, 0, {}
        self._save()

    def _out_of_patience(self) -> bool:
        position, patience = self.position, self.config.patience
        if patience and position.epoch - 1 - position.best_epoch >= patience:
            log.info("no better dev WER for %d epochs: stopping early", patience)
            return True
        return False

    def _save(self) -> None:
        self.position.seconds = self.metrics.total_seconds()
        if self.process.is_main:
            save_checkpoint(self.config.run_dir / CHECKPOINT, self.position, self.settings, self.states())


def _update_seed(seed: int, update: int, rank: int) -> int:
    # Hashed, because torch's generator of the CPU looks at the lowest 32 bits only.
    return int.from_bytes(
        hashlib.blake2b(f"{seed}/{update}/{rank}".encode(), digest_size=8).digest(), "little"
    )
