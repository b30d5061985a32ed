"""How folders of recordings with transcripts are laid out: one function a layout, all tried on any folder.

    kaldi        wav.scp with paths, or commands that only decode, text, segments, utt2spk
    lhotse       recordings and supervisions, or cuts, in JSON: asr.corpora.folder.lhotse
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
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.corpora.folder.files import Clip, FolderFiles, recording_name
from asr.corpora.folder.kaldi_commands import NOT_DECODED, decoded_file
from asr.corpora.folder.lhotse import lhotse_clips
from asr.errors import DataError
from asr.frontend.tar_members import tar_of

__all__ = ["LAYOUTS"]

log = logging.getLogger("asr")

_AUDIO = ("audio_filepath", "audio_file", "audio", "audio_path", "path", "file", "filename", "file_name",
          "filepath", "file_path", "wav", "wav_filename", "wav_path")  # fmt: skip
_TEXT = ("text", "transcript", "transcription", "sentence", "normalized_text", "raw_text")
_SPLIT = ("split", "subset")
_SPEAKER = ("speaker", "speaker_id", "speaker_name", "client_id")
_SEPARATOR = re.compile(r"(?i)sep=(.)")
_REJECTED = ("invalidated", "other", "reported")  # lists of Common Voice
_BESIDE = (".txt", ".lab", ".textgrid", ".srt", ".vtt")


def _kaldi(files: FolderFiles) -> Iterator[Clip]:
    for scp in (path for path in files.texts if path.name == "wav.scp"):
        folder = scp.parent
        recordings: dict[str, tuple[Path, int | None]] = {}
        for key, value in files.keyed(scp).items():
            decoded = decoded_file(value) if value.endswith("|") else (value, None)
            if decoded is None:
                files.leave_out(f"{scp}: {key}", NOT_DECODED)
                continue
            name, channel = decoded
            if found := files.find(name, folder, is_path=True):
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
        if path in files.understood:
            continue
        lines = files.lines(path)
        start = "".join(lines[:5])
        if not all(any(f'"{name}"' in start for name in names) for names in (_AUDIO, _TEXT)):
            continue
        for number, row in files.json_rows(path, lines):
            try:
                yield from _of_fields(files, path, row)
            except (KeyError, TypeError, ValueError, AttributeError):
                files.leave_out(f"{path} line {number}", "no JSON object with audio_filepath and text")


def _of_fields(files: FolderFiles, path: Path, fields: Mapping[str, Any]) -> Iterator[Clip]:
    """The clip of a line with named fields: null and "" are absent.

    Raises:
        TypeError, ValueError: a value is not of its type.
    """
    given = {name: value for name, value in fields.items() if value is not None and value != ""}
    audio, text, speaker, split = (
        next((str(given[name]) for name in names if name in given), "")
        for names in (_AUDIO, _TEXT, _SPEAKER, _SPLIT)
    )
    channel = int(given["channel"]) if "channel" in given else None
    seconds = float(given["duration"]) if "duration" in given else None
    offset = _start(given.get("offset", given.get("start", 0)))
    end = float(given["end"]) if "end" in given and "duration" not in given else None
    clip = Clip(Path(), text, str(given.get("id", "")), speaker, offset, end, channel)
    if not audio or (channel or 0) < 0:
        raise ValueError("no recording, or no channel, is named")
    if found := files.find(audio, path.parent):
        yield replace(clip, audio=found, claimed=seconds, source=path, split=split)
    elif tar_of(audio):
        files.leave_out(f"{path}: {audio}", "a part of a tar file: the manifest can be used as it is")
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


LAYOUTS: dict[str, Callable[[FolderFiles], Iterator[Clip]]] = {
    "kaldi": _kaldi, "lhotse": lhotse_clips, "manifest": _manifest, "metadata": _metadata, "table": _table,
    "librispeech": _librispeech, "beside": _beside,
}  # fmt: skip
"""Every layout, by name, in the order in which they are asked for a recording's transcript."""
