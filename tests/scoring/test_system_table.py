"""Systems beside each other: rates over seeds, and what may be compared."""

from pathlib import Path

import pytest

from asr.errors import DataError
from asr.scoring.system_table import System, draw, table
from asr.scoring.wer import Score, score

_IDS = ("a", "b", "c")
_REFERENCES = ("one two", "three four", "five six seven eight")


def _scored(*hypotheses: str) -> Score:
    return score(_REFERENCES, hypotheses, _IDS, "verbatim")


_RIGHT = _scored(*_REFERENCES)
_WRONG = _scored("one", "three five", "five six seven eight")


def test_seeds_are_added_up_not_averaged() -> None:
    """The rate over seeds is all errors by all words; the interval is around it and within 0 and 100."""
    system = System("lstm", (_RIGHT, _WRONG))
    wer, interval = system.wer()
    assert wer == pytest.approx(100 * 2 / 16)
    assert system.rates == [0, 25]
    assert 0 <= interval.low <= wer <= interval.high <= 25


def test_an_utterance_is_drawn_with_all_its_seeds() -> None:
    """Seeds hear the same test set. Were each drawn by itself, more seeds would shrink the interval although
    there is not one more utterance."""
    assert System("one seed", (_WRONG,)).wer() == System("three seeds", (_WRONG,) * 3).wer()


def test_table_has_a_line_a_system() -> None:
    """Guards the figures that documents quote: errors and words of all seeds, further columns in order."""
    lines = table(
        [
            System("lstm", (_RIGHT, _WRONG), {"width": "8", "s an epoch": "1.0"}),
            System("gru", (_RIGHT, _RIGHT), {"width": "9", "s an epoch": "2.0"}),
        ]
    ).split("\n")
    assert lines[0].endswith("| each seed | width | s an epoch |")
    assert lines[2].startswith("| lstm | 12.50 | ")
    assert lines[2].endswith(" | 2 / 16 | 0.00 25.00 | 8 | 1.0 |")
    assert lines[3] == "| gru | 0.00 | 0.00 to 0.00, over 3 utterances | 0 / 16 | 0.00 0.00 | 9 | 2.0 |"
    assert len({line.count("|") for line in lines}) == 1


def test_scores_of_other_utterances_are_refused() -> None:
    """Two test sets in one rate would be a rate of nothing."""
    other = score(["x"], ["x"], ["d"], "verbatim")
    with pytest.raises(DataError, match="2 scores of 2 lists of utterances"):
        System("lstm", (_RIGHT, other))
    with pytest.raises(DataError, match="0 scores"):
        System("lstm", ())


def test_words_and_phones_are_not_mixed(tmp_path: Path) -> None:
    """A rate of words and one of phones in one table: the phones would look like a far better system."""
    phones = score(_REFERENCES, _REFERENCES, _IDS, "verbatim", "phones")
    with pytest.raises(DataError, match="scores of different units"):
        System("lstm", (_RIGHT, phones))
    systems = [System("lstm", (_RIGHT,)), System("gru", (phones,))]
    with pytest.raises(DataError, match="scores of different units"):
        table(systems)
    with pytest.raises(DataError, match="scores of different units"):
        draw(systems, tmp_path / "figure.png")
    assert table(systems[1:]).startswith("| system | %PER | 95% interval | errors / phones |")


def test_picture_is_drawn(tmp_path: Path) -> None:
    """A picture of two systems, one of them without an error: a bar of no height must not fail."""
    path = tmp_path / "figure.png"
    draw([System("lstm", (_RIGHT, _WRONG)), System("gru", (_RIGHT,))], path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 5000


def test_speakers_are_resampled() -> None:
    """Guards against an interval over utterances in the table where the speakers are known."""
    ids = [f"u{number}" for number in range(10)]
    speakers = [f"s{number // 2}" for number in range(10)]
    result = score(["a"] * 10, ["a"] * 9 + ["b"], ids, "verbatim", speakers=speakers)
    assert ", over 5 speakers |" in table([System("lstm", (result,))])
