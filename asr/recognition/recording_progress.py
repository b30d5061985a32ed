"""Progress over recordings of any length: how many are done, how fast, and the time that is left."""

import logging
from dataclasses import dataclass

from asr.progress import Progress, clock

__all__ = ["Position", "RecordingProgress"]

log = logging.getLogger("asr")


@dataclass
class Position:
    """How far the segments of one long recording have come, pauses between them included.

    Attributes:
        expected_s: length of the recording by its header, seconds; None where it is not known.
        reached_s: end of the segments so far, seconds.
    """

    expected_s: float | None
    reached_s: float = 0.0

    def advance(self, end_s: float, last: bool) -> tuple[float, float]:
        """Go on to the end of the next segment.

        Args:
            end_s: seconds from the start of the recording.
            last: whether it is the recording's end.

        Returns:
            The seconds that no earlier segment had, and their share of the recording, 0 to 1. The shares of a
            recording sum to 1; where its length is not known, the last segment has all of it.
        """
        before = self._share()
        seconds, self.reached_s = end_s - self.reached_s, end_s
        return seconds, (1.0 if last else self._share()) - before

    def _share(self) -> float:
        return min(self.reached_s / self.expected_s, 1.0) if self.expected_s else 0.0


class RecordingProgress:
    """Logs progress after every batch, and a last line that is kept.

    Args:
        total: recordings.
    """

    def __init__(self, total: int) -> None:
        self._total, self._progress = total, Progress("recordings", total)
        self._used = self._unusable = 0
        self._seconds = self._shares = 0.0
        self._without_speech: list[float] = []

    def failed(self, count: int) -> None:
        """Count segments that cannot be used."""
        self._unusable += count

    def without_speech(self, duration_s: float) -> None:
        """Count a recording of so many seconds that has no segments; from any thread."""
        self._without_speech.append(duration_s)

    def add(self, ended: int, seconds: float, shares: float) -> None:
        """Count what was computed.

        Args:
            ended: recordings that are done.
            seconds: of the recordings; where segments overlap, once.
            shares: of recordings, such as 1.5 for one and half of the next.
        """
        self._used += ended
        self._seconds += seconds
        self._shares += shares
        silent = len(self._without_speech)
        done, in_parts = self._used + self._unusable + silent, self._shares + self._unusable + silent
        if self._total == 1 and not done:
            # the position in the one recording
            text = clock(self._seconds)
            text += f" of {clock(self._seconds / self._shares)}" if self._shares else " of audio"
        else:
            text = f"{done} of {self._total} recordings, {clock(self.seconds)} of audio"
        speed = self.seconds / max(self._progress.elapsed_s, 1e-9)
        left = f", {clock(self._progress.left_s(in_parts))} left" if in_parts else ""
        log.info("%s, %.0f times real time%s", text, speed, left, extra={"transient": True})

    @property
    def seconds(self) -> float:
        """Of all recordings so far, those without speech too."""
        return self._seconds + sum(self._without_speech)

    def end(self) -> None:
        """Log the last line, which is kept."""
        if self.seconds:
            elapsed, used = self._progress.elapsed_s, self._used + len(self._without_speech)
            log.info(
                "%d of %d recordings, %.1f s of audio in %.1f s (%.0f times real time)",
                used, self._total, self.seconds, elapsed, self.seconds / elapsed,
            )  # fmt: skip
