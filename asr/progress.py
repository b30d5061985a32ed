"""Progress of long work: log records that the console overwrites in place, with the time that is left."""

import logging
import time

__all__ = ["Progress", "clock", "size_text"]

log = logging.getLogger("asr")

_REPORT_EVERY_S = 1.0


class Progress:
    """Transient log records, at most one a second.

    Args:
        what: is done, such as "features", for the line.
        total: of the work, in any unit; 0 where it is not known.
        start: how much of it was done earlier, such as bytes of a download that is resumed.
    """

    def __init__(self, what: str, total: float, start: float = 0.0) -> None:
        self.what, self.total, self.start = what, total, start
        self._began = self._reported = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def left_s(self, done: float) -> float:
        """Seconds that the rest will take, at the speed so far; done: above the start, in its unit."""
        return self.elapsed_s * max(self.total - done, 0.0) / (done - self.start)

    def report(self, done: float, text: str) -> None:
        """Log the progress, unless that was done within the last second.

        Args:
            done: in the unit of the total, what was done earlier included.
            text: how much that is, such as "3 of 10 files".
        """
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY_S:
            self._reported = now
            left = f", {clock(self.left_s(done))} left" if self.total and done > self.start else ""
            log.info("%s: %s%s", self.what, text, left, extra={"transient": True})

    def report_bytes(self, done: int) -> None:
        """Log the progress of a transfer, likewise: bytes, percentage and speed.

        Args:
            done: bytes, those of earlier runs included.
        """
        size, speed = size_text(done), (done - self.start) / max(self.elapsed_s, 1e-9) / 1e6
        if self.total:
            size += f" of {size_text(self.total)} ({100 * done // self.total:.0f} %)"
        self.report(done, f"{size}, {speed:.1f} MB/s")


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def size_text(size_bytes: float) -> str:
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
    return f"{size_bytes:.0f} bytes"
