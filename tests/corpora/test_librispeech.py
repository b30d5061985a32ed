"""LibriSpeech: the folder layout, what is not whole, and the division by speaker."""

import logging
import wave
from dataclasses import replace
from pathlib import Path

import pytest

from asr.corpora import librispeech
from asr.corpora.download import Archive
from asr.errors import DataError, SettingsError
from asr.manifests.utterance import Utterance


def _write_wav(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(bytes(2 * round(16000 * seconds)))


def _look_alike(part: Path, speakers: list[int], utterances: int = 2) -> Path:
    """A part with one chapter a speaker."""
    for speaker in speakers:
        chapter = part / str(speaker) / "7"
        lines = []
        for number in range(utterances):
            name = f"{speaker}-7-{number:04d}"
            _write_wav(chapter / f"{name}.wav", 0.25 * (number + 1))
            lines.append(f"{name} IT'S NUMBER {'I' * (number + 1)}\n")
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines), encoding="utf-8")
    return part


def test_read_part(tmp_path: Path) -> None:
    """Guards ids, text in lower case, speaker, duration, path, and the order by number."""
    read = librispeech.read_part(_look_alike(tmp_path / "dev-clean", [1272, 84]))
    assert [u.id for u in read] == ["84-7-0000", "84-7-0001", "1272-7-0000", "1272-7-0001"]
    assert read[3] == Utterance(
        id="1272-7-0001",
        audio_filepath=tmp_path / "dev-clean" / "1272" / "7" / "1272-7-0001.wav",
        duration=0.5,
        text="it's number ii",
        speaker="1272",
    )


def test_transcripts_and_audio_that_lack_each_other_are_all_named(tmp_path: Path) -> None:
    """Guards against utterances that vanish from a folder that is not whole."""
    part = _look_alike(tmp_path / "dev-clean", [84, 174])
    (part / "84" / "7" / "84-7-0000.wav").unlink()
    _write_wav(part / "174" / "7" / "174-7-0009.wav", 0.25)
    with pytest.raises(DataError) as caught:
        librispeech.read_part(part)
    message = str(caught.value)
    assert "1 transcripts without audio and 1 audio files without a transcript: 84-7-0000, " in message
    assert "174-7-0009.wav. Expected one of each" in message


def test_two_audio_files_for_one_utterance(tmp_path: Path) -> None:
    """Guards against a choice between flac and its copy that nobody made."""
    part = _look_alike(tmp_path / "dev-clean", [84])
    (part / "84" / "7" / "84-7-0000.flac").touch()
    with pytest.raises(
        DataError, match=r"84-7-0000\.wav: the utterance has another audio file, 84-7-0000\.flac"
    ):
        librispeech.read_part(part)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("84-7-0001", r"84-7\.trans\.txt line 2: no transcript: '84-7-0001'"),
        ("84-7-0000 AGAIN", r"84-7\.trans\.txt line 2: the id is in an earlier line already"),
    ],
)
def test_bad_transcript_line(tmp_path: Path, line: str, message: str) -> None:
    """Guards against an empty or an overwritten transcript."""
    part = _look_alike(tmp_path / "dev-clean", [84], utterances=1)
    with (part / "84" / "7" / "84-7.trans.txt").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        librispeech.read_part(part)


def test_folder_without_utterances(tmp_path: Path) -> None:
    """Guards a wrong --data.root, which must not become a training on nothing."""
    (tmp_path / "dev-clean").mkdir()
    with pytest.raises(DataError, match=r"no utterance\. Expected speaker/chapter/"):
        librispeech.read_part(tmp_path / "dev-clean")
    with pytest.raises(DataError, match="no such folder"):
        librispeech.read_part(tmp_path / "none")


def test_mini_uses_dev_clean_where_dev_clean_2_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the stand-in, that the log names it, and that dev-clean-2 comes first where it exists."""
    corpus = tmp_path / "LibriSpeech"
    _look_alike(corpus / "train-clean-5", [19, 20])
    _look_alike(corpus / "dev-clean", list(range(100, 110)))
    with caplog.at_level(logging.INFO, logger="asr"):
        splits = librispeech.prepare(tmp_path, tmp_path / "unused", librispeech.MINI)
    assert "holds no dev-clean-2: dev-clean" in caplog.text
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (4, 16, 4)
    assert {u.speaker for u in splits.test} == {"108", "109"}
    _look_alike(corpus / "dev-clean-2", list(range(200, 209)))
    assert {u.speaker for u in librispeech.prepare(corpus, tmp_path).test} == {"208"}


def test_hundred_hours_preset_names_train_dev_and_test(tmp_path: Path) -> None:
    """Guards that dev and test are the official parts, and that several train parts are joined in order."""
    for part, speakers in {
        "train-clean-100": [1],
        "train-clean-360": [2],
        "train-other-500": [3],
        "dev-clean": [4],
        "dev-other": [5],
        "test-clean": [6],
        "test-other": [7],
    }.items():
        _look_alike(tmp_path / part, speakers, utterances=1)
    splits = librispeech.prepare(tmp_path, tmp_path, librispeech.CLEAN_100)
    assert [[u.speaker for u in part] for part in (splits.train, splits.dev, splits.test)] == [
        ["1"],
        ["4"],
        ["6", "7"],
    ]
    splits = librispeech.prepare(tmp_path, tmp_path, librispeech.FULL_960)
    assert [u.speaker for u in splits.train] == ["1", "2", "3"]
    assert [u.speaker for u in splits.dev] == ["4", "5"]
    assert {part: [u.speaker for u in us] for part, us in librispeech.by_part(splits.test).items()} == {
        "test-clean": ["6"],
        "test-other": ["7"],
    }


def test_missing_part_says_what_is_there(tmp_path: Path) -> None:
    """Guards the first mistake of every user: a root with other parts."""
    _look_alike(tmp_path / "LibriSpeech" / "train-clean-5", [19])
    with pytest.raises(
        DataError, match=r"no part train-clean-100\. Found train-clean-5\. Correct --data\.root"
    ):
        librispeech.prepare(tmp_path, tmp_path, librispeech.CLEAN_100)
    with pytest.raises(DataError, match="no such folder"):
        librispeech.prepare(tmp_path / "none", tmp_path, librispeech.CLEAN_100)
    unknown = replace(librispeech.MINI, train_parts=("train-clean-7",))
    with pytest.raises(
        DataError, match=r"'train-clean-7' is no part of LibriSpeech\. Expected one of train-clean-5"
    ):
        librispeech.prepare(None, tmp_path, unknown)


def test_without_a_root_each_part_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards which archives the presets ask for, and where they go (the fetch itself is tested elsewhere)."""
    asked: list[str] = []

    def fake_fetch(archive: Archive, folder: Path) -> Path:
        asked.append(archive.name)
        speaker = len(asked) * 100
        return _look_alike(folder / archive.unpacks_to, list(range(speaker, speaker + 9)), utterances=1)

    monkeypatch.setattr(librispeech, "fetch", fake_fetch)
    splits = librispeech.prepare(None, tmp_path, librispeech.MINI)
    assert asked == ["train-clean-5.tar.gz", "dev-clean-2.tar.gz"]
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (9, 8, 1)
    assert splits.test[0].audio_filepath.is_relative_to(tmp_path / "LibriSpeech" / "dev-clean-2" / "208")


def test_overlapping_parts_are_refused(tmp_path: Path) -> None:
    """Guards against scoring on training data."""
    _look_alike(tmp_path / "dev-clean", [84])
    preset = librispeech.Preset(train_parts=("dev-clean",), dev_parts=("dev-clean",))
    with pytest.raises(DataError, match="'84-7-0000' is twice in train and dev"):
        librispeech.prepare(tmp_path, tmp_path, preset)


def test_preset_says_once_what_is_scored() -> None:
    """Guards against test parts that are named and then ignored."""
    with pytest.raises(SettingsError, match=r"choosing_speakers is 8\. Expected one of the two"):
        replace(librispeech.MINI, test_parts=("test-clean",))


def test_split_by_speaker_sorts_numbers_by_value(tmp_path: Path) -> None:
    """Guards the division: sorted as text, "1272" would come before "84" and the scores would not compare."""
    speakers = ["b", "1272", "84", "a", "422"]
    utterances = [
        Utterance(id=f"{s}-{n}", audio_filepath=tmp_path, duration=1.0, text="x", speaker=s)
        for n in range(2)
        for s in speakers
    ]
    chosen, scored = librispeech.split_by_speaker(utterances, first=2)
    assert [u.id for u in chosen] == ["84-0", "422-0", "84-1", "422-1"]
    assert [u.id for u in scored] == ["b-0", "1272-0", "a-0", "b-1", "1272-1", "a-1"]
    chosen, _ = librispeech.split_by_speaker(utterances, first=4)
    assert {u.speaker for u in chosen} == {"84", "422", "1272", "a"}


@pytest.mark.parametrize("first", [0, 2, 3])
def test_split_by_speaker_leaves_neither_side_empty(tmp_path: Path, first: int) -> None:
    """Guards against an empty dev or test set, whose error rate means nothing."""
    utterances = [
        Utterance(id=s, audio_filepath=tmp_path, duration=1.0, text="x", speaker=s) for s in ("1", "2")
    ]
    with pytest.raises(DataError, match=f"2 speakers cannot be split into {first} and the rest"):
        librispeech.split_by_speaker(utterances, first)
    with pytest.raises(DataError, match="utterance 1: no speaker is named"):
        librispeech.split_by_speaker([replace(utterances[0], speaker="")], 1)


def test_archives_have_checksums_of_the_right_length() -> None:
    """Guards against a checksum cut short on its way into the source."""
    for part, archive in librispeech.ARCHIVES.items():
        algorithm, digest = archive.checksum
        assert len(digest) == {"sha256": 64, "md5": 32}[algorithm], part
        assert (
            archive.url
            == f"https://www.openslr.org/resources/{12 if algorithm == 'sha256' else 31}/{part}.tar.gz"
        )
        assert archive.size_bytes > 1e8


def test_real_mini_librispeech(speech: Path) -> None:
    """Guards the counts that the recipe reports: 1,519 utterances of 28 speakers; 8 and 32 dev speakers."""
    splits = librispeech.prepare(speech, speech, librispeech.MINI)
    assert len(splits.train) == 1519
    assert len({u.speaker for u in splits.train}) == 28
    assert sum(u.duration for u in splits.train) / 3600 == pytest.approx(5.31, abs=0.01)
    assert {u.speaker for u in splits.dev} == {"84", "174", "251", "422", "652", "777", "1272", "1462"}
    assert len({u.speaker for u in splits.test}) == 32
    assert len(splits.dev) + len(splits.test) == 2703
    assert sum(len(u.text.split()) for u in splits.dev + splits.test) == 54402
    assert not {u.speaker for u in splits.train} & {u.speaker for u in splits.dev + splits.test}
    assert set("".join(u.text for u in splits.train)) <= set("abcdefghijklmnopqrstuvwxyz' ")
