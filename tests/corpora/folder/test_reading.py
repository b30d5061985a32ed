"""Folders of one's own: every layout, what has no partner, speakers, files that cannot be read."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.corpora.corpus import LeftOut
from asr.errors import DataError
from tests.corpora.folder.folders import everything, read, reasons
from tests.corpora.look_alikes import sound, write


def beside(root: Path) -> dict[str, str]:
    for name, ending in (("one", ".txt"), ("a two", ".lab"), ('q"3', ".txt"), ("vier\nвосемь", ".txt")):
        sound(root / f"{name}.wav")
        write(root / f"{name}{ending}", f"Words of\n{name[0]}.\n")
    write(root / "README.md", "not a transcript")
    return {"one": "Words of o.", "a_two": "Words of a.", 'q"3': "Words of q.", "vier_восемь": "Words of v."}


def table(root: Path) -> dict[str, str]:
    sound(root / "clips/a.mp3", 0.3)
    sound(root / "clips/b.mp3", 0.3)
    write(root / "transcripts.tsv", 'client_id\tpath\tsentence\ns1\ta.mp3\tSay "no\ns2\tb\tOh\n')
    return {"clips-a": 'Say "no', "clips-b": "Oh"}


def table_with_commas(root: Path) -> dict[str, str]:
    sound(root / "a.wav")
    write(root / "t.csv", 'wav_filename,wav_filesize,transcript\na.wav,3,"well, well"\n')
    return {"a": "well, well"}


def table_without_header(root: Path) -> dict[str, str]:
    sound(root / "a.wav")
    write(root / "transcripts.tsv", "a.wav\tgo there\n")
    return {"a": "go there"}


def librispeech(root: Path) -> dict[str, str]:
    sound(root / "84/121/84-121-0000.flac")
    write(root / "84/121/84-121.trans.txt", "84-121-0000 GO DO\n")
    return {"84-121-0000": "GO DO"}


def ljspeech(root: Path) -> dict[str, str]:
    sound(root / "wavs/LJ1.wav")
    write(root / "metadata.csv", 'LJ1|Dr. "A|doctor "A\n')
    return {"LJ1": 'doctor "A'}


def coqui(root: Path) -> dict[str, str]:
    sound(root / "wavs/a.wav")
    write(root / "metadata.csv", "audio_file|text|speaker_name\nwavs/a.wav|hello|anna\n")
    return {"wavs-a": "hello"}


def nemo(root: Path) -> dict[str, str]:
    sound(root / "a b.wav")
    sound(root / "long.wav", 3.0)
    rows = [
        {"audio_filepath": "a b.wav", "duration": 99, "text": "hi"},
        {"audio_filepath": str(root / "long.wav"), "duration": 1, "text": "part", "offset": 1.5},
    ]
    write(root / "train_manifest.json", "".join(json.dumps(row) + "\n" for row in rows))
    return {"a_b": "hi", "long": "part"}


def kaldi(root: Path) -> dict[str, str]:
    sound(root / "audio/call.wav", 2.0)
    sound(root / "audio/x.wav")
    write(root / "data/wav.scp", f"call sox '{root}/audio/call.wav' -t wav - |\nx audio/x.wav\n")
    write(root / "data/text", "call-1 one\ncall-2 two words\n")
    write(root / "data/segments", "call-1 call 0 0.5\ncall-2 call 0.5 -1\n")
    write(root / "data/utt2spk", "call-1 anna\ncall-2 ben\n")
    return {"call-1": "one", "call-2": "two words"}


def subtitles(root: Path) -> dict[str, str]:
    sound(root / "talk.wav", 3.0)
    cues = ["0:00:00,500 --> 0:00:01,000\nYes,\nyes", "0:00:01,000 --> 0:00:01,500\n[music]",
            "0:00:02,000 --> 0:00:09,000\n<i>the end</i>"]  # fmt: skip
    write(root / "talk.srt", "\n\n".join(cues) + "\n")
    return {"talk-0001": "Yes, yes", "talk-0003": "the end"}


def textgrid(root: Path) -> dict[str, str]:
    sound(root / "t.wav", 9.0)
    rows = [(0, 0.5, ""), (0.5, 2, "so"), (2, 4, "there"), (4, 6, ""), (6, 8, "it is"), (8, 9, "")]
    intervals = "".join(f'{start} {end} "{text}"\n' for start, end, text in rows)
    head = '"ooTextFile"\n"TextGrid"\n0 9 <exists> 1\n"IntervalTier" "words" 0 9 6\n'
    write(root / "t.TextGrid", head + intervals)
    return {"t-0001": "so there", "t-0002": "it is"}


LAYOUTS: dict[str, Callable[[Path], dict[str, str]]] = {
    "beside": beside, "table": table, "table_with_commas": table_with_commas, "librispeech": librispeech,
    "table_without_header": table_without_header, "ljspeech": ljspeech, "coqui": coqui, "nemo": nemo,
    "kaldi": kaldi, "subtitles": subtitles, "textgrid": textgrid,
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, tmp_path: Path) -> None:
    """A layout that is not understood, or read with the text of another column."""
    expected = LAYOUTS[name](tmp_path / "my folder")
    reading = read(tmp_path / "my folder")
    assert {key: one.text for key, one in everything(reading).items()} == expected
    assert all(one.audio_filepath.is_file() for one in everything(reading).values())
    assert reasons(reading) == ({"audio without transcript": 1} if name == "kaldi" else {})
    assert len(reading.found) == 1


def test_parts_of_recordings(tmp_path: Path) -> None:
    """Offsets that are lost, ends after the end of the recording, lengths that somebody else wrote."""
    for layout in (nemo, kaldi, subtitles, textgrid):
        layout(tmp_path / layout.__name__)
    found = {
        key: (one.offset, round(one.duration, 3))
        for layout in (nemo, kaldi, subtitles, textgrid)
        for key, one in everything(read(tmp_path / layout.__name__)).items()
    }
    assert found == {
        "a_b": (0.0, 0.1), "long": (1.5, 1.0), "call-1": (0.0, 0.5), "call-2": (0.5, 1.5),
        "talk-0001": (0.5, 0.5), "talk-0003": (2.0, 1.0), "t-0001": (0.3, 3.9), "t-0002": (5.8, 2.4),
    }  # fmt: skip


def test_speakers(tmp_path: Path) -> None:
    """Speakers of the layout, or of the folders; folders that are none, such as clips."""
    for layout in (table, coqui, kaldi, librispeech):
        layout(tmp_path / layout.__name__)
    named = {
        layout.__name__: sorted(
            {one.speaker for one in everything(read(tmp_path / layout.__name__)).values()}
        )
        for layout in (table, coqui, kaldi, librispeech)
    }
    assert named == {
        "table": ["s1", "s2"], "coqui": ["anna"], "kaldi": ["anna", "ben"], "librispeech": ["84"],
    }  # fmt: skip
    for number in range(40):
        sound(tmp_path / f"folders/wavs/p{number % 8}/{number}.wav")
        write(tmp_path / f"folders/wavs/p{number % 8}/{number}.txt", "word")
    reading = read(tmp_path / "folders")
    speakers = {name: {one.speaker for one in part} for name, part in reading.splits.items()}
    assert [len(speakers[name]) for name in ("train", "dev", "test")] == [6, 1, 1]
    assert len(set.union(*speakers.values())) == 8
    assert reading.split_by == "by speaker, of 8"
    other = read(tmp_path / "folders", seed=1)
    assert {one.speaker for one in other.splits["test"] + other.splits["dev"]} != (
        speakers["test"] | speakers["dev"]
    )


def test_a_clip_of_several_lists(tmp_path: Path) -> None:
    """A test set that is trained on, since another list has all clips; clips that nobody accepted."""
    rows = {name: f"c\t{name}.wav\tword {name}\n" for name in ("a", "b", "c", "bad")}
    for name in rows:
        sound(tmp_path / f"clips/{name}.wav")
    lists = {"validated": "abc", "train": "a", "dev": "b", "test": "c"}
    for split, names in lists.items():
        write(tmp_path / f"{split}.tsv", "client_id\tpath\tsentence\n" + "".join(map(rows.get, names)))
    write(tmp_path / "invalidated.tsv", "client_id\tpath\tsentence\n" + rows["bad"])
    reading = read(tmp_path)
    assert {name: [one.text for one in part] for name, part in reading.splits.items()} == {
        "train": ["word a"], "dev": ["word b"], "test": ["word c"],
    }  # fmt: skip
    assert reasons(reading) == {"audio without transcript": 1}
    assert sum(one.why == "in another line or list, too" for one in reading.left_out) == 3


def test_tables(tmp_path: Path) -> None:
    """Cells of two lines that are glued, an open quote that swallows the lines after it, without a word."""
    for name in "abcd":
        sound(tmp_path / f"{name}.wav")
    rows = ["path;text", 'a.wav;"semi; colon"', 'b.wav;"two', 'lines"', 'c.wav;"open', "d.wav;word"]
    write(tmp_path / "t.csv", "\ufeff" + "\r\n".join(rows) + "\r\n")
    reading = read(tmp_path)
    assert {key: one.text for key, one in everything(reading).items()} == {
        "a": "semi; colon",
        "b": "two lines",
    }
    assert reasons(reading) == {"quotes that do not match": 1, "audio without transcript": 2}
    assert any(one.what.endswith("t.csv lines 5 to 6") for one in reading.left_out)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "metadata.csv", "text", "m.jsonl"])
def test_lists_in_utf_16(name: str, tmp_path: Path) -> None:
    """A table of Excel that is not seen, and a message that has no remedy for it."""
    sound(tmp_path / "a.wav")
    write(tmp_path / "wav.scp", "a a.wav\n")
    line = {"t.csv": "path,text", "t.tsv": "path\ttext", "metadata.csv": "a|x|y", "text": "a word",
            "m.jsonl": '{"audio_filepath": "a.wav", "text": "word"}'}[name]  # fmt: skip
    (tmp_path / name).write_bytes(f"{line}\n".encode("utf-16"))
    with pytest.raises(
        DataError, match=rf"no recording with a transcript.*{name}: unreadable text: is UTF-16.*iconv"
    ):
        read(tmp_path)


def test_columns_that_have_other_names(tmp_path: Path) -> None:
    """A table that is not understood, and a message that does not say why."""
    sound(tmp_path / "a.wav")
    write(tmp_path / "t.csv", "my file,words\na.wav,hi\n")
    with pytest.raises(
        DataError, match="columns for recording and transcript: such as audio and text, in 'my fi"
    ):
        read(tmp_path)


def test_segments_outside_the_recording(tmp_path: Path) -> None:
    """An offset below 0 in a manifest; cues that go backwards."""
    sound(tmp_path / "a.wav", 2.0)
    sound(tmp_path / "b.wav", 2.0)
    rows = [
        {"audio_filepath": "a.wav", "text": "w", "offset": offset, "duration": 1} for offset in (-1, 9, 1)
    ]
    rows.append({"audio_filepath": "a.wav", "text": "w", "channel": -1})
    write(tmp_path / "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write(tmp_path / "b.srt", "1\n00:00:01,500 --> 00:00:01,000\nword\n")
    reading = read(tmp_path)
    assert [(one.offset, one.duration) for one in everything(reading).values()] == [(1.0, 1.0)]
    assert reasons(reading) == {
        "no JSON object with audio_filepath and text": 2, "a segment that ends before it begins": 1,
        "a segment that begins after the end of its recording": 1,
    }  # fmt: skip


def test_what_is_left_out(tmp_path: Path) -> None:
    """Half a folder that disappears without a word; UTF-16 without the remedy; a link loop."""
    for name in ("good", "no text", "empty", "utf16"):
        sound(tmp_path / f"{name}.wav")
    write(tmp_path / "good.txt", "fine")
    write(tmp_path / "empty.txt", " \n")
    write(tmp_path / "alone.txt", "no audio")
    (tmp_path / "utf16.txt").write_bytes("hello there".encode("utf-16"))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    write(tmp_path / "broken.txt", "broken")
    write(tmp_path / "list.tsv", "path\ttext\nmissing.wav\twords\n")
    os.symlink(tmp_path, tmp_path / "loop")
    os.symlink("nowhere", tmp_path / "link.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    reading = read(tmp_path)
    assert [*everything(reading)] == ["good"]
    assert reasons(reading) == {
        "audio without transcript": 1, "no words in its transcript": 2, "transcript without audio": 2,
        "unreadable text": 1, "unreadable audio": 1, "a link that leads nowhere": 1,
        "neither file nor folder": 1,
    }  # fmt: skip
    (utf16,) = (one for one in reading.left_out if one.why.startswith("unreadable text"))
    assert "is UTF-16" in utf16.why
    assert "iconv -f UTF-16 -t UTF-8" in utf16.why
    assert LeftOut(str(tmp_path / "alone.txt"), "transcript without audio") in reading.left_out


def test_links_and_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording under the name of a link beside its folder, links outside that are passed over, a folder
    without the right to read it that disappears.
    """
    for name in ("in/z/one", "out/two", "in/secret/three"):
        sound(tmp_path / f"{name}.wav")
        write(tmp_path / f"{name}.txt", "word")
    os.symlink(tmp_path / "in/z", tmp_path / "in/a")
    os.symlink(tmp_path / "out", tmp_path / "in/b")
    os.symlink(tmp_path / "in", tmp_path / "out/loop")
    os.symlink("self.wav", tmp_path / "in/self.wav")
    scandir = os.scandir

    def without_right(path: str) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_right)
    reading = read(tmp_path / "in")
    assert {*everything(reading)} == {"z-one", "b-two"}
    assert {Path(one.what).name: one.why for one in reading.left_out} == {
        "secret": "unreadable folder: Permission denied", "self.wav": "a link that leads nowhere",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["nothing", "missing", "file"])
def test_no_folder(kind: str, tmp_path: Path) -> None:
    """A traceback, or an empty manifest."""
    path = tmp_path / kind
    if kind == "nothing":
        sound(path / "a.wav")
    elif kind == "file":
        write(path, "")
    message = {"nothing": "no recording with a transcript: 1 recordings, 0 other files",
               "missing": "no such folder", "file": "is a file.* Name its folder: /"}[kind]  # fmt: skip
    with pytest.raises(DataError, match=message):
        read(path)


def test_command(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Manifests that are not where the summary says, status 0 for half a folder."""
    beside(tmp_path / "mine")
    status, out, err = run("corpus", "folder", tmp_path / "mine", "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    assert (tmp_path / "out/mine/train.jsonl").is_file()
    assert "recordings by layout: 4 beside" in out
    assert "split: by utterance: no speaker" in out
    sound(tmp_path / "mine/more.wav")
    status, _, err = run("corpus", "folder", tmp_path / "mine", "-o", tmp_path / "out")
    assert status == 1
    assert "left out: 1 audio without transcript, such as" in err
    status, _, err = run("corpus", "folder", tmp_path / "mine", "-o", tmp_path / "mine")
    assert (status, "is inside" in err) == (2, True)
    assert not (tmp_path / "mine/mine").exists()


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\nFile Name;Text\na.wav;well, well\n",
        'file, text\na.wav, "well, well"\n',
        'audio_path,text\n clips\\a.wav ,"well, well"\n',
    ],
)
def test_tables_of_spreadsheets(content: str, tmp_path: Path) -> None:
    """Guards what Excel and Windows write: the separator in a first line, spaces, paths with backslashes."""
    sound(tmp_path / "clips/a.wav")
    write(tmp_path / "t.csv", content)
    assert {one.text for one in everything(read(tmp_path)).values()} == {"well, well"}


def test_lists_of_other_tools(tmp_path: Path) -> None:
    """Guards the metadata.jsonl of Hugging Face, a JSON list, and file addresses."""
    rows = [{"file_name": f"{name}.wav", "transcription": f"words of {name}"} for name in "ab"]
    rows[1]["file_name"] = (tmp_path / "2/b.wav").as_uri()
    for folder, content in (
        ("1", "\n".join(map(json.dumps, rows[:1]))),
        ("2", json.dumps(rows[1:], indent=1)),
    ):
        sound(tmp_path / folder / f"{rows[int(folder) - 1]['transcription'][-1]}.wav")
        write(tmp_path / folder / "metadata.jsonl", content)
    assert {one.text for one in everything(read(tmp_path)).values()} == {"words of a", "words of b"}


def test_parts_by_start_and_end(tmp_path: Path) -> None:
    """Guards columns start and end, without which each part had all of its recording."""
    sound(tmp_path / "a.wav", 2.0)
    write(tmp_path / "t.csv", "file,text,start,end\na.wav,one,0,0.5\na.wav,two,0.5,1.25\na.wav,three,1.5,9\n")
    reading = read(tmp_path)
    parts = {one.text: (one.offset, one.duration) for one in everything(reading).values()}
    assert parts == {"one": (0.0, 0.5), "two": (0.5, 0.75)}
    assert [one.why for one in reading.left_out] == [
        "a segment that ends at 9 s, after the end of its recording, at 2 s"
    ]


def test_two_transcripts_of_a_recording(tmp_path: Path) -> None:
    """Guards a recording with two different texts, of which one must be wrong."""
    sound(tmp_path / "a.wav")
    write(tmp_path / "t.csv", "file,text\na.wav,one\na.wav,two\n")
    reading = read(tmp_path)
    assert [one.text for one in everything(reading).values()] == ["one"]
    assert reasons(reading) == {"another transcript of a recording that has one": 1}


def test_speakers_of_some(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards a utt2spk that lacks utterances: who they are is unknown, and that is said."""
    for name in "ab":
        sound(tmp_path / f"{name}.wav")
    write(tmp_path / "wav.scp", f"a {tmp_path}/a.wav\nb {tmp_path}/b.wav\n")
    write(tmp_path / "text", "a one\nb two\n")
    write(tmp_path / "utt2spk", "a s1\n")
    assert {one.speaker for one in everything(read(tmp_path)).values()} == {"s1", ""}
    assert "utt2spk: no speaker of 1 of the 2 utterances of text, such as b" in caplog.text


def test_subtitles_without_a_text(tmp_path: Path) -> None:
    """Guards an empty file beside a recording: the error names it."""
    sound(tmp_path / "a.wav")
    write(tmp_path / "a.srt", "")
    with pytest.raises(DataError, match=r"a\.srt: a transcript without segments"):
        read(tmp_path)
