"""A model on disk: one safetensors file with weights, settings, alphabet and provenance.

Safetensors holds numbers and text only, so that a model from a stranger cannot run code when it is loaded.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asr.errors import AsrError, ModelError
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig
from asr.model.tuning import Tuning, tunings_from_json, tunings_to_json
from asr.text.tokenizer import tokenizer_from_json

FORMAT_VERSION = 1
_KEY = "asr-acoustic-model"


def save_model(path: Path, model: AcousticModel, provenance: dict[str, Any]) -> None:
    """Write a model; the file appears complete or not at all.

    Args:
        path: ends in .safetensors by convention.
        model: on any device.
        provenance: what is known of its origin; added to the settings' own.

    Raises:
        ModelError: it cannot be written (a full disk, no permission); an older file is left as it was.
    """
    settings = model.settings
    record: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "features": asdict(settings.features),
        "encoder": asdict(settings.encoder),
        "tokenizer": settings.tokenizer.to_json(),
        "normalizer": settings.normalizer,
        "provenance": {**settings.provenance, **provenance},
    }
    if settings.tunings:
        record["tunings"] = tunings_to_json(settings.tunings)
    # One key only: safetensors writes several in random order, and equal models should be equal files.
    metadata = {_KEY: json.dumps(record)}
    weights = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(weights, temporary, metadata))


def load_model(path: Path, device: torch.device | str = "cpu") -> AcousticModel:
    """Read a model, ready for recognition.

    Raises:
        ModelError: the file is missing, damaged, of a newer format, or not a model of this project.
    """
    if path.is_dir():
        raise ModelError(f"{path}: is a folder. Expected a model file, such as {path / 'model.safetensors'}.")
    if not path.is_file():
        raise ModelError(
            f"{path}: no such model file. Expected a .safetensors file that `asr train` has written."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            settings = _read_settings(path, metadata)
            weights = {_rename(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: not a readable model: {error}. Expected a complete .safetensors file that `asr train` "
            f"has written; copy it again or train anew."
        ) from error
    model = AcousticModel(settings)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rstrip(".")  # torch's message has many lines
        raise ModelError(f"{path}: its weights do not fit its settings: {reason}. Train it anew.") from error
    return model.to(device).eval()


def store_tuning(path: Path, tuning: Tuning) -> None:
    """Add tuned weights to a saved model; those for the same language model and search are replaced.

    Weights, settings and provenance of the model stay what they are.

    Raises:
        ModelError: the file is not a model, or cannot be written; it is then left as it was.
    """
    model = load_model(path)  # as it is now: another tuning may have ended meanwhile
    kept = tuple(old for old in model.settings.tunings if not old.serves(tuning))
    model.settings = replace(model.settings, tunings=(*kept, tuning))
    save_model(path, model, {})


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under a temporary name, then rename it, so that a crash or a full disk spares the old one.

    Raises:
        ModelError: the file cannot be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    # torch and safetensors report a full disk as errors of their own.
    except (OSError, RuntimeError, SafetensorError) as error:
        kept = " The file that was there before is unharmed." if os.path.exists(path) else ""
        raise ModelError(
            f"{path}: cannot be written: {error}.{kept} Free some space or choose another folder."
        ) from error
    finally:
        with suppress(OSError):  # after success there is none
            temporary.unlink()


def _upgrade(encoder: dict[str, Any]) -> dict[str, Any]:
    """An encoder's settings as they are named today: a `projection` used to be what is a bottleneck now."""
    if "bottleneck" in encoder:
        return encoder
    return {**encoder, "bottleneck": encoder.get("projection", 0), "projection": 0}


def _rename(weight: str) -> str:
    """A weight's name as it is today; see `_upgrade`."""
    return weight.replace("encoder.recurrent.projections.", "encoder.recurrent.bottlenecks.")


def _read_settings(path: Path, metadata: dict[str, str]) -> ModelSettings:
    if _KEY not in metadata:
        raise ModelError(
            f"{path}: a safetensors file, but not a model of this project. Train one with `asr train`."
        )
    try:
        record = json.loads(metadata[_KEY])
        version = int(record["format_version"])
        if version <= FORMAT_VERSION:
            return ModelSettings(
                features=FeatureConfig(**record["features"]),
                encoder=EncoderConfig(**_upgrade(record["encoder"])),
                tokenizer=tokenizer_from_json(record["tokenizer"]),
                normalizer=record["normalizer"],
                provenance=record["provenance"],
                tunings=tunings_from_json(record),
            )
    except (KeyError, TypeError, ValueError, AsrError) as error:
        raise ModelError(
            f"{path}: the settings in this model cannot be read: {type(error).__name__}: {error} "
            f"Copy the file again, or train it anew."
        ) from error
    raise ModelError(
        f"{path}: model format {version}, but this version of asr reads formats up to {FORMAT_VERSION}. "
        f"Upgrade asr to a newer version."
    )
