"""A model on disk: one safetensors file with weights, settings, tokenizer and provenance.

Safetensors holds numbers and text only, so that an untrusted model cannot run code when it is loaded.

    save_model, load_model        an acoustic model
    save_settings                 an acoustic model whose settings alone are new
    save_release                  a model for others: smaller, and without traces of the machine
    save_network, load_network    any network with a record of its settings, such as a language model
    quantized                     weights of 8 bits, which load_network reads, too
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from asr.errors import AsrError, ModelError
from asr.files import write_atomically
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.attention_decoder import AttentionDecoderConfig
from asr.model.decoding_weights import Tuning, tunings_from_json, tunings_to_json
from asr.model.encoder import EncoderConfig, LossConfig
from asr.model.recurrent.layers import LayerConfig
from asr.text.tokenizer import tokenizer_from_json

FORMAT_VERSION = 2

N = TypeVar("N", bound=nn.Module)
Weights = dict[str, Tensor]  # by name


@dataclass(frozen=True)
class FileKind:
    """The files of one kind of network.

    Attributes:
        key: of the record of settings in the file's metadata.
        version: of the record.
        name: in messages.
        command: that writes such files, for messages.
    """

    key: str
    version: int
    name: str
    command: str


_SCALES = ".scales"  # after the name of a matrix of 8 bits: those of its rows

_MODEL = FileKind("asr-acoustic-model", FORMAT_VERSION, "model", "asr train")


def save_model(
    path: Path, model: AcousticModel, provenance: dict[str, Any], weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write a model; the file appears complete or not at all.

    Args:
        path: ends in .safetensors by convention.
        model: on any device.
        provenance: its origin; added to that in the settings.
        weights: to be written instead of the model's, by name.

    Raises:
        ModelError: it cannot be written (a full disk, no permission); an older file is left as it was.
    """
    record = settings_record(model.settings)
    record["provenance"] |= provenance
    save_network(path, _MODEL, model, record, weights)


def load_model(path: Path, device: torch.device | str = "cpu") -> AcousticModel:
    """Read a model, ready for recognition.

    Raises:
        ModelError: the file is missing, damaged, of another format, or not a model of this project.
    """
    if path.is_dir():
        raise ModelError(f"{path}: is a folder. Expected a model file, such as {path / 'model.safetensors'}.")
    if not path.is_file():
        raise ModelError(
            f"{path}: no such model file. Expected a .safetensors file that `asr train` has written."
        )
    return load_network(path, _MODEL, _build).to(device).eval()


def save_settings(path: Path, source: Path, model: AcousticModel, provenance: dict[str, Any]) -> None:
    """Write a model with the weights of a file, in the precision that they have there: 8 bits in a release.

    Args:
        path: may be that of the source.
        source: that the model was read from.
        model: with other settings than the source.
        provenance: see `save_model`.

    Raises:
        ModelError: the source cannot be read, or the file cannot be written; an older file is left as it was.
    """
    save_model(path, model, provenance, _read(source, _MODEL)[1])


def save_release(path: Path, model: AcousticModel, provenance: dict[str, Any]) -> None:
    """Write a model for others: a quarter of the size, and no provenance but the given one.

    Matrices are of 8 bits, see `quantized`, the other weights in float16.

    Tuned weights of decoding stay, without the folder of the manifest that they were tuned on.

    Raises:
        ModelError: it cannot be written; an older file is left as it was.
    """
    tunings = tuple(replace(old, manifest=Path(old.manifest).name) for old in model.settings.tunings)
    released = copy.copy(model)
    released.settings = replace(model.settings, provenance={}, tunings=tunings)
    weights = {
        name: tensor.half() if tensor.is_floating_point() and not name.endswith(_SCALES) else tensor
        for name, tensor in quantized(model.state_dict()).items()
    }
    save_model(path, released, provenance, weights)


def store_tuning(path: Path, tuning: Tuning) -> None:
    """Add tuned weights to a saved model; those for the same language model and search are replaced.

    Weights, settings and provenance of the model stay what they are.

    Raises:
        ModelError: the file is not a model, or cannot be written; it is then left as it was.
    """
    model = load_model(path)  # read again: another tuning may have ended meanwhile
    kept = tuple(old for old in model.settings.tunings if old.key != tuning.key)
    model.settings = replace(model.settings, tunings=(*kept, tuning))
    save_settings(path, path, model, {})


def save_network(
    path: Path,
    kind: FileKind,
    net: nn.Module,
    record: dict[str, Any],
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a network's weights and a record of its settings; the file appears complete or not at all.

    Args:
        path: ends in .safetensors by convention.
        kind: of file.
        net: on any device.
        record: values that JSON can hold.
        weights: to be written instead of the network's, by name.

    Raises:
        ModelError: it cannot be written; an older file is left as it was.
    """
    # One key only: safetensors writes several in random order, and equal models should be equal files.
    metadata = {kind.key: json.dumps({"format_version": kind.version, **record})}
    chosen = net.state_dict() if weights is None else weights
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in chosen.items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_network(
    path: Path,
    kind: FileKind,
    build: Callable[[dict[str, Any]], N],
    restore: Callable[[Weights], Weights] = lambda weights: weights,
) -> N:
    """Read a file of `save_network`; loading it cannot run code.

    Args:
        path: an existing file.
        kind: of file.
        build: the network of a record, with any weights.
        restore: from the weights of the file to those of the network.

    Returns:
        the network with its weights, on the CPU.

    Raises:
        ModelError: the file is damaged, of another format, or of another kind.
    """
    record, weights = _read(path, kind)
    try:
        net = build(record)
    except (KeyError, TypeError, ValueError, AsrError) as error:
        raise _unreadable(path, kind, error) from error
    try:
        net.load_state_dict(restore(_dequantized(weights)))
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rstrip(".")  # torch's message has many lines
        raise ModelError(
            f"{path}: its weights do not fit its settings: {reason}. Train the {kind.name} again."
        ) from error
    return net


def quantized(weights: Mapping[str, Tensor]) -> Weights:
    """Weights whose matrices are of 8 bits, each row with a scale of its own; the rest stays as it is.

    They take a quarter of the space in a file and are float32 again when they are loaded.

    Args:
        weights: by name, float.
    """
    smaller: Weights = {}
    for name, tensor in weights.items():
        if tensor.dim() != 2:
            smaller[name] = tensor
            continue
        scales = (tensor.float().abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        smaller[name] = (tensor.float() / scales[:, None]).round().to(torch.int8)
        smaller[name + _SCALES] = scales
    return smaller


def _dequantized(weights: Weights) -> Weights:
    """The weights that `quantized` was given, as near as 8 bits come; others as they are."""
    return {
        name: tensor.float() * weights[name + _SCALES][:, None] if name + _SCALES in weights else tensor
        for name, tensor in weights.items()
        if not name.endswith(_SCALES)
    }


def is_of_kind(path: Path, kind: FileKind) -> bool:
    """Whether a file is of a kind; not where it cannot be read, of which `load_network` says why."""
    try:
        with safe_open(path, framework="pt") as file:
            return kind.key in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _read(path: Path, kind: FileKind) -> tuple[dict[str, Any], Weights]:
    """Record and weights as they are in a file."""
    try:
        with safe_open(path, framework="pt") as file:
            record = _read_record(path, kind, file.metadata() or {})
            return record, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: not a readable {kind.name}: {error}. Expected a complete .safetensors file that "
            f"`{kind.command}` has written; copy it again or train again."
        ) from error


def _build(record: dict[str, Any]) -> AcousticModel:
    return AcousticModel(settings_from_record(record))


def settings_record(settings: ModelSettings) -> dict[str, Any]:
    """Settings as values that JSON can hold; a file of any kind that carries a model stores them."""
    record: dict[str, Any] = {
        "features": asdict(settings.features),
        "encoder": asdict(settings.encoder),
        "tokenizer": settings.tokenizer.to_json(),
        "normalizer": settings.text_normalizer,
        "provenance": dict(settings.provenance),
    }
    if settings.tunings:
        record["tunings"] = tunings_to_json(settings.tunings)
    return record


def settings_from_record(record: dict[str, Any]) -> ModelSettings:
    """The settings of a record.

    Raises:
        KeyError, TypeError, ValueError, AsrError: the record is damaged.
    """
    encoder = record["encoder"]
    return ModelSettings(
        features=FeatureConfig(**record["features"]),
        encoder=EncoderConfig(
            **{
                **encoder,
                "layers": LayerConfig(**encoder["layers"]),
                "loss": LossConfig(**encoder["loss"]),
                "decoder": AttentionDecoderConfig(**encoder["decoder"]),
            }
        ),
        tokenizer=tokenizer_from_json(record["tokenizer"]),
        text_normalizer=record["normalizer"],
        provenance=record["provenance"],
        tunings=tunings_from_json(record),
    )


def _read_record(path: Path, kind: FileKind, metadata: dict[str, str]) -> dict[str, Any]:
    """The record, of the version that can be read."""
    if kind.key not in metadata:
        raise ModelError(
            f"{path}: a safetensors file, but not a {kind.name} of this project. Train one with "
            f"`{kind.command}`."
        )
    try:
        record: dict[str, Any] = json.loads(metadata[kind.key])
        record["format_version"] = version = int(record["format_version"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, kind, error) from error
    if version != kind.version:
        raise ModelError(
            f"{path}: {kind.name} format {version}, but this version of asr reads format {kind.version}. Use "
            "the version that wrote it, or a newer one."
        )
    return record


def _unreadable(path: Path, kind: FileKind, error: Exception) -> ModelError:
    return ModelError(
        f"{path}: the settings in this {kind.name} cannot be read: {type(error).__name__}: {error} "
        f"Copy the file again, or train it again."
    )
