"""Recognition of a stream: utterances, results that settle, and a cost that does not grow."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import asr
from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.decoding.decoder import DescribedDecoder
from asr.decoding.greedy import GreedyDecoder
from asr.errors import AudioError, SettingsError
from asr.frontend.endpointing import EndpointConfig
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.recognition.streaming import RecognitionStream, StreamConfig, StreamResult
from asr.text.characters import CharTokenizer
from tests.shapes import encoder_config

RATE = 16_000


def config(vad: Any = "energy", **settings: float) -> StreamConfig:
    chunks = {name: settings.pop(name) for name in ("chunk_s", "right_context_s") if name in settings}
    return StreamConfig(**chunks, endpoint=EndpointConfig(vad=vad, **settings))


def run(stream: RecognitionStream, samples: Any, block: int = 1600) -> list[StreamResult]:
    parts = [samples[begin : begin + block] for begin in range(0, len(samples), block)]
    return [result for part in parts for result in stream.accept(part)] + stream.finish()


def letters(result: StreamResult) -> str:
    """Without spaces: the tiny model has learned no silence around utterances, and takes pauses less well."""
    return result.text.replace(" ", "")


def speech(tones: Any, *texts: str) -> Tensor:
    """Utterances in the language of tones, a second of near silence before each and after the last."""
    pause = 1e-3 * np.random.default_rng(9).standard_normal(RATE).astype(np.float32)
    parts = [
        pause,
        *(part for number, text in enumerate(texts) for part in (tones.sound(text, seed=number), pause)),
    ]
    return torch.from_numpy(np.concatenate(parts))


@pytest.mark.parametrize("beam", [False, True])
@pytest.mark.parametrize("block", [160, 4999, 10 * RATE])
def test_blocks_of_a_unidirectional_model_equal_offline(tones: Any, beam: bool, block: int) -> None:
    """The invariant: the same text and times as of the whole utterance, whatever the size of the blocks."""
    torch.manual_seed(3)
    tokenizer = CharTokenizer(tuple("abc "))
    encoder = encoder_config(width=8, depth=2, channels=4, bidirectional=False)
    model = AcousticModel(
        ModelSettings(FeatureConfig(n_mels=20, normalize="running"), encoder, tokenizer, "english")
    )
    model.normalize.set_statistics(torch.full((20,), -12.0), torch.full((20,), 3.0))
    model.encoder.output.weight.data *= 50  # an untrained model whose text is not empty
    samples = torch.from_numpy(tones.sound("ab c a bbc c a b ca"))
    decoder = BeamDecoder(tokenizer, BeamConfig(beam_size=8, threads=1)) if beam else GreedyDecoder(tokenizer)
    [[expected, *_]] = decoder.decode(*model.eval().outputs([samples])[:2], model.step_s)
    results = run(RecognitionStream(model, decoder, config("none"), RATE), samples, block)
    assert len(expected.tokens) > 3
    assert results[-1].text == expected.text
    assert [(word.text, word.start_s, word.end_s) for word in results[-1].words] == [
        (word.text, word.start_s, word.end_s) for word in expected.words
    ]
    assert [word.confidence for word in results[-1].words] == pytest.approx(
        [word.confidence for word in expected.words], abs=1e-4
    )


def test_utterances_of_a_bidirectional_model(tones: Any) -> None:
    """Guards the whole way: chunks, end-points, times in the stream, partial results that only settle."""
    model = asr.load(tones.model, device="cpu")
    samples = speech(tones, "ab c a b", "cab bca")
    results = run(model.stream(config=config(chunk_s=0.16, right_context_s=0.32)), samples)
    finals = [result for result in results if result.final]
    assert [letters(final) for final in finals] == ["abcab", "cabbca"]
    begins = 1.0, 3.28  # of the tones
    for final, begin in zip(finals, begins, strict=True):
        assert final.stable == final.text == " ".join(word.text for word in final.words)
        assert begin - 0.4 < final.start_s < begin + 0.1
        assert begin - 0.1 < final.words[0].start_s < final.words[-1].end_s < begin + 1.4
        assert final.end_s - final.words[-1].end_s > 0.7  # the pause that ends it
    assert len(results) > 6
    before = ""
    for result in results:
        assert result.text.startswith(result.stable)
        assert result.stable.startswith(before)
        before = "" if result.final else result.stable


def test_another_rate_is_resampled(tones: Any) -> None:
    """Guards a microphone's 44.1 kHz."""
    model = asr.load(tones.model, device="cpu")
    results = run(model.stream(44_100, config("none")), tones.sound("ab c a b", 44_100), 4410)
    assert letters(results[-1]) == "abcab"


def test_silence_has_no_results(tones: Any) -> None:
    """Guards a stream that nobody speaks into."""
    model = asr.load(tones.model, device="cpu")
    assert run(model.stream(config=config()), torch.zeros(3 * RATE)) == []
    assert model.stream().finish() == []


def test_an_utterance_costs_the_same_after_hours(tones: Any) -> None:
    """Guards what is kept from one utterance to the next: the state after 30 is that after two."""
    model = asr.load(tones.model, device="cpu")
    stream = model.stream(config=config())
    sizes = []
    for number in range(30):
        for block in torch.split(speech(tones, "ab c a b"), 1600):
            stream.accept(block)
        assert number == 0 or stream._utterance is None
        acoustic = stream._acoustic
        sizes.append(
            (
                len(acoustic._frames),
                len(acoustic._log_mel._samples),
                len(stream._endpointer._samples),
                acoustic._done,
            )
        )
    assert {*sizes[3:]} <= {*sizes[1:3]}


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(160, np.int16), "the stream's next block: samples of type int16"),
        (np.zeros((2, 160)), r"samples of shape \(2, 160\)"),
        (np.array([0.1, np.nan]), "sample 1 is not a finite number"),
    ],
)
def test_bad_blocks_change_nothing(samples: Any, message: str, tones: Any) -> None:
    """Guards integers taken for full scale, and a stream after a block that was refused."""
    stream = asr.load(tones.model, device="cpu").stream(config=config("none"))
    with pytest.raises(AudioError, match=message):
        stream.accept(samples)
    assert letters(run(stream, speech(tones, "ab c a b"))[-1]) == "abcab"


def test_impossible_rate(tones: Any) -> None:
    """Guards a rate in kHz."""
    with pytest.raises(SettingsError, match="sample_rate is 16 Hz"):
        asr.load(tones.model, device="cpu").stream(16)


def test_described_decoders_stream(tones: Any) -> None:
    """Guards the decoder that `asr.load` builds."""
    model = asr.load(tones.model, device="cpu", decoding=asr.DecoderSettings(decoder="beam"))
    assert isinstance(model.decoder, DescribedDecoder)
    assert letters(run(model.stream(config=config("none")), speech(tones, "ab c a b"))[-1]) == "abcab"
