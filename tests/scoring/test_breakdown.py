"""Breakdowns of a score: every utterance in its part, every error with its word."""

from asr.scoring.breakdown import breakdown, confusions, length_ranges, ranges, word_errors, worst
from asr.scoring.wer import Score, score

TEXTS = {"u1": ("a b c", "a x c"), "u2": ("a b", "a x b"), "u3": ("b", ""), "u4": ("c", "c")}


def scored() -> Score:
    references, hypotheses = zip(*TEXTS.values(), strict=True)
    return score(references, hypotheses, list(TEXTS), speakers=["s", "s", "t", "t"])


def test_parts_add_up() -> None:
    """An utterance that is in no part, or in two; the part with the highest rate is first."""
    parts = breakdown(scored(), {one.id: one.speaker for one in scored().utterances})
    assert [(part.name, part.score.words.errors) for part in parts] == [("t", 1), ("s", 2)]
    assert sum(part.score.words.reference_length for part in parts) == 7
    ordered = breakdown(scored(), {"u1": "long", "u2": "short"}, ["short", "long"])
    assert [part.name for part in ordered] == ["short", "long"]


def test_lengths() -> None:
    """A length at a border that is in the range below it."""
    names, order = length_ranges({"a": 1.99, "b": 2.0, "c": 12.0, "d": 99.0})
    assert names == {"a": "below 2 s", "b": "2 to 5 s", "c": "10 to 15 s", "d": "30 s and more"}
    assert order[0] == "below 2 s"
    assert order[-1] == "30 s and more"


def test_fields() -> None:
    """Numbers with a part for each, or in the order of text; a table of paths, a row each."""
    numbers, order = ranges({f"u{n}": 1.5 * n for n in range(100)})
    assert order == ["below 30", "30 to 60", "60 to 90", "90 to 120", "120 and more"]
    assert [list(numbers.values()).count(name) for name in order] == [20] * 5
    assert ranges({"a": 10, "b": 9, "c": 10}) == ({"a": "10", "b": "9", "c": "10"}, ["9", "10"])
    assert ranges({"a": "x", "b": True, "c": "x"}) == ({"a": "x", "b": "True", "c": "x"}, [])
    assert ranges({f"u{number}": f"{number}.wav" for number in range(100)}) == ({}, [])


def test_words() -> None:
    """Substitutions, insertions and deletions mixed up, or an inserted word that counts as said."""
    pairs = {(one.reference, one.hypothesis): one.count for one in confusions(scored())}
    assert pairs == {("b", "x"): 1, ("", "x"): 1, ("b", ""): 1}
    (wrong,) = word_errors(scored())
    assert (wrong.word, wrong.errors, wrong.count) == ("b", 2, 3)


def test_worst() -> None:
    """Utterances without an error among the worst; of equal ones the shorter is first."""
    assert [one.id for one in worst(scored(), 10)] == ["u3", "u2", "u1"]
    assert len(worst(scored(), 1)) == 1
