"""A speech recogniser as the training loop sees it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr.model.acoustic import AcousticModel
from asr.model.ctc import blank_steps, ctc_loss
from asr.model.ctc_deterministic import deterministic_ctc_loss
from asr.model.encoder import step_count
from asr.model.saved import save_model
from asr.training.batches import Batch, Batches
from asr.training.distributed import Process
from asr.training.plateau import PlateauWatch
from asr.training.precision import autocast
from asr.training.sampler import Planned
from asr.training.task import Losses, Pace
from asr.training.validation import Validation, validate


class SpeechTask:
    """An acoustic model that learns from one set of utterances and is chosen by its WER on another.

    Args:
        model: on its device.
        train: batches to learn from.
        dev: batches to choose by; never augmented.
        deterministic: use the CTC loss whose gradient has the same bits in every run on a card.
    """

    pace = Pace("audio_s_per_s", "audio {:.0f} s/s")

    def __init__(
        self, model: AcousticModel, train: Batches, dev: Batches, deterministic: bool = False
    ) -> None:
        self.ctc_loss = deterministic_ctc_loss if deterministic else ctc_loss
        self.net, self.train, self.dev = model, train, dev
        self.score_name = "dev WER" if model.settings.tokenizer.pieces else "dev PER"
        self.plateau = PlateauWatch()

    def plan(self, epoch: int) -> Sequence[Planned]:
        """The batches of an epoch, counted from 1, in their order."""
        return self.train.plan(epoch)

    def load(self, plan: Sequence[Planned]) -> Iterator[Batch]:
        """The batches of a part of a plan, in the host's memory."""
        return self.train.load(plan)

    def losses(self, batch: Batch, precision: torch.dtype) -> Losses:
        """As `speech_losses`."""
        return speech_losses(self.net, batch, precision, self.ctc_loss)

    def observe(self, update: int, shares: Mapping[str, float]) -> None:
        """Follow CTC's blank plateau."""
        self.plateau.observe(update, shares["blank"])

    def validate(self, process: Process, precision: torch.dtype) -> Validation:
        """Score the model on the dev set, decoded greedily."""
        return validate(self.net, self.dev, process, precision)

    def save(self, path: Path, provenance: dict[str, Any]) -> None:
        """Write the model."""
        save_model(path, self.net, provenance)

    def state(self) -> dict[str, Any]:
        """Whether the plateau is behind."""
        return {"emits": self.plateau.emits}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.plateau.emits = state["emits"]


def speech_losses(
    model: AcousticModel,
    batch: Batch,
    precision: torch.dtype,
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = ctc_loss,
) -> Losses:
    """The CTC loss of each utterance, and the share of blanks among the outputs.

    Nothing in here reads from the device (torch's CTC may wait).

    Args:
        model: in any mode.
        batch: in the host's memory.
        precision: number format of the encoder's arithmetic.
        loss: `ctc_loss`, or one that gives the same numbers in another way.
    """
    settings, device = model.settings, model.device
    there = batch.to(device)
    features = there.features(settings.features)
    with autocast(precision, device):
        log_probs, step_lengths = model(features, there.frame_lengths, there.masks)
    # torch's loss wants lengths in the host's memory, and would wait for the device to send them.
    steps = step_count(batch.frame_lengths, settings.encoder.subsampling)
    losses = loss(log_probs, steps, there.tokens, batch.token_lengths)
    blanks = blank_steps(log_probs.detach(), step_lengths)
    return Losses(losses, {"blank": (blanks, step_lengths.sum())})
