"""A model of English at large, from 20 hours of many speakers: the recipe of the model that ships.

python recipes/english.py --data.root DIR [--stages trunk branch …] [--lm FILE] [--quick]

Trains a trunk at a constant rate, then a branch from it whose rate falls to 0 and that also learns calls,
codecs and silence; tunes the beam search on dev; scores dev by kind of speech, as recorded and under four
conditions; writes the weights in float16. The same command goes on where it stopped; stages can be run alone.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mini_librispeech import tuned_decoder

from asr.batching.batches import BatchConfig
from asr.batching.examples import TextConfig
from asr.cli import recipe
from asr.commands.augment import AugmentSettings
from asr.commands.augment import run as augment
from asr.corpora import english
from asr.corpora.manifest import Utterance, read_manifest, write_manifest
from asr.decoding.config import BeamConfig, DecoderSettings
from asr.device import choose_device
from asr.errors import SettingsError
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.model.encoder import EncoderConfig
from asr.model.recurrent.layers import LayerConfig
from asr.model.saved import load_model, save_release
from asr.model.shipped import DEFAULT_MODEL, find_model
from asr.scoring.evaluation import evaluate
from asr.scoring.report import write_report
from asr.scoring.weight_search import Grid
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings, portable_settings, train
from asr.training.trainer import BEST_MODEL

log = logging.getLogger("asr")

Stage = Literal["data", "trunk", "branch", "tune", "score", "release"]
STAGES: tuple[Stage, ...] = ("data", "trunk", "branch", "tune", "score", "release")

CONDITIONS = {
    "as recorded": None,
    "telephone": AugmentConfig(speeds=(1.0,), telephone_share=1),
    "noise, 10 dB": AugmentConfig(speeds=(1.0,), noise_share=1, noise_snr_db=(10, 10)),
    "Opus, 12 kbit/s": AugmentConfig(speeds=(1.0,), codec_share=1, codec_kbits=(12, 12)),
    "0.5 s of silence": AugmentConfig(speeds=(1.0,), silence_share=1, silence_s=(0.5, 0.5)),
}

AUGMENT = AugmentConfig(
    time_masks_per_s=0.4, mel_mask_bands=8, masks_from_epoch=3, mel_warp=(0.88, 1.12), noise_share=0.25,
    noise_snr_db=(5, 25), room_share=0.1,
)  # fmt: skip

BRANCH_AUGMENT = replace(
    AUGMENT, masks_from_epoch=1, silence_share=0.15, telephone_share=0.1, codec_share=0.05
)


@dataclass(frozen=True)
class Data:
    """Where the corpora are."""

    root: Path | None = None  # the folder that holds english/, LibriSpeech/, common_voice/, …


@dataclass(frozen=True)
class Branch:
    """How training ends: a branch of the trunk whose learning rate falls to 0."""

    epochs: int = 12
    learning_rate: float = 1.5e-3
    augment: AugmentConfig = BRANCH_AUGMENT


@dataclass(frozen=True)
class Config(Settings):
    """Everything that can be set; the settings of Settings are the trunk's."""

    data: Data = field(default_factory=Data)
    branch: Branch = field(default_factory=Branch)
    stages: tuple[Stage, ...] = STAGES  # to run, in this order
    lm: Path | None = None  # language model; None: the one that ships, with its lexicon
    lexicon: Path | None = None  # for that language model; None: its words, pronounced by letter-to-sound
    beam: BeamConfig = field(default_factory=BeamConfig)
    grid: Grid = field(default_factory=Grid)
    quick: bool = False  # a tiny net for a moment, to try the recipe


CONFIG = Config(
    features=FeatureConfig(n_mels=40),
    text=TextConfig(units="phones", unknown="drop"),
    model=EncoderConfig(width=320, depth=4, dropout=0.2, subsampling=3, layers=LayerConfig(cell="ligru")),
    augment=AUGMENT,
    batch=BatchConfig(seconds=60),
    train=TrainConfig(
        run_dir=Path("runs/english"),
        schedule="constant",
        learning_rate=1.5e-3,
        warmup=0.01,
        ema=0.999,
        epochs=60,
    ),
)


def main(config: Config) -> str:
    """Run the stages; the result is the table of scores and where the files are."""
    config = tiny(config) if config.quick else config
    run_dir = config.train.run_dir
    lines = []
    for stage in (stage for stage in STAGES if stage in config.stages):
        log.info("stage: %s", stage)
        if stage == "data":
            if config.data.root is None:
                raise SettingsError(
                    "data.root is missing. Expected the folder that holds english/ and the corpora."
                )
            splits = english.prepare(config.data.root)
            write_manifest(run_dir / "train.jsonl", splits.train)
            write_manifest(run_dir / "dev.jsonl", splits.dev)
        elif stage == "trunk":
            train(*manifests(config), trunk(config))
        elif stage == "branch":
            train(*manifests(config), branch(config))
        elif stage == "tune":
            tuned_decoder(
                model_of(config), run_dir / "dev.jsonl", decoding(config), config.grid, config.train.device
            )
        elif stage == "score":
            lines.append(scores(config))
        else:
            lines.append(f"Model: {release(config)}")
    return "\n".join(lines) or f"Done: {', '.join(config.stages)}, in {run_dir}"


def tiny(config: Config) -> Config:
    """The same with a net that learns nothing, for a moment."""
    return replace(
        config,
        model=replace(config.model, width=8, depth=1),
        train=replace(config.train, epochs=1),
        branch=replace(config.branch, epochs=1),
        beam=replace(config.beam, beam_size=4),
        grid=replace(config.grid, points=2),
    )


def trunk(config: Config) -> Settings:
    """The settings of the trunk."""
    run_dir = config.train.run_dir / "trunk"
    return replace(config, train=replace(config.train, run_dir=run_dir, resume=True))


def branch(config: Config) -> Settings:
    """The settings of the branch."""
    how = config.branch
    source = config.train.run_dir / "trunk" / BEST_MODEL
    training = replace(
        config.train, run_dir=config.train.run_dir / "branch", resume=True, warm_start=source,
        schedule="linear", epochs=how.epochs, learning_rate=how.learning_rate,
    )  # fmt: skip
    return replace(config, augment=how.augment, train=training)


def model_of(config: Config) -> Path:
    """The model of the branch."""
    return config.train.run_dir / "branch" / BEST_MODEL


def manifests(config: Config) -> tuple[list[Utterance], list[Utterance]]:
    """Train and dev, as the first stage has written them."""
    train_manifest, dev_manifest = (config.train.run_dir / f"{part}.jsonl" for part in ("train", "dev"))
    return read_manifest(train_manifest), read_manifest(dev_manifest)


def decoding(config: Config) -> DecoderSettings:
    """The beam search, by default with language model and lexicon of the model that ships."""
    given = DecoderSettings(lm=config.lm, lexicon=config.lexicon, beam=config.beam)
    return given.with_defaults_of(find_model(DEFAULT_MODEL))


def scores(config: Config) -> str:
    """Dev as recorded and under each condition: a row for each kind of speech, and one for all."""
    run_dir = config.train.run_dir
    dev = read_manifest(run_dir / "dev.jsonl")
    decoder = tuned_decoder(
        model_of(config), run_dir / "dev.jsonl", decoding(config), config.grid, config.train.device
    )
    model = load_model(model_of(config), choose_device(config.train.device))
    rows = ["| condition | speech | %WER | 95% interval |", "|---|---|---|---|"]
    for condition, how in CONDITIONS.items():
        folder = run_dir / "score" / condition
        utterances = dev if how is None else augmented(run_dir / "dev.jsonl", folder, how)
        score = evaluate(model, utterances, decoder=decoder)
        write_report(folder, score)
        parts = {"all": dev, **english.by_set(dev)}
        for name, part in parts.items():
            found = score.part(utterance.id for utterance in part)
            rows.append(
                f"| {condition} | {name} | {found.wer_line().removeprefix('%WER ')} | {found.interval()} |"
            )
    return "\n".join(rows)


def augmented(manifest: Path, folder: Path, how: AugmentConfig) -> list[Utterance]:
    """The utterances of a manifest under a condition; written once (160 MB of dev)."""
    written = folder / "manifest.jsonl"
    ids = [utterance.id for utterance in read_manifest(manifest)]
    if not written.is_file() or [utterance.id for utterance in read_manifest(written)] != ids:
        for _, error in augment(AugmentSettings((str(manifest),), out=folder, augment=how)):
            if error is not None:
                raise error
    return read_manifest(written)


def release(config: Config) -> Path:
    """Write the weights in float16 with what they are made of, and nothing of this machine."""
    model = load_model(model_of(config))
    origin = model.settings.provenance
    facts = {key: origin[key] for key in ("asr", "commit", "date", "epoch", "dev_per") if key in origin}
    data = {}
    for part, utterances in zip(("train", "dev"), manifests(config), strict=True):
        hours = sum(utterance.duration for utterance in utterances) / 3600
        speakers = len({utterance.speaker for utterance in utterances})
        data[part] = f"{len(utterances)} utterances, {hours:.2f} h, {speakers} speakers"
    settings = {"trunk": portable_settings(trunk(config)), "branch": portable_settings(branch(config))}
    path = config.train.run_dir / "acoustic.safetensors"
    save_release(path, model, {**facts, "recipe": "recipes/english.py", "data": data, "settings": settings})
    return path


if __name__ == "__main__":
    recipe(main, CONFIG)
