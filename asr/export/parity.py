"""How far the numbers of an exported graph are from torch's."""

from dataclasses import dataclass

import torch
from torch import Tensor

from asr.export.engine import OnnxModel, OnnxStream
from asr.frontend.features import log_mel
from asr.model.acoustic import AcousticModel

__all__ = ["Parity", "compare"]

_SECONDS = (1.0, 3.7, 2.2)  # of the recordings that are compared
_BLOCK = 50  # frames of a block


@dataclass(frozen=True)
class Parity:
    """A comparison of log-probabilities.

    Attributes:
        difference: the largest between two log-probabilities, nats.
        agreement: share of steps with the same most probable token.
    """

    difference: float
    agreement: float


@torch.inference_mode()
def compare(model: AcousticModel, graph: bytes, *, streaming: bool) -> Parity:
    """Compare a graph with its model on noise that swells and fades.

    Args:
        model: on the CPU.
        graph: the bytes of its file.
        streaming: whether it takes blocks.
    """
    rate = model.settings.features.sample_rate
    generator = torch.Generator().manual_seed(1)
    waveforms = []
    for seconds in _SECONDS:
        noise = torch.randn(round(seconds * rate), generator=generator)
        waveforms.append(noise * torch.linspace(0, 3 * torch.pi, len(noise)).sin() * 0.1)
    wanted, steps, _ = model.outputs(waveforms)
    if streaming:
        found = [_stream(model, graph, waveform) for waveform in waveforms]
    else:
        found = list(OnnxModel(graph).outputs(waveforms)[0])
    pairs = [(one[:count], other[:count]) for one, other, count in zip(found, wanted, steps, strict=True)]
    ours, theirs = (torch.cat(rows) for rows in zip(*pairs, strict=True))
    same = (ours.argmax(1) == theirs.argmax(1)).float().mean()
    return Parity(float((ours - theirs).abs().max()), float(same))


def _stream(model: AcousticModel, graph: bytes, waveform: Tensor) -> Tensor:
    """(steps, vocab) of a waveform, block by block."""
    stream = OnnxStream(graph)
    features = log_mel(waveform[None], model.settings.features)
    if model.settings.features.normalize in ("utterance", "running"):
        features = model.normalize(features, torch.tensor([features.shape[1]]))
    found = [stream.accept(block.numpy()) for block in torch.split(features[0], _BLOCK)]
    return torch.cat([torch.from_numpy(rows) for rows in (*found, stream.finish())])
