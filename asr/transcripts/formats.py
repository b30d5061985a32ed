"""The formats of transcripts by name: what writes each, what reads it, and what its files are called."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr.errors import DataError, SettingsError
from asr.manifests.utterance import channel_name
from asr.transcripts.cue_files import format_srt, format_tsv, format_vtt, read_srt, read_tsv, read_vtt
from asr.transcripts.document import format_html
from asr.transcripts.json_rows import format_json, read_json
from asr.transcripts.record import RecordingTranscript
from asr.transcripts.sclite import format_ctm, format_trn, read_ctm, read_trn
from asr.transcripts.subtitles import Subtitle, make_subtitles
from asr.transcripts.textgrid import format_textgrid, read_textgrid

__all__ = [
    "FORMATS", "OF_ONE", "WITH_IDS", "WITH_TIMES", "Format", "Write", "check_joins", "choose_formats",
    "join_formats", "read_transcripts", "texts_by_id",
]  # fmt: skip

log = logging.getLogger("asr")

Write = Callable[[RecordingTranscript], str]


@dataclass(frozen=True)
class Format:
    """A format of transcripts.

    Attributes:
        suffix: of its files.
        write: a transcript -> the content of its file.
        joins: whether the contents of several recordings, one after the other, are a file of this format.
    """

    suffix: str
    write: Write
    joins: bool = False


def _subtitles(format_them: Callable[[Sequence[Subtitle]], str]) -> Write:
    return lambda transcript: format_them(make_subtitles(transcript.words, transcript.duration_s))


FORMATS = {
    "txt": Format(".txt", lambda transcript: f"{transcript.text}\n", joins=True),
    "json": Format(".json", format_json, joins=True),
    "srt": Format(".srt", _subtitles(format_srt)),
    "vtt": Format(".vtt", _subtitles(format_vtt)),
    "tsv": Format(".tsv", _subtitles(format_tsv)),
    "ctm": Format(".ctm", format_ctm, joins=True),
    "textgrid": Format(".TextGrid", format_textgrid),
    "trn": Format(".trn", format_trn, joins=True),
    "html": Format(".html", format_html),
}
"""Every format that can be written, by the name that the command line takes."""


def choose_formats(given: Sequence[str], default: str, folder: Path | None) -> list[str]:
    """The names of the formats that --format asks for, each of them known.

    Args:
        given: the values of --format, each a name or several with commas between them.
        default: where there is none.
        folder: of --output-dir; None for stdout, which takes one format.

    Raises:
        SettingsError: a format is unknown, or there are several for stdout.
    """
    names = [name for value in given for name in value.lower().split(",") if name] or [default]
    for name in names:
        if name not in FORMATS:
            raise SettingsError(f"--format {name}: unknown. Expected {', '.join(FORMATS)}.")
    if len({*names}) > 1 and folder is None:
        raise SettingsError(
            f"--format {','.join(names)}: several formats need a folder. Add --output-dir DIR."
        )
    return names


def check_joins(name: str, recordings: int) -> None:
    """Refuse several recordings on stdout in a format whose files have one.

    Args:
        name: of the format.
        recordings: how many there are.

    Raises:
        SettingsError: there are more than the format takes.
    """
    if recordings > 1 and not FORMATS[name].joins:
        raise SettingsError(
            f"--format {name}: a file of this format has one recording, not {recordings}. Add "
            f"--output-dir DIR, which gets a file for each."
        )


def join_formats(arguments: Sequence[str]) -> list[str]:
    """Arguments in which several names after one --format are one word; what follows them are files.

    >>> join_formats(["--format", "srt", "txt", "talk.wav"])
    ['--format', 'srt,txt', 'talk.wav']
    """
    joined: list[str] = []
    for word in arguments:
        if joined[-2:-1] == ["--format"] and word in FORMATS:
            joined[-1] += f",{word}"
        else:
            joined.append(word)
    return joined


_READERS: dict[str, Callable[[Path], list[RecordingTranscript]]] = {
    ".trn": read_trn,
    ".ctm": read_ctm,
    ".jsonl": read_json,
    ".json": read_json,
    ".textgrid": lambda path: [read_textgrid(path)],
    ".srt": lambda path: [_joined(path, read_srt(path))],
    ".vtt": lambda path: [_joined(path, read_vtt(path))],
    ".tsv": lambda path: [_joined(path, read_tsv(path))],
}

WITH_IDS = (".trn", ".ctm", ".jsonl", ".json")
"""Suffixes of files with many transcripts, each with the id of its utterance."""

WITH_TIMES = (".ctm", ".jsonl", ".json", ".textgrid")
"""Suffixes of files that have the times of words."""

OF_ONE = (".srt", ".vtt", ".tsv", ".textgrid")
"""Suffixes of files with the transcript of one recording."""


def _joined(path: Path, subtitles: Sequence[Subtitle]) -> RecordingTranscript:
    text = " ".join(" ".join(subtitle.text for subtitle in subtitles).split())
    return RecordingTranscript(id="_".join(path.stem.split()), text=text)


def read_transcripts(path: Path) -> list[RecordingTranscript]:
    """Read a file of transcripts, in the format of its suffix.

    Subtitles give one transcript, named after the file, without times of words.

    Raises:
        DataError: the suffix is unknown, or the file cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown format. Expected a file that ends in {', '.join(_READERS)}.")
    return reader(path)


def _channel(transcript: RecordingTranscript) -> str:
    return "mix" if transcript.channel is None else channel_name(transcript.channel)


def texts_by_id(path: Path) -> dict[str, str]:
    """The texts of a file of transcripts by their ids; id-A and id-B where a recording has two channels.

    A recording that could not be transcribed counts as an empty transcript, with a warning.

    Raises:
        DataError: the file cannot be read, has no transcript, or an id twice.
    """
    transcripts = read_transcripts(path)
    if not transcripts:
        raise DataError(f"{path} has no transcript. One per utterance was expected.")
    failed = sum(bool(one.error) for one in transcripts)
    if failed:
        log.warning("%s: %d recordings could not be transcribed: empty transcripts.", path, failed)
    channels: dict[str, set[int | str | None]] = {}
    for one in transcripts:
        channels.setdefault(one.id, set()).add(one.channel)
    texts: dict[str, str] = {}
    for one in transcripts:
        name = one.id if len(channels[one.id]) == 1 else f"{one.id}-{_channel(one)}"
        if name in texts:
            raise DataError(f"{path}: two transcripts have the id {name!r}. Ids must differ. Rename one.")
        texts[name] = one.text
    return texts
