"""Folders of one's own: train, dev and test, as the folder has them or as they are drawn."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.corpora.corpus import LeftOut
from asr.corpora.folder.reading import read_folder
from asr.transcripts.segments import SEGMENT_READERS
from tests.corpora.folder.folders import read, reasons
from tests.corpora.look_alikes import sound, write


def test_split_by_utterance_is_said(tmp_path: Path) -> None:
    """A score on the voices of training that looks like one on new voices."""
    for number in range(20):
        sound(tmp_path / f"{number}.wav")
        write(tmp_path / f"{number}.txt", "word")
    reading = read(tmp_path)
    assert [len(reading.splits[name]) for name in ("train", "dev", "test")] == [16, 2, 2]
    assert reading.split_by.startswith("by utterance: no speaker is named")


def test_own_splits(tmp_path: Path) -> None:
    """A test set that is mixed into training."""
    for part in ("train-clean-5", "dev_set", "test"):
        sound(tmp_path / part / f"{part}.wav")
        write(tmp_path / part / f"{part}.txt", "word")
    reading = read(tmp_path)
    assert {name: [one.id for one in part] for name, part in reading.splits.items()} == {
        "train": ["train-clean-5-train-clean-5"], "dev": ["dev_set-dev_set"], "test": ["test-test"],
    }  # fmt: skip
    assert reading.split_by.startswith("the folder's own")


def test_own_splits_without_dev(tmp_path: Path) -> None:
    """A folder with train and test, as Kaldi's often are, that no training can start from."""
    for number in range(12):
        part = "test" if number < 2 else "train"
        sound(tmp_path / f"{part}/p{number}/{number}.wav")
        write(tmp_path / f"{part}/p{number}/{number}.txt", "word")
    reading = read(tmp_path)
    assert [len(reading.splits[name]) for name in ("train", "dev", "test")] == [9, 1, 2]
    assert {one.speaker for one in reading.splits["test"]} == {"p0", "p1"}
    assert reading.split_by.endswith("; dev of train, by speaker, of 10")


def test_own_splits_of_lists(tmp_path: Path) -> None:
    """Lists that are called train, dev and test, with a word before or after it; a recording called test."""
    for name in ("a", "b", "c", "test-1"):
        sound(tmp_path / f"clips/{name}.wav")
    for list_name, name in {"an4_train_manifest": "a", "manifest_val": "b", "Test_set": "c"}.items():
        write(
            tmp_path / f"{list_name}.jsonl", json.dumps({"audio_filepath": f"clips/{name}.wav", "text": name})
        )
    write(tmp_path / "clips/test-1.txt", "no set")
    reading = read(tmp_path)
    assert {name: [one.text for one in part] for name, part in reading.splits.items()} == {
        "train": ["a"], "dev": ["b"], "test": ["c"],
    }  # fmt: skip
    assert reasons(reading) == {"in none of the folder's sets, train, dev and test": 1}


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_own_splits_of_a_column(name: str, tmp_path: Path) -> None:
    """A column split that is passed over, so that its test set is drawn again."""
    rows = [("a", "train"), ("b", "validation"), ("c", "test"), ("d", "TRAIN")]
    for audio, _ in rows:
        sound(tmp_path / f"{audio}.wav")
    if name == "t.csv":
        write(tmp_path / name, "path,text,split\n" + "".join(f"{a}.wav,word,{s}\n" for a, s in rows))
    else:
        lines = ({"audio_filepath": f"{a}.wav", "text": "word", "split": s} for a, s in rows)
        write(tmp_path / name, "".join(json.dumps(line) + "\n" for line in lines))
    reading = read(tmp_path)
    assert {name: [one.id for one in part] for name, part in reading.splits.items()} == {
        "train": ["a", "d"], "dev": ["b"], "test": ["c"],
    }  # fmt: skip


def kaldi_sets(root: Path, *sets: str) -> None:
    """Folders of Kaldi, each with three utterances of three speakers."""
    for name in sets:
        keys = [f"s{number}-{name}" for number in range(3)]
        for key in keys:
            sound(root / f"audio/{key}.wav")
        write(root / f"data/{name}/wav.scp", "".join(f"{key} {root}/audio/{key}.wav\n" for key in keys))
        write(root / f"data/{name}/text", "".join(f"{key} word\n" for key in keys))
        write(root / f"data/{name}/utt2spk", "".join(f"{key} {key}\n" for key in keys))


def test_sets_of_kaldi(tmp_path: Path) -> None:
    """A test set that is drawn again into training, since a folder beside it has another name."""
    kaldi_sets(tmp_path, "train_si84", "train_dev", "test_dev93", "eval2000", "rt03")
    reading = read(tmp_path / "data")
    assert {
        name: sorted({one.id[3:] for one in part}) for name, part in reading.splits.items()
    } == {"train": ["train_si84"], "dev": ["test_dev93", "train_dev"], "test": ["eval2000"]}  # fmt: skip
    assert reasons(reading) == {"in none of the folder's sets, train, dev and test": 3}
    assert reading.split_by == "the folder's own, by the names of its files and folders, or by its lists"


def test_recordings_outside(tmp_path: Path) -> None:
    """A folder of Kaldi whose recordings lie beside it, with other endings; those that no text has."""
    kaldi_sets(tmp_path, "test")
    (tmp_path / "data/test/text").write_text("s0-test word\ns1-test word\n")
    lines = (tmp_path / "data/test/wav.scp").read_text()
    (tmp_path / "data/test/wav.scp").write_text(lines.replace(".wav", ".sph"))
    reading = read_folder(tmp_path / "data/test", SEGMENT_READERS, split="none")
    assert [one.id for one in reading.splits["all"]] == ["s0-test", "s1-test"]
    assert reading.left_out == [LeftOut(str(tmp_path / "audio/s2-test.wav"), "audio without transcript")]


def test_what_is_no_test_set_is_train(tmp_path: Path) -> None:
    """A test set that is drawn again into training, since no folder is called train."""
    kaldi_sets(tmp_path, "anna", "ben", "carl", "test")
    reading = read(tmp_path / "data")
    assert {one.id[3:] for one in reading.splits["test"]} == {"test"}
    assert [len(reading.splits[name]) for name in ("train", "dev", "test")] == [8, 1, 3]
    assert "; what has no such name is train; dev of train, by speaker" in reading.split_by


def test_one_set(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """A test set that becomes three, without a word of how to keep it; manifests of an earlier run."""
    kaldi_sets(tmp_path, "test")
    assert [*read(tmp_path / "data").splits] == ["test"]
    status, out, _ = run("corpus", "folder", tmp_path / "data/test", "-o", tmp_path / "out")
    assert (status, len(list((tmp_path / "out/test").iterdir()))) == (0, 3)
    assert "; test is the name of one set, test: --split none keeps it whole" in out
    one = ("corpus", "folder", tmp_path / "data/test", "-o", tmp_path / "out", "--split", "none")
    status, out, _ = run(*one)
    assert (status, [path.name for path in (tmp_path / "out/test").iterdir()]) == (0, ["all.jsonl"])
    assert "split: none" in out
    assert len((tmp_path / "out/test/all.jsonl").read_text("utf-8").splitlines()) == 3
    run(*one[:-2])
    assert not (tmp_path / "out/test/all.jsonl").exists()
