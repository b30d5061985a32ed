"""AdamW as every run uses it."""

from typing import Any

import torch
from torch import Tensor, nn


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over a model's trainable weights.

    Weight decay is for matrices only: biases and norms are not what overfits. The fused kernel can leave out
    an update that a flag on the device forbids (`step_unless`), without asking the host.

    Args:
        model: on its device.
        learning_rate: of the first update.
        weight_decay: of matrices.

    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization".
    """
    # Named, so that a checkpoint tells whose moments it has.
    weights = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [pair for pair in weights if pair[1].dim() > 1], "weight_decay": weight_decay},
        {"params": [pair for pair in weights if pair[1].dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]  # torch wants names in all groups
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def restore_optimizer(optimizer: torch.optim.AdamW, state: dict[str, Any]) -> bool:
    """Load moments and step counts; the settings stay those of today.

    Args:
        optimizer: of `make_optimizer`.
        state: of such an optimiser.

    Returns:
        False, with nothing changed, if it is about other weights.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group.get("param_names") for group in groups] != [
        group.get("param_names") for group in state["param_groups"]
    ]:
        return False
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    return True


def step_unless(optimizer: torch.optim.AdamW, skipped: Tensor) -> None:
    """Update the weights, or leave weights, moments and step counts as they are.

    Args:
        optimizer: of `make_optimizer`.
        skipped: () bool on the weights' device; True for no update. The host never reads it.

    Source: torch.optim.adam._fused_adam: the kernels return early where found_inf is 1, and the step counts
        that were raised for them are lowered by it again. torch.amp.GradScaler uses the same door.
    """
    optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
    optimizer.step()
