"""The settings of the training loop."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from asr.device import Precision
from asr.errors import SettingsError, check_choice, check_number, option_name
from asr.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a net is trained, and where the run is kept."""

    run_dir: Path = Path("runs/asr")  # checkpoints, models, metrics and the log of the run
    resume: bool = False  # resume the run in run_dir
    resume_anyway: bool = False  # resume it although settings have changed, which are logged
    max_hours: float = 0.0  # hours of this session after which it is saved and stopped; 0 for never
    epochs: int = 50  # passes over the training data
    updates: int = 0  # the training's length, and the schedule's, in updates in place of epochs; 0: by epochs
    # The training's length in minutes of all sessions together, validation included (the last one comes on
    # top), in place of epochs; the learning rate is scheduled over it; 0: by epochs.
    minutes: float = 0.0
    validate_every: int = 0  # updates from one validation to the next; 0: validate after each epoch
    learning_rate: float = 1e-3  # the peak, after the warm-up
    warmup: float = 0.05  # fraction of the training over which the learning rate rises
    # How it falls afterwards: cosine or linear to 0, one-cycle (Smith), noam (inverse square root), constant
    # (it does not), or plateau: halved after each validation without a better dev score.
    schedule: Schedule = "cosine"
    weight_decay: float = 0.01  # of AdamW
    clip_norm: float = 5.0  # gradients with a larger norm are scaled down to it; 0 for never
    accumulate: int = 1  # batches whose gradients are added up for one update, as of one larger batch
    ema: float = 0.0  # decay of a moving average of the weights, such as 0.999; it is the model; 0: none
    average: int = 0  # number of best validations whose average is tried as the model at the end; 0 or 1: no
    warm_start: Path | None = None  # a model whose weights are copied where they fit
    warm_start_rate: float = 1.0  # factor on the learning rate of the weights that were copied, such as 0.1
    freeze: tuple[str, ...] = ()  # parts whose weights are not trained, such as front recurrent.0
    # auto: bf16 where the device has instructions for it, else float32. tf32: float32 whose products round
    # their factors to TF32's 10 bits, on a GPU. fp16: on a GPU, with loss scaling.
    precision: Precision = "auto"
    patience: int = 0  # validations without a better dev score after which to stop; 0 for never
    max_bad_updates: int = 10  # stop after this many updates in a row whose loss or gradient is not finite
    save_every_s: float = 600.0  # seconds between checkpoints within an epoch
    log_every_s: float = 10.0  # seconds between lines of metrics
    diagnose_every: int = 0  # updates from one diagnosis by the gradient microscope to the next; 0 for never
    seed: int = 1  # of the weights, the order of the data, augmentation and dropout
    device: str = "auto"  # auto, cpu, cuda or cuda:N
    # On a GPU: the same bits in every run, at a lower speed. On a CPU they always are.
    deterministic: bool = False
    threads: int | None = None  # of a CPU for one operation; None: the cores that loader processes leave

    def __post_init__(self) -> None:
        at_least = {
            "epochs": 1, "accumulate": 1, "patience": 0, "max_bad_updates": 1, "save_every_s": 0,
            "log_every_s": 0, "diagnose_every": 0, "weight_decay": 0, "clip_norm": 0, "seed": 0, "average": 0,
            "max_hours": 0, "updates": 0, "minutes": 0, "validate_every": 0,
        }  # fmt: skip
        for name, least in at_least.items():
            check_number(option_name("train", name), getattr(self, name), least=least)
        if self.minutes and self.updates:
            raise SettingsError(
                f"--train.minutes {self.minutes:g} and --train.updates {self.updates}: training ends by one "
                f"of them. Leave one out."
            )
        check_number("--train.learning-rate", self.learning_rate, above=0, below=math.inf)
        if not 0 < self.warm_start_rate < math.inf:
            raise SettingsError(
                f"--train.warm-start-rate must be above 0. Got {self.warm_start_rate:g}. Weights that are to "
                f"keep their values are named in --train.freeze."
            )
        if self.warm_start_rate != 1 and self.warm_start is None:
            raise SettingsError(
                f"--train.warm-start-rate {self.warm_start_rate:g}: no weights are copied. Name the "
                f"model that they come from, --train.warm-start MODEL, or leave it out."
            )
        check_number("--train.warmup", self.warmup, least=0, below=1)
        check_choice("--train.schedule", self.schedule, get_args(Schedule))
        if self.schedule == "noam" and self.warmup == 0:
            raise SettingsError(
                "--train.schedule noam peaks where --train.warmup ends, which must be above 0. Got 0."
            )
        check_number("--train.ema", self.ema, least=0, below=1)
        check_number("--train.threads", self.threads, least=1)
