import os

import pytest

from asr.cores import usable_cores


def test_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards macOS, where a process cannot be pinned to cores and os has no such function."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
