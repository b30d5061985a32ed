"""The training loop: one visible loop, the same on a laptop, one GPU and many.

Every random draw of an update is a pure function of (seed, update, rank), and every draw of the data one of
(seed, epoch, utterance). So a resumed run continues bit for bit on a CPU, and there is no generator state to save.
"""

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from asr.errors import SettingsError, TrainingError
from asr.frontend.features import log_mel
from asr.model.acoustic import AcousticModel
from asr.model.ctc import blank_steps, ctc_loss
from asr.model.saved import save_model
from asr.training.batches import Batch, Batches
from asr.training.checkpoint import Position, save_checkpoint
from asr.training.distributed import Process
from asr.training.metrics import Metrics
from asr.training.plateau import PlateauWatch
from asr.training.schedule import Schedule, learning_rate_factor
from asr.training.stopping import Interrupted, StopSignal
from asr.training.validation import validate

log = logging.getLogger("asr")

BEST_MODEL, LAST_MODEL, CHECKPOINT = "model.safetensors", "last.safetensors", "checkpoint.pt"  # in the run folder

Precision = Literal["auto", "float32", "bf16", "fp16"]


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
    seed: int = 1
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    threads: int | None = None  # of a CPU for one operation; None: the cores that loader processes leave

    def __post_init__(self) -> None:
        for name, low in (("epochs", 1), ("patience", 0), ("max_bad_updates", 1), ("save_every_s", 0), ("log_every_s", 0)):
            if getattr(self, name) < low:
                raise SettingsError(
                    f"train.{name.replace('_', '-')} must be at least {low}. Got {getattr(self, name)}."
                )
        if self.learning_rate <= 0:
            raise SettingsError(f"train.learning-rate must be above 0. Got {self.learning_rate:g}.")
        if not 0 <= self.warmup < 1:
            raise SettingsError(f"train.warmup is a share of all updates, in [0, 1). Got {self.warmup:g}.")
        for name in ("weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                raise SettingsError(f"train.{name.replace('_', '-')} must not be negative. Got {getattr(self, name):g}.")
        if self.threads is not None and self.threads < 1:
            raise SettingsError(f"train.threads must be at least 1. Got {self.threads}.")


@dataclass
class _Watched:
    """What an update leaves behind to be read one update later, when the device is done with it."""

    ids: tuple[str, ...]
    losses: Tensor  # (batch,) on the host, once ready
    summary: Tensor  # (4,) loss a token, gradient norm, blank share, whether the update was made
    ready: torch.cuda.Event | None
    tokens: int
    seconds: float


class Trainer:
    """Trains a model and keeps its run folder.

    Args:
        model: on the process's device.
        train: batches to learn from.
        dev: batches to choose by; never augmented.
        config: the settings.
        process: this process among all that train.
        settings: all settings of the run, kept in checkpoints and models.
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
        self.net: nn.Module = model
        if process.world_size > 1:
            self.net = nn.parallel.DistributedDataParallel(model)
        self.precision = choose_precision(config.precision, self.device)
        # The fused kernel can leave out an update that a flag on the device forbids, without asking the host.
        self.optimizer = torch.optim.AdamW(
            _decayed_groups(model, config.weight_decay), lr=config.learning_rate, fused=True
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)  # type: ignore[attr-defined]
        self.position = Position()
        self.metrics = Metrics(config.run_dir, config.log_every_s, enabled=process.is_main)

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
        self.metrics.restore(position)
        self.model.load_state_dict(states["model"])
        self.optimizer.load_state_dict(states["optimizer"])
        self.scaler.load_state_dict(states["scaler"])

    def run(self, stop: StopSignal) -> Position:
        """Train until the last epoch, the end of patience, or a signal.

        Returns:
            Where training stands; the best model is in run_dir/model.safetensors.

        Raises:
            TrainingError: too many updates in a row had a loss that is not finite.
            ModelError: the disk is full.
        """
        position = self.position
        watch = PlateauWatch(position.emits)
        try:
            while position.epoch <= self.config.epochs and not self._out_of_patience():
                if not self._train_epoch(watch, stop):
                    self._save()
                    raise Interrupted(f"stopped in epoch {position.epoch}, batch {position.batch}")
                self._finish_epoch()
        finally:
            self.metrics.close()
        return position

    def _out_of_patience(self) -> bool:
        position, patience = self.position, self.config.patience
        if patience and position.epoch - 1 - position.best_epoch >= patience:
            log.info("no better dev WER for %d epochs: stopping early", patience)
            return True
        return False

    def _train_epoch(self, watch: PlateauWatch, stop: StopSignal) -> bool:
        """Train to the end of the epoch, from the batch that the position names; False when told to stop."""
        position, metrics = self.position, self.metrics
        plan = self.train.plan(position.epoch)
        watched: _Watched | None = None
        last_save = time.monotonic()
        self.net.train()
        metrics.start_epoch(position, len(plan), self.config.epochs)
        for batch in self.train.load(plan[position.batch :]):
            metrics.data_arrived()
            rate = self._learning_rate((position.epoch - 1 + position.batch / len(plan)) / self.config.epochs)
            newest = self._update(batch.to(self.device), rate)
            position.batch += 1
            position.update += 1
            if watched:
                self._inspect(watched, watch, rate)
            watched = newest
            # Several processes must agree, which costs an exchange: they look now and then.
            if (self.process.world_size == 1 or position.batch % 10 == 0) and self.process.any(stop.received):
                self._inspect(watched, watch, rate)
                return False
            if time.monotonic() - last_save > self.config.save_every_s:
                self._save()
                last_save = time.monotonic()
        if watched:
            self._inspect(watched, watch, rate)
        return True

    def _update(self, batch: Batch, rate: float) -> _Watched:
        """One update of the weights. Nothing in here waits for the device."""
        torch.manual_seed((self.config.seed << 40) + (self.position.update << 10) + self.process.rank)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        features = batch.audio if batch.audio.dim() == 3 else log_mel(batch.audio, self.model.settings.features)
        with self._autocast():
            log_probs, step_lengths = self.net(features, batch.frame_lengths, batch.masks)
        losses = ctc_loss(log_probs, step_lengths, batch.tokens, batch.token_lengths)
        # A sum over tokens of all processes, so that several processes make the update that one would make;
        # DistributedDataParallel takes the mean of the gradients, hence the factor.
        loss = losses.sum() / batch.global_tokens * self.process.world_size
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm or float("inf"))
        skipped = ~(torch.isfinite(norm) & torch.isfinite(loss))
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # skips updates with infinite gradients by itself
            self.scaler.update()
        else:
            self.optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        blank_share = blank_steps(log_probs.detach(), step_lengths) / step_lengths.sum()
        summary = torch.stack([loss.detach(), norm, blank_share, (~skipped).float()])
        ready = torch.cuda.Event() if self.device.type == "cuda" else None
        watched = _Watched(
            batch.ids,
            losses.detach().to("cpu", non_blocking=True),
            summary.to("cpu", non_blocking=True),
            ready,
            batch.global_tokens,
            batch.seconds,
        )
        if ready:
            ready.record()
        return watched

    def _inspect(self, watched: _Watched, watch: PlateauWatch, rate: float) -> None:
        """Read an update's results: name bad utterances, follow the plateau, write metrics."""
        if watched.ready:
            watched.ready.synchronize()
        loss, norm, blank_share, made = watched.summary.tolist()
        if made:
            self.position.bad_updates = 0
        else:
            self._report_bad(watched)
        watch.observe(self.position.update, blank_share)
        self.position.emits = watch.emits
        clipped = 0 < self.config.clip_norm < norm
        self.metrics.update(
            self.position, loss=loss, norm=norm, clipped=clipped, blank_share=blank_share, made=bool(made),
            rate=rate, tokens=watched.tokens, seconds=watched.seconds,
        )  # fmt: skip

    def _report_bad(self, watched: _Watched) -> None:
        position = self.position
        position.bad_updates += 1
        names = [name for name, value in zip(watched.ids, watched.losses.tolist(), strict=True) if not abs(value) < float("inf")]
        blame = f"utterances with a loss that is not finite: {', '.join(names)}" if names else (
            f"every loss is finite but the gradient is not; utterances: {', '.join(watched.ids)}"
        )  # fmt: skip
        log.warning("update %d skipped. %s", position.update, blame)
        if position.bad_updates >= self.config.max_bad_updates:
            raise TrainingError(
                f"{position.bad_updates} updates in a row had a loss or gradient that is not finite (the last: {blame}). "
                f"The weights are those before the first of them. Usual causes: a learning rate that is too high "
                f"(try a third of --train.learning-rate {self.config.learning_rate:g}), fp16 (try --train.precision bf16), "
                f"or damaged audio. The newest checkpoint is {self.config.run_dir / CHECKPOINT}."
            )

    def _finish_epoch(self) -> None:
        """Validate, keep the best model, and move on to the next epoch."""
        position, metrics = self.position, self.metrics
        with self._autocast():
            result = validate(self.model, self.dev, self.process)
        better = (result.wer, result.loss) < (position.best_wer, position.best_loss)
        if better:
            position.best_epoch, position.best_wer, position.best_loss = position.epoch, result.wer, result.loss
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

    def _save(self) -> None:
        self.position.seconds = self.metrics.total_seconds()
        if self.process.is_main:
            save_checkpoint(self.config.run_dir / CHECKPOINT, self.position, self.settings, self.states())

    def _learning_rate(self, progress: float) -> float:
        return self.config.learning_rate * learning_rate_factor(progress, self.config.warmup, self.config.schedule)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format of the encoder's arithmetic; weights, CTC and the optimiser stay in float32.

    Raises:
        SettingsError: the device cannot do it.
    """
    if precision == "auto":
        return torch.bfloat16 if _has_fast_bf16(device) else torch.float32
    if precision == "float32":
        return torch.float32
    if precision == "bf16":
        if device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            raise SettingsError("train.precision bf16: this processor has no instructions for it. Use float32 or auto.")
        return torch.bfloat16
    if precision == "fp16":
        if device.type == "cpu":
            raise SettingsError("train.precision fp16 is for CUDA cards. Use bf16, float32 or auto on a CPU.")
        return torch.float16
    raise SettingsError(f"train.precision must be auto, float32, bf16 or fp16. Got {precision!r}.")


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # older cards emulate it
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _decayed_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only: biases and norms are not what overfits."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
