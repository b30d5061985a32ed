"""The lines of a manifest, each read by itself; and what is checked over all of them: ids and audio files."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from asr.errors import DataError
from asr.files import check_text
from asr.frontend.tar_members import tar_of
from asr.manifests.fields import (
    load_row,
    read_channel,
    read_channels,
    read_duration,
    read_name,
    read_offset,
    read_text,
)
from asr.manifests.utterance import Utterance

__all__ = ["Row", "manifest_rows", "missing_audio", "parse_lines", "unique_ids", "unreadable"]

_MANIFESTS = ("train", "dev", "test", "all", "manifest")  # names that the commands of `asr corpus` give

# Of a transcript; a tab, a line feed and the like are white space.
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")


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
            yield from parse_lines(lines, path, allow_empty_text)
    except OSError as error:
        raise unreadable(path, error) from error


def parse_lines(
    lines: Iterable[bytes], path: Path, allow_empty_text: bool
) -> Iterator[tuple[int, Row | DataError]]:
    """`manifest_rows` of the lines of an open file."""
    for number, line in enumerate(lines, start=1):
        if number == 1:
            check_text(line, path)
        if line.strip():
            try:
                fields = _read_line(line, f"{path} line {number}", allow_empty_text)
            except DataError as error:
                if number == 1 and b'"audio_filepath"' not in line:  # the list of another toolkit, or a table
                    folder = shlex.quote(str(path.parent))
                    error = DataError(f"{error} Other lists become manifests: asr corpus folder {folder}.")
                yield number, error
            else:
                yield number, Row(number, *fields)


def unreadable(path: Path, error: OSError) -> DataError:
    """What is said of a manifest that the system does not let one read."""
    if isinstance(error, IsADirectoryError):
        names = [file.name for file in sorted(path.glob("*.jsonl")) if file.stem in _MANIFESTS]
        make = f"Make one of it: asr corpus folder {shlex.quote(str(path))} --split none -o manifests"
        todo = f"Name one in it: {', '.join(names)}" if names else make
        return DataError(f"{path}: is a folder. Expected a manifest. {todo}.")
    return DataError(f"{path}: cannot read the manifest: {error.strerror or error}. Check the path.")


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
