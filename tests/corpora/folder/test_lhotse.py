"""lhotse's manifests: lhotse 1.33.0 wrote those in the folder beside this file, of recordings made here."""

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.corpora.folder.reading import FolderReading, read_folder
from asr.errors import DataError
from asr.manifests.convert import convert
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Utterance
from tests.corpora.look_alikes import sound, write

WRITTEN = Path(__file__).parent / "lhotse"


def stereo(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sine = 0.1 * np.sin(np.arange(round(16_000 * seconds)) / 5)
    soundfile.write(path, np.stack([sine / 2, sine], axis=1), 16_000)


def recordings(folder: Path) -> None:
    """What the manifests name, but for audio/gone.wav."""
    stereo(folder / "audio/call.wav", 3.0)
    for name, seconds in {"short": 0.5, "left": 1.0, "right": 1.0, "none": 0.5}.items():
        sound(folder / f"audio/{name}.wav", seconds)


def utterances(reading: FolderReading) -> dict[str, Utterance]:
    return {one.id: one for part in reading.splits.values() for one in part}


def reasons(reading: FolderReading) -> dict[str, int]:
    return Counter(one.why.partition(":")[0] for one in reading.left_out if not one.expected)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (WRITTEN / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("packed", [True, False])
def test_recordings_and_supervisions(packed: bool, tmp_path: Path) -> None:
    """Parts that have all of their recording, channels and speakers that are lost, sources that disappear."""
    recordings(tmp_path)
    for name in ("recordings", "supervisions"):
        content = (WRITTEN / f"{name}.jsonl").read_bytes()
        target = tmp_path / f"{name}.jsonl{'.gz' * packed}"
        target.write_bytes(gzip.compress(content) if packed else content)
    reading = read_folder(tmp_path, {}, split="none")
    found = {
        name: (one.audio_filepath.name, one.offset, one.duration, one.channel, one.speaker, one.text)
        for name, one in utterances(reading).items()
    }
    assert found == {
        "call-A1": ("call.wav", 0.5, 1.0, 0, "anna", "hello, who is it?"),
        "call-B1": ("call.wav", 1.5, 1.25, 1, "ben", "it is ben"),
        "call-both": ("call.wav", 0.25, 0.25, None, "anna", "hm"),
        "short-1": ("short.wav", 0.0, 0.5, None, "ben", 'say "no", ок'),
        "two-1": ("right.wav", 0.25, 0.5, None, "ben", "right"),
        "pipe-1": ("call.wav", 1.0, 0.5, 1, "anna", "piped"),
        "left-1": ("left.wav", 0.0, 1.0, None, "anna", "left"),
    }  # fmt: skip
    assert reading.found == {"lhotse": 4}
    assert reasons(reading) == {
        "a command, and none that only decodes a file with cat, sph2pipe, flac, sox or ffmpeg; commands are "
        "not run. Write its output to a file, and name that": 1,
        "a recording of the type url, which is no file": 1,
        "a recording that does not exist": 1,
        "a recording that is changed as it is read": 1,
        "transcript without audio": 5,  # of those four, and of one that no list of recordings has
        "channels that no file of its recording has": 1,
        "no words in its transcript": 1,
        "audio without transcript": 1,
    }  # fmt: skip
    named = {one.what.rpartition(": ")[2]: one.why for one in reading.left_out}
    assert named["gone"] == "a recording that does not exist: audio/gone.wav"
    assert named["short_sp0.9"] == "a recording that is changed as it is read: Speed"
    assert named["two-2"] == "channels that no file of its recording has: [0, 1]"


def test_cuts(tmp_path: Path) -> None:
    """Times that count from the cut, an utterance of two windows twice, mixed cuts that disappear."""
    recordings(tmp_path)
    shutil.copy(WRITTEN / "cuts.jsonl", tmp_path)
    reading = read_folder(tmp_path, {}, split="none")
    found = {name: (one.offset, one.duration, one.channel) for name, one in utterances(reading).items()}
    assert found == {
        "call-A1": (0.5, 1.0, 0), "call-B1": (1.5, 1.25, 1), "call-both": (0.25, 0.25, None),
        "short-1": (0.0, 0.5, None),
    }  # fmt: skip
    assert sum(one.why == "in another line or list, too" for one in reading.left_out) == 2
    assert reasons(reading) == {
        "no words in its transcript": 1, "a MixedCut, which mixes or joins recordings": 1,
        "a PaddingCut, which is silence": 1, "audio without transcript": 3,
    }  # fmt: skip


def test_cuts_without_recordings(tmp_path: Path) -> None:
    """Cuts of features, whose recordings are in a file of their own; a list in one piece, as of to_json."""
    recordings(tmp_path)
    cuts = [{**cut, "recording": None} for cut in rows("cuts")[:2]]
    write(tmp_path / "cuts.json", json.dumps(cuts, indent=2))
    write(tmp_path / "recordings.json", json.dumps(rows("recordings")[:2], indent=2))
    assert [*utterances(read_folder(tmp_path, {}, split="none"))] == [
        "call-A1", "call-B1", "call-both", "short-1",
    ]  # fmt: skip


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that begins at the working directory, as in lhotse; a recording outside without a transcript."""
    recordings(tmp_path / "corpus")
    for name in ("recordings", "supervisions"):
        write(tmp_path / f"lists/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows(name)[:3]))
    with pytest.raises(DataError, match="a recording that does not exist: audio/call"):
        read_folder(tmp_path / "lists", {})
    monkeypatch.chdir(tmp_path / "corpus")
    reading = read_folder(tmp_path / "lists", {}, split="none")
    assert {one.audio_filepath for one in utterances(reading).values()} == {
        tmp_path / "corpus/audio/call.wav"
    }
    outside = [one.what for one in reading.left_out if one.why == "audio without transcript"]
    assert outside == [str(tmp_path / f"corpus/audio/{name}.wav") for name in ("short", "none")]


def test_sets(tmp_path: Path) -> None:
    """A test set that is mixed into training; recordings of the same id in two sets."""
    for part, seconds in {"train-clean-5": 0.5, "dev-clean": 0.75, "test": 1.0}.items():
        sound(tmp_path / f"{part}.wav", seconds)
        source = {"type": "file", "channels": [0], "source": str(tmp_path / f"{part}.wav")}
        recording = {"id": "r", "sources": [source], "sampling_rate": 16_000, "duration": seconds}
        supervision = {"id": part, "recording_id": "r", "start": 0, "duration": seconds, "text": part}
        for kind, row in {"recordings": recording, "supervisions": supervision}.items():
            packed = gzip.compress(json.dumps(row).encode())
            (tmp_path / f"mini_{kind}_{part}.jsonl.gz").write_bytes(packed)
    reading = read_folder(tmp_path, {})
    assert {name: [(one.text, one.duration) for one in part] for name, part in reading.splits.items()} == {
        "train": [("train-clean-5", 0.5)], "dev": [("dev-clean", 0.75)], "test": [("test", 1.0)],
    }  # fmt: skip
    assert reading.split_by == "the folder's own, by the names of its files and folders, or by its lists"


def test_there_and_back(tmp_path: Path) -> None:
    """Guards --to lhotse: every utterance comes back with its times, text, speaker and channel."""
    recordings(tmp_path)
    call, short = tmp_path / "audio/call.wav", tmp_path / "audio/short.wav"
    given = [
        Utterance(id="a 1", audio_filepath=call, duration=1.0, text="one", offset=0.5, channel=0),
        Utterance(id="b", audio_filepath=call, duration=1.25, text='"zwei" два', offset=1.5, channel=1),
        Utterance(id="c", audio_filepath=call, duration=3.0, text="both", speaker="ben"),
        Utterance(id="d", audio_filepath=short, duration=0.5, text="all", speaker="ben"),
        Utterance(id="e", audio_filepath=short, duration=0.25, text="half", speaker="ben"),
    ]  # fmt: skip
    convert(given, "lhotse", tmp_path / "out")
    reading = read_folder(tmp_path / "out", {}, split="none")
    assert utterances(reading) == {one.id: one for one in given}
    assert reading.left_out == []
    (tmp_path / "again").mkdir()
    convert([replace(one, channel=None) for one in given[:1]], "lhotse", tmp_path / "again")
    (row,) = gzip.decompress((tmp_path / "again/supervisions.jsonl.gz").read_bytes()).splitlines()
    assert json.loads(row)["channel"] == [0, 1]


BROKEN = {
    "a recording": ("recordings", '{"id": "call", "sources": "audio/call.wav"}',
                    "no recording of lhotse with its sources and duration"),
    "a time": ("supervisions", '{"id": "x", "recording_id": "call", "start": "soon", "duration": 1}',
               "no supervision of lhotse with its times"),
    "an object": ("supervisions", '{"id": ', "no supervision of lhotse with its times"),
    "before": ("supervisions", '{"id": "x", "recording_id": "call", "start": -1, "duration": 2, "text": "w"}',
               "a segment that begins before its recording"),
    "backwards": ("supervisions", '{"id": "x", "recording_id": "call", "start": 1, "duration": -1}',
                  "a segment that ends before it begins"),
    "a cut": ("cuts", '{"id": "x", "type": "MonoCut", "supervisions": [{"id": 1}]}',
              "no cut of lhotse with its times"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken(name: str, tmp_path: Path) -> None:
    """A line that ends the reading of all others, or disappears."""
    recordings(tmp_path)
    for file in ("recordings", "supervisions", "cuts"):
        shutil.copy(WRITTEN / f"{file}.jsonl", tmp_path)
    before = read_folder(tmp_path, {}, split="none")
    kind, line, why = BROKEN[name]
    with (tmp_path / f"{kind}.jsonl").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    after = read_folder(tmp_path, {}, split="none")
    assert utterances(after) == utterances(before)
    assert reasons(after) == reasons(before) | {why: 1}


def test_a_damaged_file(tmp_path: Path) -> None:
    """A file that was copied in part, which nobody misses."""
    recordings(tmp_path)
    shutil.copy(WRITTEN / "cuts.jsonl", tmp_path)
    packed = gzip.compress((WRITTEN / "supervisions.jsonl").read_bytes())
    (tmp_path / "supervisions.jsonl.gz").write_bytes(packed[:200])
    (tmp_path / "recordings.jsonl.gz").write_bytes(b"no gzip")
    reading = read_folder(tmp_path, {}, split="none")
    assert reasons(reading)["unreadable text"] == 2
    assert len(utterances(reading)) == 4


def test_command(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Guards the way through the command line: a manifest to lhotse, and back to one manifest."""
    recordings(tmp_path / "corpus")
    shutil.copy(WRITTEN / "cuts.jsonl", tmp_path / "corpus")
    status, _, err = run("corpus", "folder", tmp_path / "corpus", "--split", "none", "-o", tmp_path / "m")
    assert (status, "1 a MixedCut, which mixes or joins recordings, such as" in err) == (1, True)
    first = tmp_path / "m/corpus/all.jsonl"
    assert run("corpus", "convert", first, "--to", "lhotse", "-o", tmp_path / "lh")[0] == 0
    assert run("corpus", "folder", tmp_path / "lh", "--split", "none", "-o", tmp_path / "m")[0] == 0
    back = {one.id: one for one in read_manifest(tmp_path / "m/lh/all.jsonl")}
    assert back == {one.id: one for one in read_manifest(first)}
