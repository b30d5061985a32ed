"""What a corpus consists of: utterances, in three parts."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Splits", "Utterance", "channel_name", "channel_of"]


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


def channel_name(channel: int | str) -> str:
    """A channel of `channel_of` as NIST names it: A and B for the two sides of a telephone call."""
    if isinstance(channel, str):
        return channel
    return chr(ord("A") + channel) if channel < 26 else str(channel + 1)


def channel_of(name: str) -> int | str:
    """The channel that a ctm or an stm names: 0 for A and 1, 1 for B and 2; any other name stays what it is.

    sclite compares any names as texts; that A and 1 are the same here joins the files of different tools.

    Source: the SCTK toolkit's documentation of stm and ctm (infmts.htm).
    """
    if len(name) == 1 and "A" <= name.upper() <= "Z":
        return ord(name.upper()) - ord("A")
    return int(name) - 1 if re.fullmatch("[1-9][0-9]*", name) else name
