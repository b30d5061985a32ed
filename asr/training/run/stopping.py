"""Requests to stop a run and save it: Ctrl-C, a batch scheduler's SIGTERM, a time limit."""

import math
import signal
import time
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Within its context, the first signal requests a stop after the current update; a second stops at once.

    Args:
        max_hours: hours from now after which a stop is requested; 0 for never.
    """

    def __init__(self, max_hours: float = 0.0) -> None:
        self.signalled, self.max_hours = False, max_hours
        self._deadline = time.monotonic() + 3600 * max_hours if max_hours else math.inf

    @property
    def received(self) -> bool:
        """Whether a signal or the time limit requests a stop."""
        return self.signalled or time.monotonic() >= self._deadline

    def reason(self) -> str:
        """What has requested the stop, for a message; "" for a signal."""
        return f" by --train.max-hours {self.max_hours:g}" if self.max_hours and not self.signalled else ""

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signalled:
            raise KeyboardInterrupt
        self.signalled = True
