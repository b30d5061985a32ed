"""A model on disk: one safetensors file with weights, settings, alphabet and provenance.

Safetensors holds numbers and text only, so that a model from a stranger cannot run code when it is loaded.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from asr.errors import ModelError, SettingsError
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig
from asr.text.tokenizer import CharTokenizer

FORMAT_VERSION = 1


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
    metadata = {
        "format": "asr-acoustic-model",
        "format_version": str(FORMAT_VERSION),
        "features": json.dumps(asdict(settings.features)),
        "encoder": json.dumps(asdict(settings.encoder)),
        "tokenizer": settings.tokenizer.to_json(),
        "normalizer": settings.normalizer,
        "provenance": json.dumps({**settings.provenance, **provenance}),
    }
    weights = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(weights, temporary, metadata))


def load_model(path: Path, device: torch.device | str = "cpu") -> AcousticModel:
    """Read a model, ready for recognition.

    Raises:
        ModelError: the file is missing, damaged, of a newer format, or not a model of this project.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file. Expected a .safetensors file that `asr train` has written.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            settings = _read_settings(path, metadata)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: not a readable model: {error}. Expected a complete .safetensors file that `asr train` has "
            f"written; copy it again or train anew."
        ) from error
    model = AcousticModel(settings)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{path}: its weights do not fit its own settings: {error}") from error
    return model.to(device).eval()


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
        temporary.unlink(missing_ok=True)
        kept = " The file that was there before is unharmed." if path.exists() else ""
        raise ModelError(f"{path}: cannot be written: {error}.{kept} Free some space or choose another folder.") from error


def _read_settings(path: Path, metadata: dict[str, str]) -> ModelSettings:
    if metadata.get("format") != "asr-acoustic-model":
        raise ModelError(f"{path}: a safetensors file, but not a model of this project. Train one with `asr train`.")
    version = int(metadata["format_version"])
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: model format {version}, but this version of asr reads formats up to {FORMAT_VERSION}. "
            f"Upgrade it: pip install --upgrade asr-rnn"
        )
    try:
        return ModelSettings(
            features=FeatureConfig(**json.loads(metadata["features"])),
            encoder=EncoderConfig(**json.loads(metadata["encoder"])),
            tokenizer=CharTokenizer.from_json(metadata["tokenizer"]),
            normalizer=metadata["normalizer"],
            provenance=json.loads(metadata["provenance"]),
        )
    except (KeyError, TypeError, ValueError, SettingsError) as error:
        raise ModelError(f"{path}: the settings in this model cannot be read: {error!r}. Train it again.") from error
