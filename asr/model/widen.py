"""Widening: a trained encoder's units are repeated, so that a wider one starts where it stands."""

import torch
from torch import Tensor

from asr.model.encoder import Encoder


def can_widen(source: Encoder, target: Encoder) -> bool:
    """Whether `widened_weights` can fill the target: the same net but for its width, which is larger.

    Nets with a projection or a bottleneck are not widened.
    """
    old, new = source.config.recurrent(), target.config.recurrent()
    return (
        new.width > old.width
        and (new.cell, new.bidirectional, new.layer_norm) == (old.cell, old.bidirectional, old.layer_norm)
        and not (old.projection or old.bottleneck or new.projection or new.bottleneck)
    )


def widened_weights(source: Encoder, width: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The weights of an encoder with more units in each layer that computes what the source computes.

    New units repeat old ones, from the first on. What reads a repeated unit divides its old weight among the
    copies, in unequal parts drawn by the generator, so that their gradients differ and the copies diverge.
    The outputs are equal up to rounding; with layer norm only where `width` is a multiple of the old width,
    since its mean and variance count some units more often otherwise.

    Args:
        source: without projection and bottleneck.
        width: units per layer and direction, more than the source has.
        generator: on the CPU.

    Returns:
        Tensors by the names of `Encoder.state_dict`.

    Source: Chen et al. 2016, "Net2Net: accelerating learning via knowledge transfer", Net2WiderNet.
    """
    config = source.config.recurrent()
    units = torch.arange(width) % config.width  # the old unit of each new one
    outputs = torch.cat([units, units + config.width]) if config.bidirectional else units

    def divided(weight: Tensor, columns: Tensor) -> Tensor:
        """(rows, old units) -> (rows, new units), each old column divided among its copies."""
        parts = 0.5 + torch.rand(len(columns), generator=generator)
        totals = torch.zeros(weight.shape[1]).index_add_(0, columns, parts)
        return weight[:, columns] * (parts / totals[columns]).to(weight)

    weights = {}
    for name, tensor in source.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "output" and rest == "weight":
            tensor = divided(tensor, outputs)
        elif part == "recurrent":
            kind, number, *_, parameter = rest.split(".")
            first = number == "0"
            if kind == "norms":
                tensor = tensor if first else tensor[outputs]
            elif parameter == "peepholes":  # (3, units)
                tensor = tensor[:, units]
            else:  # rows: the units of one gate after another
                gates = tensor.shape[0] // config.width
                tensor = tensor[torch.cat([units + gate * config.width for gate in range(gates)])]
                if parameter == "weight_hh_l0":
                    tensor = divided(tensor, units)
                elif parameter == "weight_ih_l0" and not first:
                    tensor = divided(tensor, outputs)
        weights[name] = tensor
    return weights
