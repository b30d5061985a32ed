"""Hypotheses of consecutive parts put together: every word once, at its time in the recording."""

import random

import pytest

from asr.decoding.hypothesis import Hypothesis, Word
from asr.recognition.joining import Joined

STEP_S = 0.04


def hypothesis(words: list[tuple[str, float]], start_s: float = 0.0, score: float = 1.0) -> Hypothesis:
    """Words with their begins in the recording, as a decoder gives them for a part."""
    timed = tuple(Word(text, begin - start_s, begin - start_s + 0.2, 0.9) for text, begin in words)
    steps = tuple(round((begin - start_s) / STEP_S) for _, begin in words)
    return Hypothesis(
        " ".join(text for text, _ in words), timed, tuple(map(len, map(str, steps))), steps, score, score
    )


def test_stitched_windows_are_the_whole() -> None:
    """Words of the overlap that are lost, doubled or out of order, also where a window has them wrong."""
    draw = random.Random(0)
    for _ in range(200):
        words = [(draw.choice("abcdefgh"), 0.1 + 0.4 * number) for number in range(60)]  # 24 s
        joined = Joined(STEP_S)
        settled: list[Word] = []
        for begin in (0.0, 8.0, 16.0):
            end = begin + 12.0 if begin < 16 else 24.0
            inside = [(text, time) for text, time in words if begin <= time and time + 0.2 <= end]
            if begin:  # what has no context before it is wrong, and so is what has none after it
                inside[0] = ("x", inside[0][1])
            if end < 24:
                inside[-1] = ("y", inside[-1][1])
            shifted = [(text, time + draw.uniform(-0.06, 0.06)) for text, time in inside]
            settled += joined.add([hypothesis(shifted, begin)], begin, end - begin, 4.0 if end < 24 else 0.0)
        (found,) = joined.hypotheses()
        assert found.text == " ".join(text for text, _ in words)
        assert tuple(settled) == found.words
        assert len(found.tokens) == len(found.steps) == len(words)
        for (_, time), word, step in zip(words, found.words, found.steps, strict=True):
            assert word.start_s == pytest.approx(time, abs=0.11)
            assert step * STEP_S == pytest.approx(time, abs=0.16)


def test_windows_that_have_no_word_in_common() -> None:
    """Words of one window that are lost or doubled where the other one has others: each has its half."""
    joined = Joined(STEP_S)
    joined.add([hypothesis([("a", 1.0), ("b", 8.5), ("c", 11.0)])], 0.0, 12.0, 4.0)
    joined.add([hypothesis([("d", 8.5), ("e", 11.0), ("f", 15.0)], 8.0)], 8.0, 10.0, 0.0)
    (found,) = joined.hypotheses()
    assert found.text == "a b e f"


def test_pieces_without_overlap_keep_all_words() -> None:
    """A word at the end of a part that is taken for one of an overlap."""
    joined = Joined(STEP_S)
    assert [word.text for word in joined.add([hypothesis([("a", 1.0), ("a", 4.9)])], 0.0, 5.0, 0.0)] == [
        "a",
        "a",
    ]
    joined.add([hypothesis([("a", 5.1)], 5.0)], 5.0, 3.0, 0.0)
    joined.add([hypothesis([])], 20.0, 3.0, 0.0)
    (found,) = joined.hypotheses()
    assert [(word.text, round(word.start_s, 2)) for word in found.words] == [
        ("a", 1.0),
        ("a", 4.9),
        ("a", 5.1),
    ]
    assert found.score == 3.0


def test_ranks() -> None:
    """Alternatives that are lost where another part has fewer."""
    joined = Joined(STEP_S)
    joined.add([hypothesis([("a", 1.0)], score=3.0)], 0.0, 5.0, 0.0)
    joined.add([hypothesis([("b", 6.0)], 5.0, 2.0), hypothesis([("c", 6.0)], 5.0, 1.0)], 5.0, 5.0, 0.0)
    joined.add([hypothesis([("d", 11.0)], 10.0, 1.0)], 10.0, 5.0, 0.0)
    assert [(found.text, found.score) for found in joined.hypotheses()] == [("a b d", 6.0), ("a c d", 5.0)]
