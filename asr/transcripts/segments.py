"""Transcripts with times beside a long recording -> its segments: what each says, from when to when."""

from collections.abc import Callable, Sequence
from pathlib import Path

from asr.decoding.hypothesis import Word
from asr.text.scripts import join_words
from asr.transcripts.cue_files import read_srt, read_vtt
from asr.transcripts.subtitles import Subtitle
from asr.transcripts.textgrid import read_textgrid

__all__ = ["SEGMENT_READERS"]

# A segment ends at a pause of at least _PAUSE_S once it is _SHORTEST_S long, and never gets longer than
# _LONGEST_S.
_PAUSE_S, _SHORTEST_S, _LONGEST_S = 0.5, 3.0, 20.0
_MARGIN_S = 0.2  # of the pause that goes to the segment on each side

_Segment = tuple[float, float, str]  # start and end, seconds, and what is said


def _of_subtitles(subtitles: Sequence[Subtitle]) -> list[_Segment]:
    return [(one.start_s, one.end_s, " ".join(one.text.split())) for one in subtitles]


def _of_words(words: Sequence[Word]) -> list[_Segment]:
    groups: list[list[Word]] = []
    for word in words:
        last = groups[-1] if groups else []
        seconds = last[-1].end_s - last[0].start_s if last else 0.0
        pause = word.start_s - last[-1].end_s if last else _PAUSE_S
        cut = pause >= _PAUSE_S and seconds >= _SHORTEST_S
        if not last or cut or word.end_s - last[0].start_s > _LONGEST_S:
            groups.append([])
        groups[-1].append(word)
    segments = []
    for number, group in enumerate(groups):
        before = groups[number - 1][-1].end_s if number else 0.0
        after = groups[number + 1][0].start_s if number + 1 < len(groups) else float("inf")
        start = max(group[0].start_s - _MARGIN_S, (before + group[0].start_s) / 2 if number else 0.0)
        end = min(group[-1].end_s + _MARGIN_S, (after + group[-1].end_s) / 2)
        segments.append((round(start, 4), round(end, 4), join_words(word.text for word in group)))
    return segments


SEGMENT_READERS: dict[str, Callable[[Path], list[_Segment]]] = {
    ".srt": lambda path: _of_subtitles(read_srt(path)),
    ".vtt": lambda path: _of_subtitles(read_vtt(path)),
    ".textgrid": lambda path: _of_words(read_textgrid(path).words),
}
"""What reads (start, end, text) of each segment, seconds, by suffix in small letters."""
