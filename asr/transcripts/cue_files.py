"""Subtitles in files: SubRip (srt), WebVTT (vtt) and the table that Whisper writes (tsv)."""

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from asr.errors import DataError
from asr.files import read_lines
from asr.transcripts.subtitles import Subtitle

__all__ = ["format_srt", "format_tsv", "format_vtt", "read_srt", "read_tsv", "read_vtt"]

_TSV_HEADER = "start\tend\ttext"
_TIMES = re.compile(r"\s*((?:\d+:)?\d+:\d+(?:[.,]\d+)?)\s*-->\s*((?:\d+:)?\d+:\d+(?:[.,]\d+)?)(?:\s.*)?")
_LIKE_TIMES = re.compile(r"\s*\d+:\d+.*->|\s*\d+:\d\d:\d\d[.,]")  # also those that are written wrongly
_TAG = re.compile(r"</?[a-zA-Z][^>]*>|<\d[\d:.]*>|\{\\[^}]*\}")  # <i>, <00:01.000>, {\an8}
_WORD_TIME = re.compile(r"<\d[\d:.]*>")
_ESCAPES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"))  # in this order


def format_srt(subtitles: Sequence[Subtitle]) -> str:
    """A SubRip file: number, times and lines of each subtitle, separated by empty lines."""
    blocks = [
        f"{number}\n{_clock(start)} --> {_clock(end)}\n{_lines(subtitle)}\n"
        for number, (start, end, subtitle) in enumerate(_in_milliseconds(subtitles), start=1)
    ]
    return "\n".join(blocks)


def format_vtt(subtitles: Sequence[Subtitle]) -> str:
    """A WebVTT file, which browsers play."""
    blocks = ["WEBVTT\n"]
    for start, end, subtitle in _in_milliseconds(subtitles):
        text = _lines(subtitle)
        for character, escape in _ESCAPES:
            text = text.replace(character, escape)
        blocks.append(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n")
    return "\n".join(blocks)


def format_tsv(subtitles: Sequence[Subtitle]) -> str:
    """A table with a header: start and end in milliseconds, and the text in one line.

    Source: the columns of openai/whisper's WriteTSV.
    """
    rows = [f"{start}\t{end}\t{subtitle.text}" for start, end, subtitle in _in_milliseconds(subtitles)]
    return "".join(f"{row}\n" for row in [_TSV_HEADER, *rows])


def read_srt(path: Path) -> list[Subtitle]:
    """Read a SubRip file; tags such as <i> are removed.

    Raises:
        DataError: the file cannot be read, or a block of it has no times.
    """
    # Times begin a subtitle: empty lines may be missing before them, and may be within its text.
    blocks: list[tuple[int, list[str]]] = []
    lines = read_lines(path)
    numbered = next((line for line in lines if line.strip()), "").strip().isdigit()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (numbered and not blocks and line.strip().isdigit()):
            continue
        if _LIKE_TIMES.match(line) or not blocks:
            if blocks and numbered and blocks[-1][1][-1].strip().isdigit():  # the number of this one
                blocks[-1][1].pop()
            blocks.append((number, [line]))
        else:
            blocks[-1][1].append(line)
    return [_subtitle(path, number, block) for number, block in blocks if block]


def read_vtt(path: Path) -> list[Subtitle]:
    """Read a WebVTT file; tags, notes and styles are left out.

    Raises:
        DataError: the file cannot be read or has no WEBVTT in its first line, or a block of it has no times.
    """
    subtitles = []
    blocks = list(_blocks(path))
    for number, block in blocks:
        if number == 1:
            if not block[0].startswith("WEBVTT"):
                raise DataError(f"{path} line 1: {block[0]!r:.40}. Expected WEBVTT, as in every WebVTT file.")
            while block and "-->" not in block[0]:  # a header, which the first subtitle may follow at once
                number, block = number + 1, block[1:]
            if not block:
                continue
        if block[0].split(" ")[0] in ("NOTE", "STYLE", "REGION"):
            continue
        if "-->" not in block[0] and len(block) > 1:  # the name of the cue
            number, block = number + 1, block[1:]
        found = _subtitle(path, number, block)
        lines = tuple(html.unescape(line) for line in found.lines)
        subtitles.append(Subtitle(found.start_s, found.end_s, lines))
    rolls = any(_WORD_TIME.search(line) for _, block in blocks for line in block)
    return list(_unrolled(subtitles)) if rolls else subtitles


def _unrolled(subtitles: Iterable[Subtitle]) -> Iterable[Subtitle]:
    """Each line once, of captions with times of words, as YouTube writes them: they repeat what is shown."""
    last = ""
    for subtitle in subtitles:
        lines = [line for line in subtitle.lines if line]
        lines = lines[1:] if lines and lines[0] == last else lines
        if lines:
            last = lines[-1]
            yield Subtitle(subtitle.start_s, subtitle.end_s, tuple(lines))


def read_tsv(path: Path) -> list[Subtitle]:
    """Read a table of start and end in milliseconds and text, with a header.

    Raises:
        DataError: the file cannot be read, or a line of it has no two times.
    """
    lines = read_lines(path)
    if lines[:1] != [_TSV_HEADER]:
        raise DataError(f"{path} line 1: {''.join(lines[:1])!r:.60}. Expected the header {_TSV_HEADER!r}.")
    subtitles = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t", 2)
        if len(fields) < 3 or not (fields[0].isdigit() and fields[1].isdigit()):
            raise DataError(
                f"{path} line {number}: {line!r:.60}. Expected start and end in milliseconds and the text, "
                f"separated by tabs."
            )
        subtitles.append(Subtitle(int(fields[0]) / 1000, int(fields[1]) / 1000, (fields[2],)))
    return subtitles


def _in_milliseconds(subtitles: Iterable[Subtitle]) -> Iterable[tuple[int, int, Subtitle]]:
    """Start and end of each; both are rounded alike, so that none ends after the next begins."""
    for subtitle in subtitles:
        start = round(1000 * subtitle.start_s)
        yield start, max(round(1000 * subtitle.end_s), start + 1), subtitle  # without time nothing is shown


def _clock(milliseconds: int, point: str = ",") -> str:
    """Hours, minutes, seconds and milliseconds: 01:02:03,456."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _seconds(clock: str) -> float:
    whole, _, fraction = clock.replace(",", ".").partition(".")
    seconds = 0
    for part in whole.split(":"):
        seconds = 60 * seconds + int(part)
    return float(f"{seconds}.{fraction}")


def _lines(subtitle: Subtitle) -> str:
    """The lines as they are written; "-->" would end a block."""
    return "\n".join(line.replace("-->", "->") for line in subtitle.lines)


def _blocks(path: Path) -> Iterable[tuple[int, list[str]]]:
    """Lines that empty lines separate, each block with the number of its first line."""
    block: list[str] = []
    lines = read_lines(path)
    for number, line in enumerate([*lines, ""], start=1):
        if line:  # one of spaces is part of a text
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _subtitle(path: Path, number: int, block: list[str]) -> Subtitle:
    """A subtitle from its times and lines; `number` is the line of the times."""
    times = _TIMES.fullmatch(block[0])
    if times is not None and any("-->" in line for line in block[1:]):
        raise DataError(f"{path} line {number}: two times in a subtitle. Expected an empty line between two.")
    if times is None:
        raise DataError(
            f"{path} line {number}: {block[0]!r:.60}. Expected the times of a subtitle, such as "
            f"00:00:01,000 --> 00:00:02,500."
        )
    return Subtitle(
        _seconds(times[1]), _seconds(times[2]), tuple(_TAG.sub("", line).strip() for line in block[1:])
    )
