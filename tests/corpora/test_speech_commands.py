"""Speech Commands: the published split, and folders that are not the corpus."""

import json
import wave
from pathlib import Path

import pytest

from asr.corpora import speech_commands
from asr.errors import DataError, SettingsError


def _write_wav(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(2 * 16000))


def _look_alike(folder: Path, words: tuple[str, ...]) -> None:
    for word in words:
        for number in range(60):
            _write_wav(folder / word / f"{number:08x}_nohash_0.wav")


def test_split_is_the_published_one(speech: Path) -> None:
    """A split that drifts from the published one would put test speakers into training, and compare with
    nobody. The manifest beside the recordings has the sets of the corpus's own lists."""
    rows = (speech / "mini_speech_commands" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    published = {row["id"]: row["split"].replace("validation", "dev") for row in map(json.loads, rows)}
    splits = speech_commands.prepare(speech / "mini_speech_commands", Path("unused"))
    ours = {
        utterance.id: name
        for name, part in (("train", splits.train), ("dev", splits.dev), ("test", splits.test))
        for utterance in part
    }
    assert ours == published


def test_no_speaker_stands_on_two_sides(tmp_path: Path) -> None:
    """The number after `_nohash_` counts a speaker's takes and must not move them to another set."""
    _look_alike(tmp_path, ("yes", "no"))
    splits = speech_commands.prepare(tmp_path, tmp_path / "unused", ("yes", "no"))
    parts = [{utterance.speaker for utterance in part} for part in (splits.train, splits.dev, splits.test)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    assert {speech_commands.which_set(f"00000001_nohash_{take}.wav") for take in range(5)} == {
        speech_commands.which_set("00000001_nohash_0.wav")
    }


def test_folder_without_a_word(tmp_path: Path) -> None:
    """A wrong --data.root is one clear line that names folder and word."""
    _look_alike(tmp_path, ("yes",))
    with pytest.raises(DataError, match=r"no folder 'no'.*--data\.root"):
        speech_commands.prepare(tmp_path, tmp_path, ("yes", "no"))
    (tmp_path / "no").mkdir()
    with pytest.raises(DataError, match=r"no train recording of no\. Expected files such as"):
        speech_commands.prepare(tmp_path, tmp_path, ("yes", "no"))


def test_one_word_is_no_choice(tmp_path: Path) -> None:
    """A classifier of one word would always be right."""
    with pytest.raises(SettingsError, match="two or more different"):
        speech_commands.prepare(tmp_path, tmp_path, ("yes", "yes"))
