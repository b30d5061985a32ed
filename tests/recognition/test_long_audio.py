"""Recordings of any length: the text of the whole, at its times, in order, in bounded memory."""

import logging
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hypothesis import Hypothesis, Word
from asr.errors import AudioError
from asr.frontend.segmentation import SegmentationConfig
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.recognition import recognise as recognise_module
from asr.recognition.long_audio import recognise_recordings
from asr.recognition.recognise import Recognised, Segment, recognise
from asr.text.tokenizer import BLANK

CONFIG = SegmentationConfig(max_segment_s=5.0, vad="energy")
LETTER_S = 0.16


HZ = {"a": 300.0, "b": 900.0, "c": 2400.0}  # of the language of tones
STEP = 640  # samples of a step


@pytest.fixture
def net(tones: Any, monkeypatch: pytest.MonkeyPatch) -> AcousticModel:
    """A model that hears every letter of the language of tones: each step by itself, without an error."""
    net = load_model(tones.model)
    tokenizer = net.settings.tokenizer
    tokens = [tokenizer.encode(letter)[0] for letter in HZ]
    space = tokenizer.encode(" ")[0]
    waves = torch.stack([torch.exp(-2j * torch.pi * hz / 16_000 * torch.arange(STEP)) for hz in HZ.values()])

    def listen(model: AcousticModel, waveforms: list[Tensor]) -> tuple[Tensor, Tensor, None]:
        rows = []
        for waveform in waveforms:
            steps = waveform[: len(waveform) // STEP * STEP].view(-1, STEP)
            powers = (steps.to(torch.complex64) @ waves.T).abs().square() / STEP**2
            loudest = powers.max(1)
            best = torch.tensor(tokens)[loudest.indices]
            best[loudest.values < 0.005] = BLANK  # between two letters
            best[steps.square().mean(1) < 1e-4] = space
            rows.append(
                torch.nn.functional.one_hot(best, tokenizer.vocab_size)
                .float()
                .sub(0.5)
                .mul(20)
                .log_softmax(1)
            )
        lengths = torch.tensor([len(row) for row in rows])
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths, None

    monkeypatch.setattr(AcousticModel, "outputs", listen)
    return net


def results(
    net: AcousticModel, segments: list[Segment], config: SegmentationConfig = CONFIG, **options: Any
) -> list[Recognised]:
    decoder = GreedyDecoder(net.settings.tokenizer)
    return list(recognise_recordings(net, segments, 20.0, decoder, config, **options))


@dataclass
class Says:
    """A decoder that writes the same words, whatever it gets."""

    confidence: float
    count: int

    def decode(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        words = tuple(Word("the", 0.1 * n, 0.1 * n + 0.1, self.confidence) for n in range(self.count))
        return [[Hypothesis(" ".join(["the"] * self.count), words, (), (), 0.0, 0.0)]] * len(step_lengths)


def text(result: Recognised) -> str:
    assert isinstance(result.outcome, Hypothesis)
    return result.outcome.text


def write(path: Path, tones: Any, spoken: str) -> Segment:
    soundfile.write(path, tones.sound(spoken), 16_000)
    return Segment(path)


SENTENCES = ["ab c", "cab", "bb a", "c a", "abcabc", "cc aa", "b ac", "ca b", "aabb"] * 3


def test_a_long_recording_is_its_sentences(net: AcousticModel, tones: Any, tmp_path: Path) -> None:
    """Words that are lost at cuts, or at times of the part instead of the recording."""
    spoken = (" " * 8).join(SENTENCES)
    long = write(tmp_path / "long.wav", tones, spoken)
    reported: list[Word] = []
    (found,) = results(net, [long], on_words=lambda segment, words: reported.extend(words))
    assert found.segment == long
    assert found.duration_s == pytest.approx(LETTER_S * len(spoken))
    assert text(found) == " ".join(spoken.split())
    assert isinstance(found.outcome, Hypothesis)
    assert tuple(reported) == found.outcome.words
    begins = [n for n in range(len(spoken)) if spoken[n] != " " and (n == 0 or spoken[n - 1] == " ")]
    for begin, word in zip(begins, found.outcome.words, strict=True):
        assert word.start_s == pytest.approx(LETTER_S * begin, abs=0.2)
    assert len(found.outcome.steps) == len(found.outcome.tokens)
    assert list(found.outcome.steps) == sorted(found.outcome.steps)


def test_windows_without_pauses_are_the_whole(net: AcousticModel, tones: Any, tmp_path: Path) -> None:
    """Words that are lost, doubled or cut in two where there is no pause."""
    long = write(tmp_path / "long.wav", tones, " ".join(SENTENCES))
    (whole,) = recognise(net, [long], 60.0)
    (found,) = results(net, [long], replace(CONFIG, vad="none"))
    assert text(found) == text(whole) == " ".join(" ".join(SENTENCES).split())
    assert isinstance(found.outcome, Hypothesis)
    assert isinstance(whole.outcome, Hypothesis)
    for word, expected in zip(found.outcome.words, whole.outcome.words, strict=True):
        assert word.start_s == pytest.approx(expected.start_s, abs=0.09)


def test_short_recordings_are_recognised_as_before(net: AcousticModel, tones: Any, tmp_path: Path) -> None:
    """Results that change for recordings that need not be cut, among long ones or from a pipe."""
    short = [Segment(Path(file)) for file in tones.files]
    long = write(tmp_path / "long.wav", tones, (" " * 8).join(SENTENCES))
    waveform = Segment(Path("waveform 0"), waveform=torch.from_numpy(tones.sound("ab c")))
    expected = list(recognise(net, [*short, waveform], 20.0))
    found = results(net, [*short[:3], long, *short[3:], waveform])
    assert found[:3] + found[4:] == expected
    assert len(text(found[3])) > 50


def test_the_length_is_not_the_headers(net: AcousticModel, tones: Any, tmp_path: Path) -> None:
    """A recording without a length in its header that is taken for a short one, or for a long one."""
    short = write(tmp_path / "short.wav", tones, "ab c")
    long = write(tmp_path / "long.wav", tones, (" " * 8).join(SENTENCES))
    expected = results(net, [short, long])
    for segment in (short, long):
        data = bytearray(segment.path.read_bytes())
        data[4:8] = data[40:44] = bytes(4)  # as a recorder leaves them that is killed
        segment.path.write_bytes(data)
    assert results(net, [short, long]) == expected


def test_silence_and_noise_have_no_words(
    net: AcousticModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Words that are invented where nobody speaks; recordings without a result."""
    quiet = [Segment(tmp_path / "silence.wav"), Segment(tmp_path / "noise.wav")]
    soundfile.write(quiet[0].path, np.zeros(40 * 16_000), 16_000)
    soundfile.write(quiet[1].path, 0.1 * np.random.default_rng(0).standard_normal(40 * 16_000), 16_000)
    with caplog.at_level(logging.WARNING):
        found = results(net, [quiet[0], quiet[1], quiet[0]])
    assert [(result.segment, text(result)) for result in found] == [
        (quiet[0], ""), (quiet[1], ""), (quiet[0], ""),
    ]  # fmt: skip
    assert [result.duration_s for result in found] == [40.0] * 3
    assert "noise.wav: no speech found in 40 s" in caplog.text


def test_a_short_recording_without_speech_has_no_words(
    net: AcousticModel, tones: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Words that a model makes of ten seconds of noise; a single word in speech that is dropped."""
    noise = Segment(tmp_path / "noise.wav")
    soundfile.write(noise.path, 0.1 * np.random.default_rng(0).standard_normal(10 * 16_000), 16_000)
    speech = write(tmp_path / "speech.wav", tones, (" " * 8).join(SENTENCES[:2]))
    whole = replace(CONFIG, max_segment_s=30.0)
    found = recognise_recordings(net, [noise, speech, noise], 20.0, Says(0.9, 2), whole)
    assert [text(result) for result in found] == ["", "the the", ""]
    assert "noise.wav: no speech found in 10 s" in caplog.text
    (many,) = recognise_recordings(net, [noise], 20.0, Says(0.9, 40), whole)
    assert text(many)  # which noise does not have
    (unchecked,) = recognise_recordings(net, [noise], 20.0, Says(0.9, 2), replace(whole, vad="none"))
    assert text(unchecked) == "the the"


def test_a_model_that_invents_words_is_not_believed(
    net: AcousticModel, tones: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Words of music that the detector takes for speech; speech of a doubtful model that is dropped."""
    long = write(tmp_path / "long.wav", tones, (" " * 8).join(SENTENCES))
    for confidence, count, kept in ((0.4, 1, False), (0.6, 1, True), (0.4, 8, True)):
        with caplog.at_level(logging.INFO):
            caplog.clear()
            (found,) = recognise_recordings(net, [long], 20.0, Says(confidence, count), CONFIG)
        assert bool(text(found)) is kept
        assert ("words left out: few and of low confidence" in caplog.text) is not kept


def test_errors_keep_their_place(net: AcousticModel, tones: Any, tmp_path: Path) -> None:
    """A file that fails in its middle and costs another one its result, or takes its place."""
    long = write(tmp_path / "long.wav", tones, (" " * 8).join(SENTENCES))
    samples, rate = soundfile.read(long.path, dtype="float32")
    bad, silence = Segment(tmp_path / "bad.wav"), Segment(tmp_path / "silence.wav")
    samples = np.concatenate([samples, samples])
    samples[-5] = np.inf
    soundfile.write(bad.path, samples, rate, subtype="FLOAT")
    soundfile.write(silence.path, np.zeros(20 * 16_000), 16_000)
    missing, empty = Segment(tmp_path / "missing.wav"), Segment(tmp_path / "empty.wav")
    empty.path.touch()
    order = [
        silence,
        missing,
        bad,
        long,
        silence,
        bad,
        empty,
        Segment(Path(tones.files[0])),
        silence,
        silence,
    ]
    found = results(net, order)
    assert [result.segment.path for result in found] == [segment.path for segment in order]
    kinds = [
        "" if isinstance(result.outcome, AudioError) else (text(result).split() or ["-"])[0]
        for result in found
    ]
    assert kinds == ["-", "", "", "ab", "-", "", "", "ab", "-", "-"]
    assert "is not a finite number" in str(found[2].outcome)


def test_memory_is_bounded(net: AcousticModel, tones: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples of a recording, or of many, in memory; text that comes at the end only."""
    sentence = torch.from_numpy(tones.sound((" " * 8).join([*SENTENCES[:9], ""])))  # 17 s
    alive: list[weakref.ref[Tensor]] = []
    most = 0
    read_when_first_words_came: list[int] = []

    def blocks(path: Path, rate: int, **options: Any) -> Iterator[Tensor]:
        nonlocal most
        for _ in range(120):
            block = sentence.clone()
            alive.append(weakref.ref(block))
            most = max(most, sum(one() is not None for one in alive))
            yield block
            del block

    def progress(segment: Segment, words: tuple[Word, ...]) -> None:
        read_when_first_words_came.append(len(alive))

    monkeypatch.setattr(recognise_module, "audio_blocks", blocks)
    monkeypatch.setattr(recognise_module, "usable_cores", lambda: 1)
    (found,) = results(net, [Segment(Path("long.wav"))], on_words=progress)
    assert len(text(found).split()) == 120 * len(" ".join(SENTENCES[:9]).split())
    assert most <= 4
    assert read_when_first_words_came[0] < 10  # of two windows of 40 s
