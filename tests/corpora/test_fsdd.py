"""FSDD: the split by speaker, and the recordings that results were measured on."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.corpora import fsdd
from asr.corpora.fsdd import SPEAKERS, next_speaker, prepare
from asr.errors import DataError, SettingsError


@pytest.fixture
def look_alike(tmp_path: Path) -> Path:
    """Two recordings of each digit by each speaker, laid out as FSDD is."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for speaker in SPEAKERS:
        for digit in range(10):
            for index in range(2):
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", np.zeros(800 + digit), 8000)
    return tmp_path / "fsdd"


def test_next_speaker_is_a_cycle() -> None:
    """Guards against a dev speaker that falls off the end of the list."""
    assert next_speaker("george") == "jackson"
    assert next_speaker("yweweler") == "george"
    assert {next_speaker(speaker) for speaker in SPEAKERS} == set(SPEAKERS)


@pytest.mark.parametrize("test_speaker", SPEAKERS)
def test_splits_by_speaker(look_alike: Path, tmp_path: Path, test_speaker: str) -> None:
    """Guards against a speaker on two sides, a recording lost, or the wrong word for a digit."""
    splits = prepare(look_alike, tmp_path, test_speaker)
    assert {u.speaker for u in splits.test} == {test_speaker}
    assert {u.speaker for u in splits.dev} == {next_speaker(test_speaker)}
    assert {u.speaker for u in splits.train} == {*SPEAKERS} - {test_speaker, next_speaker(test_speaker)}
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [80, 20, 20]
    seven = next(u for u in splits.test if u.id == f"7_{test_speaker}_1")
    assert (seven.text, seven.offset, seven.duration) == ("seven", 0.0, pytest.approx(807 / 8000))
    named = prepare(look_alike / "recordings", tmp_path, test_speaker, next_speaker(test_speaker))
    assert named == splits


def test_part_is_reported(look_alike: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards against results on a part of the corpus that pass for those of the whole."""
    with caplog.at_level(logging.WARNING, logger="asr"):
        prepare(look_alike, tmp_path, "theo")
    assert "120 recordings, where FSDD has 3000" in caplog.text


def test_unknown_or_repeated_speaker(look_alike: Path, tmp_path: Path) -> None:
    """Guards against an empty test set, and against choosing on the test set."""
    with pytest.raises(SettingsError, match=r"test speaker is 'bob'.*george, jackson"):
        prepare(look_alike, tmp_path, "bob")
    with pytest.raises(SettingsError, match="dev speaker is 'bob'"):
        prepare(look_alike, tmp_path, "theo", "bob")
    with pytest.raises(SettingsError, match="both the test speaker and the dev speaker"):
        prepare(look_alike, tmp_path, "theo", "theo")


def test_folder_that_is_not_fsdd(look_alike: Path, tmp_path: Path) -> None:
    """Guards against a wrong or half-copied folder that only shows as an odd result later."""
    with pytest.raises(DataError, match="no such folder"):
        prepare(tmp_path / "nowhere", tmp_path, "theo")
    other = look_alike / "recordings" / "hello.wav"
    soundfile.write(other, np.zeros(800), 8000)
    with pytest.raises(DataError, match=r"hello\.wav: not a recording of FSDD"):
        prepare(look_alike, tmp_path, "theo")
    other.unlink()
    for path in (look_alike / "recordings").glob("*_lucas_*.wav"):
        path.unlink()
    with pytest.raises(DataError, match="no recording of lucas among 100 wav files"):
        prepare(look_alike, tmp_path, "theo")


def test_download_is_used_and_compared(
    look_alike: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a download that is ignored, or other recordings that pass for the measured ones."""
    asked: list[Path] = []

    def fake_fetch(archive: object, folder: Path) -> Path:
        asked.append(folder)
        assert archive is fsdd.ARCHIVE
        return look_alike

    monkeypatch.setattr(fsdd, "fetch", fake_fetch)
    with caplog.at_level(logging.WARNING, logger="asr"):
        assert len(prepare(None, tmp_path / "data", "lucas").train) == 80
    assert asked == [tmp_path / "data"]
    assert "not byte for byte" in caplog.text


def test_real_fsdd(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a layout that only the look-alike has; the digest is that of the real recordings."""
    monkeypatch.setattr(fsdd, "fetch", lambda archive, folder: speech / "fsdd")
    with caplog.at_level(logging.WARNING, logger="asr"):
        splits = prepare(None, tmp_path, "jackson")
    assert not caplog.records
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [2000, 500, 500]
    for part in (splits.train, splits.dev, splits.test):
        assert len(set(Counter(u.text for u in part).values())) == 1
    every = splits.train + splits.dev + splits.test
    assert sum(u.duration for u in every) / 3600 == pytest.approx(0.36, abs=0.01)
    assert all(0.1 < u.duration < 3.0 for u in every)
