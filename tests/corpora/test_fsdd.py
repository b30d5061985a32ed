"""FSDD: the split by speaker, and the copy that comes with the project."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.corpora import digits
from asr.corpora.fsdd import SPEAKERS, next_speaker, prepare, read_folder
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
def test_splits_by_speaker(look_alike: Path, test_speaker: str) -> None:
    """Guards against a speaker on two sides, a recording lost, or the wrong word for a digit."""
    splits = prepare(look_alike, test_speaker)
    assert {u.speaker for u in splits.test} == {test_speaker}
    assert {u.speaker for u in splits.dev} == {next_speaker(test_speaker)}
    assert {u.speaker for u in splits.train} == {*SPEAKERS} - {test_speaker, next_speaker(test_speaker)}
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [80, 20, 20]
    seven = next(u for u in splits.test if u.id == f"7_{test_speaker}_1")
    assert (seven.text, seven.offset, seven.duration) == ("seven", 0.0, pytest.approx(807 / 8000))
    named = prepare(look_alike / "recordings", test_speaker, next_speaker(test_speaker))
    assert named == splits


def test_part_is_reported(look_alike: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards against results on a part of the corpus that pass for those of the whole."""
    with caplog.at_level(logging.WARNING, logger="asr"):
        prepare(look_alike, "theo")
    assert "120 recordings, where FSDD has 3000" in caplog.text


def test_unknown_or_repeated_speaker(look_alike: Path) -> None:
    """Guards against an empty test set, and against choosing on the test set."""
    with pytest.raises(SettingsError, match=r"test speaker is 'bob'.*george, jackson"):
        prepare(look_alike, "bob")
    with pytest.raises(SettingsError, match="dev speaker is 'bob'"):
        prepare(look_alike, "theo", "bob")
    with pytest.raises(SettingsError, match="both the test speaker and the dev speaker"):
        prepare(look_alike, "theo", "theo")


def test_folder_that_is_not_fsdd(look_alike: Path, tmp_path: Path) -> None:
    """Guards against a wrong or half-copied folder that only shows as an odd result later."""
    with pytest.raises(DataError, match="no such folder"):
        prepare(tmp_path / "nowhere", "theo")
    other = look_alike / "recordings" / "hello.wav"
    soundfile.write(other, np.zeros(800), 8000)
    with pytest.raises(DataError, match=r"hello\.wav: not a recording of FSDD"):
        prepare(look_alike, "theo")
    other.unlink()
    for path in (look_alike / "recordings").glob("*_lucas_*.wav"):
        path.unlink()
    with pytest.raises(DataError, match="no recording of lucas among 100 wav files"):
        prepare(look_alike, "theo")


def test_embedded_copy() -> None:
    """Guards the copy in data/fsdd: complete, balanced, its segments one after the other, up to the files'
    ends, and as loud as speech where they stand."""
    splits = prepare(None, "jackson")
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [2000, 500, 500]
    for part in (splits.train, splits.dev, splits.test):
        assert len(set(Counter(u.text for u in part).values())) == 1
    every = splits.train + splits.dev + splits.test
    assert sum(u.duration for u in every) / 3600 == pytest.approx(0.36, abs=0.01)
    for path in {u.audio_filepath for u in every}:
        waveform, rate = soundfile.read(path)
        position = 0
        for one in (u for u in every if u.audio_filepath == path):
            begin, end = round(one.offset * rate), round((one.offset + one.duration) * rate)
            assert begin == position
            assert np.abs(waveform[begin:end]).max() > 0.001, one.id
            position = end + round(0.05 * rate)
        assert len(waveform) == position


def test_embedded_copy_is_that_of_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the message of an installation without the repository."""
    monkeypatch.setattr(digits, "__file__", str(tmp_path / "asr" / "corpora" / "digits.py"))
    with pytest.raises(DataError, match=r"data/fsdd: the embedded recordings do not exist\. .* from a clone"):
        prepare(None, "theo")


def test_embedded_copy_equals_the_original(speech: Path) -> None:
    """Guards the segments of the copy: each correlates with the original recording, which Opus only
    compresses."""
    originals = {u.id: u for u in read_folder(speech / "fsdd")}
    for one in prepare(None, "theo").test[::25]:
        original, rate = soundfile.read(originals[one.id].audio_filepath)
        with soundfile.SoundFile(one.audio_filepath) as file:
            scale = file.samplerate // rate
            file.seek(round(one.offset * file.samplerate))
            copy = file.read(len(original) * scale)[::scale]
        assert one.text == originals[one.id].text
        assert len(copy) == len(original)
        assert np.corrcoef(copy, original)[0, 1] > 0.8, one.id
