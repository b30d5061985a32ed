"""Which recordings a user means, and that no two of them share a name."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.errors import SettingsError
from asr.manifests.recording_list import list_recordings


def record(path: Path, channels: int = 1) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full((1600, channels), 0.1), 16000)
    return str(path)


def names(*inputs: object, channels: str = "mix") -> list[str]:
    return [one.name for one in list_recordings([str(text) for text in inputs], channels)]  # type: ignore[arg-type]


def test_names_of_files_folders_and_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transcript that is not where its recording's name leads."""
    one, two = record(tmp_path / "in" / "one.v2.wav"), record(tmp_path / "in" / "deep" / "two.wav")
    assert names(one, two) == ["one.v2", "two"]
    assert names(tmp_path / "in") == ["deep/two", "one.v2"]
    assert names(tmp_path / "in" / "*.wav") == ["one.v2"]
    monkeypatch.chdir(tmp_path / "in" / "deep")
    assert names(".", "..", "-") == ["two", "deep/two", "one.v2", "stdin"]


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    """One transcript that replaces another: from two folders, with two suffixes, in other case."""
    a, b, c = (record(tmp_path / name) for name in ("a/x.wav", "b/x.wav", "b/y.wav"))
    assert names(a, b, c) == ["a/x", "b/x", "y"]
    assert names(tmp_path / "a", tmp_path / "b") == ["a/x", "b/x", "y"]
    flac = record(tmp_path / "a/x.flac")
    assert names(a, flac) == ["x.wav", "x.flac"]
    assert names(a, flac, b) == ["a/x.wav", "a/x.flac", "b/x"]
    upper = names(a, record(tmp_path / "a/X.wav"))
    assert len({name.casefold() for name in upper}) == 2
    assert names(a, a) == ["x", "x"]  # the same recording has the same transcript


def test_a_manifest(tmp_path: Path) -> None:
    """A line without text or duration refused; an id that leads elsewhere; a bad line that ends all."""
    record(tmp_path / "wav" / "a.wav")
    rows = [
        {"audio_filepath": "wav/a.wav"},
        {"audio_filepath": "wav/a.wav", "id": "../../etc/x", "offset": 0.5, "duration": 0.25, "text": "b"},
        {"audio_filepath": "wav/a.wav", "id": "call 1", "channel": 1},
        {"audio_filepath": "wav/a.wav", "id": "zero", "duration": 0},
        {"audio_filepath": "gone.wav", "id": 7},
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + '\n\n{"audio\n')
    found = list_recordings([str(path)], "mix")
    assert [one.name for one in found if not one.error] == ["a", ".._.._etc_x", "call 1", "7"]
    assert (found[1].offset_s, found[1].duration_s) == (0.5, 0.25)
    assert (found[2].id, found[2].channel) == ("call_1", 1)
    errors = [str(one.error) for one in found if one.error]
    assert errors[0].startswith(f"{path} line 4: duration is 0. Expected seconds above 0")
    assert errors[1].startswith(f"{path} line 7: broken JSON")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(rows[0] | {"audio_filepath": "wav/b.wav"} | {"id": "a"}))
    assert names(path, other)[0] == "list/a"
    assert names(path, other)[-1] == "other/a"


def test_what_cannot_be_used_is_listed(tmp_path: Path) -> None:
    """A folder without audio, a glob without match or an empty manifest that costs the other files."""
    good = record(tmp_path / "good.wav")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    inputs = [tmp_path / "empty", tmp_path / "no*", tmp_path / "empty.jsonl", tmp_path / "gone.jsonl", good]
    found = list_recordings([str(path) for path in inputs], "mix")
    assert [str(one.error).removeprefix(str(tmp_path)).split(".")[0] for one in found[:2]] == [
        "/empty: no audio files in this folder",
        "/no*: no file matches this pattern",
    ]
    assert "the manifest is empty" in str(found[2].error)
    assert "cannot read the manifest: No such file" in str(found[3].error)
    assert (found[4].name, found[4].error) == ("good", None)
    with pytest.raises(SettingsError, match="no file to transcribe"):
        list_recordings([], "mix")


def test_channels(tmp_path: Path) -> None:
    """Two speakers in one transcript, or a mono file whose transcript is called A."""
    call, mono = record(tmp_path / "call.wav", 2), record(tmp_path / "mono.wav")
    found = list_recordings([call, mono, "gone.wav", "-"], "separate")
    assert [(one.name, one.channel) for one in found] == [
        ("call-A", 0), ("call-B", 1), ("mono", None), ("gone", None), ("stdin", None),
    ]  # fmt: skip
    assert (found[0].id, found[0].recording_id) == ("call-A", "call")
    assert "no such file" in str(found[3].error)
    assert "-: a pipe is read once, but --channels separate" in str(found[4].error)
    assert [one.channel for one in list_recordings([call, mono], "first")] == [0, 0]
    assert [one.channel for one in list_recordings([call, mono], "mix")] == [None, None]
    record(tmp_path / "call-A.flac")
    assert len({*names(tmp_path, channels="separate")}) == 4
    manifest = tmp_path / "list.jsonl"
    rows = [{"channels": "separate"}, {"channels": "first"}, {"channel": 1}, {"channels": "left"}, {}]
    manifest.write_text(
        "\n".join(json.dumps({"audio_filepath": call, "id": f"u{n}"} | row) for n, row in enumerate(rows))
    )
    found = list_recordings([str(manifest)], "mix")
    assert [(one.name, one.channel) for one in found if not one.error] == [
        ("u0-A", 0), ("u0-B", 1), ("u1", 0), ("u2", 1), ("u4", None),
    ]  # fmt: skip
    assert "line 4: channels is 'left'. Expected mix, first, separate" in str(found[4].error)
