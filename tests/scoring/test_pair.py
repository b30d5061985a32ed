"""Two systems on the same utterances: who is better, whether by chance, and that they are the same."""

import random

import pytest

from asr.errors import DataError
from asr.scoring.pair import Pair
from asr.scoring.wer import Score, score


def system(wrong: set[int], words: int = 600, speakers: int = 0) -> Score:
    """Sentences of six words, in which the numbered words are wrong."""
    texts = [
        " ".join("x" if number in wrong else "a" for number in range(begin, begin + 6))
        for begin in range(0, words, 6)
    ]
    names = [f"s{number % speakers}" if speakers else "" for number in range(len(texts))]
    return score(["a a a a a a"] * len(texts), texts, speakers=names)


def test_sentence() -> None:
    """A sentence that names the wrong system, or calls chance significant, or the reverse."""
    few, many = {*range(0, 600, 12)}, {*range(0, 600, 6)}
    pair = Pair(system(many), system(few))
    assert pair.sentence(pair.matched_pairs()) == (
        "B makes 50% fewer errors than A (50 instead of 100); the difference is significant, p < 0.001."
    )
    pair = Pair(system(few), system(many))
    assert "B makes 100% more errors than A (100 instead of 50)" in pair.sentence(pair.matched_pairs())
    rng = random.Random(0)
    pair = Pair(*(system({*rng.sample(range(600), count)}) for count in (100, 97)))
    text = pair.sentence(pair.matched_pairs())
    assert text.startswith(
        "B makes 3.0% fewer errors than A (97 instead of 100); the difference is not signif"
    )
    assert text.endswith("it may be chance.")
    assert Pair(system(few), system(few)).sentence(pair.matched_pairs()) == (
        "A and B make the same number of errors, 50."
    )
    assert "A makes no error, B makes 50" in Pair(system(set()), system(few)).sentence(pair.matched_pairs())


def test_report() -> None:
    """Utterances that changed and are not shown, most first; errors that cannot be found in them."""
    pair = Pair(system({0, 1, 6}, 24), system({6, 12}, 24))
    lines = pair.report(examples=5).splitlines()
    assert lines[1] == "A: %WER 12.50 [ 3 / 24, 0 ins, 0 del, 3 sub ]"
    assert "Difference of the WER: -4.17 points" in lines[3]
    assert "3 are few for this test" in lines[4]
    assert lines[5] == "Utterances: B is better in 1, A in 1, as many errors in 2"
    assert lines[8:] == [
        "1  errors: A 2, B 0", "  REF: a a a a a a", "  A:   X X a a a a", "  B:   a a a a a a",
        "3  errors: A 0, B 1", "  REF: a a a a a a", "  A:   a a a a a a", "  B:   X a a a a a",
    ]  # fmt: skip
    assert "Changed most" not in pair.report(examples=0)


def test_speakers_may_decide_otherwise() -> None:
    """A difference of one speaker alone that is sold as one of the systems."""
    sentences = range(0, 100, 10)  # all of speaker 0
    pair = Pair(
        system({6 * n + k for n in sentences for k in (0, 3)}, speakers=10), system(set(), speakers=10)
    )
    text = pair.report(0)
    assert "significant, p < 0.001" in text
    assert "But over other speakers it may be otherwise" in text


def test_sets_that_differ() -> None:
    """Results of different utterances or references that are compared without a word."""
    one, two = score(["a", "b"], ["a", "b"], ["u", "v"]), score(["b", "c"], ["b", "x"], ["v", "w"])
    with pytest.raises(
        DataError, match=r"A has 2 utterances, B 2: 1 only in A \(u\), 1 only in B \(w\).*--common"
    ):
        Pair(one, two)
    pair = Pair.common(one, two)
    assert [first.id for first, _ in pair.utterances()] == ["v"]
    with pytest.raises(DataError, match="1 references differ, such as u: 'a' and 'b'"):
        Pair(score(["a"], ["a"], ["u"]), score(["b"], ["a"], ["u"]))
    with pytest.raises(DataError, match="A counts words, B phones"):
        Pair(score(["a"], ["a"], ["u"]), score(["a"], ["a"], ["u"], unit="phones"))
    with pytest.raises(DataError, match="none of these utterances"):
        Pair.common(score(["a"], ["a"], ["u"]), score(["a"], ["a"], ["v"]))


def test_errors_are_seen_without_capitals() -> None:
    """Errors in a script that has no capitals, which look like the words beside them."""
    arabic = [score(["كتاب جديد"], [text]) for text in ("كتاب جديد", "كتاب قديم")]
    assert "  B:   كتاب [قديم]" in Pair(*arabic).report(examples=1).splitlines()
    chinese = [score(["今天天气"], [text]) for text in ("今天天气", "今夫天")]
    lines = Pair(*chinese).report(examples=1).splitlines()
    assert "  B:   今[夫]天***" in lines
    assert any(line.startswith("Difference of the CER: +50.00 points") for line in lines)
