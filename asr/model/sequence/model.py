"""Networks from symbols to symbols: what encoder-decoders and CTC networks share, and their file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.errors import ModelError
from asr.model.recurrent.layers import LayerConfig
from asr.model.saved import FileKind, Weights, load_network, save_network
from asr.model.sequence.ctc import SequenceCtc, SequenceCtcConfig
from asr.model.sequence.encoder_decoder import EncoderDecoder, EncoderDecoderConfig, longest_output
from asr.model.sequence.search import Output, SearchConfig, beam_search

SequenceModel = EncoderDecoder | SequenceCtc
SequenceConfig = EncoderDecoderConfig | SequenceCtcConfig
SequenceKind = Literal["encoder-decoder", "ctc"]

Ids = tuple[int, ...]

_FILE = FileKind("asr-sequence-model", 1, "sequence model", "asr lexicon train")
_SCALE = " scale"
_BATCH = 4000  # symbols of a batch in `score` and `search`, padding included


@dataclass(frozen=True)
class PaddedIds:
    """Sequences of ids as one tensor."""

    ids: Tensor  # (batch, longest) int64, padded with 0
    lengths: Tensor  # (batch,) int64

    @classmethod
    def of(cls, rows: Sequence[Ids], device: torch.device | str = "cpu") -> "PaddedIds":
        """Pad rows, of which at least one is expected."""
        tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
        lengths = torch.tensor([len(row) for row in rows])
        return cls(pad_sequence(tensors, batch_first=True).to(device), lengths.to(device))


def make_sequence_model(
    sources: tuple[str, ...], targets: tuple[str, ...], config: SequenceConfig
) -> SequenceModel:
    """A network with fresh weights, of the kind of its settings.

    Raises:
        ModelError: no symbol, or one that occurs twice.
    """
    if isinstance(config, SequenceCtcConfig):
        return SequenceCtc(sources, targets, config)
    return EncoderDecoder(sources, targets, config)


def save_sequence_model(
    path: Path,
    net: SequenceModel,
    provenance: dict[str, Any],
    weights: Mapping[str, Tensor] | None = None,
    *,
    int8: bool = False,
) -> None:
    """Write a network; the file appears complete or not at all.

    Args:
        path: ends in .safetensors by convention.
        net: on any device.
        provenance: where it comes from: data, settings, code.
        weights: written in place of the network's current ones, under the same names.
        int8: round matrices to 8 bits, each row with a scale of its own, which makes the file a quarter as
            large; loaded, the network computes in float32 with the rounded weights.

    Raises:
        ModelError: it cannot be written; an older file stays as it was.
    """
    kind: SequenceKind = "ctc" if isinstance(net, SequenceCtc) else "encoder-decoder"
    record = {
        "kind": kind, "sources": list(net.sources), "targets": list(net.targets),
        "config": asdict(net.config), "provenance": provenance, "int8": int8,
    }  # fmt: skip
    chosen = dict(net.state_dict() if weights is None else weights)
    save_network(path, _FILE, net, record, _rounded(chosen) if int8 else chosen)


def load_sequence_model(path: Path) -> SequenceModel:
    """Read a network, on the CPU and in evaluation mode; loading it cannot run code.

    Raises:
        ModelError: the file is missing, damaged, of another format, or not a sequence model.
    """
    if not path.is_file():
        raise ModelError(
            f"{path}: no such sequence model. Expected a .safetensors file of `asr lexicon train`."
        )
    return load_network(path, _FILE, _build, _restored).eval()


def _rounded(weights: Mapping[str, Tensor]) -> Weights:
    """Matrices as int8 with a scale for each row, under "NAME scale"; all others as they are."""
    result: Weights = {}
    for name, weight in weights.items():
        if weight.dim() < 2:
            result[name] = weight
            continue
        scale = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        result[name] = (weight / scale).round().to(torch.int8)
        result[f"{name}{_SCALE}"] = scale
    return result


def _restored(weights: Weights) -> Weights:
    """Rounded matrices as numbers again."""
    return {
        name: weight * weights[f"{name}{_SCALE}"] if f"{name}{_SCALE}" in weights else weight
        for name, weight in weights.items()
        if not name.endswith(_SCALE)
    }


def _build(record: dict[str, Any]) -> SequenceModel:
    kinds = {"encoder-decoder": EncoderDecoderConfig, "ctc": SequenceCtcConfig}
    values = dict(record["config"])
    values["layers"] = LayerConfig(**values["layers"])
    config: SequenceConfig = kinds[record["kind"]](**values)
    net = make_sequence_model(tuple(record["sources"]), tuple(record["targets"]), config)
    net.provenance = record["provenance"]
    return net


@torch.inference_mode()
def score(net: SequenceModel, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
    """Log-probability of each target sequence given its source, in nats; -inf for one that does not fit.

    Args:
        net: in evaluation mode.
        sources: as many as targets; none of them empty.
        targets: ids of output symbols; may be empty.
    """
    result = [0.0] * len(sources)
    sizes = [len(source) + len(target) for source, target in zip(sources, targets, strict=True)]
    by_source = sorted(range(len(sources)), key=lambda row: (-len(sources[row]), sources[row], -sizes[row]))
    for rows in _batches(by_source, sizes):
        # each source once, however many targets of it there are
        distinct = {source: number for number, source in enumerate(dict.fromkeys(sources[r] for r in rows))}
        source = PaddedIds.of(list(distinct), net.device)
        target = PaddedIds.of([targets[row] for row in rows], net.device)
        index = torch.tensor([distinct[sources[row]] for row in rows], device=net.device)
        losses = net.losses(source.ids, source.lengths, target.ids, target.lengths, index).tolist()
        for row, loss in zip(rows, losses, strict=True):
            result[row] = -loss if net.fits(sources[row], targets[row]) else -torch.inf
    return result


@torch.inference_mode()
def search(net: SequenceModel, sources: Sequence[Ids], config: SearchConfig) -> list[list[Output]]:
    """The best outputs of each source with their log-probabilities in nats, best first.

    A beam of one is greedy, and so is every search of a network for CTC, which gives one output.

    Args:
        net: in evaluation mode.
        sources: none of them empty.
        config: the beam.
    """
    result: list[list[Output]] = [[] for _ in sources]
    by_length = sorted(range(len(sources)), key=lambda row: -len(sources[row]))
    for rows in _batches(by_length, [len(source) * config.beam_size for source in sources]):
        source = PaddedIds.of([sources[row] for row in rows], net.device)
        if isinstance(net, EncoderDecoder) and config.beam_size > 1:
            encoded = net.encode(source.ids, source.lengths)
            found = beam_search(net, encoded, config, longest_output(source.lengths))
        else:
            outputs = net.greedy(source.ids, source.lengths)
            log_probs = score(net, [sources[row] for row in rows], outputs)
            found = [[one] for one in zip(outputs, log_probs, strict=True)]
        for row, outputs_of_row in zip(rows, found, strict=True):
            result[row] = outputs_of_row
    return result


def _batches(order: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Rows in batches of at most `_BATCH` symbols, padding included, unless one row has more.

    Args:
        order: the rows, those of about the same size side by side.
        sizes: symbols of each row.
    """
    batches: list[list[int]] = []
    largest = 0
    for row in order:
        largest = max(largest, sizes[row])
        if batches and (len(batches[-1]) + 1) * largest <= _BATCH:
            batches[-1].append(row)
        else:
            batches.append([row])
            largest = sizes[row]
    return batches
