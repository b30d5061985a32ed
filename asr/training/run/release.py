"""A trained model for others: small, with what it is made of, and nothing of the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from asr.manifests.utterance import Utterance
from asr.model.saved import load_model, save_release
from asr.training.recogniser import Settings
from asr.training.run.start import CHANGEABLE, flatten_settings

__all__ = ["portable_settings", "write_release"]

_KEPT = ("asr", "commit", "torch", "precision", "date", "epoch", "dev_loss", "dev_wer", "dev_per", "dev_cer")


def write_release(
    path: Path,
    model: Path,
    recipe: str,
    data: Mapping[str, Sequence[Utterance]],
    runs: Mapping[str, Settings],
) -> str:
    """Write a model's weights in a quarter of the space, with data and settings as its provenance.

    Args:
        path: to be written.
        model: of the last of the runs.
        recipe: the command that made it, without folders.
        data: the utterances of each set, by its name.
        runs: settings of each training that led to the model, by its name.

    Returns:
        The text to print: the file and its size.

    Raises:
        ModelError: the model cannot be read, or the path cannot be written.
    """
    trained = load_model(model)
    origin = trained.settings.provenance
    record = {
        **{key: origin[key] for key in _KEPT if key in origin},
        "recipe": recipe,
        "data": {name: _sizes(utterances) for name, utterances in data.items()},
        "settings": {name: portable_settings(settings) for name, settings in runs.items()},
    }
    save_release(path, trained, record)
    return f"Model: {path} ({path.stat().st_size / 1e6:.1f} MB)"


def portable_settings(settings: Settings) -> dict[str, Any]:
    """What a training depends on, by the dotted names of the command line, without folders of a machine.

    Of a file or folder that is read, such as the model of a warm start, only the name is kept.
    """
    topics = [topic.name for topic in fields(Settings)]  # a recipe has further ones
    portable = {
        name: value for name, value in flatten_settings(settings, topics).items() if name not in CHANGEABLE
    }
    for topic in topics:
        for item in fields(getattr(settings, topic)):
            value = getattr(getattr(settings, topic), item.name)
            if isinstance(value, Path) and f"{topic}.{item.name}" in portable:
                portable[f"{topic}.{item.name}"] = value.name
    return portable


def _sizes(utterances: Sequence[Utterance]) -> str:
    hours = sum(utterance.duration for utterance in utterances) / 3600
    speakers = len({utterance.speaker for utterance in utterances})
    return f"{len(utterances)} utterances, {hours:.2f} h, {speakers} speakers"
