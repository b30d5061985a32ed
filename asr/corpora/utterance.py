"""What a corpus consists of: utterances, in three parts."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Splits", "Utterance", "channel_name"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A segment of a recording with its transcript."""

    id: str  # unique within a manifest
    audio_filepath: Path  # absolute, once read from a manifest
    duration: float  # seconds, > 0
    text: str  # the transcript
    speaker: str = ""  # "" when unknown
    offset: float = 0.0  # seconds from the start of the file to the start of the utterance
    channel: int | None = None  # the one to read, counted from 0; None: the mean of all


@dataclass(frozen=True)
class Splits:
    """A corpus in three parts: training, development and test."""

    train: list[Utterance]
    dev: list[Utterance]
    test: list[Utterance]


def channel_name(channel: int) -> str:
    """A channel, counted from 0, as NIST names it: A and B for the two sides of a telephone call."""
    return chr(ord("A") + channel) if channel < 26 else str(channel + 1)
