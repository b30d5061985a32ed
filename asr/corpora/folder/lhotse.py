"""lhotse's manifests: recordings and the supervisions in them, or cuts, which have both.

    recordings.jsonl.gz, supervisions.jsonl.gz   or CORPUS_recordings_PART.jsonl.gz, as its recipes name them
    cuts.jsonl.gz                                MonoCut and MultiCut; supervisions count from their start

Files are JSON Lines or one JSON list, packed with gzip or not; fields tell what they hold, not names. A
supervision is an utterance: a part of a recording, of one of its channels or of all. A cut is but a window on
a recording, so that a supervision that reaches beyond its cut is read whole, and one of two cuts once.

Source: lhotse 1.33: serialization.py (deserialize_item), audio/recording.py and audio/source.py (a relative
path begins at the working directory), supervision.py, cut/data.py.
"""

import gzip
import json
import zlib
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.corpora.folder.files import Clip, FolderFiles
from asr.corpora.folder.kaldi_commands import NOT_DECODED, decoded_file

__all__ = ["lhotse_clips"]

_ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
_CUTS = ("MonoCut", "MultiCut", "Cut", "MixedCut", "PaddingCut")  # Cut: MonoCut before version 0.8
_NO_CUTS = {"MixedCut": "which mixes or joins recordings", "PaddingCut": "which is silence"}
_SAME_S = 1e-3  # a supervision of all of its recording may differ by rounding
_WRONG = (KeyError, TypeError, ValueError, AttributeError)  # of an object that is not what it should be
_HARMLESS = ("Resample",)  # changes of a recording that leave its times and its sound


@dataclass(frozen=True)
class _Recording:
    """A recording: its files, each with the channels in it, and its length in seconds."""

    files: Sequence[tuple[Path, Sequence[int], int | None]]  # path, channels, the only one that is read
    duration: float

    def channel(self, wanted: frozenset[int]) -> tuple[Path, int | None] | None:
        """The file that has some channels, and the one to read of it; None for the mean of all of it."""
        for path, channels, only in self.files:
            if wanted == frozenset(channels):
                return path, only
            if len(wanted) == 1 and wanted < frozenset(channels):
                return path, [*channels].index(*wanted)
        return None


def lhotse_clips(files: FolderFiles) -> Iterator[Clip]:
    """The supervisions of all of lhotse's manifests of a folder."""
    kinds: dict[Path, str] = {}
    for path in files.texts:
        if path.name.lower().endswith(_ENDINGS) and (kind := _kind(files, path)):
            kinds[path] = kind
            files.understood.add(path)
    recordings: dict[Path, dict[str, _Recording]] = {}
    for path in (path for path, kind in kinds.items() if kind == "recordings"):
        recordings[path] = {}
        for where, row in _rows(files, path):
            try:
                if recording := _recording(files, path, row, row["id"]):
                    recordings[path][str(row["id"])] = recording
            except _WRONG:
                files.leave_out(where, "no recording of lhotse with its sources and duration")
    for path in (path for path, kind in kinds.items() if kind in ("supervisions", "cuts")):
        # The file of recordings that is named like this one is asked first: ids of others may be the same.
        partner = path.with_name(path.name.replace(kinds[path], "recordings"))
        known = ChainMap(recordings.get(partner, {}), *recordings.values())
        for where, row in _rows(files, path):
            try:
                if kinds[path] == "cuts":
                    yield from _of_cut(files, path, row, known)
                else:
                    yield from _of_supervision(files, path, row, known.get(str(row["recording_id"])))
            except _WRONG:
                files.leave_out(where, f"no {kinds[path].removesuffix('s')} of lhotse with its times")


def _kind(files: FolderFiles, path: Path) -> str:
    """What a file holds, by its first object; "" where that is nothing that is used of lhotse."""
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            start = file.readline()
            if start.lstrip().startswith(b"["):
                start = json.dumps(json.loads(start + file.read())[0]).encode()
        row = json.loads(start)
    except (OSError, EOFError, zlib.error) as error:
        files.leave_out(path, f"unreadable text: {error}")
        return ""
    except (ValueError, LookupError):  # another file, and another layout's to complain of
        return ""
    if not isinstance(row, dict) or "num_features" in row:
        return ""
    if "sources" in row:
        return "recordings"
    if row.get("type") in _CUTS:
        return "cuts"
    return "supervisions" if {"id", "recording_id", "start", "duration"} <= row.keys() else ""


def _rows(files: FolderFiles, path: Path) -> Iterator[tuple[str, Any]]:
    """Each object, and where it is."""
    for number, row in files.json_rows(path, files.lines(path)):
        yield f"{path} line {number}", row


def _recording(files: FolderFiles, path: Path, row: Mapping[str, Any], label: object) -> _Recording | None:
    """A recording; None, and a note that names the label, where its sound is not that of a file.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no recording.
    """
    where = f"{path}: {label}"
    changes = [one["name"] for one in row.get("transforms") or [] if one["name"] not in _HARMLESS]
    if changes:
        files.leave_out(where, f"a recording that is changed as it is read: {', '.join(changes)}")
        return None
    found = []
    for source in row["sources"]:
        kind, name, only = source["type"], str(source["source"]), None
        if kind == "command":
            decoded = decoded_file(f"{name.rstrip().removesuffix('|')} |")
            if decoded is None:
                files.leave_out(where, NOT_DECODED)
                return None
            name, only = decoded
        elif kind != "file":
            why = f"a recording of the type {kind}, which is no file: {name:.60}. Save it to a file"
            files.leave_out(where, why)
            return None
        audio = files.find(name, path.parent, is_path=True)
        if audio is None:
            files.leave_out(where, f"a recording that does not exist: {name}")
            return None
        found.append((audio, [int(channel) for channel in source["channels"]], only))
    return _Recording(found, float(row["duration"]))


def _of_cut(
    files: FolderFiles, path: Path, cut: Mapping[str, Any], known: Mapping[str, _Recording]
) -> Iterator[Clip]:
    """The supervisions of a cut.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no cut.
    """
    if cut["type"] in _NO_CUTS:
        files.leave_out(f"{path}: {cut['id']}", f"a {cut['type']}, {_NO_CUTS[cut['type']]}")
        return
    inside = None
    if cut.get("recording") and (inside := _recording(files, path, cut["recording"], cut["id"])) is None:
        return
    for row in cut.get("supervisions") or []:
        recording = inside or known.get(str(row["recording_id"]))
        yield from _of_supervision(files, path, row, recording, float(cut["start"]))


def _of_supervision(
    files: FolderFiles, path: Path, row: Mapping[str, Any], recording: _Recording | None, start: float = 0.0
) -> Iterator[Clip]:
    """The utterance of a supervision that counts from `start` of its recording, seconds.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no supervision.
    """
    begin = round(start + float(row["start"]), 6)
    end = round(begin + float(row["duration"]), 6)
    where, channels = f"{path}: {row['id']}", row.get("channel", 0)
    if recording is None:
        files.leave_out(where, "transcript without audio")
        return
    found = recording.channel(frozenset(channels if isinstance(channels, list) else [channels]))
    if found is None:
        files.leave_out(where, f"channels that no file of its recording has: {channels}")
    elif begin <= -_SAME_S:
        files.leave_out(where, "a segment that begins before its recording")
    elif not begin < end < float("inf"):
        files.leave_out(where, "a segment that ends before it begins")
    else:
        whole = begin < _SAME_S and abs(end - recording.duration) < _SAME_S
        audio, channel = found
        yield Clip(
            audio, str(row.get("text") or ""), str(row["id"]), str(row.get("speaker") or ""),
            0.0 if whole else max(begin, 0.0), None if whole else end, channel, source=path,
        )  # fmt: skip
