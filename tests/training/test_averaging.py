import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from asr.errors import TrainingError
from asr.training.averaging import BestEpochs, MovingAverage

MADE, SKIPPED = torch.tensor(False), torch.tensor(True)


def change(net: nn.Module) -> None:
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn_like(weight))


def test_moving_average_equals_the_recursion() -> None:
    """Guards the decay, its lower values at the beginning, and that an update left out changes nothing."""
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    average = MovingAverage(net, 0.9)
    expected = copy.deepcopy(net.state_dict())
    for number in range(1, 200):
        change(net)
        skipped = number % 7 == 0
        average.update(number, SKIPPED if skipped else MADE)
        decay = min(0.9, (1 + number) / (10 + number))
        if not skipped:
            expected = {k: decay * v + (1 - decay) * net.state_dict()[k] for k, v in expected.items()}
    torch.testing.assert_close(average.state(), dict(expected), rtol=1e-4, atol=1e-5)


def test_applied_and_taken_back() -> None:
    """Guards training against going on with the averaged weights, also after an error in validation."""
    net = nn.Linear(3, 2)
    average = MovingAverage(net, 0.5)
    before = {name: value.clone() for name, value in average.state().items()}
    change(net)
    own = copy.deepcopy(net.state_dict())
    with average.applied():
        torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    torch.testing.assert_close(net.state_dict(), own, rtol=0, atol=0)
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    torch.testing.assert_close(net.state_dict(), own, rtol=0, atol=0)
    torch.testing.assert_close(average.state(), before, rtol=0, atol=0)


def test_average_survives_a_checkpoint() -> None:
    """Guards the state: restored, it goes on with the same numbers."""
    net = nn.Linear(3, 2)
    first = MovingAverage(net, 0.5)
    change(net)
    first.update(1, MADE)
    second = MovingAverage(net, 0.5)
    second.restore(copy.deepcopy(first.state()))
    change(net)
    for average in (first, second):
        average.update(2, MADE)
    torch.testing.assert_close(first.state(), second.state(), rtol=0, atol=0)


def test_mean_of_epochs(tmp_path: Path) -> None:
    """Guards the mean of three, counters that have none, and the clearing of what is no longer among the
    best."""
    net = nn.BatchNorm1d(2)
    epochs = BestEpochs(tmp_path / "best")
    for epoch, value in ((2, 1.0), (5, 2.0), (7, 6.0), (9, 100.0)):
        with torch.no_grad():
            net.weight.fill_(value)
            net.num_batches_tracked.fill_(epoch)
        epochs.save(epoch, net)
    (tmp_path / "best" / "epoch_00011.safetensors.part").write_bytes(b"half")
    epochs.remove_others([2, 5, 7])
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == [
        f"epoch_0000{epoch}.safetensors" for epoch in (2, 5, 7)
    ]
    mean = epochs.mean([2, 5, 7])
    assert mean["weight"].tolist() == [3.0, 3.0]
    assert mean["num_batches_tracked"].item() == 2
    with pytest.raises(TrainingError, match=r"epoch_00009\.safetensors: cannot be read for the average"):
        epochs.mean([2, 9])
