"""Scores of pronunciations: the closest of several right ones counts."""

from pathlib import Path

import pytest

from asr.scoring.pronunciations import _names, score_pronunciations


def test_words_and_phones_against_hand_counts() -> None:
    """Right by any listed pronunciation; a wrong one is compared with the closest; silence is wrong."""
    references = [
        [("A", "B"), ("A", "C")],  # right by the second
        [("A", "B", "C", "D"), ("X",)],  # one of four, not one of one
        [("A", "B"), ("C", "D")],  # one of two
        [("A", "B")],  # silent: two deletions
    ]
    given = [("A", "C"), ("A", "B", "C"), ("C", "B", "D"), ()]
    score = score_pronunciations(given, references)
    assert score.wrong == (False, True, True, True)
    assert score.words_wrong == 75
    assert (score.phone_errors, score.phones) == (0 + 1 + 1 + 2, 2 + 4 + 2 + 2)
    assert score.phone_error_rate == pytest.approx(40)
    interval = score.interval()
    assert interval.low < 75 < interval.high == 100


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/lexicon/dot/model.safetensors"], ["dot"]),
        (["runs/dot/model.safetensors", "runs/ctc/model.safetensors"], ["dot", "ctc"]),
        (["a.safetensors", "b.safetensors"], ["a", "b"]),
        (["x/a/y.safetensors", "x/b/a.safetensors", "a/c/a.safetensors"], None),
    ],
)
def test_names_of_networks(paths: list[str], names: list[str] | None) -> None:
    """A lone network had the name of the topmost folder, "runs"."""
    assert _names([Path(path) for path in paths]) == (names or paths)
