"""Where training starts from: weights of another model, and parts that stay as they are."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from asr.errors import SettingsError

log = logging.getLogger("asr")

_NAMED = 8  # tensors spelled out in a message; the others are counted


def take_weights(net: nn.Module, donor: Mapping[str, Tensor | None], source: str) -> None:
    """Copy every tensor whose name and shape fit, and say what was taken and what was not.

    Args:
        net: to be changed.
        donor: tensors of another net by name; None for one that means something else here.
        source: where they come from, for messages.

    Raises:
        SettingsError: nothing fits.
    """
    own = net.state_dict()
    fitting = {}
    left = []
    for name, tensor in own.items():
        other = donor.get(name)
        if other is not None and other.shape == tensor.shape:
            fitting[name] = other
        else:
            reason = "other symbols" if name in donor else "not there"
            if other is not None:
                reason = f"{_shape(other)} there, {_shape(tensor)} here"
            left.append(f"{name} ({reason})")
    if not any(name in fitting for name, _ in net.named_parameters()):
        raise SettingsError(
            f"train.warm-start {source}: none of its weights fits this model: {_some(left)}. Expected a "
            f"model with the same cells, width and features."
        )
    with torch.no_grad():
        for name, tensor in fitting.items():
            own[name].copy_(tensor)
    log.info(
        "warm start from %s: %d of %d tensors taken; not taken: %s",
        source, len(fitting), len(own), _some(left) or "none",
    )  # fmt: skip


def freeze(parts: Mapping[str, nn.Module], names: Sequence[str]) -> None:
    """Exclude parts of a net from learning.

    Args:
        parts: all parts, by name.
        names: of those that are to stay as they are.

    Raises:
        SettingsError: there is no such part, or nothing is left to learn.
    """
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise SettingsError(
            f"train.freeze {' '.join(unknown)}: no such part. Expected some of: {', '.join(parts)}."
        )
    for name in names:
        parts[name].requires_grad_(False)
    if not any(weight.requires_grad for part in parts.values() for weight in part.parameters()):
        raise SettingsError(f"train.freeze {' '.join(names)}: nothing is left to learn. Name fewer parts.")


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
