"""Dev loss and dev WER: how the best epoch is chosen."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asr.batching.batches import Batch, Batches
from asr.decoding.greedy import BestPaths
from asr.decoding.hypothesis import OutputUnit
from asr.device import autocast
from asr.errors import DataError
from asr.model.acoustic import AcousticModel
from asr.model.ctc import blank_steps, ctc_loss
from asr.model.encoder import step_count
from asr.scoring.wer import RATE_NAMES, score
from asr.training.distributed import Process
from asr.training.pending import defers, one_late, record_event


@dataclass(frozen=True)
class Validation:
    """How a model does on the dev set, decoded greedily."""

    wer: float  # percent; of phones where the model writes no words
    cer: float  # percent
    loss: float  # nats a token
    blank_share: float  # of all encoder steps, in [0, 1]
    examples: tuple[tuple[str, str], ...]  # a few (reference, hypothesis) pairs
    unit: OutputUnit = "words"  # what was counted

    @property
    def score(self) -> float:
        """The best epoch is the one with the lowest WER."""
        return self.wer

    def headline(self) -> str:
        """The numbers that a person reads after each epoch."""
        characters = f"CER {self.cer:.2f}%  " if self.unit == "words" else ""
        return (
            f"dev loss {self.loss:.3f}  dev {RATE_NAMES[self.unit]} {self.wer:.2f}%  {characters}"
            f"blank {self.blank_share:.0%}"
        )

    def row(self) -> dict[str, Any]:
        """The same as plain values, with examples of what was recognised."""
        rates = {"dev_wer": self.wer, "dev_cer": self.cer} if self.unit == "words" else {"dev_per": self.wer}
        return {"dev_loss": self.loss, **rates, "blank_share": self.blank_share, "examples": self.examples}


@torch.inference_mode()
def validate(
    model: AcousticModel, dev: Batches, process: Process, precision: torch.dtype = torch.float32
) -> Validation:
    """Score a model on the dev set; several processes share the work and all get the result.

    Args:
        model: in any mode; it is left in training mode.
        dev: unaugmented batches.
        process: this process.
        precision: number format of the encoder's arithmetic, as in training.

    Raises:
        DataError: there is nothing to score.
    """
    model.eval()
    tokenizer = model.settings.tokenizer
    texts = {example.utterance.id: example.text for example in dev.examples}
    rows: list[tuple[str, str, str]] = []
    totals = [0.0, 0.0, 0.0]
    scored = (_score_batch(model, batch, precision) for batch in dev.load(dev.plan(epoch=0)))
    for ids, paths, sums, ready in one_late(scored):
        if ready is not None:
            ready.synchronize()
        totals = [total + value for total, value in zip(totals, sums.tolist(), strict=True)]
        hypotheses = paths.hypotheses(tokenizer, model.step_s)
        rows += [(name, texts[name], found.text) for name, found in zip(ids, hypotheses, strict=True)]
    loss, blanks, steps = totals
    gathered = process.gather((rows, loss, blanks, steps))
    model.train()
    rows = [row for part in gathered for row in part[0]]
    if not rows:
        raise DataError("the dev set is empty. Expected at least one utterance to choose the best epoch by.")
    ids, references, recognised = zip(*rows, strict=True)
    unit: OutputUnit = "words" if tokenizer.pieces else "phones"
    result = score(references, recognised, ids, "verbatim", unit)  # both sides are normalised already
    tokens = sum(len(example.tokens) for example in dev.examples)
    return Validation(
        wer=100 * result.words.rate,
        cer=100 * result.characters.rate,
        loss=sum(part[1] for part in gathered) / max(tokens, 1),
        blank_share=sum(part[2] for part in gathered) / sum(part[3] for part in gathered),
        examples=tuple(zip(references[:3], recognised[:3], strict=True)),
        unit=unit,
    )


def _score_batch(
    model: AcousticModel, batch: Batch, precision: torch.dtype
) -> tuple[tuple[str, ...], BestPaths, Tensor, torch.cuda.Event | None]:
    """Begin to score a batch, without waiting for the device.

    Returns:
        Ids; best paths; (3,) float64 sums of the losses in nats, of steps that are blank, and of steps, both
        on their way to the host's memory; and, on a GPU, the event after which they are there.
    """
    settings, device = model.settings, model.device
    there = batch.to(device)
    features = there.features(settings.features)
    with autocast(precision, device):
        log_probs, step_lengths = model(features, there.frame_lengths)
    # torch's loss wants lengths in the host's memory, and would wait for the device to send them.
    steps = step_count(batch.frame_lengths, settings.encoder.subsampling)
    loss = ctc_loss(log_probs, steps, there.tokens, batch.token_lengths).sum()
    sums = torch.stack(
        [loss.double(), blank_steps(log_probs, step_lengths).double(), step_lengths.sum().double()]
    )
    paths = BestPaths.begin(log_probs, step_lengths, settings.tokenizer, wait=False)
    return (
        batch.ids, paths, sums.to("cpu", non_blocking=True), record_event() if defers(device) else None,
    )  # fmt: skip
