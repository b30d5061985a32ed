"""Fine-tuning: start from the weights of another model, and freeze parts of the net."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from asr.errors import SettingsError, first_few

log = logging.getLogger("asr")

_MAX_NAMED = 8  # tensors named in a message; the rest is counted


def copy_matching_weights(
    net: nn.Module, source_weights: Mapping[str, Tensor | None], source: str
) -> list[str]:
    """Copy every tensor whose name and shape fit, and log which were copied and which were not.

    Args:
        net: to be changed.
        source_weights: tensors of another net by name; None for one whose meaning differs here (an output
            layer of another alphabet).
        source: the model's file, for messages.

    Returns:
        The names of the tensors that were copied.

    Raises:
        SettingsError: nothing fits.
    """
    weights = net.state_dict()
    fitting = {}
    skipped = []
    for name, tensor in weights.items():
        other = source_weights.get(name)
        if other is not None and other.shape == tensor.shape:
            fitting[name] = other
        else:
            reason = "other symbols" if name in source_weights else "not there"
            if other is not None:
                reason = f"{_shape(other)} there, {_shape(tensor)} here"
            skipped.append(f"{name} ({reason})")
    if not any(name in fitting for name, _ in net.named_parameters()):
        raise SettingsError(
            f"--train.warm-start {source}: none of its weights fits this model: "
            f"{first_few(skipped, most=_MAX_NAMED)}. Expected a model with the same cells, width and "
            f"features."
        )
    with torch.no_grad():
        for name, tensor in fitting.items():
            weights[name].copy_(tensor)
    log.info(
        "warm start from %s: %d of %d tensors copied; not copied: %s",
        source, len(fitting), len(weights), first_few(skipped, most=_MAX_NAMED) or "none",
    )  # fmt: skip
    return list(fitting)


def freeze(submodules: Mapping[str, nn.Module], names: Sequence[str]) -> None:
    """Freeze parts of a net: their weights are not trained.

    Args:
        submodules: all of them, by name.
        names: of those to freeze.

    Raises:
        SettingsError: there is no such part, or no weight is left to train.
    """
    unknown = [name for name in names if name not in submodules]
    if unknown:
        raise SettingsError(
            f"--train.freeze {' '.join(unknown)}: no such part. Expected some of: {', '.join(submodules)}."
        )
    for name in names:
        submodules[name].requires_grad_(False)
    if not any(weight.requires_grad for part in submodules.values() for weight in part.parameters()):
        raise SettingsError(
            f"--train.freeze {' '.join(names)}: no weight is left to train. Name fewer parts."
        )


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
