"""Progress of a transfer as log records that the console overwrites in place."""

import logging
import time

from asr.progress import clock

__all__ = ["TransferProgress", "progress_line", "size_text"]

log = logging.getLogger("asr")

_REPORT_EVERY_S = 0.5


class TransferProgress:
    """Transient log records, at most two a second: bytes, percentage, speed, time left."""

    def __init__(self, name: str, start: int, total: int) -> None:
        """Start the clock.

        Args:
            name: name of the file, for the line.
            start: bytes that exist already.
            total: bytes in all; 0 when unknown.
        """
        self._name = name
        self._start = start
        self._total = total
        self._began = self._reported = time.monotonic()

    def report(self, done: int) -> None:
        """Log the progress, unless that was done within the last half second.

        Args:
            done: bytes that exist now, earlier ones included.
        """
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY_S:
            self._reported = now
            line = progress_line(self._name, self._start, done, self._total, now - self._began)
            log.info("%s", line, extra={"transient": True})


def progress_line(name: str, start: int, done: int, total: int, elapsed_s: float) -> str:
    """One line about the progress of a transfer.

    Args:
        name: name of the file.
        start: bytes that existed before this run.
        done: bytes that exist now.
        total: bytes in all; 0 when unknown.
        elapsed_s: seconds since `start`.

    Returns:
        Such as "dev.tar.gz: 50 MB of 100 MB (50 %), 5.0 MB/s, 0:00:10 left".
    """
    speed = (done - start) / max(elapsed_s, 1e-9)
    if not total:
        return f"{name}: {size_text(done)}, {speed / 1e6:.1f} MB/s"
    left = f"{clock((total - done) / speed)} left" if speed > 0 else "time left unknown"
    share = f"{size_text(done)} of {size_text(total)} ({100 * done // total} %)"
    return f"{name}: {share}, {speed / 1e6:.1f} MB/s, {left}"


def size_text(size_bytes: int) -> str:
    """A number of bytes to read, in powers of ten, as disks and download pages count them.

    Args:
        size_bytes: 0 or more.

    Returns:
        Such as "4.7 MB" or "338 MB".
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{size_bytes} bytes"
