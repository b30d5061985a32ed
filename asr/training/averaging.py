"""Averages of weights: over the updates as training goes, and over the best epochs at its end."""

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
            that the untrained weights are soon forgotten.

    Source: Polyak & Juditsky 1992; the lower decay at the beginning as in TensorFlow's
        ExponentialMovingAverage.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self._weights = dict(net.named_parameters())
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, number: int, skipped: Tensor) -> None:
        """Take in the weights after an update. The host reads nothing from the device.

        Args:
            number: of the update, counted from 1.
            skipped: () bool on the weights' device; True changes nothing.
        """
        decay = min(self.decay, (1 + number) / (10 + number))
        share = (1 - decay) * (~skipped).float()
        averages = list(self._averages.values())
        differences = torch._foreach_sub(list(self._weights.values()), averages)
        torch._foreach_mul_(differences, share)
        torch._foreach_add_(averages, differences)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The net has the averages as its weights for as long as this is entered."""
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
        """Go on from what `state` gave."""
        for name, average in self._averages.items():
            average.copy_(averages[name])

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])


class BestEpochs:
    """The weights of the best epochs, kept on disk to be averaged.

    Args:
        folder: for nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, epoch: int, net: nn.Module) -> None:
        """Keep an epoch.

        Raises:
            ModelError: the disk is full.
        """
        weights = {name: tensor.detach().contiguous().cpu() for name, tensor in net.state_dict().items()}
        write_atomically(self._path(epoch), lambda temporary: save_file(weights, temporary))

    def remove_others(self, epochs: Sequence[int]) -> None:
        """Remove all but these; to be called when a checkpoint no longer names the others."""
        kept = {self._path(epoch) for epoch in epochs}
        for path in self.folder.glob("*"):
            if path not in kept:
                path.unlink()

    def mean(self, epochs: Sequence[int]) -> dict[str, Tensor]:
        """The mean of the weights of some epochs; of what is not a fraction (counters), the first one's.

        Raises:
            TrainingError: a file is missing or damaged.
        """
        sums: dict[str, Tensor] = {}
        first: dict[str, Tensor] = {}
        for epoch in epochs:
            path = self._path(epoch)
            try:
                weights = load_file(path)
            except (OSError, SafetensorError) as error:
                raise TrainingError(
                    f"{path}: cannot be read for the average of the best epochs: {error}. Put it back, or go "
                    f"on with --train.resume-anyway --train.average 0."
                ) from error
            first = first or weights
            for name, tensor in weights.items():
                sums[name] = sums.get(name, 0) + tensor.double()
        return {
            name: (sums[name] / len(epochs)).to(tensor.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in first.items()
        }

    def _path(self, epoch: int) -> Path:
        return self.folder / f"epoch_{epoch:05d}.safetensors"
