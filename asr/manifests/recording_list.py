"""Which recordings a user means: files, folders, globs and manifests; each with a name of its own."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr.errors import AsrError, AudioError, DataError, SettingsError
from asr.frontend.audio import channel_count
from asr.frontend.audio_files import find_audio
from asr.frontend.recordings import STANDARD_INPUT
from asr.manifests.fields import (
    Channels,
    load_row,
    read_channel,
    read_channels,
    read_duration,
    read_name,
    read_offset,
)
from asr.manifests.lines import unreadable
from asr.manifests.utterance import channel_name

__all__ = ["NamedRecording", "list_recordings"]


@dataclass(frozen=True, kw_only=True)
class NamedRecording:
    """A recording, or a part or a channel of it, that is to be transcribed.

    Attributes:
        name: of its transcript: a path below the folder of results, without suffix. Two recordings have two
            names; the same one twice has one.
        path: of the file.
        offset_s: where the part begins, seconds.
        duration_s: its length, seconds; None reads to the end.
        channel: counted from 0; None reads the mean of all.
        recording_id: the id of the whole recording, where each channel has a transcript; "" where it is the
            same.
        error: why it cannot be used; None where that is not known yet.
    """

    name: str
    path: Path
    offset_s: float = 0.0
    duration_s: float | None = None
    channel: int | None = None
    recording_id: str = ""
    error: AsrError | None = None

    @property
    def id(self) -> str:
        """The name without spaces."""
        return _without_spaces(self.name)


def _without_spaces(name: str) -> str:
    return "_".join(name.split())


@dataclass(frozen=True)
class _Found:
    """A recording, or a channel of it.

    Attributes:
        recording: with any name.
        names: that it may get, from the shortest to the longest.
        channels: which to read; None: as for all recordings.
        ending: of its name, where it is one of several channels.
    """

    recording: NamedRecording
    names: tuple[str, ...]
    channels: Channels | None = None
    ending: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """The same for the same recording."""
        one = self.recording
        return one.path.absolute(), one.offset_s, one.duration_s, one.channel

    def named(self, name: str) -> NamedRecording:
        """The recording with its name."""
        whole = _without_spaces(name.removesuffix(self.ending)) if self.ending else ""
        return replace(self.recording, name=name, recording_id=whole)


def list_recordings(inputs: Sequence[str], channels: Channels) -> list[NamedRecording]:
    """List the recordings that files, folders, globs and manifests name, in this order.

    A transcript is named after its file, by its path below the folder that the user named, or by its id in
    the manifest. Where two recordings would have the same name, as a/x.wav and b/x.wav, both get their
    folder, too, and if that is the same, their suffix.

    Args:
        inputs: audio files, folders, globs, manifests (.jsonl), and `-` for the standard input.
        channels: what to read of recordings with several channels, where the manifest does not say so.

    Returns:
        The recordings. What cannot be used (a folder without audio, a line of a manifest) is listed with its
        error, so that the others go on.

    Raises:
        SettingsError: there is no input.
    """
    if not inputs:
        raise SettingsError(
            "no file to transcribe. Expected audio files, folders, globs in quotes, manifests (.jsonl), or - "
            "for standard input."
        )
    found: list[_Found] = []
    for text in inputs:
        try:
            found += _of_manifest(Path(text)) if Path(text).suffix == ".jsonl" else _of_files(text)
        except AsrError as error:
            found.append(_unusable(text, error))
        except OSError as error:  # a path that the system does not even look up
            reason = f"{text}: cannot be read: {error.strerror}. Expected an audio file."
            found.append(_unusable(text, AudioError(reason)))
    found = [part for one in found for part in _channels(one, one.channels or channels)]
    return [one.named(name) for one, name in zip(found, _distinct_names(found), strict=True)]


def _unusable(text: str, error: AsrError) -> _Found:
    return _Found(NamedRecording(name=text, path=Path(text), error=error), (text,))


def _of_files(text: str) -> list[_Found]:
    """The recordings of a file, a folder or a glob."""
    folder = Path(text)
    found = []
    names: tuple[str, ...]
    for path in find_audio([text]):
        if path == STANDARD_INPUT:
            names = ("stdin",)
        else:
            short = path.relative_to(folder) if folder.is_dir() else Path(path.name)
            whole = Path(*(part for part in path.absolute().parts[1:] if part != ".."))
            names = tuple(str(name) for name in (short.with_suffix(""), whole.with_suffix(""), whole))
        found.append(_Found(NamedRecording(name=names[0], path=path), names))
    return found


def _of_manifest(path: Path) -> list[_Found]:
    """The recordings of a manifest, of whose lines only `audio_filepath` is needed."""
    found: list[_Found] = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise unreadable(path, error) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_of_line(line, f"{path} line {number}", path))
            except DataError as error:
                found.append(_unusable(str(path), error))
    if not found:
        raise DataError(
            f'{path}: the manifest is empty. Expected lines such as {{"audio_filepath": "a1.wav"}}.'
        )
    return found


def _of_line(line: bytes, where: str, manifest: Path) -> _Found:
    row, audio = load_row(line, where)
    path = manifest.parent.absolute() / audio
    # An id may be anything: as a name it must not lead into another folder.
    name = re.sub(r"[/\\\0]", "_", read_name(row, "id", where) or path.stem)
    recording = NamedRecording(
        name=name,
        path=path,
        offset_s=read_offset(row, where),
        duration_s=read_duration(row, where) if row.get("duration") is not None else None,
        channel=read_channel(row, where),
    )
    return _Found(recording, (name, f"{manifest.stem}/{name}"), read_channels(row, where))


def _distinct_names(found: Sequence[_Found]) -> list[str]:
    """A name for each recording: of those that clash the next longer ones, at last numbered ones."""
    names = [one.names[0] for one in found]
    lengths: dict[int, int] = {}  # which of its names each of those has that clashed
    while longer := [
        number for number in _clashing(found, names) if lengths.get(number, 0) + 1 < len(found[number].names)
    ]:
        lengths |= {number: lengths.get(number, 0) + 1 for number in longer}
        chosen = {number: found[number].names[length] for number, length in lengths.items()}
        common = os.path.commonpath([os.path.dirname(name) for name in chosen.values()])
        for number, name in chosen.items():
            names[number] = os.path.relpath(name, common or ".")
    first: dict[tuple[object, ...], int] = {}
    taken = set(map(str.casefold, names))
    for number in _clashing(found, names):
        same = first.setdefault(found[number].key, number)
        if same != number:
            names[number] = names[same]
            continue
        count = 1
        while f"{names[number]}-{count}".casefold() in taken:
            count += 1
        names[number] += f"-{count}"
        taken.add(names[number].casefold())
    return names


def _clashing(found: Sequence[_Found], names: Sequence[str]) -> list[int]:
    """The numbers of the recordings whose name another recording has, too; some disks ignore case."""
    keys: dict[str, set[tuple[object, ...]]] = defaultdict(set)
    usable = [number for number, one in enumerate(found) if one.recording.error is None]
    for number in usable:
        keys[names[number].casefold()].add(found[number].key)
    return [number for number in usable if len(keys[names[number].casefold()]) > 1]


def _channels(found: _Found, channels: Channels) -> list[_Found]:
    """The recording itself, or each of its channels."""
    recording = found.recording
    if recording.error is not None or recording.channel is not None or channels == "mix":
        return [found]
    if channels == "first":
        return [replace(found, recording=replace(recording, channel=0))]
    try:
        if recording.path == STANDARD_INPUT or recording.path.is_fifo():
            raise AudioError(
                f"{recording.path}: a pipe is read once, but --channels separate reads each channel. Write "
                f"it to a file, or choose mix or first."
            )
        count = channel_count(recording.path)
    except AudioError as error:
        return [replace(found, recording=replace(recording, error=error))]
    if count == 1:
        return [found]
    return [
        _Found(
            replace(recording, channel=channel),
            tuple(f"{name}-{channel_name(channel)}" for name in found.names),
            ending=f"-{channel_name(channel)}",
        )
        for channel in range(count)
    ]
