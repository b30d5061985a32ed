import logging

import pytest

from asr.training.tasks.blank_plateau import USUAL_UPDATES, BlankPlateau


def observe(watch: BlankPlateau, shares: list[float], first: int = 1) -> None:
    for update, share in enumerate(shares, start=first):
        watch.observe(update, share)


def test_usual_then_over(caplog: pytest.LogCaptureFixture) -> None:
    """Guards the two calm messages, once each, although a fresh model writes noise before it falls silent."""
    caplog.set_level(logging.INFO, "asr")
    watch = BlankPlateau()
    observe(watch, [0.2] * 10 + [1.0] * 200 + [0.9] * 200)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert caplog.messages[0].startswith("update 30: the output is all blank, the usual first phase of CTC")
    assert caplog.messages[1] == (
        "update 230: the model has started to output characters; the blank plateau is over"
    )
    assert watch.emits


def test_no_longer_usual(caplog: pytest.LogCaptureFixture) -> None:
    """Guards the warning: only after the usual number of updates, only once, and with causes to look at."""
    caplog.set_level(logging.INFO, "asr")
    watch = BlankPlateau()
    observe(watch, [1.0] * (USUAL_UPDATES + 500))
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert caplog.messages[1].startswith(
        f"update {USUAL_UPDATES}: the output is still all blank, which is no longer usual"
    )
    assert "--train.learning-rate" in caplog.messages[1]
    assert "--model.subsampling" in caplog.messages[1]
    assert not watch.emits


@pytest.mark.parametrize("shares", [[0.5] * 300, [1.0, 1.0, 0.5] * 100])
def test_nothing_to_say(shares: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """Guards against alarms about single silent batches or a model that writes from the start."""
    caplog.set_level(logging.INFO, "asr")
    observe(BlankPlateau(), shares)
    assert not caplog.messages


def test_resumed_run_stays_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Guards against the plateau messages in a run whose earlier session had left the plateau."""
    caplog.set_level(logging.INFO, "asr")
    watch = BlankPlateau()
    watch.emits = True
    observe(watch, [1.0] * 100)
    assert not caplog.messages
