"""Words wrong by their length: counts from a file of results, table and picture."""

import json
from pathlib import Path

import numpy as np
import pytest

from asr.scoring.word_lengths import _wilson, draw_lengths, length_table, wrong_by_length


def test_counts_table_and_picture(tmp_path: Path) -> None:
    """Guards the counts: any right pronunciation counts, very long words are counted together."""
    rows = [
        {"word": "a", "right": ["AH", "EY"], "given": {"one": "EY", "two": ""}},
        {"word": "able", "right": ["EY B AH L"], "given": {"one": "AE B", "two": "EY B AH L"}},
        {"word": "x" * 20, "right": ["K"], "given": {"one": "K", "two": "S"}},
        {"word": "y" * 13, "right": ["K"], "given": {"one": "K", "two": "K"}},
    ]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = wrong_by_length(results)
    assert counts == {"one": {3: (0, 1), 4: (1, 1), 13: (0, 2)}, "two": {3: (1, 1), 4: (0, 1), 13: (1, 2)}}
    head, one, two = length_table(counts).splitlines()
    assert head.split() == ["%", "wrong", "by", "letters", "3", "4", "13"]
    assert one.split() == ["one", "0.0", "100.0", "0.0"]
    assert two.split() == ["two", "100.0", "0.0", "50.0"]
    draw_lengths(counts, tmp_path / "lengths.png", "title")
    assert (tmp_path / "lengths.png").stat().st_size > 5000


def test_intervals() -> None:
    """Guards the formula, against the example of Wilson's interval for 1 of 10: 1.8% to 40.4%."""
    low, high = _wilson(np.array([1, 0]), np.array([10, 10]))
    assert low == pytest.approx([0.0179, 0.0], abs=1e-4)
    assert high == pytest.approx([0.4042, 0.2775], abs=1e-4)
