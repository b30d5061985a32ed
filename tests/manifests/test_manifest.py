"""Manifests: what is written is read, and every bad line is named."""

import json
import os
from pathlib import Path

import pytest

from asr.errors import DataError
from asr.manifests.manifest import read_manifest, write_manifest
from asr.manifests.utterance import Utterance
from tests.conftest import no_space


def _manifest(folder: Path, *rows: dict[str, object] | str) -> Path:
    """A manifest of these rows; the audio that they name (a.wav, b.wav) exists."""
    for name in ("a.wav", "b.wav"):
        (folder / name).touch()
    path = folder / "m.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def _row(**changes: object) -> dict[str, object]:
    row: dict[str, object] = {"id": "a", "audio_filepath": "a.wav", "duration": 1.5, "text": "hello"}
    return row | changes


def test_written_manifest_reads_back_equal(tmp_path: Path) -> None:
    """Guards every field through the file, an accent and a quote in the text, and exact float durations."""
    (tmp_path / "inside" / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    inner, outer = tmp_path / "inside" / "deep" / "é b.wav", tmp_path / "outside" / "x.wav"
    inner.touch()
    outer.touch()
    written = [
        Utterance(
            id="1",
            audio_filepath=inner,
            duration=0.1 + 0.2,
            text='señor "q"',
            speaker="s",
            offset=1.25,
            channel=0,
        ),
        Utterance(id="2", audio_filepath=outer, duration=3.0, text="two"),
    ]
    path = tmp_path / "inside" / "m.jsonl"
    write_manifest(path, written)
    assert read_manifest(path) == written


def test_paths_below_the_manifest_are_relative_and_survive_a_move(tmp_path: Path) -> None:
    """Guards moving a corpus: absolute paths would still point to the old folder."""
    old = tmp_path / "old"
    old.mkdir()
    (old / "a.wav").touch()
    (tmp_path / "b.wav").touch()
    write_manifest(
        old / "m.jsonl",
        [
            Utterance(id="a", audio_filepath=old / "a.wav", duration=1.0, text="x"),
            # A name that begins like the folder's, but is outside of it.
            Utterance(id="b", audio_filepath=old / ".." / "b.wav", duration=1.0, text="x"),
        ],
    )
    rows = [json.loads(line) for line in (old / "m.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["audio_filepath"] for row in rows] == ["a.wav", str(tmp_path / "b.wav")]
    old.rename(tmp_path / "new")
    assert read_manifest(tmp_path / "new" / "m.jsonl")[0].audio_filepath == tmp_path / "new" / "a.wav"


def test_relative_manifest_path_gives_absolute_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against audio that is lost when the program changes its folder after reading."""
    _manifest(tmp_path, _row())
    monkeypatch.chdir(tmp_path)
    assert read_manifest(Path("m.jsonl"))[0].audio_filepath == tmp_path / "a.wav"


def test_foreign_manifest_of_nemo_is_read(tmp_path: Path) -> None:
    """Guards what NeMo writes: no id, integer durations, null offsets, number speakers, further keys."""
    path = _manifest(
        tmp_path,
        {
            "audio_filepath": "a.wav",
            "duration": 2,
            "text": "x",
            "offset": None,
            "channel": None,
            "lang": "en",
            "speaker": 7,
        },
        "",
        {"audio_filepath": "b.wav", "duration": 1.0, "text": "y", "offset": 0.5, "channel": None},
        {"audio_filepath": "b.wav", "duration": 1.0, "text": "z", "offset": 1.5},
    )
    read = read_manifest(path)
    assert [u.id for u in read] == ["a", "b-3", "b-4"]  # numbers are lines of the file, the blank one counted
    assert [u.offset for u in read] == [0.0, 0.5, 1.5]
    assert (read[0].duration, read[0].speaker) == (2.0, "7")


def test_made_up_id_avoids_a_given_one(tmp_path: Path) -> None:
    """Guards against an id made from a file name that another line has chosen for itself."""
    path = _manifest(tmp_path, _row(id="b"), {"audio_filepath": "b.wav", "duration": 1.0, "text": "y"})
    assert [u.id for u in read_manifest(path)] == ["b", "b-2"]
    path = _manifest(
        tmp_path, _row(id="b"), _row(id="b-3"), {"audio_filepath": "b.wav", "duration": 1.0, "text": "y"}
    )
    with pytest.raises(
        DataError, match=r"line 3: the line has no id, and the one made for it, 'b-3', is taken"
    ):
        read_manifest(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", ', r"line 2: broken JSON: .* at column 12\. Expected one JSON object per line"),
        ("[1]", r"line 2: the line holds a list\. Expected one JSON object"),
        (_row(duration="2.0"), r"line 2: duration is text: '2.0'\. Expected a number of seconds"),
        (_row(duration=True), r"line 2: duration is true or false: True"),
        (_row(duration=float("nan")), r"line 2: duration is nan\. Expected a finite number"),
        (_row(duration=0), r"line 2: duration is 0\. Expected seconds above 0"),
        (_row(duration=-1.5), r"line 2: duration is -1\.5\. Expected seconds above 0"),
        (
            _row(channel=-1),
            r"line 2: channel is -1\. Expected a whole number, 0 for the first channel",
        ),
        (_row(channel=True), r"line 2: channel is True\. Expected a whole number"),
        (_row(channel="left"), r"line 2: channel is 'left'\. Expected a whole number"),
        (_row(offset=-0.5), r"line 2: offset is -0\.5\. Expected seconds from the file's start, 0 or more"),
        (_row(text=None), r"line 2: text is null: None\. Expected text in quotes"),
        (_row(text="  "), r"line 2: the transcript is empty\. Expected the words that are spoken"),
        (_row(audio_filepath=""), r"line 2: audio_filepath is empty"),
        (_row(audio_filepath=3), r"line 2: audio_filepath is a number: 3"),
        (_row(speaker=["x"]), r"line 2: speaker is a list"),
        (_row(id=1.5), r"line 2: id is a number: 1\.5"),
        (_row(id="first"), r"line 2: the id 'first' is in line 1 already\. Ids must differ"),
        (
            _row(audio_filepath="gone.wav"),
            r"line 2: the audio file .*gone\.wav does not exist\. Relative paths",
        ),
        (_row(audio_filepath="no/gone.wav"), r"line 2: the audio file .*gone\.wav does not exist\."),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: dict[str, object] | str, message: str) -> None:
    """Guards each check, and that file and line number stand in the message (line 1 is good)."""
    path = _manifest(tmp_path, _row(id="first"), line)
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path} line 2: ")


@pytest.mark.parametrize("key", ["audio_filepath", "duration", "text"])
def test_missing_key_is_named(tmp_path: Path, key: str) -> None:
    """Guards against a KeyError without the line, and shows the keys that are there (a misspelt one)."""
    row = _row()
    row["spelt_wrongly"] = row.pop(key)
    with pytest.raises(DataError, match=rf"line 1: the key '{key}' is missing.*spelt_wrongly"):
        read_manifest(_manifest(tmp_path, row))


def test_all_missing_audio_is_counted(tmp_path: Path) -> None:
    """Guards against mending a manifest of a moved corpus one error at a time."""
    rows = [_row(id=f"u{n}", audio_filepath=f"{n}.wav") for n in range(3)]
    with pytest.raises(DataError, match=r"line 2: .*0\.wav does not exist \(and that of 2 more lines\)"):
        read_manifest(_manifest(tmp_path, _row(), *rows))


def test_one_listing_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the speed of large manifests: a look at each file takes minutes on a network disk."""
    path = _manifest(tmp_path, *[_row(id=f"u{n}") for n in range(50)])

    def look(file: Path) -> bool:
        raise AssertionError(f"looked at {file}")

    monkeypatch.setattr(Path, "is_file", look)
    assert len(read_manifest(path)) == 50


def test_empty_transcript_is_allowed_on_request(tmp_path: Path) -> None:
    """Guards recordings of silence, which are good test material but bad training material."""
    assert read_manifest(_manifest(tmp_path, _row(text="")), allow_empty_text=True)[0].text == ""


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_empty_manifest(tmp_path: Path, content: bytes) -> None:
    """Guards against a training on nothing."""
    path = tmp_path / "m.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"m\.jsonl: the manifest is empty"):
        read_manifest(path)


def test_missing_manifest_and_folder(tmp_path: Path) -> None:
    """Guards against a bare FileNotFoundError or IsADirectoryError."""
    with pytest.raises(DataError, match=r"no\.jsonl: cannot read the manifest: No such file"):
        read_manifest(tmp_path / "no.jsonl")
    folder = tmp_path / "my data"
    folder.mkdir()
    with pytest.raises(DataError, match=r"is a folder\. .*: asr corpus folder '.*/my data' --split none -o"):
        read_manifest(folder)
    for name in ("train", "test", "other"):
        (folder / f"{name}.jsonl").touch()
    with pytest.raises(DataError, match=r"is a folder\. .* Name one in it: test\.jsonl, train\.jsonl\."):
        read_manifest(folder)


@pytest.mark.parametrize("line", ["a a.wav", "path,text", '{"id": "a", "recording_id": "a", "text": "x"}'])
def test_lists_that_are_no_manifest(line: str, tmp_path: Path) -> None:
    """Guards a list of Kaldi, a table or a list of lhotse: the command that reads it is named."""
    path = tmp_path / "list"
    path.write_text(f"{line}\n{line}\n")
    with pytest.raises(DataError, match=rf"list line 1: .* asr corpus folder {tmp_path}\.$"):
        read_manifest(path)
    path.write_text(f'{{"audio_filepath": "a.wav", "duration": 1, "text": "x"}}\n{line}\n')
    with pytest.raises(DataError, match=r"list line 2: (?!.*asr corpus folder)"):
        read_manifest(path)


def test_encodings(tmp_path: Path) -> None:
    """Guards files saved on Windows: a byte order mark is accepted, Latin-1 is refused with its line."""
    path = _manifest(tmp_path, _row())
    good = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + good.replace(b"\n", b"\r\n"))
    assert read_manifest(path)[0].text == "hello"
    path.write_bytes(good + "señor\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 2: not UTF-8 \(byte 3\)"):
        read_manifest(path)


def test_failed_write_keeps_the_old_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against half a manifest on a full disk, and against litter."""
    path = _manifest(tmp_path, _row())
    before = path.read_bytes()

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DataError, match=r"cannot write the manifest: No space left.*is unchanged"):
        write_manifest(path, [Utterance(id="n", audio_filepath=tmp_path / "a.wav", duration=1.0, text="new")])
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b.wav", "m.jsonl"]


def test_write_refuses_what_read_would_refuse(tmp_path: Path) -> None:
    """Guards against finding out only at the next start."""
    path = tmp_path / "m.jsonl"
    twin = Utterance(id="n", audio_filepath=tmp_path / "a.wav", duration=1.0, text="x")
    with pytest.raises(DataError, match="the id 'n' occurs twice"):
        write_manifest(path, [twin, twin])
    with pytest.raises(DataError, match="there is no utterance to write"):
        write_manifest(path, [])
    assert not path.exists()


def test_channels_of_an_utterance(tmp_path: Path) -> None:
    """A word for the channels that is ignored in training: the mean of two speakers with one's transcript."""
    (tmp_path / "a.wav").touch()
    row = '{"audio_filepath": "a.wav", "duration": 1, "text": "x", "id": "%s"%s}\n'
    path = tmp_path / "m.jsonl"
    fields = ("", ', "channels": "first"', ', "channels": "mix"', ', "channel": 1, "channels": "separate"')
    path.write_text("".join(row % (number, extra) for number, extra in enumerate(fields)))
    assert [utterance.channel for utterance in read_manifest(path)] == [None, 0, None, 1]
    for value, message in (("separate", "one transcript"), ("both", "Expected mix, first, separate")):
        path.write_text(row % ("a", f', "channels": "{value}"'))
        with pytest.raises(DataError, match=rf"line 1: channels is .*{message}"):
            read_manifest(path)
