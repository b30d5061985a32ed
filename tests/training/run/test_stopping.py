import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr.errors import Interrupted
from asr.training.run.checkpoint import CHECKPOINT, load_checkpoint
from asr.training.run.stopping import StopRequest
from asr.training.trainer import Trainer

Make = Callable[..., Trainer]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number: signal.Signals) -> None:
    """Guards Ctrl-C and a batch system's SIGTERM: the first asks, the second ends, and handlers are put
    back."""
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.received
        signal.raise_signal(number)
        assert stop.received
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_time_limit(make_trainer: Make, tmp_path: Path) -> None:
    """Guards --train.max-hours: it ends as by a signal, with the reason, and can be resumed."""
    stop = StopRequest(max_hours=1e-9)
    with pytest.raises(Interrupted, match=r"stopped by --train\.max-hours 1e-09 in epoch 1, batch 1, and"):
        make_trainer().fit(stop)
    state, _, _ = load_checkpoint(tmp_path / "run" / CHECKPOINT, torch.device("cpu"))
    assert state.update == 1
    with StopRequest(max_hours=1.0) as patient:
        assert not patient.received
        signal.raise_signal(signal.SIGTERM)
        assert patient.received
        assert patient.reason() == ""
