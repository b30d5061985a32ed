"""Manifests: utterances in JSON Lines, one per line, readable with `head`.

The fields are those that NeMo users know, plus `id`, `speaker`, `offset` and `channel`:

    {"id": "84-121123-0000", "audio_filepath": "84/121123/84-121123-0000.flac", "duration": 2.085,
     "text": "go do you hear", "speaker": "84"}

`duration` and `offset` are in seconds. `channel`, counted from 0, is for recordings with a speaker a channel,
such as telephone calls; without it the mean of all channels is read. `channels` may be "mix" or "first"
instead, and "separate" where the manifest is only transcribed. A relative `audio_filepath` is relative to the
manifest's own folder, so that a folder with its manifest can be moved; FILE.tar:OFFSET:SIZE names bytes of a
tar file. Other keys are allowed and ignored.

Large manifests are kept as Arrow: see `asr.corpora.arrow`.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from asr.corpora.left_out import report_left_out
from asr.corpora.manifest_fields import (
    EXAMPLE,
    Channels,
    load_row,
    read_channel,
    read_channels,
    read_duration,
    read_name,
    read_offset,
    read_text,
)
from asr.errors import DataError
from asr.files import atomic_path, encoding_of, not_text, not_utf8
from asr.frontend.tar_members import tar_of

__all__ = [
    "ARROW", "Channels", "ManifestRecording", "Row", "Splits", "Utterance", "channel_name", "manifest_rows",
    "missing_audio", "parse_manifest", "plain_path", "read_fields", "read_manifest", "read_recordings",
    "read_usable", "unique_ids", "unreadable", "write_manifest",
]  # fmt: skip

ARROW = ".arrow"  # the suffix of a manifest of `asr.corpora.arrow`

# What `Utterance` has, or what is different for every utterance.
_KEYS = {"id", "audio_filepath", "duration", "text", "speaker", "offset", "channels"}

# Of a transcript; a tab, a line feed and the like are white space.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")


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


@dataclass(frozen=True, kw_only=True)
class ManifestRecording:
    """A line of a manifest that is to be transcribed: text and duration may be missing."""

    id: str  # "" where the line has none
    audio_filepath: Path  # absolute
    offset: float = 0.0  # seconds
    duration: float | None = None  # seconds; None: to the end
    channel: int | None = None  # counted from 0
    channels: Channels | None = None  # where there is no channel


@dataclass(frozen=True)
class Splits:
    """A corpus in three parts: training, development and test."""

    train: list[Utterance]
    dev: list[Utterance]
    test: list[Utterance]


def read_manifest(path: Path, *, allow_empty_text: bool = False, check_audio: bool = True) -> list[Utterance]:
    """Read and check a manifest.

    Blank lines are skipped. A line without `id` is named after its audio file, "<stem>", or
    "<stem>-<line>" where that name is taken. `speaker` and `id` may be whole numbers (they become text),
    and null means absent for them, for `offset` and for `channel`.

    Args:
        path: the JSON Lines file, UTF-8; or one in Arrow, which was checked when it was made.
        allow_empty_text: accept utterances without words.
        check_audio: check that each audio file exists. This costs one listing of each folder, not one
            look-up a line; if False, a missing file is an error when it is opened.

    Returns:
        The utterances in the order of the lines, with absolute paths.

    Raises:
        DataError: the manifest is missing, empty or not UTF-8, or a line (which is named) is broken
            JSON, lacks a key, has a value of the wrong type or range, a control character in its text,
            repeats an id, or names an audio file that does not exist.
    """
    return _read(Path(path), allow_empty_text, check_audio, None)


def read_usable(path: Path, *, allow_empty_text: bool = False) -> tuple[list[Utterance], dict[str, str]]:
    """Read the lines of a manifest that can be used; the others are left out, and logged.

    Args:
        path: as for `read_manifest`.
        allow_empty_text: accept utterances without words.

    Returns:
        The utterances, and why others are left out, by their ids or lines.

    Raises:
        DataError: the manifest cannot be read, no line is left, or an id repeats.
    """
    left_out: dict[str, str] = {}
    utterances = _read(Path(path), allow_empty_text, True, left_out)
    report_left_out(left_out, len(utterances) + len(left_out), f"lines of {path}")
    return utterances, left_out


class Row(NamedTuple):
    """A line that can be used, as it is written."""

    number: int  # of the line, from 1
    name: str  # its id; "" for none
    audio: str
    duration: float
    text: str
    speaker: str
    offset: float
    channel: int | None

    def utterance(self, name: str, base: Path) -> Utterance:
        """The utterance, with the id that it gets, of a manifest in the folder `base`."""
        return Utterance(
            id=name, audio_filepath=base / self.audio,  # an absolute path stays what it is
            duration=self.duration, text=self.text, speaker=self.speaker, offset=self.offset,
            channel=self.channel,
        )  # fmt: skip


def manifest_rows(path: Path, allow_empty_text: bool) -> Iterator[tuple[int, Row | DataError]]:
    """The lines of a manifest but for blank ones, by their numbers: what they hold, or why not."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if number == 1 and (other := not_text(line, path)):
                    raise DataError(other)
                if number == 1 and (name := encoding_of(line)):
                    raise DataError(f"{path} is {name}. UTF-8 was expected. {not_utf8(line, 0, str(path))}")
                if line.strip():
                    try:
                        fields = _read_line(line, f"{path} line {number}", allow_empty_text)
                    except DataError as error:
                        yield number, error
                    else:
                        yield number, Row(number, *fields)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """What is said of a manifest that the system does not let one read."""
    return DataError(f"{path}: cannot read the manifest: {error.strerror or error}. Check the path.")


def _read(
    path: Path, allow_empty_text: bool, check_audio: bool, left_out: dict[str, str] | None
) -> list[Utterance]:
    """The utterances of a manifest; lines that cannot be used go into left_out, or are errors without it."""
    if path.suffix == ARROW:
        return _read_arrow(path)
    base = path.parent.absolute()
    rows: list[Row] = []
    for number, row in manifest_rows(path, allow_empty_text):
        if isinstance(row, Row):
            rows.append(row)
        elif left_out is None:
            raise row
        else:
            left_out[f"line {number}"] = str(row).removeprefix(f"{path} line {number}: ")
    if not rows and not left_out:
        raise DataError(
            f"{path}: the manifest is empty. Expected one JSON object per line, such as {EXAMPLE}."
        )
    ids = unique_ids(
        path, [row.number for row in rows], [row.name for row in rows], [row.audio for row in rows]
    )
    utterances = [row.utterance(name, base) for name, row in zip(ids, rows, strict=True)]
    missing = missing_audio([utterance.audio_filepath for utterance in utterances], {}) if check_audio else []
    if missing and left_out is None:
        others = f" (and that of {len(missing) - 1} more lines)" if len(missing) > 1 else ""
        number, missing_file = rows[missing[0]].number, utterances[missing[0]].audio_filepath
        raise DataError(
            f"{path} line {number}: the audio file {missing_file} does not exist{others}. "
            f"Relative paths are relative to {base}. "
            "Put the file back, correct the path, or remove the line."
        )
    for index in reversed(missing):
        utterance = utterances.pop(index)
        if left_out is not None:
            left_out[utterance.id] = f"the audio file {utterance.audio_filepath} does not exist"
    return utterances


def _read_arrow(path: Path) -> list[Utterance]:
    from asr.corpora.arrow import ArrowManifest  # builds on this module

    return list(ArrowManifest([path]))


def read_fields(path: Path, utterances: Sequence[Utterance]) -> list[dict[str, str | int | float | bool]]:
    """The further keys of a manifest's lines, which `read_manifest` leaves out, and `channel`.

    Args:
        path: the manifest; lines that cannot be read are passed over.
        utterances: read from it.

    Returns:
        For each utterance its text, numbers, true and false by their keys; {} where its line has no others.
    """
    base = path.parent.absolute()
    fields: dict[tuple[Path, float, float, int | None], dict[str, str | int | float | bool]] = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            row, audio = load_row(line, str(path))
            segment = base / audio, read_duration(row, ""), read_offset(row, ""), read_channel(row, "")
        except DataError:
            continue
        fields[segment] = {
            key: value
            for key, value in row.items()
            if key not in _KEYS and isinstance(value, str | int | float | bool)
        }
    return [fields.get((one.audio_filepath, one.duration, one.offset, one.channel), {}) for one in utterances]


def parse_manifest(path: Path) -> tuple[list[Utterance], list[DataError]]:
    """Read the lines of a manifest that can be used, to examine it.

    Args:
        path: the JSON Lines file, UTF-8, or one in Arrow.

    Returns:
        The utterances, which may have no words and no audio file, and why each other line is none.

    Raises:
        DataError: the manifest cannot be read.
    """
    if path.suffix == ARROW:
        return _read_arrow(path), []
    base = path.parent.absolute()
    utterances: list[Utterance] = []
    errors: list[DataError] = []
    taken: dict[str, int] = {}
    for number, row in manifest_rows(path, allow_empty_text=True):
        if isinstance(row, DataError):
            errors.append(row)
        elif row.name in taken:
            errors.append(
                DataError(f"{path} line {number}: the id {row.name!r} is in line {taken[row.name]} already.")
            )
        else:
            stem = Path(row.audio).stem
            identifier = row.name or (stem if stem not in taken else f"{stem}-{number}")
            taken[identifier] = number
            utterances.append(row.utterance(identifier, base))
    return utterances, errors


def channel_name(channel: int) -> str:
    """A channel, counted from 0, as NIST names it: A and B for the two sides of a telephone call."""
    return chr(ord("A") + channel) if channel < 26 else str(channel + 1)


def read_recordings(path: Path) -> list[ManifestRecording | DataError]:
    """Read a manifest of recordings to transcribe, of which only `audio_filepath` is needed.

    Args:
        path: the JSON Lines file, UTF-8. Blank lines are skipped.

    Returns:
        For each line the recording, or why the line cannot be used; whether the audio exists is not checked.

    Raises:
        DataError: the manifest cannot be read or is empty.
    """
    found: list[ManifestRecording | DataError] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise unreadable(path, error) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_read_recording(line, f"{path} line {number}", path.parent.absolute()))
            except DataError as error:
                found.append(error)
    if not found:
        raise DataError(
            f'{path}: the manifest is empty. Expected lines such as {{"audio_filepath": "a1.wav"}}.'
        )
    return found


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest atomically: after a failure an older file of that name is unchanged.

    Audio below the manifest's folder is written relative to it, other audio absolute. `speaker`, `offset`
    and `channel` are left out where they hold their defaults.

    Args:
        path: the file to write; its folder is made when missing.
        utterances: at least one; ids must differ.

    Raises:
        DataError: there is no utterance, an id repeats, or the file cannot be written.
    """
    path = Path(path)
    base = plain_path(path.parent).rstrip(os.sep) + os.sep
    seen: set[str] = set()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (  # names of files need not be UTF-8; the escapes of backslashreplace are JSON's
            atomic_path(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
        ):
            for utterance in utterances:
                if utterance.id in seen:
                    raise DataError(
                        f"{path}: not written: the id {utterance.id!r} occurs twice. Ids must differ."
                    )
                seen.add(utterance.id)
                file.write(json.dumps(_as_row(utterance, base), ensure_ascii=False) + "\n")
            if not seen:
                raise DataError(
                    f"{path}: not written: there is no utterance to write. Expected at least one."
                )
    except OSError as error:
        raise DataError(
            f"{path}: cannot write the manifest: {error.strerror or error}. "
            "An older file of that name is unchanged. Make room, or choose another folder."
        ) from error


def _read_line(
    line: bytes, where: str, allow_empty_text: bool
) -> tuple[str, str, float, str, str, float, int | None]:
    """One line as (id or "", audio, duration, text, speaker, offset, channel)."""
    row, audio = load_row(line, where)
    duration, offset = read_duration(row, where), read_offset(row, where)
    text = read_text(row, "text", where)
    if not allow_empty_text and not text.strip():
        raise DataError(
            f"{where}: the transcript is empty. Expected the words that are spoken. "
            "Correct the line or remove it."
        )
    if found := _CONTROL_CHARACTER.search(text):
        raise DataError(
            f"{where}: the transcript has the control character U+{ord(found[0]):04X} at position "
            f"{found.start() + 1}. Expected the words that are spoken. Correct the line or remove it."
        )
    speaker, channel, channels = (
        read_name(row, "speaker", where),
        read_channel(row, where),
        read_channels(row, where),
    )
    if channel is None and channels == "separate":
        raise DataError(
            f"{where}: channels is 'separate', but the line has one transcript. Expected mix or first, or "
            'the number of its channel as "channel".'
        )
    if channel is None and channels == "first":
        channel = 0
    return read_name(row, "id", where), audio, duration, text, speaker, offset, channel


def _read_recording(line: bytes, where: str, base: Path) -> ManifestRecording:
    row, audio = load_row(line, where)
    return ManifestRecording(
        id=read_name(row, "id", where),
        audio_filepath=base / audio,
        offset=read_offset(row, where),
        duration=read_duration(row, where) if row.get("duration") is not None else None,
        channel=read_channel(row, where),
        channels=read_channels(row, where),
    )


def unique_ids(
    path: Path, numbers: Sequence[int], names: Sequence[str], audio: Sequence[str]
) -> Sequence[str]:
    """The id of each line of a manifest, made from the audio's name where the line gave none.

    Args:
        path: of the manifest, for messages.
        numbers: of the lines.
        names: their ids; "" for none.
        audio: their paths; looked at where there is no id.

    Raises:
        DataError: an id occurs twice, or the one made for a line is taken.
    """
    given: set[str] = set()
    for number, name in zip(numbers, names, strict=True):
        if name in given:
            raise DataError(
                f"{path} line {number}: the id {name!r} is in line {numbers[names.index(name)]} "
                "already. Ids must differ. Rename one, or remove the line."
            )
        if name:
            given.add(name)
    if len(given) == len(names):
        return names
    stems = Counter(Path(file).stem for name, file in zip(names, audio, strict=True) if not name)
    ids: list[str] = []
    for number, name, file in zip(numbers, names, audio, strict=True):
        if not name:
            name = Path(file).stem
            if stems[name] > 1 or name in given:
                name = f"{name}-{number}"
                if name in given or name in stems:
                    raise DataError(
                        f"{path} line {number}: the line has no id, and the one made for it, {name!r}, "
                        "is taken. Give the line an id."
                    )
        ids.append(name)
    return ids


def missing_audio(paths: Sequence[str | Path], listings: dict[str, frozenset[str]]) -> list[int]:
    """The indices of absolute paths of audio that do not exist.

    Args:
        paths: of files, or of parts of tar files.
        listings: of folders, filled here. One listing a folder instead of one look-up a line: 300,000
            look-ups on a network disk take minutes.
    """
    missing: list[int] = []
    for index, path in enumerate(paths):
        folder, name = os.path.split(path)  # twice as fast as .parent and .name
        if folder not in listings:
            listings[folder] = _files_in(folder)
        name = tar_of(name) or name
        # The second check is for file systems that ignore case, and is made for suspects only.
        if name not in listings[folder] and not os.path.isfile(os.path.join(folder, name)):
            missing.append(index)
    return missing


def _files_in(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError:
        return frozenset()  # the check of the single file that follows decides


def plain_path(path: Path) -> str:
    """An absolute path without `..`; links are kept, since a corpus is often a folder of links."""
    return os.path.normpath(Path(path).absolute())


def _as_row(utterance: Utterance, base: str) -> dict[str, str | float]:
    audio = plain_path(utterance.audio_filepath)
    row: dict[str, str | float] = {
        "id": utterance.id,
        "audio_filepath": audio.removeprefix(base),
        "duration": utterance.duration,
    }
    if utterance.offset:
        row["offset"] = utterance.offset
    if utterance.channel is not None:
        row["channel"] = utterance.channel
    row["text"] = utterance.text
    if utterance.speaker:
        row["speaker"] = utterance.speaker
    return row
