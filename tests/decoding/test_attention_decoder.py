"""The attention decoder as second opinion and alone: against all texts, padding, and its own single steps."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from asr.decoding.attention_decoder import AttentionDecoder, token_log_probs
from asr.decoding.config import BeamConfig
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.rescoring import TwoPassDecoder, rescore_by_attention, transcript_tokens
from asr.decoding.resources import DecodingResources
from asr.errors import ModelError
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.attention_decoder import AttentionDecoderConfig
from asr.model.decoding_weights import DecodingWeights
from asr.model.encoder import EncoderConfig
from asr.model.recurrent_decoder import RecurrentDecoder
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon
from asr.text.phones import PhoneTokenizer

TOKENIZER = CharTokenizer(("a", "b"))
PHONES = PhoneTokenizer(("P", "T"), Lexicon({"pit": (("P", "T"),)}, "test"))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def make(kind: str = "dot", width: int = 6) -> AcousticModel:
    """A model with random weights whose decoder does not find all texts equally likely."""
    torch.manual_seed(3)
    decoder = AttentionDecoderConfig(kind, decoder_width=width, decoder_embedding=4)  # type: ignore[arg-type]
    encoder = EncoderConfig(width=5, depth=1, channels=2, decoder=decoder)
    features = FeatureConfig(sample_rate=8000, n_mels=8)
    model = AcousticModel(ModelSettings(features, encoder, TOKENIZER, "verbatim")).eval()
    nn.init.normal_(decoder_of(model).output.weight, std=2.0)
    return model


def decoder_of(model: AcousticModel) -> RecurrentDecoder:
    assert model.attention_decoder is not None
    return model.attention_decoder


def outputs(model: AcousticModel, *seconds: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    log_probs, steps, encoded = model.outputs([
        0.1 * torch.randn(round(8000 * length), generator=generator) for length in seconds
    ])  # fmt: skip
    assert encoded is not None
    return log_probs.clone(), steps.clone(), encoded.clone()


def hypothesis(tokens: tuple[int, ...], score: float, acoustic: float) -> Hypothesis:
    return Hypothesis(TOKENIZER.decode(tokens), (), tokens, tuple(range(len(tokens))), score, acoustic)


@pytest.mark.parametrize("kind", ["dot", "additive"])
def test_given_texts_are_scored_as_step_by_step(kind: str) -> None:
    """Guards the scores that rescoring uses: of texts of other lengths in one batch, the empty one and equal
    ones among them, against writing each symbol by symbol."""
    model = make(kind)
    _, _, encoded = outputs(model, 0.3)
    texts = [(1, 2, 2), (), (2,), (1, 2, 2), (2, 1, 1, 2, 1)]
    scores = token_log_probs(decoder_of(model), encoded[0], texts)
    source = decoder_of(model).source(encoded, torch.tensor([encoded.shape[1]]))
    for text, score in zip(texts, scores, strict=True):
        log_probs, weights = decoder_of(model).step_through(source, torch.tensor([text], dtype=torch.int64))
        total = sum(float(log_probs[0, step, symbol]) for step, symbol in enumerate([*text, 0]))
        assert score == pytest.approx(total, abs=1e-5)
        assert weights.sum(-1) == pytest.approx(torch.ones(1, len(text) + 1), abs=1e-5)


@pytest.mark.parametrize("kind", ["dot", "additive"])
def test_padding_changes_nothing(kind: str) -> None:
    """Guards the encoder's outputs as they are kept, the summary and the attention: an utterance alone and
    beside a longer one has the same scores and the same text, whatever is in the padding."""
    model = make(kind)
    log_probs, steps, encoded = outputs(model, 0.8, 0.4, 0.2)
    encoded[1, steps[1] :] = 9.0
    texts = [hypothesis((1, 2), -3.0, -3.0), hypothesis((2,), -4.0, -4.0)]
    weights = DecodingWeights(attention_weight=0.5)
    rescored = rescore_by_attention([texts] * 3, decoder_of(model), encoded, steps, TOKENIZER, weights)
    together = AttentionDecoder(decoder_of(model), TOKENIZER, 3, 2).decode(log_probs, steps, 0.04, encoded)
    for row, seconds in enumerate((0.8, 0.4, 0.2)):
        length = int(steps[row])
        alone = log_probs[row : row + 1, :length], steps[row : row + 1], encoded[row : row + 1, :length]
        [found] = rescore_by_attention([texts], decoder_of(model), alone[2], alone[1], TOKENIZER, weights)
        assert [one.text for one in found] == [one.text for one in rescored[row]], seconds
        for one, other in zip(found, rescored[row], strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-5)
        [written] = AttentionDecoder(decoder_of(model), TOKENIZER, 3, 2).decode(*alone[:2], 0.04, alone[2])
        assert [one.tokens for one in written] == [one.tokens for one in together[row]]
        assert [one.steps for one in written] == [one.steps for one in together[row]]


def test_rescoring_is_the_best_of_all_texts(
    enumerated: Callable[[Tensor], dict[tuple[int, ...], float]],
) -> None:
    """Guards the sum: of all texts of four steps, the best by a share of each score, against enumeration of
    all paths of CTC and single steps of the decoder. A share of 0 changes nothing but the record of it."""
    model = make()
    _, _, encoded = outputs(model, 0.1)
    encoded = encoded[:, :4]
    length = torch.tensor([4])
    winners = set()
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        log_probs = torch.randn(4, 3, generator=generator, dtype=torch.float64).log_softmax(1)
        ctc = enumerated(log_probs)
        scores = dict(zip(ctc, token_log_probs(decoder_of(model), encoded[0], list(ctc)), strict=True))
        config = BeamConfig(beam_size=500, nbest=500, recombine=False, beam_threshold=math.inf)
        first = TwoPassDecoder(TOKENIZER, config, DecodingResources())
        [plain] = first.decode(log_probs[None], length, 0.04)
        resources = DecodingResources(attention=decoder_of(model))
        for weight, scale in ((0.0, 1.0), (0.4, 1.0), (1.0, 1.0), (0.4, 0.5)):
            changed = config.with_weights(attention_weight=weight, acoustic_scale=scale)
            decoder = TwoPassDecoder(TOKENIZER, changed, resources)
            [found] = decoder.decode(log_probs[None], length, 0.04, encoded)
            if weight == 0:
                assert [replace(one, attention_score=0.0) for one in found] == plain
            if scale == 1:
                total = {text: (1 - weight) * ctc[text] + weight * scores[text] for text in ctc}
                assert found[0].tokens == max(total, key=total.__getitem__)
                assert found[0].score == pytest.approx(total[found[0].tokens], abs=1e-4)
            else:
                for one in found[:5]:
                    expected = (1 - weight) * one.acoustic_score + weight * scale * scores[one.tokens]
                    assert one.score == pytest.approx(expected, abs=1e-4)
            winners.add(found[0].tokens)
    assert len(winners) > 2


@pytest.mark.parametrize("kind", ["dot", "additive"])
def test_alone_it_writes_the_best_of_all_texts(kind: str) -> None:
    """Guards the search of the decoder alone, against the score of every text of up to three tokens, with
    times that do not run back."""
    model = make(kind)
    log_probs, _, encoded = outputs(model, 0.1)
    steps = torch.tensor([3])
    every = [text for size in range(4) for text in itertools.product((1, 2), repeat=size)]
    scores = token_log_probs(decoder_of(model), encoded[0, :3], every)
    rank = {text: score / (len(text) + 1) for text, score in zip(every, scores, strict=True)}
    ranked = sorted(every, key=lambda text: -rank[text])
    decoder = AttentionDecoder(decoder_of(model), TOKENIZER, beam_size=20, nbest=4)
    [found] = decoder.decode(log_probs[:, :3], steps, 0.04, encoded[:, :3])
    assert [one.tokens for one in found] == ranked[:4]
    assert found[0].score == pytest.approx(scores[every.index(ranked[0])], abs=1e-5)
    for one in found:
        assert list(one.steps) == sorted(one.steps)
        assert all(0 <= step < 3 for step in one.steps)
        assert all(0 < word.confidence <= 1 and word.end_s > word.start_s for word in one.words)
    [[greedy]] = AttentionDecoder(decoder_of(model), TOKENIZER).decode(
        log_probs[:, :3], steps, 0.04, encoded[:, :3]
    )
    source, expected = decoder_of(model).source(encoded[:, :3], steps), ()
    while len(expected) < 3:
        target = torch.tensor([expected], dtype=torch.int64)
        symbol = int(decoder_of(model).step_through(source, target)[0][0, -1].argmax())
        if symbol == 0:
            break
        expected += (symbol,)
    assert greedy.tokens == expected
    assert greedy.score == pytest.approx(scores[every.index(expected)], abs=1e-5)


def test_no_steps() -> None:
    """An utterance without steps beside one that has some: its text is empty, and nothing crashes."""
    model = make()
    log_probs, _, encoded = outputs(model, 0.2)
    steps = torch.tensor([0, 3])
    for beam_size in (1, 3):
        decoder = AttentionDecoder(decoder_of(model), TOKENIZER, beam_size)
        both = log_probs.expand(2, -1, -1), steps, 0.04, encoded.expand(2, -1, -1)
        assert decoder.decode(*both)[0][0].text == ""
        assert decoder.decode(log_probs, steps[:1], 0.04, encoded)[0][0].tokens == ()


def test_spaces_are_those_of_transcripts() -> None:
    """CTC emits spaces where no transcript has any; the decoder would find such a text improbable."""
    tokenizer = CharTokenizer((" ", "a", "b"))
    assert transcript_tokens((1, 2, 1, 1, 3, 1), tokenizer) == (2, 1, 3)
    assert transcript_tokens((1,), tokenizer) == ()
    assert transcript_tokens((1, 1, 2), PHONES) == (1, 1, 2)


def test_without_the_encoders_outputs() -> None:
    """One line in place of a crash where only log-probabilities were kept."""
    model = make()
    with pytest.raises(ModelError, match="the attention decoder needs the encoder's outputs"):
        AttentionDecoder(decoder_of(model), TOKENIZER).decode(torch.zeros(1, 3, 3), torch.tensor([3]), 0.04)
