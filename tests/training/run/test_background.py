import threading
from pathlib import Path

import pytest

from asr.errors import ModelError
from asr.training.run.background import BackgroundWriter


def test_order_and_no_waiting() -> None:
    """Guards training against waiting for the disk, and a checkpoint against models that come after it."""
    may_go_on, order = threading.Event(), []

    def slow() -> None:
        may_go_on.wait()
        order.append("model")

    with BackgroundWriter() as writer:
        writer.submit(slow)
        writer.submit(lambda: order.append("checkpoint"))
        assert order == []
        may_go_on.set()
        writer.wait()
        assert order == ["model", "checkpoint"]


def test_nothing_is_written_after_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Guards a checkpoint that would name a model for which the disk was too full, and the error itself: it
    reaches the caller once, and a later write may succeed."""

    def fail() -> None:
        raise ModelError("No space left on device")

    written: list[str] = []
    with BackgroundWriter() as writer:
        writer.submit(fail)
        writer.submit(lambda: written.append("checkpoint"))
        with pytest.raises(ModelError, match="No space left"):
            writer.wait()
        assert written == []
        writer.submit(lambda: written.append("later"))
    assert written == ["later"]
    with pytest.raises(ModelError, match="No space left"), BackgroundWriter() as writer:
        writer.submit(fail)
    with pytest.raises(ZeroDivisionError), BackgroundWriter() as writer:  # noqa: PT012
        writer.submit(fail)
        raise ZeroDivisionError  # is not replaced by the error of the disk, which is logged
    assert "No space left on device" in caplog.messages
