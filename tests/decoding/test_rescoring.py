"""Rescoring: a text's log-probability is the language model's own, however many texts share its beginning."""

from pathlib import Path

import numpy as np
import pytest

from asr.decoding.hypothesis import Hypothesis
from asr.decoding.rescoring import rescore_by_lm, text_log_probs
from asr.lm.interface import Unit
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.model import NgramModel

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
    np.testing.assert_allclose(text_log_probs(lm, TEXTS), expected, rtol=1e-12)
    assert text_log_probs(lm, []).shape == (0,)


def test_scores_are_sums_and_sorted(lm: NgramModel) -> None:
    """A weight that is ignored, a bonus for characters, or a list that stays in its old order."""
    given = [Hypothesis(text, (), (), (), -float(n), -float(n)) for n, text in enumerate(TEXTS[:5])]
    found, alone, none = rescore_by_lm([given, given[2:3], []], lm, 0.5, 0.25)
    assert none == []
    assert [one.text for one in alone] == [""]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert {one.text for one in found} == set(TEXTS[:5])
    for one in found:
        log_prob = lm.log_probs(one.text).sum()
        assert one.lm_log_prob == pytest.approx(log_prob)
        assert one.score == pytest.approx(one.acoustic_score + 0.5 * log_prob + 0.25 * len(one.text.split()))
