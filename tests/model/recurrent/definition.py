"""What the tests of recurrent layers compare with: a cell's plain loop, and a loss of all that comes out."""

from typing import Any

import torch
from torch import Tensor

from asr.model.recurrent.unidirectional import UnidirectionalLayer


def by_definition(direction: UnidirectionalLayer, x: Tensor, state: tuple[Tensor, ...]) -> Any:
    """The plain loop, which autograd differentiates."""
    gates = direction.input_gates(x.flatten(0, 1)).view(*x.shape[:2], -1)
    return direction.loop(gates, state, direction.weight_hh_l0)


def loss(y: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """Something that every output matters to, each differently."""
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return (y * weights).sum() + sum((part.square().sum() for part in state), torch.zeros((), dtype=y.dtype))
