"""Partial results, and the interface of the decoders that take an utterance in blocks."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from asr.decoding.hypothesis import Hypothesis

__all__ = ["DecoderStream", "Partial"]


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
        """The best texts of all that was accepted, best first."""
