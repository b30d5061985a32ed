"""Checkpoints: everything that a run needs to resume as if it had never stopped.

Random draws are pure functions of the seed, the epoch and the update, so there is no generator state to keep.
"""

import json
import pickle
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from asr.errors import ModelError
from asr.files import write_atomically

CHECKPOINT = "checkpoint.pt"  # in the run folder
FORMAT_VERSION = 4


@dataclass
class TrainingState:
    """How far training has come, and which weights were the best so far."""

    epoch: int = 1  # the current one, counted from 1
    batch: int = 0  # batches of it that are done
    update: int = 0  # updates made or skipped since the start
    training_s: float = 0.0  # of training so far, over all sessions
    validated_update: int = 0  # the update after which the net was validated last; 0 before the first time
    best: str = ""  # the weights with the best dev score: "epoch 4", "update 1200"; "" before the first
    best_score: float = float("inf")  # of the task, such as WER in percent; lower is better
    best_loss: float = float("inf")  # dev loss a token, decides between equal scores
    since_best: int = 0  # validations without a better score
    ranking: list[tuple[float, float, str]] = field(default_factory=list)  # score, loss, weights to average
    averaged: list[str] = field(default_factory=list)  # the best model is the average of these; of none: best
    average_unsaved: bool = False  # model.safetensors may not hold that average yet
    learning_rate_scale: float = 1.0  # on the learning rate, of the schedule "plateau"
    bad_updates: int = 0  # in a row: the newest ones, skipped for a loss or gradient that is not finite
    running_totals: dict[str, float] = field(default_factory=dict)  # of updates since the last validation

    def best_model(self) -> str:
        """Where the best model comes from, for messages."""
        return f"the average of {', '.join(self.averaged)}" if self.averaged else self.best


def save_checkpoint(
    path: Path, state: TrainingState, settings: dict[str, Any], state_dicts: dict[str, Any]
) -> None:
    """Write a checkpoint; the old one survives a crash or a full disk.

    Args:
        path: the file.
        state: how far training has come.
        settings: plain values; resuming compares them.
        state_dicts: state dicts of model, optimiser and the like.

    Raises:
        ModelError: it cannot be written.
    """
    record = {
        "format": "asr-checkpoint",
        "format_version": FORMAT_VERSION,
        "position": asdict(state),
        "settings": json.dumps(settings),
        "states": state_dicts,
    }
    write_atomically(path, lambda temporary: torch.save(record, temporary))


def load_checkpoint(path: Path, device: torch.device) -> tuple[TrainingState, dict[str, Any], dict[str, Any]]:
    """Read a checkpoint. Loading an untrusted file cannot run code.

    Returns:
        The state, the settings, and the state dicts on the device.

    Raises:
        ModelError: the file is missing, damaged, of another format, or no checkpoint.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no checkpoint to resume from. Start the run without --train.resume.")
    try:
        with warnings.catch_warnings(action="ignore"):  # about foreign pickles, which are refused anyway
            record = torch.load(path, map_location=device, weights_only=True)
    except UNREADABLE as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        raise ModelError(
            f"{path}: not a readable checkpoint: {reason}. Expected one that `asr train` has written. Start "
            f"again in another --train.run-dir; saved models in the folder are not affected."
        ) from error
    if not isinstance(record, dict) or record.get("format") != "asr-checkpoint":
        raise ModelError(
            f"{path}: not a checkpoint of this project. Expected one that `asr train` has written."
        )
    version = record.get("format_version", 0)
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: checkpoint format {version}, but this version of asr reads format "
            f"{FORMAT_VERSION}. Resume with the version that started the run, or start again in another "
            "--train.run-dir; saved models in the folder are not affected."
        )
    try:
        return TrainingState(**record["position"]), json.loads(record["settings"]), record["states"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: a damaged checkpoint: {error!r}. Start again in another --train.run-dir."
        ) from error


# What torch.load raises on files that it did not write, or wrote half.
UNREADABLE = (
    RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError,
    AssertionError, pickle.UnpicklingError,
)  # fmt: skip
