"""A speech recogniser as the training loop sees it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr.batching.batches import Batch, Batches
from asr.batching.sampler import Planned
from asr.device import autocast
from asr.frontend.augment import Masks
from asr.model.acoustic import AcousticModel
from asr.model.ctc import blank_steps, ctc_loss, deterministic_ctc_loss
from asr.model.encoder import step_count
from asr.model.saved import load_model, save_model
from asr.model.shipped import find_model
from asr.training.distributed import Process
from asr.training.plateau import PlateauWatch
from asr.training.reproducer import read_reproducer
from asr.training.task import Losses, Throughput
from asr.training.validation import Validation, validate


class SpeechTask:
    """An acoustic model that learns from one set of utterances and is chosen by its WER on another.

    Args:
        model: on its device.
        train: batches to learn from.
        dev: batches to choose by; never augmented.
        deterministic: use the CTC loss whose gradient has the same bits in every run on a card.
    """

    throughput = Throughput("audio_s_per_s", "audio {:.0f} s/s")
    replay_module: str | None = "asr.training.tasks.speech"
    make_smaller = "Leave it out of the manifest or cut it, or make the model smaller."

    def __init__(
        self, model: AcousticModel, train: Batches, dev: Batches, deterministic: bool = False
    ) -> None:
        self.ctc_loss = deterministic_ctc_loss if deterministic else ctc_loss
        self.net, self.train, self.dev = model, train, dev
        self.score_name = "dev WER" if model.settings.tokenizer.pieces else "dev PER"
        self.plateau = PlateauWatch()

    def parts(self) -> dict[str, nn.Module]:
        """Parts of the encoder by the names that --train.freeze takes."""
        encoder = self.net.encoder
        stack = encoder.recurrent
        layers = {
            f"recurrent.{number}": nn.ModuleList(layer)
            for number, layer in enumerate(zip(stack.norms, stack.layers, stack.bottlenecks, strict=True))
        }
        return {"front": encoder.front, "recurrent": stack, **layers, "output": encoder.output}

    def source_weights(self, path: Path) -> dict[str, Tensor | None]:
        """The tensors of a saved recogniser; those of the output layer mean nothing with another alphabet."""
        other = load_model(find_model(path).path)
        same = other.settings.tokenizer == self.net.settings.tokenizer
        return {
            name: tensor if same or not name.startswith("encoder.output.") else None
            for name, tensor in other.state_dict().items()
        }

    def plan(self, epoch: int) -> Sequence[Planned]:
        """The batches of an epoch, counted from 1, in their order."""
        return self.train.plan(epoch)

    def load(self, plan: Sequence[Planned]) -> Iterator[Batch]:
        """The batches of a part of a plan, in the host's memory."""
        return self.train.load(plan)

    def losses(self, batch: Batch, precision: torch.dtype) -> Losses:
        """As `speech_losses`."""
        return speech_losses(self.net, batch, precision, self.ctc_loss)

    def observe(self, update: int, statistics: Mapping[str, float]) -> None:
        """Follow CTC's blank plateau."""
        self.plateau.observe(update, statistics["blank"])

    def validate(self, process: Process, precision: torch.dtype) -> Validation:
        """Score the model on the dev set, decoded greedily."""
        return validate(self.net, self.dev, process, precision)

    def save(self, path: Path, weights: Mapping[str, Tensor], provenance: dict[str, Any]) -> None:
        """Write the model with these weights."""
        save_model(path, self.net, provenance, weights)

    def state(self) -> dict[str, Any]:
        """Whether the blank plateau is over."""
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


def replay(path: Path | str, device: str = "cpu") -> dict[str, float]:
    """Repeat an update whose loss or gradient was not finite, with the same weights, batch and draws.

    Args:
        path: bad_update_N.pt of a run folder; the model beside it is read too.
        device: where to repeat it, in float32.

    Returns:
        The loss of each utterance in nats, and under "gradient norm" that of the update.

    Raises:
        ModelError: a file is missing, damaged or something else.
    """
    record = read_reproducer(Path(path))
    model = load_model(Path(path).with_name(record["model"]), device).train()
    torch.manual_seed(record["seed"])
    results: dict[str, float] = {}
    for fields in record["batches"]:
        masks = Masks(**fields["masks"]) if fields["masks"] else None
        batch = Batch(**{**fields, "masks": masks})
        losses = speech_losses(model, batch, torch.float32).losses
        (losses.sum() / record["tokens"]).backward()
        results |= dict(zip(batch.ids, losses.tolist(), strict=True))
    norm = nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
    return {**results, "gradient norm": float(norm)}
