"""Progress of long work: how often it is logged, and the time that is left."""

import logging
import time

import pytest

from asr.progress import Progress, clock


def test_clock() -> None:
    """Guards minutes and hours."""
    assert [clock(seconds) for seconds in (0, 59.6, 3599)] == ["0:00:00", "0:01:00", "0:59:59"]
    assert clock(36_000) == "10:00:00"


def test_one_line_a_second(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A line for every file of thousands, a wrong time left, or a line that stays on the screen."""
    caplog.set_level(logging.INFO, "asr")
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("features", 40)
    for done, now[0] in ((5, 100.9), (10, 101.0), (15, 101.9), (20, 110.0)):
        progress.report(done, f"{done} of 40 files")
    assert caplog.messages == [
        "features: 10 of 40 files, 0:00:03 left",
        "features: 20 of 40 files, 0:00:10 left",
    ]
    assert all(record.transient for record in caplog.records)
    assert progress.elapsed_s == 10.0
    assert progress.left_s(50) == 0.0
