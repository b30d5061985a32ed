"""The transcript of one recording, as every format writes and reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from asr.decoding.hypothesis import Hypothesis, Word

__all__ = ["RecordingTranscript", "ordered_words"]

_SHORTEST_S = 0.001  # what formats with milliseconds can tell apart


@dataclass(frozen=True, kw_only=True)
class RecordingTranscript:
    """What was recognised in a recording, in a part of it or in one of its channels.

    Attributes:
        id: its name in files that hold several transcripts; without spaces.
        recording_id: the name of the recording, where `id` is that of one channel; "" where it is the same.
        text: the words, joined by single spaces.
        words: the same words with times in seconds from the start of the part, and confidences; () where a
            file has no times.
        duration_s: length of the recording or part, seconds; None where a file does not have it.
        audio_filepath: the recording; "" where a file does not have it.
        offset_s: where the part begins in the recording, seconds.
        channel: the one that was read, counted from 0, or its name in a ctm where that is no letter and no
            number; None is the mean of all.
        hypotheses: all that the decoder found, best first, with their scores; () where a file has none.
        tiers: further intervals with texts, by the name of their kind, such as the phones of an alignment.
        confidence: of the whole; None where it has none.
        error: why there is no text; "" where there is one.
    """

    id: str
    recording_id: str = ""
    text: str = ""
    words: tuple[Word, ...] = ()
    duration_s: float | None = None
    audio_filepath: str = ""
    offset_s: float = 0.0
    channel: int | str | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    tiers: Mapping[str, tuple[Word, ...]] = field(default_factory=dict)
    confidence: float | None = None
    error: str = ""


def ordered_words(words: Sequence[Word]) -> list[Word]:
    """Words in the order of their times, of which none overlaps the next or takes no time at all.

    Formats with intervals (subtitles, TextGrid) demand it; a decoder's words nearly always are so already.
    """
    found: list[Word] = []
    position = 0.0
    for word in sorted(words, key=lambda word: word.start_s):
        start = max(word.start_s, position)
        position = max(word.end_s, start + _SHORTEST_S)
        found.append(replace(word, start_s=start, end_s=position))
    return found
