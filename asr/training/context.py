"""What the parts of a training have in common: the task, its settings and the process."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from asr.training.config import TrainConfig
from asr.training.distributed import Process
from asr.training.tasks.interface import Task, TaskBatch

__all__ = ["TrainingContext"]

B = TypeVar("B", bound=TaskBatch)


@dataclass(frozen=True)
class TrainingContext(Generic[B]):
    """What is trained, how, and where."""

    task: Task[B]  # the net, on the process's device, its data and its loss
    config: TrainConfig
    process: Process  # this one among those that train together
    settings_record: dict[str, Any]  # all settings of the run as plain values, kept in checkpoints and models
    precision: torch.dtype  # number format of the net's arithmetic
