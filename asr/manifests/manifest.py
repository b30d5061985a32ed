"""Manifests: utterances in JSON Lines, one per line, readable with `head`.

The fields are those that NeMo users know, plus `id`, `speaker`, `offset` and `channel`:

    {"id": "84-121123-0000", "audio_filepath": "84/121123/84-121123-0000.flac", "duration": 2.085,
     "text": "go do you hear", "speaker": "84"}

`duration` and `offset` are in seconds. `channel`, counted from 0, is for recordings with a speaker a channel,
such as telephone calls; without it the mean of all channels is read. `channels` may be "mix" or "first"
instead, and "separate" where the manifest is only transcribed. A relative `audio_filepath` is relative to the
manifest's own folder, so that a folder with its manifest can be moved; FILE.tar:OFFSET:SIZE names bytes of a
tar file. Other keys are allowed and ignored.

Large manifests are kept as Arrow: see `asr.manifests.arrow`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from asr.errors import DataError
from asr.files import json_line, write_text
from asr.manifests.fields import EXAMPLE, load_row, read_channel, read_duration, read_offset
from asr.manifests.left_out import report_left_out
from asr.manifests.lines import Row, manifest_rows, missing_audio, unique_ids
from asr.manifests.utterance import Utterance

__all__ = [
    "ARROW", "parse_manifest", "plain_path", "read_fields", "read_manifest", "read_usable", "write_manifest",
]  # fmt: skip

ARROW = ".arrow"  # the suffix of a manifest of `asr.manifests.arrow`

# What `Utterance` has, or what is different for every utterance.
_KEYS = {"id", "audio_filepath", "duration", "text", "speaker", "offset", "channels"}


def read_manifest(path: Path, *, allow_empty_text: bool = False) -> list[Utterance]:
    """Read and check a manifest.

    Blank lines are skipped. A line without `id` is named after its audio file, "<stem>", or
    "<stem>-<line>" where that name is taken. `speaker` and `id` may be whole numbers (they become text),
    and null means absent for them, for `offset` and for `channel`.

    Args:
        path: the JSON Lines file, UTF-8; or one in Arrow, which was checked when it was made.
        allow_empty_text: accept utterances without words.

    Returns:
        The utterances in the order of the lines, with absolute paths.

    Raises:
        DataError: the manifest is missing, empty or not UTF-8, or a line (which is named) is broken
            JSON, lacks a key, has a value of the wrong type or range, a control character in its text,
            repeats an id, or names an audio file that does not exist.
    """
    return _read(Path(path), allow_empty_text, None)


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
    utterances = _read(Path(path), allow_empty_text, left_out)
    report_left_out(left_out, len(utterances) + len(left_out), f"lines of {path}")
    return utterances, left_out


def _read(path: Path, allow_empty_text: bool, left_out: dict[str, str] | None) -> list[Utterance]:
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
    missing = missing_audio([utterance.audio_filepath for utterance in utterances], {})
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
    from asr.manifests.arrow import ArrowManifest  # builds on this module, and imports torch

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

    def lines() -> Iterator[str]:
        for utterance in utterances:
            if utterance.id in seen:
                raise DataError(
                    f"{path}: not written: the id {utterance.id!r} occurs twice. Ids must differ."
                )
            seen.add(utterance.id)
            yield json_line(_as_row(utterance, base))
        if not seen:
            raise DataError(f"{path}: not written: there is no utterance to write. Expected at least one.")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, lines())
    except OSError as error:
        raise DataError(
            f"{path}: cannot write the manifest: {error.strerror or error}. "
            "An older file of that name is unchanged. Make room, or choose another folder."
        ) from error


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
