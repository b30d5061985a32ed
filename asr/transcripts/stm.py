"""NIST's stm: the true text of each part of a recording; words are scored where they are said.

    ;; a comment
    talk 1 anna 0.00 4.35 <o,f0,female> stand in the ice box
    talk 1 anna 4.35 6.00 IGNORE_TIME_SEGMENT_IN_SCORING

Source: the SCTK toolkit's documentation of stm (infmts.htm).
"""

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.errors import DataError, first_few
from asr.manifests.utterance import channel_name, channel_of
from asr.transcripts.record import RecordingTranscript
from asr.transcripts.sclite import content_lines, warn_about_optional_words

__all__ = ["StmSegment", "read_stm", "texts_of_segments"]

log = logging.getLogger("asr")

_IGNORED = "ignore_time_segment_in_scoring"
_LABEL = re.compile(r"<[^>\s]*>")
_ALTERNATIVES = re.compile(r"[{(][^})]*\s/\s[^})]*[})]")


@dataclass(frozen=True)
class StmSegment:
    """A part of a recording with its true text.

    Attributes:
        recording: its name.
        channel: its name, such as 1 or A.
        speaker: who speaks.
        start_s: from the start of the recording, seconds.
        end_s: likewise.
        text: the words, joined by single spaces; None: what is said here is not scored.
    """

    recording: str
    channel: str
    speaker: str
    start_s: float
    end_s: float
    text: str | None

    @property
    def id(self) -> str:
        """Recording, channel and times, such as talk-1-0000.00-0004.35."""
        return f"{self.recording}-{self.channel}-{self.start_s:07.2f}-{self.end_s:07.2f}"


def read_stm(path: Path) -> list[StmSegment]:
    """Read an stm file; comments (;;) and labels (<o,f0,male>) are left out.

    Raises:
        DataError: the file cannot be read, or a line is not recording, channel, speaker, start, end and text,
            or holds alternatives.
    """
    segments: list[StmSegment] = []
    for number, line in content_lines(path):
        try:
            recording, channel, speaker, start, end, *words = line.split()
            start_s, end_s = float(start), float(end)
        except ValueError:
            raise DataError(
                f"{path} line {number}: {line!r:.60}. Expected recording, channel, speaker, start and end in "
                "seconds, and the text, such as: talk 1 anna 0.00 4.35 stand in the ice box."
            ) from None
        if not 0 <= start_s <= end_s < float("inf"):
            raise DataError(
                f"{path} line {number}: start {start}, end {end}. Expected seconds of at least 0, in order."
            )
        words = words[1:] if words and _LABEL.fullmatch(words[0]) else words
        text = " ".join(words)
        if _ALTERNATIVES.search(text):
            raise DataError(
                f"{path} line {number}: alternatives, which sclite chooses from, cannot be scored: "
                f"{_ALTERNATIVES.findall(text)[0]!r:.40}. Write one text."
            )
        ignored = text.lower() == _IGNORED
        segments.append(StmSegment(recording, channel, speaker, start_s, end_s, None if ignored else text))
    if not any(segment.text is not None for segment in segments):
        raise DataError(f"{path} has no segment that is scored. One or more were expected.")
    warn_about_optional_words(path, [segment.text or "" for segment in segments])
    return segments


def texts_of_segments(
    segments: Sequence[StmSegment], reference: Path, transcripts: Sequence[RecordingTranscript], path: Path
) -> list[str]:
    """What was recognised in each segment.

    A word belongs to the segment in which its middle is, or else to the nearest one of its recording, where
    it counts as inserted; a word in a segment that is not scored is left out, and counted in the log.

    Args:
        segments: of the true texts.
        reference: their file, for messages.
        transcripts: with times of words from the start of each recording.
        path: their file, for messages.

    Returns:
        A text for each segment, in the same order.

    Raises:
        DataError: a transcript has no times, or a recording has no segment.
    """
    by_recording: dict[tuple[str, int | str], list[int]] = defaultdict(list)
    for index, segment in enumerate(segments):
        by_recording[segment.recording, channel_of(segment.channel)].append(index)
    channels: dict[str, list[int | str]] = defaultdict(list)
    for recording, channel in by_recording:
        channels[recording].append(channel)
    recognised: dict[str, set[int | str | None]] = defaultdict(set)
    for one in transcripts:
        recognised[one.recording_id or one.id].add(one.channel)
    words: dict[int, list[str]] = defaultdict(list)
    found: set[str] = set()
    ignored = 0
    for one in transcripts:
        name = one.recording_id or one.id
        known = channels.get(name, [])
        # with one channel on both sides its name does not matter; the mean of all counts as the first
        channel = known[0] if len(known) == len(recognised[name]) == 1 else one.channel or 0
        if channel not in known:
            what = f"channel {channel_name(channel)} of {name}" if known else name
            there = [channel_name(other) for other in known] or [*channels]
            raise DataError(
                f"{path}: {what} has no segment in {reference}, which has {first_few(there)}. Expected the "
                "same recordings and channels in both."
            )
        if one.text and not one.words:
            raise DataError(
                f"{path}: no times of the words of {name}. Expected a ctm, or the JSON of `asr transcribe`: "
                "words are scored where they are said."
            )
        found.add(name)
        for word in sorted(one.words, key=lambda word: word.start_s):
            middle_s = one.offset_s + (word.start_s + word.end_s) / 2
            nearest = min(
                by_recording[name, channel], key=lambda index: _distance_s(segments[index], middle_s)
            )
            ignored += segments[nearest].text is None
            words[nearest].append(word.text)
    if missing := [name for name in channels if name not in found]:
        log.warning(
            "%s: no words of %d of the %d recordings of %s, such as %s: scored as empty transcripts.",
            path, len(missing), len(channels), reference, missing[0],
        )  # fmt: skip
    if ignored:
        log.info("%s: %d words are in segments that are not scored, and left out.", path, ignored)
    return [" ".join(words[index]) for index in range(len(segments))]


def _distance_s(segment: StmSegment, time_s: float) -> float:
    """How far a time is from a segment; less than 0 inside of it, so that what ends there does not win."""
    if segment.start_s <= time_s < segment.end_s:
        return -1.0
    return max(segment.start_s - time_s, time_s - segment.end_s)
