"""How folders of recordings with transcripts are laid out: one function a layout, all tried on any folder.

    kaldi        wav.scp with paths, or commands that only decode, text, segments, utt2spk
    manifest     JSON Lines of NeMo and of this package: audio_filepath, text, duration, offset, speaker
    metadata     fields between |: LJSpeech's (id|text|text) and Coqui's (audio_file|text|speaker_name)
    table        .tsv and .csv with columns for recording and transcript, such as path and sentence
    librispeech  *.trans.txt: "ID WORDS" in the folder of ID.flac
    beside       name.txt, .lab, .TextGrid, .srt, .vtt next to name.wav

Source: data directories as in Kaldi's documentation ("Data preparation"); the manifest of NeMo's
documentation; coqui-ai/TTS, `TTS/tts/datasets/formatters.py` (ljspeech, coqui); mozilla/DeepSpeech and
Hugging Face's audiofolder (names of columns).
"""

import csv
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asr.corpora.corpus import LeftOut
from asr.corpora.kaldi_commands import decoded_file
from asr.errors import DataError
from asr.files import encoding_of, not_utf8, read_lines
from asr.frontend.audio_files import AUDIO_SUFFIXES

__all__ = ["LAYOUTS", "Clip", "FolderFiles", "SegmentReader", "recording_name"]

SegmentReader = Callable[[Path], Sequence[tuple[float, float, str]]]
"""Reads a file of timed text: (start, end, text) of each segment, seconds."""

log = logging.getLogger("asr")

_AUDIO = ("audio_filepath", "audio_file", "audio", "audio_path", "path", "file", "filename", "file_name",
          "filepath", "file_path", "wav", "wav_filename", "wav_path")  # fmt: skip
_TEXT = ("text", "transcript", "transcription", "sentence", "normalized_text", "raw_text")
_SPEAKER = ("speaker", "speaker_id", "speaker_name", "client_id")
_A_COMMAND = (
    "a command, and none that only decodes a file with cat, sph2pipe, flac, sox or ffmpeg; commands are not "
    "run. Write its output to a file, and name that"
)
_SEPARATOR = re.compile(r"(?i)sep=(.)")
_REJECTED = ("invalidated", "other", "reported")  # lists of Common Voice
_BESIDE = (".txt", ".lab", ".textgrid", ".srt", ".vtt")
_AUDIO_FOLDERS = ("", "wavs", "wav", "clips", "audio", "recordings")


@dataclass(frozen=True)
class Clip:
    """A recording, or a part of it, with its transcript."""

    audio: Path
    text: str
    id: str = ""  # "" where the layout has none
    speaker: str = ""  # likewise
    offset: float = 0.0  # seconds
    end: float | None = None  # seconds from the start of the file; None: to its end
    channel: int | None = None
    source: Path = Path()  # the file that has the transcript
    claimed: float | None = None  # seconds, where somebody wrote them down

    @property
    def is_part(self) -> bool:
        """Whether it is a segment or a channel, and not all of the file."""
        return bool(self.offset) or self.end is not None or self.channel is not None


@dataclass
class FolderFiles:
    """The files of a folder, and what the layouts found in it.

    Attributes:
        root: the folder.
        audio: its recordings.
        texts: its other files, in the order of their names.
        readers: of files with times, by suffix.
        left_out: what cannot be used, and why.
    """

    root: Path
    audio: list[Path]
    texts: list[Path]
    readers: Mapping[str, SegmentReader]
    left_out: list[LeftOut] = field(default_factory=list)
    _by_stem: dict[Path, list[Path]] = field(init=False, repr=False)
    _known: set[Path] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._known = set(self.audio)
        self._by_stem = defaultdict(list)
        for path in self.audio:
            self._by_stem[path.with_suffix("")].append(path)

    def named(self, name: str) -> list[Path]:
        """Files of this name or ending, in any case."""
        return [path for path in self.texts if path.name.lower().endswith(name)]

    def has_audio(self, stem: Path) -> bool:
        """Whether there is a recording of this path without its ending."""
        return stem in self._by_stem

    def find(self, name: str, folder: Path) -> Path | None:
        """The recording that a transcript names: a path, or a name with or without its ending."""
        plain = name.strip().removeprefix("file://").replace("\\", "/")  # as other systems write paths
        for spelled in dict.fromkeys((name, plain)):
            for base in (folder, folder.parent, self.root):
                for between in _AUDIO_FOLDERS:
                    path = Path(os.path.normpath(base / between / spelled))
                    if path in self._known or (path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES):
                        return path
                    if stems := self._by_stem.get(path) or self._by_stem.get(path.with_suffix("")):
                        return stems[0]
        return None

    def first_line(self, path: Path) -> str:
        """The first line of a file; "", and a note, where it is UTF-16 or cannot be read."""
        try:
            with path.open("rb") as file:
                start = file.readline(10_000)
        except OSError as error:
            self.leave_out(path, f"unreadable text: {error.strerror}")
            return ""
        if name := encoding_of(start):
            self.leave_out(path, f"unreadable text: is {name}. {not_utf8(start, 0, str(path))}")
            return ""
        return start.decode("utf-8-sig", errors="replace").strip("\r\n")

    def leave_out(self, what: str | Path, why: str, *, expected: bool = False) -> None:
        """Note what is in no manifest."""
        self.left_out.append(LeftOut(str(what), why, expected))

    def lines(self, path: Path) -> list[str]:
        """The lines of a text file; none, and a note, where it cannot be read."""
        try:
            return read_lines(path)
        except DataError as error:
            self.leave_out(path, f"unreadable text: {str(error).removeprefix(f'{path} ')}")
            return []

    def keyed(self, path: Path) -> dict[str, str]:
        """Lines of a key and a value: "ID WORDS"."""
        found: dict[str, str] = {}
        for number, line in enumerate(self.lines(path), start=1):
            key, *value = line.split(maxsplit=1)[:2] or [""]
            if key in found:
                self.leave_out(f"{path} line {number}", f"an id twice: {key}")
            elif key:
                found[key] = "".join(value).strip()
        return found

    def clip(self, name: str, source: Path, text: str, key: str = "", speaker: str = "") -> Iterator[Clip]:
        """The clip of a name that a list has, or a note that there is no recording."""
        if audio := self.find(name, source.parent):
            yield Clip(audio, text, key, speaker, source=source)
        else:
            self.leave_out(f"{source}: {name}", "transcript without audio")


def _kaldi(files: FolderFiles) -> Iterator[Clip]:
    for scp in (path for path in files.texts if path.name == "wav.scp"):
        folder = scp.parent
        recordings: dict[str, tuple[Path, int | None]] = {}
        for key, value in files.keyed(scp).items():
            decoded = decoded_file(value) if value.endswith("|") else (value, None)
            if decoded is None:
                files.leave_out(f"{scp}: {key}", _A_COMMAND)
                continue
            name, channel = decoded
            if found := files.find(name, folder) or files.find(name, Path()):
                recordings[key] = found, channel
            else:
                files.leave_out(f"{scp}: {name}", "transcript without audio")
        speakers = _optional(files, folder / "utt2spk")
        texts = _optional(files, folder / "text")
        if speakers and (unknown := [key for key in texts if key not in speakers]):
            log.warning(
                "%s: no speaker of %d of the %d utterances of text, such as %s. Expected all: add them.",
                folder / "utt2spk", len(unknown), len(texts), unknown[0],
            )  # fmt: skip
        segments = _optional(files, folder / "segments")
        for key, text in texts.items():
            fields = segments[key].split() if key in segments else [key, "0", "-1"]
            try:
                recording, start, end = fields[0], _start(fields[1]), float(fields[2])
            except (IndexError, ValueError):
                files.leave_out(f"{folder / 'segments'}: {key}", "not ID RECORDING START END")
                continue
            if recording in recordings:
                until = end if end > start else None
                audio, channel = recordings[recording]
                yield Clip(
                    audio, text, key, speakers.get(key, ""), start, until, channel, source=folder / "text"
                )
            else:
                files.leave_out(f"{folder / 'text'}: {key}", "transcript without audio")


def _optional(files: FolderFiles, path: Path) -> dict[str, str]:
    return files.keyed(path) if path.is_file() else {}


def _manifest(files: FolderFiles) -> Iterator[Clip]:
    for path in (path for path in files.texts if path.suffix.lower() in (".jsonl", ".json", ".ndjson")):
        rows = files.lines(path)
        start = "".join(rows[:5])
        if not all(any(f'"{name}"' in start for name in names) for names in (_AUDIO, _TEXT)):
            continue
        if start.lstrip().startswith("["):  # one list
            try:
                rows = [json.dumps(row) for row in json.loads("\n".join(rows))]
            except ValueError as error:
                files.leave_out(path, f"no list of JSON objects: {error}")
                continue
        for number, row in enumerate(rows, start=1):
            if not row.strip():
                continue
            try:
                yield from _of_fields(files, path, json.loads(row))
            except (KeyError, TypeError, ValueError, AttributeError):
                files.leave_out(f"{path} line {number}", "no JSON object with audio_filepath and text")


def _of_fields(files: FolderFiles, path: Path, fields: Mapping[str, Any]) -> Iterator[Clip]:
    """The clip of a line with named fields: null and "" are absent.

    Raises:
        TypeError, ValueError: a value is not of its type.
    """
    given = {name: value for name, value in fields.items() if value is not None and value != ""}
    audio, text, speaker = (
        next((str(given[name]) for name in names if name in given), "") for names in (_AUDIO, _TEXT, _SPEAKER)
    )
    channel = int(given["channel"]) if "channel" in given else None
    seconds = float(given["duration"]) if "duration" in given else None
    offset = _start(given.get("offset", given.get("start", 0)))
    end = float(given["end"]) if "end" in given and "duration" not in given else None
    clip = Clip(Path(), text, str(given.get("id", "")), speaker, offset, end, channel)
    if not audio or (channel or 0) < 0:
        raise ValueError("no recording, or no channel, is named")
    if found := files.find(audio, path.parent):
        yield replace(clip, audio=found, claimed=seconds, source=path)
    else:
        files.leave_out(f"{path}: {audio}", "transcript without audio")


def _start(value: Any) -> float:
    """Seconds from the start of a recording.

    Raises:
        TypeError, ValueError: they are before it, or no number.
    """
    seconds = float(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{seconds} is not in the recording")
    return seconds


def _metadata(files: FolderFiles) -> Iterator[Clip]:
    for path in (path for path in files.texts if path.suffix.lower() in (".csv", ".txt", ".list", ".psv")):
        if path.suffix.lower() == ".txt" and files.has_audio(path.with_suffix("")):
            continue  # a transcript of one recording
        lines = files.lines(path) if "|" in files.first_line(path) else []
        if not lines:
            continue
        header = lines[0].lower().split("|")
        columns = _columns(header)
        for number, line in enumerate(lines[bool(columns) :], start=1 + bool(columns)):
            fields = line.split("|")
            if columns and len(fields) == len(header):
                yield from files.clip(
                    fields[columns[0]], path, fields[columns[1]],
                    speaker=fields[columns[2]] if columns[2] >= 0 else "",
                )  # fmt: skip
            elif not columns and len(fields) in (2, 3) and fields[0]:
                # The last field has numbers in words.
                yield from files.clip(fields[0], path, fields[-1], Path(fields[0]).stem)
            elif line.strip():
                files.leave_out(f"{path} line {number}", "another number of fields with | between them")


def _table(files: FolderFiles) -> Iterator[Clip]:
    for path in (path for path in files.texts if path.suffix.lower() in (".tsv", ".csv")):
        first = files.first_line(path)
        chosen = _SEPARATOR.fullmatch(first)  # the first line says it, as Excel writes it
        mark = chosen[1] if chosen else _separator(first)
        if "|" in first or mark not in first:
            continue
        lines = files.lines(path)
        rows = _rows(files, path, ["" if chosen else lines[0], *lines[1:]], mark)[bool(chosen) :]
        if not rows:
            continue
        header = [name.strip().lower().replace(" ", "_") for name in rows[0][1]]
        if path.stem in _REJECTED and "client_id" in header:
            files.leave_out(path, "clips that Common Voice did not accept", expected=True)
            continue
        named = _columns(header) is not None
        if not named and (len(header) < 2 or files.find(rows[0][1][0], path.parent) is None):
            wanted = f"such as {_AUDIO[2]} and {_TEXT[0]}, in {first[:60]!r}"
            files.leave_out(
                path, f"a table without columns for recording and transcript: {wanted}", expected=True
            )
            continue
        names = header if named else [_AUDIO[0], _TEXT[0]]
        for number, row in rows[named:]:
            try:
                yield from _of_fields(files, path, dict(zip(names, row, strict=True)))
            except ValueError:
                if any(row):
                    files.leave_out(f"{path} line {number}", f"other fields than {', '.join(names)}"[:100])


def _separator(header: str) -> str:
    """What stands between the columns of a table."""
    if "\t" in header:
        return "\t"
    return ";" if header.count(";") > header.count(",") else ","


def _rows(files: FolderFiles, path: Path, lines: Sequence[str], mark: str) -> list[tuple[int, list[str]]]:
    """The rows of a table, each with the number of its first line; quotes count between commas alone."""
    reader = csv.reader(
        [f"{line}\n" for line in lines],
        delimiter=mark,
        quoting=csv.QUOTE_NONE if mark == "\t" else csv.QUOTE_MINIMAL,
        skipinitialspace=True,
        strict=True,
    )
    rows, number = [], 1
    try:
        for row in reader:
            rows.append((number, row))
            number = reader.line_num + 1
    except csv.Error as error:
        files.leave_out(f"{path} lines {number} to {len(lines)}", f"quotes that do not match: {error}")
    return rows


def _columns(header: Sequence[str]) -> tuple[int, int, int] | None:
    """Which columns are recording, transcript and speaker (-1: none); None: the line is no header."""

    def first(names: Sequence[str]) -> int:
        return next((header.index(name) for name in names if name in header), -1)

    audio, text = first(_AUDIO), first(_TEXT)
    return (audio, text, first(_SPEAKER)) if audio >= 0 and text >= 0 else None


def _librispeech(files: FolderFiles) -> Iterator[Clip]:
    for path in files.named(".trans.txt"):
        for key, text in files.keyed(path).items():
            speaker = key.split("-")[0] if key.count("-") == 2 else ""
            yield from files.clip(key, path, text, key, speaker)


def _beside(files: FolderFiles) -> Iterator[Clip]:
    endings = {ending: {path.with_suffix(""): path for path in files.named(ending)} for ending in _BESIDE}
    for audio in files.audio:
        stem = audio.with_suffix("")
        path = next((found[stem] for found in endings.values() if stem in found), None)
        if path is None:
            continue
        reader = files.readers.get(path.suffix.lower())
        if reader is None:
            text = " ".join(files.lines(path))
            yield Clip(audio, text, source=path)
            continue
        try:
            segments = reader(path)
        except DataError as error:
            files.leave_out(path, f"unreadable text: {str(error).removeprefix(f'{path} ')}")
            continue
        if not segments:
            files.leave_out(path, "a transcript without segments")
        name = recording_name(audio, files.root)
        for number, (start, end, text) in enumerate(segments, start=1):
            yield Clip(audio, text, f"{name}-{number:04}", "", start, end, source=path)
    for ending, found in endings.items():
        paired = {stem.parent for stem in found if files.has_audio(stem)}
        for stem, path in found.items():
            # A .txt is a transcript only where others are: it may well be a README.
            alone = not files.has_audio(stem) and (ending != ".txt" or stem.parent in paired)
            if alone and not path.name.endswith(".trans.txt"):
                files.leave_out(path, "transcript without audio")


def recording_name(path: Path, root: Path) -> str:
    """An id for a recording: its path below the folder, without spaces."""
    inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return "_".join("-".join(inside.with_suffix("").parts).split())


LAYOUTS: dict[str, Callable[[FolderFiles], Iterator[Clip]]] = {
    "kaldi": _kaldi, "manifest": _manifest, "metadata": _metadata, "table": _table,
    "librispeech": _librispeech, "beside": _beside,
}  # fmt: skip
"""Every layout, by name, in the order in which they are asked for a recording's transcript."""
