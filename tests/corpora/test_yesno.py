"""YesNo: the split that others report on, and folders that are not YesNo."""

import itertools
import wave
from pathlib import Path

import pytest

from asr.corpora import yesno
from asr.errors import DataError


def _write_wav(path: Path, samples: int, sample_rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(bytes(2 * samples))


def _look_alike(folder: Path) -> Path:
    names = ["_".join(digits) for digits in itertools.islice(itertools.product("01", repeat=8), 60)]
    for name in names:
        _write_wav(folder / f"{name}.wav", 4000)
    return folder


def test_split_of_a_look_alike(tmp_path: Path) -> None:
    """Guards the split: test is lhotse's test set, and dev is taken out of train, never out of test."""
    folder = _look_alike(tmp_path / "waves_yesno")
    (folder / "._0_0_0_0_0_0_0_0.wav").touch()  # litter of the system that packed the archive
    names = sorted(path.stem for path in folder.glob("[01]*.wav"))
    splits = yesno.prepare(tmp_path, tmp_path / "unused")
    assert [u.id for u in splits.test] == names[1::2]
    assert [u.id for u in splits.dev] == names[::2][5::6]
    assert sorted(u.id for u in splits.train + splits.dev) == names[::2]
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (25, 5, 30)
    assert not (tmp_path / "unused").exists()


def test_text_and_duration(tmp_path: Path) -> None:
    """Guards 1 = yes, 0 = no (turned round, training works as well and every score is wrong)."""
    splits = yesno.prepare(_look_alike(tmp_path), tmp_path)
    by_id = {u.id: u for u in splits.train + splits.dev + splits.test}
    assert by_id["0_0_0_0_0_1_1_0"].text == "no no no no no yes yes no"
    assert by_id["0_0_0_0_0_1_1_0"].duration == 0.5
    assert by_id["0_0_0_0_0_1_1_0"].audio_filepath == tmp_path / "0_0_0_0_0_1_1_0.wav"


def test_without_a_root_the_corpus_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the download branch (the fetch itself is tested elsewhere)."""
    monkeypatch.setattr(yesno, "fetch", lambda archive, folder: _look_alike(folder / archive.unpacks_to))
    assert len(yesno.prepare(None, tmp_path).test) == 30
    assert (tmp_path / "waves_yesno" / "0_0_0_0_0_0_0_0.wav").exists()


def test_folders_that_are_not_yesno(tmp_path: Path) -> None:
    """Guards against training on another folder of wav files, or on part of the corpus."""
    with pytest.raises(DataError, match=r"nowhere: no such folder.*Correct --data\.root"):
        yesno.prepare(tmp_path / "nowhere", tmp_path)
    with pytest.raises(DataError, match=r"0 wav files\. Expected the 60 of YesNo"):
        yesno.prepare(tmp_path, tmp_path)
    folder = _look_alike(tmp_path / "y")
    (folder / "0_0_0_0_0_0_0_0.wav").unlink()
    with pytest.raises(DataError, match=r"59 wav files\. Expected the 60"):
        yesno.prepare(folder, tmp_path)
    _write_wav(folder / "hello.wav", 100)
    with pytest.raises(DataError, match=r"hello\.wav: not a file of YesNo"):
        yesno.prepare(folder, tmp_path)


def test_real_corpus(speech: Path) -> None:
    """Guards the counts on the real recordings: 240 test words."""
    splits = yesno.prepare(speech / "waves_yesno", speech)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (25, 5, 30)
    assert sum(len(u.text.split()) for u in splits.test) == 240
    assert 350 < sum(u.duration for u in splits.train + splits.dev + splits.test) < 375
