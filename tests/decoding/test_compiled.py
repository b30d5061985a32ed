"""What is kept of earlier compilations."""

from pathlib import Path

import pytest

from asr.decoding import compiled as module
from asr.decoding.compiled import allocating


def test_a_change_of_any_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against machine code of an earlier version: numba looks at one function's file only."""
    other = tmp_path / "other.py"
    stamps = []
    for text in ("a = 1", "a = 1", "a = 12"):
        other.write_text(text)
        monkeypatch.setattr(module, "_FILES", (other,))
        stamps.append(stamp_of_a_new_function())
        assert len(stamps[-1]) == 2
    assert stamps[1][1][1] == stamps[0][1][1]
    assert stamps[2][1][1] != stamps[0][1][1]


def stamp_of_a_new_function() -> tuple:
    @allocating
    def nothing() -> int:
        return 0

    return nothing._cache._cache_file._source_stamp  # type: ignore[attr-defined]
