"""The interface of all decoders, of whole utterances and of blocks of one, and partial results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from asr.decoding.hypothesis import Hypothesis

__all__ = ["Decoder", "DecoderStream", "Partial"]


@dataclass(frozen=True)
class Partial:
    """A partial result: the text of an utterance so far.

    Attributes:
        stable: the words that do not change any more: complete, and common to all prefixes of the beam.
        text: the best text so far, which begins with the stable words.
    """

    stable: str
    text: str


class DecoderStream(Protocol):
    """A decoder that takes one utterance in blocks."""

    def accept(self, log_probs: Tensor) -> Partial:
        """Take the next steps, (steps, vocab) log-probabilities on any device."""

    def finish(self) -> list[Hypothesis]:
        """The best texts of the utterance, best first."""


class Decoder(Protocol):
    """What all decoders have in common: log-probabilities in, the best hypotheses of each utterance out."""

    def decode(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None = None
    ) -> Sequence[Sequence[Hypothesis]]:
        """Decode a batch.

        Args:
            log_probs: (batch, steps, vocab) float, natural logs, normalised, on any device.
            step_lengths: (batch,) int64 valid steps, on any device.
            step_s: seconds per step.
            encoded: (batch, steps, size) the encoder's outputs, where the model has an attention decoder.

        Returns:
            (batch,) hypotheses of each utterance, at least one, best first.
        """

    def stream(self, step_s: float) -> DecoderStream:
        """A decoder of one utterance that comes in blocks.

        Args:
            step_s: seconds per step.
        """
