"""Dev loss and dev WER: how the best epoch is chosen."""

from dataclasses import dataclass
from typing import Any

import torch

from asr.decoding.greedy import greedy_decode
from asr.device import autocast
from asr.errors import DataError
from asr.model.acoustic import AcousticModel
from asr.model.ctc import blank_steps, ctc_loss
from asr.scoring.wer import RATE_NAMES, Unit, score
from asr.training.batches import Batches
from asr.training.distributed import Process


@dataclass(frozen=True)
class Validation:
    """How a model does on the dev set, decoded greedily."""

    wer: float  # percent; of phones where the model writes no words
    cer: float  # percent
    loss: float  # nats a token
    blank_share: float  # of all encoder steps, in [0, 1]
    examples: tuple[tuple[str, str], ...]  # a few (reference, hypothesis) pairs
    unit: Unit = "words"  # what was counted

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
    loss, blanks, steps = 0.0, 0, 0
    for batch in dev.load(dev.plan(epoch=0)):
        batch = batch.to(process.device)
        features = batch.features(model.settings.features)
        with autocast(precision, process.device):
            log_probs, step_lengths = model(features, batch.frame_lengths)
        loss += float(ctc_loss(log_probs, step_lengths, batch.tokens, batch.token_lengths).sum())
        blanks += int(blank_steps(log_probs, step_lengths))
        steps += int(step_lengths.sum())
        hypotheses = greedy_decode(log_probs, step_lengths, tokenizer, model.step_s)
        rows += [(name, texts[name], found.text) for name, found in zip(batch.ids, hypotheses, strict=True)]
    gathered = process.gather((rows, loss, blanks, steps))
    model.train()
    rows = [row for part in gathered for row in part[0]]
    if not rows:
        raise DataError("the dev set is empty. Expected at least one utterance to choose the best epoch by.")
    ids, references, recognised = zip(*rows, strict=True)
    unit: Unit = "words" if tokenizer.pieces else "phones"
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
