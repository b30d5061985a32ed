"""Pronouncers: words of any letters, and what several models make of a word together."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from asr.errors import SettingsError
from asr.text.pronunciation.pronouncer import Candidates, CombinedPronouncer, Pronunciation, pronounce_words


class Table:
    """A pronouncer with given probabilities; it finds the `found` best."""

    letters = ("a", "b")

    def __init__(self, table: dict[str, dict[str, float]], found: int = 9) -> None:
        self.table, self.found = table, found

    def search(self, words: Sequence[str], count: int) -> list[list[Pronunciation]]:
        ranked = [sorted(self.table[word].items(), key=lambda one: -one[1]) for word in words]
        return [
            [Pronunciation(tuple(phones), math.log(prob)) for phones, prob in row[: min(count, self.found)]]
            for row in ranked
        ]

    def score(self, words: Sequence[str], phones: Sequence[tuple[str, ...]]) -> list[float]:
        probs = [self.table[word].get("".join(one), 0) for word, one in zip(words, phones, strict=True)]
        return [math.log(prob) if prob else -math.inf for prob in probs]


FIRST = Table({"a": {"X": 0.6, "Y": 0.4}, "ab": {"XX": 0.9, "XY": 0.1}})
SECOND = Table({"a": {"Y": 0.9, "X": 0.1}, "ab": {"XY": 0.6, "XX": 0.2, "Z": 0.2}}, found=1)


def test_unknown_letters_are_named_and_left_out() -> None:
    """A word must not vanish, nor its letters without a word; the order and the words' case stay."""
    made = list(pronounce_words(FIRST, ["A", "éaé", "жи", "aB"], at_once=2))
    assert [(one.word, one.unknown) for one in made] == [("A", ""), ("éaé", "é"), ("жи", "жи"), ("aB", "")]
    assert [[p.phones for p in one.pronunciations] for one in made] == [
        [("X",)], [("X",)], [], [("X", "X")],
    ]  # fmt: skip


def test_combination_is_the_weighted_sum_of_all_candidates() -> None:
    """Each model's candidates are scored by all; a model that cannot give one does not forbid it."""
    both = CombinedPronouncer([FIRST, SECOND], [0.5, 0.5])
    assert both.letters == ("a", "b")
    (found,) = both.search(["a"], 2)
    assert [one.phones for one in found] == [("Y",), ("X",)]
    weights = {"X": math.sqrt(0.6 * 0.1), "Y": math.sqrt(0.4 * 0.9)}
    assert math.exp(found[0].log_prob) == pytest.approx(weights["Y"] / sum(weights.values()))
    assert both.score(["a"], [("Y",)])[0] == pytest.approx(math.log(weights["Y"]))
    assert math.isfinite(both.score(["ab"], [("Z",)])[0])
    wide = CombinedPronouncer([FIRST, Table(SECOND.table)], [0.5, 0.5])
    (found,) = wide.search(["ab"], 5)
    assert [one.phones for one in found] == [("X", "X"), ("X", "Y"), ("Z",)]
    assert math.isfinite(found[2].log_prob)
    alone = CombinedPronouncer([FIRST, SECOND], [1, 0])
    assert [one[0].phones for one in alone.search(["a", "ab"], 1)] == [("X",), ("X", "X")]
    assert both.search([], 3) == []


def test_tuning_finds_the_weights_that_are_right() -> None:
    """Weights that make one model silent where it is wrong, from a start at which it is not."""
    made = Candidates.of([FIRST, SECOND], ["a", "ab"], 5)
    assert np.isneginf(made.scores[1, 2:]).all()
    for references in ([[("X",)], [("X", "X")]], [[("Y",)], [("X", "Y")]]):
        weights, wrong = made.tune(references)
        assert wrong == 0
        assert sum(weights) == pytest.approx(1)
        chosen = made.best(weights)
        assert [phones[row] for phones, row in zip(made.phones, chosen, strict=True)] == [
            one[0] for one in references
        ]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -0.1], [0.0, 0.0]])
def test_weights_that_fit_no_models(weights: list[float]) -> None:
    """One line that names the option."""
    with pytest.raises(SettingsError, match=r"--weights .* Expected one for each"):
        CombinedPronouncer([FIRST, SECOND], weights)
