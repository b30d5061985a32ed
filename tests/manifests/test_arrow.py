"""Manifests in Arrow: the same utterances as in JSON Lines, and the same messages about what is wrong."""

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.errors import DataError, SettingsError
from asr.frontend.augment.draws import hash_ids
from asr.manifests import arrow
from asr.manifests.arrow import ArrowManifest, columns, tar_numbers, write_arrow
from asr.manifests.manifest import read_manifest

pyarrow = pytest.importorskip("pyarrow")


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    """A manifest with these lines; audio without a folder of its own exists."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.wav", "b.wav", "größe 1.flac", "one.tar", "two.tar"):
        (folder / name).touch()
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(**more: Any) -> dict[str, Any]:
    return {"id": "a", "audio_filepath": "a.wav", "duration": 1.5, "text": "to be", **more}


def converted(path: Path, normalizer: str = "") -> ArrowManifest:
    write_arrow(path, path.with_suffix(".arrow"), normalizer)
    return ArrowManifest([path.with_suffix(".arrow")])


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """More lines than a block of two has, and each field in use."""
    monkeypatch.setattr(arrow, "_BLOCK", 2)
    monkeypatch.setattr(arrow, "_PART", 2)
    return write(
        tmp_path,
        row(speaker="anna", offset=0.25, channel=1),
        row(id="b", audio_filepath="one.tar:512:100", text="ναι, 是"),
        row(id="c", audio_filepath="größe 1.flac", channels="first"),
        row(id="d", audio_filepath=str(tmp_path / "two.tar:1536:7")),
        row(id="e", audio_filepath="../" + tmp_path.name + "/one.tar:1024:100"),
    )


def test_same_as_json_lines(manifest: Path) -> None:
    """Guards every field, and access by number, from the end, and by slices."""
    wanted, found = read_manifest(manifest), converted(manifest)
    assert len(found) == 5
    assert list(found) == [found[number] for number in range(5)] == read_manifest(found.paths[0])
    assert [one.audio_filepath.resolve() for one in found] == [one.audio_filepath.resolve() for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        fields = ("id", "duration", "text", "speaker", "offset", "channel")
        assert [getattr(one, name) for name in fields] == [getattr(other, name) for name in fields]
    assert found[-1] == found[4]
    assert found[1:4:2] == [found[1], found[3]]
    with pytest.raises(IndexError):
        found[5]
    assert found.id_hashes().tolist() == hash_ids([one.id for one in wanted]).tolist()
    assert list(pickle.loads(pickle.dumps(found))) == list(found)  # a loader process that is not forked


def test_folder_can_be_moved(manifest: Path, tmp_path: Path) -> None:
    """Guards relative paths: audio below the Arrow file is found from where it lies now."""
    converted(manifest)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert ArrowManifest([moved / "manifest.arrow"])[0].audio_filepath == moved / "a.wav"


def test_columns(manifest: Path) -> None:
    """Guards arrays made of Arrow against those of a list; both in blocks."""
    listed, found = read_manifest(manifest), converted(manifest)
    for utterances in (listed, found):
        parts = list(columns(utterances, "text", "duration"))
        assert [len(texts) for texts, _ in parts] == [2, 2, 1]
        assert [text for texts, _ in parts for text in texts] == [one.text for one in listed]
        assert [second for _, seconds in parts for second in seconds] == [1.5] * 5
        assert list(tar_numbers(utterances)) == [-1, 0, -1, 1, 0]
    assert tar_numbers(listed[:1]) is None


def test_several_files(manifest: Path, tmp_path: Path) -> None:
    """Guards two manifests in one training: order, folders, and tar files of the same number."""
    first = converted(manifest)
    other = converted(
        write(tmp_path / "other", row(id="z"), row(id="y", audio_filepath="one.tar:0:1")), "lower"
    )
    both = ArrowManifest([*first.paths, *other.paths])
    assert list(both) == [*first, *other]
    assert both.tar_numbers().tolist() == [-1, 0, -1, 1, 0, -1, 2]
    assert (first.normalizer, other.normalizer, both.normalizer) == ("", "lower", "")


def test_text_rules(tmp_path: Path) -> None:
    """Guards transcripts that a training takes for normalised."""
    found = converted(write(tmp_path, row(text="Don’t STOP, now.")), "english")
    assert (found[0].text, found.normalizer) == ("don't stop now", "english")
    with pytest.raises(SettingsError, match=r"normalizer must be one of .* Got 'klingon'"):
        converted(tmp_path / "manifest.jsonl", "klingon")


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    """Guards resuming with other transcripts, lengths or names; speakers and folders change nothing."""
    plain = converted(write(tmp_path / "a", row(), row(id="b"))).digest()
    assert converted(write(tmp_path / "b", row(speaker="x"), row(id="b"))).digest() == plain
    for changed in (row(id="x"), row(id="b", text="to bee"), row(id="b", duration=1.4), row(id="b", text="")):
        if changed["text"]:
            assert converted(write(tmp_path / "c", row(), changed)).digest() != plain


@pytest.mark.parametrize(
    "rows",
    [
        [row(id=None), row(id=None)],
        [row(id=None), row(id=None, audio_filepath="b.wav"), row()],
        [row(id="x"), row(id=None)],
    ],
)
def test_made_ids_are_those_of_json_lines(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """Guards names that depend on later lines: draws are made by id."""
    path = write(tmp_path, *rows)
    found = converted(path)
    assert list(found) == read_manifest(path)
    assert found.id_hashes().tolist() == hash_ids([one.id for one in found]).tolist()


def test_what_is_wrong_is_said_with_its_line(tmp_path: Path) -> None:
    """Guards the checks of `read_manifest`, which opening an Arrow file does not make again."""
    for rows, message in (
        ([row(), row(id="b", duration=0)], r"manifest.jsonl line 2: duration is 0"),
        ([row(), row(id="b", text=" ")], r"line 2: the transcript is empty"),
        ([row(), row()], r"line 2: the id 'a' is in line 1 already"),
        ([row(), row(id="b", audio_filepath="c.wav")], r"line 2: the audio file .*c\.wav does not exist"),
        ([row(), row(id="b", audio_filepath="c.tar:0:9")], r"line 2: the audio file .*c\.tar:0:9 does not"),
        ([], "the manifest is empty"),
        ([row(text="a\ud800")], r"half a character, U\+D800"),
    ):
        path = write(tmp_path, *rows)
        target = tmp_path / "kept.arrow"
        target.write_bytes(b"older")
        with pytest.raises(DataError, match=message):
            write_arrow(path, target)
        assert target.read_bytes() == b"older"
        assert [found.name for found in tmp_path.glob("*.part")] == []


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    """Guards a file cut short by a full disk, and Arrow of another program."""
    path = write(tmp_path, row())
    converted(path)
    whole = path.with_suffix(".arrow").read_bytes()
    (tmp_path / "cut.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.arrow: no Arrow file, or cut short"):
        ArrowManifest([tmp_path / "cut.arrow"])
    with pytest.raises(DataError, match=r"no\.arrow: cannot read the manifest"):
        ArrowManifest([tmp_path / "no.arrow"])
    with pytest.raises(DataError, match=r"no\.jsonl: cannot read the manifest: No such file"):
        write_arrow(tmp_path / "no.jsonl", tmp_path / "new.arrow")
    table = pyarrow.table({"x": [1]})
    with pyarrow.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"x\.arrow: an Arrow file, but no manifest"):
        read_manifest(tmp_path / "x.arrow")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the advice: the library is an extra."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match=r"need pyarrow.*pip install '\.\[arrow\]'"):
        read_manifest(tmp_path / "x.arrow")


def test_files_whose_names_are_not_utf8(tmp_path: Path) -> None:
    """Guards names of files that are bytes and no text."""
    path = write(tmp_path, row(audio_filepath="caf\udce9.wav"))
    (tmp_path / "caf\udce9.wav").touch()
    assert converted(path)[0].audio_filepath.name == "caf\udce9.wav"
    assert np.array_equal(converted(path).tar_numbers(), [-1])
