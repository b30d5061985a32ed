"""English speech of several corpora: who is in dev, and what cannot be used."""

import json
from pathlib import Path

import pytest
import soundfile

from asr.corpora.english import by_set, prepare
from asr.errors import DataError


def write(root: Path, part: str, rows: list[tuple[str, str]]) -> None:
    """A manifest of one utterance each of (folder, speaker)."""
    lines = []
    for folder, speaker in rows:
        audio = root / folder / f"{speaker}.wav"
        audio.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio, [0.0] * 1000, 16_000)
        row = {
            "audio_filepath": f"../{folder}/{speaker}.wav",
            "duration": 0.06,
            "text": "a",
            "speaker": speaker,
        }
        lines.append(json.dumps(row) + "\n")
    (root / "english").mkdir(exist_ok=True)
    (root / "english" / f"{part}.jsonl").write_text("".join(lines))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    accented = [("speechocean762/WAVE", f"so{number:04d}") for number in range(20)]
    write(tmp_path, "train", [("LibriSpeech/a", "1"), *accented, ("common_voice/a", "cv1")])
    write(tmp_path, "dev", [("LibriSpeech/b", "84"), ("common_voice/b", "cv2")])
    (tmp_path / "speechocean762" / "test").mkdir()
    # the test part has the speakers 0003 to 0019, in any order, each with some utterances
    lines = [f"u{number} {number:04d}\n" for number in (*range(19, 2, -1), 5, 7)]
    (tmp_path / "speechocean762" / "test" / "utt2spk").write_text("".join(lines))
    return tmp_path


def test_every_eighth_accented_speaker_is_moved(root: Path) -> None:
    """Other speakers, which would make the result of another run incomparable; or one in both sets."""
    splits = prepare(root)
    assert [utterance.speaker for utterance in splits.dev] == ["84", "cv2", "so0003", "so0011", "so0019"]
    assert len(splits.train) == 19
    assert not {item.speaker for item in splits.train} & {item.speaker for item in splits.dev}
    assert {name: len(part) for name, part in by_set(splits.dev).items()} == {
        "LibriSpeech": 1, "Common Voice": 1, "accented": 3,
    }  # fmt: skip


def test_digits_are_not_trained_on(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Numbers that are heard and not in the transcript: the model learns to leave them out."""
    manifest = root / "english" / "train.jsonl"
    rows = manifest.read_text().replace(
        '"text": "a", "speaker": "cv1"', '"text": "in 1933", "speaker": "cv1"'
    )
    manifest.write_text(rows)
    assert "cv1" not in {utterance.speaker for utterance in prepare(root).train}
    assert "1 of 19 training utterances cannot be used and are left out: cv1: its trans" in caplog.text


def test_a_speaker_in_both_sets(root: Path) -> None:
    """A dev score of people whom the model has heard."""
    write(root, "dev", [("LibriSpeech/b", "1")])
    with pytest.raises(DataError, match=r"1 speakers are in train and in dev, such as 1\. Expected none"):
        prepare(root)


def test_missing_list_of_speakers(root: Path) -> None:
    """A traceback, or a dev set without accented speech."""
    (root / "speechocean762" / "test" / "utt2spk").unlink()
    with pytest.raises(DataError, match=r"utt2spk: cannot be read: No such file.* Correct --data\.root"):
        prepare(root)


def test_real_speech_gives_the_sets_of_the_model_that_ships(speech: Path) -> None:
    """The sets of the model card, but for 79 transcripts with digits, which that training dropped."""
    splits = prepare(speech)
    assert (len(splits.train), len(splits.dev)) == (11_794 - 79, 489)
    assert {name: len(part) for name, part in by_set(splits.dev).items()} == {
        "LibriSpeech": 180, "Common Voice": 69, "accented": 240,
    }  # fmt: skip
