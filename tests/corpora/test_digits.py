"""The digits corpora: the embedded synthetic voices, and the split of FSDD by speaker."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.corpora import digits
from asr.corpora.digits import DIGIT_WORDS, FSDD_SPEAKERS, next_speaker, prepare_embedded, prepare_fsdd
from asr.corpora.manifest import Splits
from asr.errors import DataError, SettingsError

_DATA = Path(__file__).resolve().parents[2] / "data"
# Voices that are the same person: they must stand on the same side of the split.
_PERSONS = {"kal": ("flite-kal", "festival-kal"), "rms": ("flite-rms",), "slt": ("flite-slt", "festival-slt")}


@pytest.fixture(scope="module")
def embedded() -> Splits:
    return prepare_embedded(_DATA)


def test_embedded_parts_have_the_promised_size_and_balance(embedded: Splits) -> None:
    """Guards against a regenerated corpus that lost voices, digits or string lengths."""
    sizes = [len(part) for part in (embedded.train, embedded.dev, embedded.test)]
    assert sizes == [1188, 100, 200]
    for part in (embedded.train, embedded.dev, embedded.test):
        strings = [utterance.text.split() for utterance in part]
        words = Counter(word for string in strings for word in string)
        assert set(words) == set(DIGIT_WORDS)
        assert max(words.values()) < 1.25 * min(words.values())
        assert {len(string) for string in strings} == set(range(1, 8))
    assert 30 * 60 < sum(utterance.duration for utterance in embedded.train) < 46 * 60


def test_no_voice_and_no_person_is_on_two_sides(embedded: Splits) -> None:
    """Guards against scoring on a voice that was heard in training, also under another synthesiser's name."""
    voices = [{u.speaker for u in part} for part in (embedded.train, embedded.dev, embedded.test)]
    assert len(set.union(*voices)) == sum(len(side) for side in voices) == 26
    for prefixes in _PERSONS.values():
        assert sum(any(voice.startswith(prefixes) for voice in side) for side in voices) == 1


def test_no_long_string_occurs_twice(embedded: Splits) -> None:
    """Guards against a test set that a model can recite: strings of four or more digits are all different."""
    every = embedded.train + embedded.dev + embedded.test
    strings = [utterance.text for utterance in every if len(utterance.text.split()) >= 4]
    assert len(set(strings)) == len(strings) > 500


def test_segments_cover_their_files_without_overlap(embedded: Splits) -> None:
    """Guards against offsets that drift: segments follow each other at 0.1 s, up to the file's very end."""
    every = embedded.train + embedded.dev + embedded.test
    assert len({utterance.id for utterance in every}) == len(every)
    for path in {utterance.audio_filepath for utterance in every}:
        position = 0.1
        for utterance in (u for u in every if u.audio_filepath == path):
            assert utterance.offset == pytest.approx(position, abs=1e-6)
            position += utterance.duration + 0.1
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.frames == round(position * 16000)


def test_every_segment_is_speech_between_quiet_edges(embedded: Splits) -> None:
    """Guards against cut words, silent clips and clipping: loud inside, at the noise floor at both ends."""
    for part in (embedded.dev, embedded.test):
        files = {path: soundfile.read(path, dtype="float32")[0] for path in {u.audio_filepath for u in part}}
        for utterance in part:
            start, length = (round(s * 16000) for s in (utterance.offset, utterance.duration))
            waveform = files[utterance.audio_filepath][start : start + length]
            assert len(waveform) == length
            assert 0.05 < np.abs(waveform).max() < 1.0, utterance.id
            assert np.sqrt(np.mean(waveform[:640] ** 2)) < 0.004, utterance.id
            assert np.sqrt(np.mean(waveform[-640:] ** 2)) < 0.004, utterance.id
            assert 0.2 < utterance.duration / len(utterance.text.split()) < 2.0, utterance.id


def test_seeking_equals_reading_from_the_start(embedded: Splits) -> None:
    """Guards against seeks that are off by milliseconds: a segment is the same samples either way."""
    for utterance in embedded.test[::40]:
        whole, _ = soundfile.read(utterance.audio_filepath, dtype="float32")
        start, length = (round(s * 16000) for s in (utterance.offset, utterance.duration))
        segment, _ = soundfile.read(utterance.audio_filepath, frames=length, start=start, dtype="float32")
        np.testing.assert_allclose(segment, whole[start : start + length], atol=1e-6)


def test_demo_wavs_are_the_test_utterances_that_their_names_say(embedded: Splits) -> None:
    """Guards against stale demo files: but for the codec, each is an utterance of the test, to the sample."""
    files = sorted((_DATA / "digits" / "wav").glob("*.wav"))
    assert len(files) == 3
    for path in files:
        voice, said = path.stem.split("_")
        text = " ".join(DIGIT_WORDS[int(digit)] for digit in said.split("-"))
        (twin,) = [u for u in embedded.test if u.speaker == voice and u.text == text]
        plain, rate = soundfile.read(path)
        start = round(twin.offset * 16000)
        coded, _ = soundfile.read(twin.audio_filepath, start=start, frames=round(twin.duration * 16000))
        assert (rate, soundfile.info(path).subtype, len(plain)) == (16000, "PCM_16", len(coded))
        spectrum = np.fft.rfft(plain, 2 * len(plain)) * np.fft.rfft(coded, 2 * len(coded)).conj()
        assert np.fft.irfft(spectrum).argmax() == 0  # no shift by the codec, to the sample
        assert np.corrcoef(plain, coded)[0, 1] > 0.95


def test_embedded_corpus_is_small() -> None:
    """Guards the repository against growth: 15 MB in all, 2 MB a file."""
    sizes = [path.stat().st_size for path in (_DATA / "digits").rglob("*") if path.is_file()]
    assert sum(sizes) < 15e6
    assert max(sizes) < 2e6


def test_embedded_corpus_is_found_beside_the_package_and_in_its_own_folder(embedded: Splits) -> None:
    """Guards against a recipe that works from one folder only."""
    assert prepare_embedded() == prepare_embedded(_DATA / "digits") == embedded


def test_embedded_corpus_absent(tmp_path: Path) -> None:
    """Guards against a bare FileNotFoundError when the package was installed without the repository."""
    with pytest.raises(DataError, match="come with the repository") as caught:
        prepare_embedded(tmp_path)
    assert str(tmp_path / "digits") in str(caught.value)


@pytest.fixture
def look_alike(tmp_path: Path) -> Path:
    """Two recordings of each digit by each speaker, laid out as FSDD is."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for speaker in FSDD_SPEAKERS:
        for digit in range(10):
            for index in range(2):
                soundfile.write(folder / f"{digit}_{speaker}_{index}.wav", np.zeros(800 + digit), 8000)
    return tmp_path / "fsdd"


def test_next_speaker_is_a_cycle() -> None:
    """Guards against a dev speaker that falls off the end of the list."""
    assert next_speaker("george") == "jackson"
    assert next_speaker("yweweler") == "george"
    assert {next_speaker(speaker) for speaker in FSDD_SPEAKERS} == set(FSDD_SPEAKERS)


@pytest.mark.parametrize("test_speaker", FSDD_SPEAKERS)
def test_fsdd_splits_by_speaker(look_alike: Path, tmp_path: Path, test_speaker: str) -> None:
    """Guards against a speaker on two sides, a recording lost, or the wrong word for a digit."""
    splits = prepare_fsdd(look_alike, tmp_path, test_speaker)
    assert {u.speaker for u in splits.test} == {test_speaker}
    assert {u.speaker for u in splits.dev} == {next_speaker(test_speaker)}
    assert {u.speaker for u in splits.train} == {*FSDD_SPEAKERS} - {test_speaker, next_speaker(test_speaker)}
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [80, 20, 20]
    seven = next(u for u in splits.test if u.id == f"7_{test_speaker}_1")
    assert (seven.text, seven.offset, seven.duration) == ("seven", 0.0, pytest.approx(807 / 8000))
    named = prepare_fsdd(look_alike / "recordings", tmp_path, test_speaker, next_speaker(test_speaker))
    assert named == splits


def test_fsdd_part_is_reported(look_alike: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards against results on a part of the corpus that pass for those of the whole."""
    with caplog.at_level(logging.WARNING, logger="asr"):
        prepare_fsdd(look_alike, tmp_path, "theo")
    assert "120 recordings, where FSDD has 3000" in caplog.text


def test_fsdd_unknown_or_repeated_speaker(look_alike: Path, tmp_path: Path) -> None:
    """Guards against an empty test set, and against choosing on the test set."""
    with pytest.raises(SettingsError, match=r"test speaker is 'bob'.*george, jackson"):
        prepare_fsdd(look_alike, tmp_path, "bob")
    with pytest.raises(SettingsError, match="dev speaker is 'bob'"):
        prepare_fsdd(look_alike, tmp_path, "theo", "bob")
    with pytest.raises(SettingsError, match="both the test speaker and the dev speaker"):
        prepare_fsdd(look_alike, tmp_path, "theo", "theo")


def test_fsdd_folder_that_is_not_fsdd(look_alike: Path, tmp_path: Path) -> None:
    """Guards against a wrong or half-copied folder that only shows as an odd result later."""
    with pytest.raises(DataError, match="no such folder"):
        prepare_fsdd(tmp_path / "nowhere", tmp_path, "theo")
    stranger = look_alike / "recordings" / "hello.wav"
    soundfile.write(stranger, np.zeros(800), 8000)
    with pytest.raises(DataError, match=r"hello\.wav: not a recording of FSDD"):
        prepare_fsdd(look_alike, tmp_path, "theo")
    stranger.unlink()
    for path in (look_alike / "recordings").glob("*_lucas_*.wav"):
        path.unlink()
    with pytest.raises(DataError, match="no recording of lucas among 100 wav files"):
        prepare_fsdd(look_alike, tmp_path, "theo")


def test_fsdd_download_is_used_and_compared(
    look_alike: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a download that is ignored, or other recordings that pass for the measured ones."""
    asked: list[Path] = []

    def fake_fetch(archive: object, folder: Path) -> Path:
        asked.append(folder)
        assert archive is digits.FSDD_ARCHIVE
        return look_alike

    monkeypatch.setattr(digits, "fetch", fake_fetch)
    with caplog.at_level(logging.WARNING, logger="asr"):
        assert len(prepare_fsdd(None, tmp_path / "data", "lucas").train) == 80
    assert asked == [tmp_path / "data"]
    assert "not byte for byte" in caplog.text


def test_real_fsdd(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a layout that only the look-alike has; the digest is that of the real recordings."""
    monkeypatch.setattr(digits, "fetch", lambda archive, folder: speech / "fsdd")
    with caplog.at_level(logging.WARNING, logger="asr"):
        splits = prepare_fsdd(None, tmp_path, "jackson")
    assert not caplog.records
    assert [len(part) for part in (splits.train, splits.dev, splits.test)] == [2000, 500, 500]
    for part in (splits.train, splits.dev, splits.test):
        assert len(set(Counter(u.text for u in part).values())) == 1
    every = splits.train + splits.dev + splits.test
    assert sum(u.duration for u in every) / 3600 == pytest.approx(0.36, abs=0.01)
    assert all(0.1 < u.duration < 3.0 for u in every)
