"""The embedded digits corpus: its size, its split, its segments."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.corpora.digits import WORDS, prepare, prepare_children
from asr.errors import DataError
from asr.manifests.utterance import Splits

_DATA = Path(__file__).resolve().parents[2] / "data"
# Voices that are the same person: they must stand on the same side of the split.
_PERSONS = {"kal": ("flite-kal", "festival-kal"), "rms": ("flite-rms",), "slt": ("flite-slt", "festival-slt")}


@pytest.fixture(scope="module")
def embedded() -> Splits:
    return prepare(_DATA)


def test_embedded_parts_have_the_promised_size_and_balance(embedded: Splits) -> None:
    """Guards against a regenerated corpus that lost voices, digits or string lengths."""
    sizes = [len(part) for part in (embedded.train, embedded.dev, embedded.test)]
    assert sizes == [1188, 100, 200]
    for part in (embedded.train, embedded.dev, embedded.test):
        strings = [utterance.text.split() for utterance in part]
        words = Counter(word for string in strings for word in string)
        assert set(words) == set(WORDS)
        assert max(words.values()) < 1.25 * min(words.values())
        assert {len(string) for string in strings} == set(range(1, 8))
    assert 30 * 60 < sum(utterance.duration for utterance in embedded.train) < 46 * 60


def test_no_voice_and_no_person_is_on_two_sides(embedded: Splits) -> None:
    """Guards against scoring on a voice of the training set, also under another synthesiser's name."""
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
        voice, digits = path.stem.split("_")
        text = " ".join(WORDS[int(digit)] for digit in digits.split("-"))
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
    assert prepare() == prepare(_DATA / "digits") == embedded


def test_embedded_corpus_absent(tmp_path: Path) -> None:
    """Guards against a bare FileNotFoundError when the package was installed without the repository."""
    with pytest.raises(DataError, match="come with the repository") as caught:
        prepare(tmp_path)
    assert str(tmp_path / "digits") in str(caught.value)


def test_children_read_digits_only() -> None:
    """Guards the digit strings of speechocean762: words outside the recipe's lexicon, or lost files."""
    children = prepare_children()
    assert len(children) == 159
    assert len({one.speaker for one in children}) == 53
    for one in children:
        assert set(one.text.split()) <= set(WORDS)
        assert soundfile.info(one.audio_filepath).duration == pytest.approx(one.duration, abs=0.1)


def test_lexicon_of_the_recipe() -> None:
    """Guards the vocabulary of the ten words, which is a file for `asr transcribe --lexicon`."""
    assert (_DATA / "digits" / "words.txt").read_text().split() == list(WORDS)
