"""Averages of weights: a moving average over the updates, and the mean of the best validations."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asr.errors import TrainingError
from asr.model.saved import write_atomically


class MovingAverage:
    """An exponential moving average of a net's weights.

    Args:
        net: on its device.
        decay: in (0, 1); about 1 / (1 - decay) updates count. Early on it is lower, (1 + n) / (10 + n), so
            that the untrained weights soon count for nothing.

    Source: Polyak & Juditsky 1992; the lower decay at the beginning as in TensorFlow's
        ExponentialMovingAverage.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = dict(net.named_parameters())
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, number: int, skipped: Tensor) -> None:
        """Add the weights of an update to the average. The host reads nothing from the device.

        Args:
            number: of the update, counted from 1.
            skipped: () bool on the weights' device; True changes nothing.
        """
        decay = min(self.decay, (1 + number) / (10 + number))
        step = (1 - decay) * (~skipped).float()
        averages = list(self._averages.values())
        differences = torch._foreach_sub(list(self._weights.values()), averages)
        torch._foreach_mul_(differences, step)
        torch._foreach_add_(averages, differences)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the net has the averages as its weights."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._set(self._averages)
        try:
            yield
        finally:
            self._set(kept)

    def state(self) -> dict[str, Tensor]:
        """The averages, by the weights' names."""
        return dict(self._averages)

    def restore(self, averages: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        for name, average in self._averages.items():
            average.copy_(averages[name])

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])


class BestWeights:
    """The weights of the best validations, kept on disk to be averaged at the end.

    Args:
        folder: holds these weights and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Keep weights.

        Args:
            name: such as "epoch 4" or "update 1200".
            weights: in the host's memory.

        Raises:
            ModelError: the disk is full.
        """
        tensors = {key: tensor.contiguous() for key, tensor in weights.items()}
        write_atomically(self._path(name), lambda temporary: save_file(tensors, temporary))

    def keep_only(self, names: Sequence[str]) -> None:
        """Remove all files but these, once no checkpoint refers to them."""
        kept = {self._path(name) for name in names}
        for path in self.folder.glob("*"):
            if path not in kept:
                path.unlink()

    def mean(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The mean of some of the weights; of what is not a fraction (counters), the first one's.

        Raises:
            TrainingError: a file is missing or damaged.
        """
        sums: dict[str, Tensor] = {}
        first: dict[str, Tensor] = {}
        for name in names:
            path = self._path(name)
            try:
                weights = load_file(path)
            except (OSError, SafetensorError) as error:
                raise TrainingError(
                    f"{path}: cannot be read for the average of the best epochs: {error}. Restore it, or "
                    f"resume with --train.resume-anyway --train.average 0."
                ) from error
            first = first or weights
            for key, tensor in weights.items():
                sums[key] = sums.get(key, 0) + tensor.double()
        return {
            key: (sums[key] / len(names)).to(tensor.dtype) if tensor.is_floating_point() else tensor
            for key, tensor in first.items()
        }

    def _path(self, name: str) -> Path:
        unit, number = name.split()
        return self.folder / f"{unit}_{int(number):05d}.safetensors"
