"""Two pieces of work on two streams: the order of waits, with streams that only write down what happens."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from asr.model.recurrent import streams


class Recorder:
    """Stands in for streams and tensors, which a machine without a GPU has not got."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    def wait_stream(self, other: Any) -> None:
        self.events.append(f"{self.name} waits for {other.name}")

    def record_stream(self, stream: Any) -> None:
        self.events.append(f"{self.name} is used on {stream.name}")


def test_order_of_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against results that are read before they stand, and memory that is given away before it was
    read."""
    events: list[str] = []
    current, side, x, y = (Recorder(name, events) for name in ("current", "side", "x", "y"))

    @contextmanager
    def stream(entered: Recorder) -> Iterator[None]:
        events.append(f"enter {entered.name}")
        yield
        events.append("leave")

    def work(name: str, result: Any) -> Any:
        events.append(name)
        return result

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(streams, "_side_stream", lambda device: side)
    shared: Any = [x]
    device = torch.device("cuda:0")
    result = streams.on_two_streams(lambda: work("first", 1), lambda: work("second", y), shared, device)
    assert result == (1, y)
    assert events == [
        "side waits for current",
        "x is used on side",
        "enter side",
        "second",
        "leave",
        "first",
        "current waits for side",
        "y is used on current",
    ]
