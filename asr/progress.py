"""Progress of long work: log records that the console overwrites in place, with the time that is left."""

import logging
import time

__all__ = ["Progress", "clock"]

log = logging.getLogger("asr")

_REPORT_EVERY_S = 1.0


class Progress:
    """Transient log records, at most one a second.

    Args:
        what: is done, such as "features", for the line.
        total: of the work, in any unit.
    """

    def __init__(self, what: str, total: float) -> None:
        self.what, self.total = what, total
        self._began = self._reported = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def left_s(self, done: float) -> float:
        """Seconds that the rest will take, at the speed so far; done: above 0, in the unit of the total."""
        return self.elapsed_s * max(self.total - done, 0.0) / done

    def report(self, done: float, text: str) -> None:
        """Log the progress, unless that was done within the last second.

        Args:
            done: above 0, in the unit of the total.
            text: how much that is, such as "3 of 10 files".
        """
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY_S:
            self._reported = now
            left = clock(self.left_s(done))
            log.info("%s: %s, %s left", self.what, text, left, extra={"transient": True})


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
