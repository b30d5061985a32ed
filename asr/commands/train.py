"""`asr train`: manifests -> a run folder with the best model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from asr.commands.options import option_value
from asr.errors import SettingsError
from asr.manifests.arrow import ArrowManifest
from asr.manifests.left_out import OnError
from asr.manifests.manifest import ARROW, read_manifest, read_usable
from asr.manifests.utterance import Utterance
from asr.training.recogniser import Settings, settings_of_source, train_recogniser


@dataclass(frozen=True)
class TrainSettings:
    """Train a recogniser from manifests.

    The best model by dev WER is RUN_DIR/model.safetensors. Stop with Ctrl-C; resume with --train.resume.
    """

    # JSONL manifests to learn from; or all in Arrow, of which `asr corpus convert` makes one
    manifests: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="MANIFEST...", help_behavior_hint="(required)"),
    ]
    # the manifest to choose the best epoch by; never augmented, never learned from
    dev: Annotated[Path, tyro.conf.arg(metavar="MANIFEST")]
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    # stop at a line or a recording that cannot be used, or skip it: leave it out and count it; all recordings
    # are then decoded once before the training starts
    on_error: OnError = "stop"


def defaults(arguments: Sequence[str]) -> TrainSettings | None:
    """What the options change: with --train.warm-start, features and encoder are those of that model.

    Raises:
        ModelError: it is not a model.
    """
    source = option_value(arguments, "--train.warm-start")
    if source is None:
        return None
    return TrainSettings(tyro.MISSING, tyro.MISSING, settings_of_source(Settings(), Path(source)))


def run(command: TrainSettings) -> str:
    """Train with the settings of the command line; returns the text for the user."""
    if not command.manifests:
        raise SettingsError("no manifest to learn from. Expected: asr train MANIFEST... --dev MANIFEST")
    utterances = _read_all(command.manifests, command.on_error)
    dev = _read(command.dev, command.on_error)
    model = train_recogniser(utterances, dev, command.settings, command.on_error)
    return f"model: {model}\nnext:  asr transcribe FILE... --model {model}"


def _read_all(manifests: Sequence[Path], on_error: OnError) -> Sequence[Utterance]:
    """The utterances of JSONL manifests, or of Arrow, which stay on the disk."""
    in_arrow = [manifest for manifest in manifests if manifest.suffix == ARROW]
    if not in_arrow:
        return [one for manifest in manifests for one in _read(manifest, on_error)]
    if len(in_arrow) < len(manifests):
        other = next(manifest for manifest in manifests if manifest.suffix != ARROW)
        raise SettingsError(
            f"{in_arrow[0]} is Arrow, and {other} is not. Expected all manifests in one form. "
            f"Convert it: asr corpus convert {other} --to arrow -o DIR"
        )
    return ArrowManifest(in_arrow)


def _read(manifest: Path, on_error: OnError) -> list[Utterance]:
    return read_usable(manifest)[0] if on_error == "skip" else read_manifest(manifest)
