"""Rescoring: a text's log-probability is the language model's own, however many texts share its beginning."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.decoding.hypothesis import Hypothesis, Word
from asr.decoding.rescoring import rescore_by_lm, rescore_by_second_lm, text_log_probs
from asr.lm.interface import Unit
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.model import NgramModel
from asr.model.decoding_weights import DecodingWeights

TEXTS = ["the cat sat", "the cat", "", "the cat sat down", "a zebra sat", "the cat"]


@pytest.fixture(params=["word", "character"])
def lm(request: pytest.FixtureRequest, tmp_path: Path) -> NgramModel:
    unit: Unit = request.param
    text = tmp_path / "text.txt"
    text.write_text("the cat sat\na cat sat down\nthe dog\n")
    return build([text], NgramConfig(order=3, unit=unit), tmp_path / "lm.bin")


def test_texts_have_the_models_own_log_probs(lm: NgramModel) -> None:
    """Guards the sharing of beginnings: a state of another text, a lost end, an empty text, a text twice."""
    expected = [lm.log_probs(text).sum() for text in TEXTS]
    first, none, second = text_log_probs(lm, [TEXTS, [], TEXTS[1:]])
    np.testing.assert_allclose(first, expected, rtol=1e-12)
    np.testing.assert_allclose(second, expected[1:], rtol=1e-12)
    assert none.shape == (0,)
    assert text_log_probs(lm, []) == []


def test_scores_are_sums_and_sorted(lm: NgramModel) -> None:
    """A weight that is ignored, a bonus for characters, or a list that stays in its old order."""
    given = [Hypothesis(text, (), (), (), -float(n), -float(n)) for n, text in enumerate(TEXTS[:5])]
    weights = DecodingWeights(lm_weight=0.5, word_bonus=0.25)
    found, alone, none = rescore_by_lm([given, given[2:3], []], lm, weights)
    assert none == []
    assert [one.text for one in alone] == [""]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert {one.text for one in found} == set(TEXTS[:5])
    for one in found:
        log_prob = lm.log_probs(one.text).sum()
        assert one.lm_log_prob == pytest.approx(log_prob)
        assert one.score == pytest.approx(one.acoustic_score + 0.5 * log_prob + 0.25 * len(one.text.split()))


def test_a_second_model_has_a_share_of_the_first_ones_score(lm: NgramModel) -> None:
    """Added to the first model's, the language would count more than the audio."""
    given = [
        Hypothesis(text, (), (), (), -float(n), -1.0, lm_log_prob=-20.0) for n, text in enumerate(TEXTS[:5])
    ]
    [found] = rescore_by_second_lm([given], lm, DecodingWeights(lm_weight=1.5, rescore_weight=0.4))
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        log_prob = lm.log_probs(one.text).sum()
        assert one.lm_log_prob == -20.0
        assert one.rescore_lm_log_prob == pytest.approx(log_prob)
        before = -float(TEXTS.index(one.text))
        assert one.score == pytest.approx(before + 1.5 * (0.4 * log_prob - 0.4 * -20.0))


def test_words_that_stay_keep_their_confidences(lm: NgramModel) -> None:
    """The search doubts words of its best text by its lattice; of other texts it knows the output's alone."""

    def said(texts: str, confidence: float) -> tuple[Word, ...]:
        return tuple(
            Word(text, float(start), start + 1.0, confidence) for start, text in enumerate(texts.split())
        )

    first = Hypothesis("sat cat cat", said("sat cat cat", 0.4), (), (), -1.0, -1.0)
    other = Hypothesis("the cat sat", said("the cat sat", 0.9), (), (), -1.1, -1.0)
    weights = DecodingWeights(lm_weight=1.0, rescore_weight=1.0)
    [[best, second]] = rescore_by_second_lm([[first, other]], lm, weights)
    assert best.text == "the cat sat"
    assert [word.confidence for word in best.words] == [0.9, 0.4, 0.9]  # "cat" is there at the same time
    assert second.words == first.words


class _Recorder:
    """A language model of words whose states are the texts; it counts the words that it is asked for."""

    unit: Unit = "word"
    words = ()
    asked = 0

    def start(self) -> str:
        return ""

    def score(self, states: Sequence[str], symbols: Sequence[str]) -> tuple[NDArray[np.float64], list[str]]:
        self.asked += len(symbols)
        texts = [f"{state} {symbol}".strip() for state, symbol in zip(states, symbols, strict=True)]
        return np.array([-float(len(text)) for text in texts]), texts

    def finish(self, states: Sequence[str]) -> NDArray[np.float64]:
        return np.array([-float(len(state)) for state in states])


def test_texts_with_the_same_last_words_are_one() -> None:
    """What comes after a difference of long ago would cost a network as much for each text; with the best
    text's beginning it is asked once. Texts of other utterances are others."""
    rest = "b c d e f g h i j"
    lists = [[f"first {rest}", f"x {rest}"], [f"x {rest}"]]
    exact = [_exact(f"first {rest}"), _exact(f"x {rest}")]
    model = _Recorder()
    [best, other], [alone] = text_log_probs(model, lists, history=3)
    assert best == exact[0]
    assert alone == exact[1]
    # the first four words by itself, the rest and the end as the best one has them
    assert other == exact[1] - 7 * (len("first") - len("x"))
    assert model.asked == 10 + 4 + 10
    [best, other], [alone] = text_log_probs(model, lists)
    assert [best, other, alone] == [*exact, exact[1]]


def _exact(text: str) -> float:
    words = text.split()
    return -float(sum(len(" ".join(words[:count])) for count in range(1, len(words) + 1)) + len(text))
