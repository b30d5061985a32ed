import copy

import pytest
import torch
from torch import nn

from asr.training.optimizer import make_optimizer, restore_optimizer, step_unless


def _step(model: nn.Module, optimizer: torch.optim.AdamW, skipped: bool, gradient: float = 1.0) -> None:
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, gradient)
    step_unless(optimizer, torch.tensor(skipped, device=next(model.parameters()).device))


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gradient", [1.0, float("nan"), float("inf")])
def test_skipped_update_changes_nothing(device: str, gradient: float) -> None:
    """Guards weights, both moments, step counts and weight decay against an update that is to be left out."""
    model = nn.Linear(3, 2).to(device)
    optimizer = make_optimizer(model, 0.1, weight_decay=0.5)
    _step(model, optimizer, skipped=False)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    _step(model, optimizer, skipped=True, gradient=gradient)
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)
    after = optimizer.state_dict()["state"]
    for key, values in state["state"].items():
        assert values["step"] == 1
        for name, value in values.items():
            assert torch.equal(after[key][name], value), name


def test_first_update_skipped() -> None:
    """Guards the state that the first call makes: a skip there must not count as a step."""
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, 0.1, weight_decay=0.0)
    _step(model, optimizer, skipped=True, gradient=float("nan"))
    _step(model, optimizer, skipped=False)
    other = copy.deepcopy(model)
    states = optimizer.state_dict()["state"].values()
    assert all(state["step"] == 1 and torch.isfinite(state["exp_avg"]).all() for state in states)
    assert all(torch.isfinite(weight).all() for weight in other.parameters())


def test_equals_plain_adamw() -> None:
    """Guards the fused updates against torch's plain ones."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False)
    plain = copy.deepcopy(model)
    ours = make_optimizer(model, 0.1, weight_decay=0.5)
    theirs = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.5, foreach=False)
    for gradient in (1.0, -2.0, 0.5):
        _step(model, ours, skipped=False, gradient=gradient)
        for weight in plain.parameters():
            weight.grad = torch.full_like(weight, gradient)
        theirs.step()
    torch.testing.assert_close(model.state_dict(), plain.state_dict())


def test_only_matrices_decay() -> None:
    """Guards biases and norms against weight decay."""
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    decayed, plain = make_optimizer(model, 0.1, weight_decay=0.5).param_groups
    assert [weight.dim() for weight in decayed["params"]] == [2]
    assert decayed["weight_decay"] == 0.5
    assert len(plain["params"]) == 3
    assert plain["weight_decay"] == 0.0


def test_moments_of_other_weights_are_refused() -> None:
    """Freezing another layer of the same shape leaves as many weights of the same shapes: moments taken by
    their place in the list would silently be those of other weights."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    optimizer = make_optimizer(model, 0.1, weight_decay=0.0)
    _step(model, optimizer, skipped=False)
    state = copy.deepcopy(optimizer.state_dict())
    assert restore_optimizer(make_optimizer(model, 0.1, weight_decay=0.0), state)
    model[0].requires_grad_(True)
    model[1].requires_grad_(False)
    other = make_optimizer(model, 0.1, weight_decay=0.0)
    assert not restore_optimizer(other, state)
    assert not other.state_dict()["state"]
