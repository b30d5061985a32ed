"""`asr augment`: recordings -> wav files as training augments them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from asr.batching.cache import read_waveform
from asr.device import one_thread
from asr.errors import AudioError, SettingsError, check_number
from asr.files import make_writable
from asr.frontend.audio import audio_info, write_audio
from asr.frontend.audio_files import find_audio
from asr.frontend.augment import AugmentConfig, Augmenter, Conditions
from asr.manifests.manifest import read_manifest, write_manifest
from asr.manifests.utterance import Utterance


@dataclass(frozen=True)
class AugmentSettings:
    """Write recordings as training would augment them, and print what was drawn for each.

    Writes DIR/ID-epochN.wav in 32-bit float, exactly the samples that features are computed from. SpecAugment
    masks and mel warping act on features and are not in the files. A manifest's utterances are also listed in
    DIR/manifest.jsonl, with their transcripts, to score a model on them. In training an utterance
    that would become too short for its transcript gets a lower speed, and is not trimmed.
    """

    # audio files, quoted globs, folders (searched through), or manifests (*.jsonl)
    files: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE...", help_behavior_hint="(required)"),
    ]
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]  # folder for the wav files; made when missing
    epoch: int = 1  # of the training, counted from 1; each has other draws
    seed: int = 1  # the training's --train.seed
    sample_rate: int = 16_000  # the training's --features.sample-rate, in Hz
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_number("--epoch", self.epoch, least=1)
        check_number("--sample-rate", self.sample_rate, least=1000, unit="Hz")


def run(settings: AugmentSettings) -> Iterator[tuple[str | None, AudioError | None]]:
    """Write the files.

    Yields:
        One line to print for each recording that was written, in order; or None and the error of one that
        could not be read.

    Raises:
        AsrError: a setting, a folder, a glob or a manifest cannot be used.
    """
    if not settings.files:
        raise SettingsError(
            "no file to augment. Expected audio files, folders, manifests, or globs in quotes."
        )
    augmenter = Augmenter(settings.augment, settings.seed)
    sources = [Path(name) for name in settings.files if name.endswith(".jsonl")]
    listed = [utterance for source in sources for utterance in read_manifest(source, allow_empty_text=True)]
    names = [name for name in settings.files if not name.endswith(".jsonl")]
    paths = find_audio(names) if names else []
    targets = _targets([item.id for item in listed] + [path.stem for path in paths], settings)
    make_writable(settings.out)
    written: list[Utterance] = []
    items: list[Utterance | Path] = [*listed, *paths]
    for item, target in zip(items, targets, strict=True):
        try:
            utterance = item if isinstance(item, Utterance) else _whole(item)
            conditions, duration = write(utterance, target, augmenter, settings.epoch, settings.sample_rate)
        except AudioError as error:
            yield None, error
            continue
        yield f"{target}: {conditions}", None
        if isinstance(item, Utterance):
            written.append(
                replace(item, audio_filepath=target.absolute(), duration=duration, offset=0.0, channel=None)
            )
    if written:
        write_manifest(settings.out / "manifest.jsonl", written)


def write(
    utterance: Utterance, target: Path, augmenter: Augmenter, epoch: int, sample_rate: int
) -> tuple[Conditions, float]:
    """Write an utterance as training augments it in an epoch.

    Args:
        utterance: the recording; the draws depend on its id.
        target: the wav file.
        augmenter: draws the conditions.
        epoch: counted from 1.
        sample_rate: Hz.

    Returns:
        What was drawn, and the duration of the file in seconds.

    Raises:
        AudioError: the audio cannot be read.
        SettingsError: the target is the recording itself.
    """
    if target.exists() and target.samefile(utterance.audio_filepath):
        raise SettingsError(f"{target} is itself to be augmented. Choose another --out.")
    conditions = augmenter.conditions(epoch, utterance.id, top_speed=max(augmenter.config.speeds))
    with one_thread():
        waveform = read_waveform(utterance, sample_rate, conditions)
    write_audio(target, waveform, sample_rate, "WAV", "FLOAT")
    return conditions, len(waveform) / sample_rate


def augmented(manifest: Path, out: Path, config: AugmentConfig | None) -> list[Utterance]:
    """The utterances of a manifest as augmented in epoch 1 with seed 1; what was written before is kept.

    Args:
        manifest: the recordings.
        out: folder for what is written.
        config: of the augmentation; None for the recordings themselves.

    Raises:
        AsrError: as `run`, also for a single recording that cannot be read.
    """
    recorded = read_manifest(manifest)
    if config is None:
        return recorded
    written, ids = out / "manifest.jsonl", [item.id for item in recorded]
    if not written.is_file() or [item.id for item in read_manifest(written)] != ids:
        for _, error in run(AugmentSettings((str(manifest),), out=out, augment=config)):
            if error is not None:
                raise error
    return read_manifest(written)


def _whole(path: Path) -> Utterance:
    """A recording without a manifest; with the id that a manifest without ids would give it."""
    return Utterance(id=path.stem, audio_filepath=path, duration=audio_info(path).duration_s, text="")


def _targets(ids: Sequence[str], settings: AugmentSettings) -> list[Path]:
    names = [f"{name.replace('/', '_')}-epoch{settings.epoch}.wav" for name in ids]
    for name, before in zip(sorted(names)[1:], sorted(names), strict=False):
        if name == before:
            raise SettingsError(
                f"two recordings would be written to {settings.out / name}. Expected different names. Give "
                f"them one after the other, with another --out."
            )
    return [settings.out / name for name in names]
