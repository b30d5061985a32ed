"""Calibration of confidences against values computed by hand."""

import math

import pytest

from asr.decoding.hypothesis import Hypothesis, Word
from asr.scoring.calibration import calibrate
from asr.scoring.wer import score


def hypothesis(*words: tuple[str, float]) -> Hypothesis:
    found = tuple(Word(text, 0.0, 0.1, confidence) for text, confidence in words)
    return Hypothesis(" ".join(word.text for word in found), found, (), (), 0.0, 0.0)


def test_values_by_hand() -> None:
    """Deleted words that count as wrong, wrong bins, a logarithm of the wrong base or sign."""
    result = score(["a b c d"], ["a b x"], ["u"])
    found = calibrate(result, {"u": hypothesis(("a", 0.95), ("b", 0.85), ("x", 1.0))})
    assert found is not None
    assert (found.words, found.left_out) == (3, 0)
    assert [one.words for one in found.bins] == [0] * 8 + [1, 2]
    assert found.bins[9].confidence == pytest.approx(0.975)
    assert found.bins[9].right == 0.5
    assert found.ece == pytest.approx((0.15 + 2 * 0.475) / 3)
    entropy = -(math.log2(0.95) + math.log2(0.85) + math.log2(1e-6)) / 3
    best = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert found.nce == pytest.approx(1 - entropy / best, rel=1e-6)


def test_knowing_nothing_is_zero_and_all_right_is_undefined() -> None:
    """A normalisation that does not cancel; a division by an entropy of 0."""
    result = score(["a b"], ["a x"], ["u"])
    found = calibrate(result, {"u": hypothesis(("a", 0.5), ("x", 0.5))})
    assert found is not None
    assert found.nce == pytest.approx(0.0)
    right = calibrate(score(["a"], ["a"], ["u"]), {"u": hypothesis(("a", 0.4))})
    assert right is not None
    assert right.nce is None
    assert right.ece == pytest.approx(0.6)


def test_words_that_the_rules_split_are_left_out() -> None:
    """Confidences that are given to other words than their own."""
    result = score(["well known", "a"], ["well-known", "a"], ["u", "v"], "english")
    found = calibrate(result, {"u": hypothesis(("well-known", 0.1)), "v": hypothesis(("a", 0.9))})
    assert found is not None
    assert (found.words, found.left_out) == (1, 1)
    assert calibrate(score(["a"], [""], ["u"]), {"u": hypothesis()}) is None
