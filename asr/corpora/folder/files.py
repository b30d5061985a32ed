"""The files of a folder, and what a layout makes of them: recordings, or parts of them, with a transcript."""

import gzip
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.corpora.corpus import LeftOut
from asr.errors import DataError
from asr.files import encoding_of, not_utf8, read_lines, text_lines
from asr.frontend.audio_files import AUDIO_SUFFIXES

__all__ = ["Clip", "FolderFiles", "SegmentReader", "recording_name"]

SegmentReader = Callable[[Path], Sequence[tuple[float, float, str]]]
"""Reads a file of timed text: (start, end, text) of each segment, seconds."""

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
    split: str = ""  # as a list names it

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
        understood: lists that a layout has read, and no other one has to.
    """

    root: Path
    audio: list[Path]
    texts: list[Path]
    readers: Mapping[str, SegmentReader]
    left_out: list[LeftOut] = field(default_factory=list)
    understood: set[Path] = field(default_factory=set)
    _by_stem: dict[Path, list[Path]] = field(init=False, repr=False)
    _known: set[Path] = field(init=False, repr=False)
    _looked_into: set[Path] = field(default_factory=set, init=False, repr=False)

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

    def find(self, name: str, folder: Path, *, is_path: bool = False) -> Path | None:
        """The recording that a transcript names: a path, or a name with or without its ending.

        Args:
            name: as it is written.
            folder: of the list that has it.
            is_path: it is a path for certain, which may have any ending, and which, where it is relative,
                begins at the working directory: as in Kaldi and lhotse.

        Returns:
            The recording; None where there is none. One outside the folder belongs to it from now on.
        """
        plain = name.strip().removeprefix("file://").replace("\\", "/")  # as other systems write paths
        tried = [(Path.cwd(), "")] if is_path else []
        tried += [
            (base, between) for base in (folder, folder.parent, self.root) for between in _AUDIO_FOLDERS
        ]
        for spelled in dict.fromkeys((name, plain)):
            for base, between in tried:
                path = Path(os.path.normpath(base / between / spelled))
                if path in self._known:
                    return path
                if path.is_file() and (is_path or path.suffix.lower() in AUDIO_SUFFIXES):
                    return self._add(path)
                if is_path:
                    self._look_into(path.parent)
                if stems := self._by_stem.get(path) or self._by_stem.get(path.with_suffix("")):
                    return self._add(stems[0])
        return None

    def _add(self, path: Path) -> Path:
        if path not in self._known:
            self.audio.append(path)
            self._known.add(path)
        return path

    def _look_into(self, folder: Path) -> None:
        """Learn the names of recordings in a folder outside: they may have other endings than in a list."""
        if folder not in self._looked_into and not folder.is_relative_to(self.root):
            self._looked_into.add(folder)
            with suppress(OSError):
                for path in sorted(folder.iterdir()):
                    if path.suffix.lower() in AUDIO_SUFFIXES:
                        self._by_stem[path.with_suffix("")].append(path)

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
        """The lines of a text file, which may be packed with gzip; none, and a note, if it cannot be read."""
        try:
            if path.suffix.lower() == ".gz":
                return text_lines(gzip.decompress(path.read_bytes()), path)
            return read_lines(path)
        except DataError as error:
            self.leave_out(path, f"unreadable text: {str(error).removeprefix(f'{path} ')}")
        except (OSError, EOFError, zlib.error) as error:
            self.leave_out(path, f"unreadable text: gzip: {error}")
        return []

    def json_rows(self, path: Path, lines: Sequence[str]) -> Iterator[tuple[int, Any]]:
        """What JSON Lines, or one JSON list, hold: each value with its line; None where it is no JSON."""
        if lines and lines[0].lstrip().startswith("["):
            try:
                yield from enumerate(json.loads("\n".join(lines)), start=1)
            except ValueError as error:
                self.leave_out(path, f"no list of JSON objects: {error}")
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError:
                    yield number, None

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


def recording_name(path: Path, root: Path) -> str:
    """An id for a recording: its path below the folder, without spaces."""
    inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return "_".join("-".join(inside.with_suffix("").parts).split())
