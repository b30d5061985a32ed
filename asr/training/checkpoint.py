"""Where training stands, on disk: everything that a run needs to go on as if it had never stopped.

Random draws are pure functions of the seed, the epoch and the update (see `Trainer`), so there is no
generator state to keep.
"""

import json
import pickle
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from asr.errors import ModelError
from asr.model.saved import write_atomically

CHECKPOINT = "checkpoint.pt"  # in the run folder
FORMAT_VERSION = 2


@dataclass
class Position:
    """How far training has come."""

    epoch: int = 1  # the current one, counted from 1
    batch: int = 0  # batches of it that are done
    update: int = 0  # updates made or skipped since the start
    seconds: float = 0.0  # of training so far, over all sessions
    best_epoch: int = 0  # the epoch with the best dev score; 0 before the first
    best_score: float = float("inf")  # of the task, such as WER in percent; lower is better
    best_loss: float = float("inf")  # dev loss a token, decides between equal scores
    top_epochs: list[tuple[float, float, int]] = field(default_factory=list)  # score, loss, epoch
    # The best model is the average of these; of none: best_epoch.
    averaged: list[int] = field(default_factory=list)
    rate_scale: float = 1.0  # on the learning rate, of the schedule "plateau"
    bad_updates: int = 0  # updates in a row that were skipped for a loss that is not finite
    epoch_sums: dict[str, float] = field(default_factory=dict)  # the current epoch's running totals

    def best_model(self) -> str:
        """Where the best model comes from, for messages."""
        if self.averaged:
            return f"the average of the epochs {', '.join(map(str, self.averaged))}"
        return f"epoch {self.best_epoch}"


def save_checkpoint(path: Path, position: Position, settings: dict[str, Any], states: dict[str, Any]) -> None:
    """Write a checkpoint; the old one survives a crash or a full disk.

    Args:
        path: the file.
        position: how far training is.
        settings: plain values; resuming compares them.
        states: state dicts of model, optimiser and the like.

    Raises:
        ModelError: it cannot be written.
    """
    record = {
        "format": "asr-checkpoint",
        "format_version": FORMAT_VERSION,
        "position": asdict(position),
        "settings": json.dumps(settings),
        "states": states,
    }
    write_atomically(path, lambda temporary: torch.save(record, temporary))


def load_checkpoint(path: Path, device: torch.device) -> tuple[Position, dict[str, Any], dict[str, Any]]:
    """Read a checkpoint; like a model, it cannot run code when it is loaded.

    Returns:
        The position, the settings, and the state dicts on the device.

    Raises:
        ModelError: the file is missing, damaged, of a newer format, or something else.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no checkpoint to resume from. Start the run without --train.resume.")
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles of others, which are refused anyway
            record = torch.load(path, map_location=device, weights_only=True)
    except UNREADABLE as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
        raise ModelError(
            f"{path}: not a readable checkpoint: {reason}. Expected one that `asr train` has written. Start "
            f"anew in another --train.run-dir; saved models in the folder are not affected."
        ) from error
    if not isinstance(record, dict) or record.get("format") != "asr-checkpoint":
        raise ModelError(
            f"{path}: not a checkpoint of this project. Expected one that `asr train` has written."
        )
    version = record.get("format_version", 0)
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{path}: checkpoint format {version}, but this version of asr reads format {FORMAT_VERSION}. "
            + (
                "Upgrade asr to a newer version."
                if version > FORMAT_VERSION
                else "Go on with the version that began the run, or start anew in another --train.run-dir; "
                "saved models in the folder are not affected."
            )
        )
    try:
        return Position(**record["position"]), json.loads(record["settings"]), record["states"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: a damaged checkpoint: {error!r}. Start anew in another --train.run-dir."
        ) from error


# What torch.load raises on files that it did not write, or wrote half.
UNREADABLE = (
    RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError,
    AssertionError, pickle.UnpicklingError,
)  # fmt: skip
