import logging

import pytest
import torch
from torch import nn

from asr.errors import SettingsError
from asr.training.start import freeze, take_weights


def net(hidden: int = 4, symbols: int = 3) -> nn.ModuleDict:
    return nn.ModuleDict({"front": nn.Linear(2, hidden), "output": nn.Linear(hidden, symbols)})


def test_what_fits_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    """Guards a warm start: what fits is copied, the rest is as it was, and both are said."""
    caplog.set_level(logging.INFO, "asr")
    ours, theirs = net(), net(symbols=5)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    donor = {**theirs.state_dict(), "output.bias": None, "more": torch.ones(1)}
    take_weights(ours, donor, "other.safetensors")
    after = ours.state_dict()
    assert torch.equal(after["front.weight"], theirs["front"].weight)
    assert torch.equal(after["front.bias"], theirs["front"].bias)
    assert torch.equal(after["output.weight"], before["output.weight"])
    assert torch.equal(after["output.bias"], before["output.bias"])
    assert caplog.messages == [
        "warm start from other.safetensors: 2 of 4 tensors taken; not taken: output.weight (5 x 4 there, 3 x "
        "4 here), output.bias (other symbols)"
    ]


def test_nothing_fits() -> None:
    """Guards against a run that its user takes for a warm start, and that begins from nothing."""
    with pytest.raises(SettingsError, match=r"train\.warm-start x: none of its .* front\.weight \(not"):
        take_weights(net(), {"encoder.weight": torch.ones(1)}, "x")


def test_frozen_parts_do_not_learn() -> None:
    """Guards the choice of parts."""
    module = net()
    freeze(dict(module), ["front"])
    assert [weight.requires_grad for weight in module.parameters()] == [False, False, True, True]


def test_wrong_parts() -> None:
    """Guards a slip in --train.freeze, and a run in which nothing is left to learn."""
    with pytest.raises(SettingsError, match=r"^train\.freeze frnt: no such part.*some of: front, output\.$"):
        freeze(dict(net()), ["front", "frnt"])
    with pytest.raises(SettingsError, match=r"nothing is left to learn"):
        freeze(dict(net()), ["front", "output"])
