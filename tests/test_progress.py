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


@pytest.mark.parametrize(
    ("start", "done", "total", "elapsed_s", "line"),
    [
        (0, 50_000_000, 100_000_000, 10.0, "x: 50 MB of 100 MB (50 %), 5.0 MB/s, 0:00:10 left"),
        (40_000_000, 50_000_000, 30_000_000_000, 10.0, "x: 50 MB of 30 GB (0 %), 1.0 MB/s, 8:19:10 left"),
        (0, 1500, 0, 1.0, "x: 1.5 kB, 0.0 MB/s"),
        (5, 5, 10, 1.0, "x: 5 bytes of 10 bytes (50 %), 0.0 MB/s"),
    ],
)
def test_bytes(
    start: int, done: int, total: int, elapsed_s: float, line: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Guards speed and time left: bytes of an earlier run must not count into the speed."""
    caplog.set_level(logging.INFO, "asr")
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = Progress("x", total, start)
    now[0] += elapsed_s
    progress.report_bytes(done)
    assert caplog.messages == [line]
