"""TextGrid, the format of Praat: intervals that follow each other, on tiers.

Source: "TextGrid file formats" in Praat's manual. Both of its text formats, the long and the short one, are
the same sequence of numbers, texts in quotes and flags; what else stands between them is a comment.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from asr.decoding.hypothesis import Word
from asr.errors import DataError
from asr.files import encoding_of
from asr.text.scripts import join_words
from asr.transcripts.record import RecordingTranscript, ordered_words

__all__ = ["format_textgrid", "read_textgrid"]

_WORDS = "words"  # the tier
# How aligners write a pause (Montreal, Prosodylab, FAVE, WebMAUS); Praat leaves its interval empty.
_SILENCES = frozenset({"sil", "sp", "SIL", "SP", "<sil>", "<SIL>", "<eps>", "<p:>"})
# A text in quotes, a number or flag between spaces, or a comment to the end of the line.
_VALUE = re.compile(r'"((?:[^"]|"")*)"|(?<!\S)(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|<exists>)(?!\S)|!.*')


def format_textgrid(transcript: RecordingTranscript) -> str:
    """A TextGrid with a tier for words and one for each further kind; pauses are intervals without text."""
    tiers = {_WORDS: transcript.words, **transcript.tiers}
    ordered = {name: ordered_words(words) for name, words in tiers.items()}
    end_s = max(transcript.duration_s or 0.0, *(words[-1].end_s for words in ordered.values() if words), 0.0)
    rows = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "",
        "xmin = 0", f"xmax = {end_s:.4f}", "tiers? <exists>", f"size = {len(tiers)}", "item []:",
    ]  # fmt: skip
    for number, (name, words) in enumerate(ordered.items(), start=1):
        rows += _format_tier(number, name, _intervals(words, end_s), f"{end_s:.4f}")
    return "".join(f"{row}\n" for row in rows)


def _intervals(words: list[Word], end_s: float) -> list[tuple[float, float, str]]:
    """Start, end and text of all intervals of a tier, which follow each other from 0 to the end."""
    intervals: list[tuple[float, float, str]] = []
    position = 0.0
    for word in words:
        start, end = round(word.start_s, 4), round(word.end_s, 4)
        if start > position:
            intervals.append((position, start, ""))
        intervals.append((max(start, position), end, word.text))
        position = end
    if end_s - position > 1e-4 or not intervals:
        intervals.append((position, end_s, ""))
    return intervals


def _format_tier(number: int, name: str, intervals: list[tuple[float, float, str]], last: str) -> list[str]:
    rows = [
        f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"',
        "        xmin = 0", f"        xmax = {last}", f"        intervals: size = {len(intervals)}",
    ]  # fmt: skip
    for index, (start, end, text) in enumerate(intervals, start=1):
        rows += [
            f"        intervals [{index}]:", f"            xmin = {start:.4f}",
            f"            xmax = {end:.4f}", '            text = "{}"'.format(text.replace('"', '""')),
        ]  # fmt: skip
    return rows


def read_textgrid(path: Path) -> RecordingTranscript:
    """Read the words of a TextGrid: its tier "words", or its first tier of intervals.

    An interval with several words shares its time among them by their numbers of characters.
    Confidences are 1.

    Raises:
        DataError: the file cannot be read, is no TextGrid, or has no tier of intervals.
    """
    values = _values(path)
    try:
        if (next(values), next(values)) != ("ooTextFile", "TextGrid"):
            raise ValueError
        _, end_s, exists = float(next(values)), float(next(values)), next(values)
        tiers = [_tier(values) for _ in range(int(next(values)) if exists == "<exists>" else 0)]
    except (ValueError, StopIteration):
        raise DataError(
            f"{path}: not a complete TextGrid. Expected a text file of Praat, long or short format. Save it "
            f"again in Praat."
        ) from None
    of_intervals = [(name, rows) for kind, name, rows in tiers if kind == "IntervalTier"]
    if not of_intervals:
        raise DataError(f"{path}: no tier of intervals. Expected one with words.")
    _, intervals = next((tier for tier in of_intervals if tier[0] == _WORDS), of_intervals[0])
    words = tuple(
        word for start, end, text in intervals if text not in _SILENCES for word in _share(start, end, text)
    )
    return RecordingTranscript(
        id="_".join(path.stem.split()),
        text=join_words(word.text for word in words),
        words=words,
        duration_s=end_s,
    )


def _values(path: Path) -> Iterator[str]:
    """The numbers, texts and flags of the file in their order."""
    try:
        content = path.read_bytes()
        if content.startswith(b"ooBinaryFile"):
            raise DataError(f"{path}: a binary TextGrid. Expected a text file. Save it as text in Praat.")
        # Praat writes UTF-16 where ASCII does not suffice.
        text = content.decode(encoding_of(content) or "utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}. A TextGrid was expected."
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: neither UTF-8 nor UTF-16. Save the TextGrid again as UTF-8.") from None
    for match in _VALUE.finditer(text):
        if match[1] is not None:
            yield match[1].replace('""', '"')
        elif match[2] is not None:
            yield match[2]


def _tier(values: Iterator[str]) -> tuple[str, str, list[tuple[float, float, str]]]:
    """Class, name and intervals (start, end, text) of a tier; points have no end."""
    kind, name = next(values), next(values)
    next(values), next(values)  # where the tier begins and ends
    rows = []
    for _ in range(int(next(values))):
        start = float(next(values))
        end = float(next(values)) if kind == "IntervalTier" else start
        rows.append((start, end, next(values)))
    return kind, name, rows


def _share(start_s: float, end_s: float, text: str) -> Iterator[Word]:
    """The words of an interval, each with its share of the time."""
    total = sum(map(len, text.split()))
    for word in text.split():
        end = start_s + (end_s - start_s) * len(word) / total
        yield Word(word, start_s, end, 1.0)
        start_s, total = end, total - len(word)
