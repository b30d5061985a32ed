"""A model of English at large, from 20 hours of many speakers: the recipe of the model that ships.

python recipes/english.py --data.root DIR [--stages trunk branch …] [--lm FILE] [--quick]

A trunk is trained at a constant rate, and from it a branch whose rate falls to 0 and that also learns calls,
codecs and silence; then the search is tuned on dev, and dev scored by kind of speech and condition.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from asr.batching.batches import BatchConfig
from asr.batching.examples import TextConfig
from asr.cli import recipe
from asr.commands.augment import augmented
from asr.commands.tune import TuneSettings, tuned_decoder
from asr.corpora import english
from asr.decoding.config import BeamConfig, DecoderSettings
from asr.device import choose_device
from asr.frontend.augment import CONDITIONS, AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.manifests.manifest import read_manifest, write_manifest
from asr.model.encoder import EncoderConfig
from asr.model.recurrent.layers import LayerConfig
from asr.model.saved import load_model
from asr.model.shipped import DEFAULT_MODEL, find_model
from asr.scoring.evaluation import evaluate
from asr.scoring.results import table_by_part, write_score_folder
from asr.scoring.weight_search import Grid
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings, branch_of, train_recogniser
from asr.training.run.release import write_release
from asr.training.validation import BEST_MODEL

Stage = Literal["data", "trunk", "branch", "tune", "score", "release"]

AUGMENT = AugmentConfig(
    time_masks_per_s=0.4, mel_mask_bands=8, masks_from_epoch=3, mel_warp=(0.88, 1.12),
    noise_share=0.25, noise_snr_db=(5, 25), room_share=0.1,
)  # fmt: skip
CALLS = replace(AUGMENT, masks_from_epoch=1, silence_share=0.15, telephone_share=0.1, codec_share=0.05)


@dataclass(frozen=True)
class Data:
    """Where the corpora are."""

    root: Path = Path("data")  # the folder that holds english/, LibriSpeech/, common_voice/, …


@dataclass(frozen=True)
class Config(Settings):
    """Everything that can be set; the topics of a training are the trunk's."""

    data: Data = field(default_factory=Data)
    stages: tuple[Stage, ...] = get_args(Stage)  # to run; the order does not matter
    branch_epochs: int = 12  # the branch starts at the trunk's learning rate
    branch_augment: AugmentConfig = CALLS
    lm: Path | None = None  # language model; None: the one that ships, with its lexicon
    lexicon: Path | None = None  # for the language model; None: its words, where need be by letter-to-sound
    beam: BeamConfig = field(default_factory=BeamConfig)
    grid: Grid = field(default_factory=Grid)  # weights of the search that are tried
    quick: bool = False  # a tiny net for a moment, to try the recipe


CONFIG = Config(
    features=FeatureConfig(n_mels=40, prior_frames=50),
    text=TextConfig(units="phones", unknown="drop"),
    model=EncoderConfig(width=320, depth=4, dropout=0.2, subsampling=3, layers=LayerConfig(cell="ligru")),
    augment=AUGMENT, batch=BatchConfig(seconds=60),
    train=TrainConfig(
        run_dir=Path("runs/english"), schedule="constant", epochs=60,
        learning_rate=1.5e-3, warmup=0.01, ema=0.999,
    ),
)  # fmt: skip


def main(config: Config) -> str:
    """Run the stages; the result is the table of scores, and where the model is."""
    config = tiny(config) if config.quick else config
    run_dir, device, lines = config.train.run_dir, config.train.device, []
    manifests = {name: run_dir / f"{name}.jsonl" for name in ("train", "dev")}
    if "data" in config.stages:
        splits = english.prepare(config.data.root)
        write_manifest(manifests["train"], splits.train)
        write_manifest(manifests["dev"], splits.dev)
    data = {name: read_manifest(path) for name, path in manifests.items()}
    trunk = replace(config, train=replace(config.train, run_dir=run_dir / "trunk", resume=True))
    branch = branch_of(trunk, run_dir / "branch", config.branch_epochs, config.branch_augment)
    runs = {"trunk": trunk, "branch": branch}
    for settings in (settings for name, settings in runs.items() if name in config.stages):
        train_recogniser(data["train"], data["dev"], settings)
    path = branch.train.run_dir / BEST_MODEL
    if {"tune", "score"} & {*config.stages}:
        search = DecoderSettings(lm=config.lm, lexicon=config.lexicon, beam=config.beam)
        search = search.with_defaults_of(find_model(DEFAULT_MODEL))
        tuning = TuneSettings(manifests["dev"], path, grid=config.grid, device=device, decoding=search)
        decoder = tuned_decoder(tuning)
    if "score" in config.stages:
        model, scores = load_model(path, choose_device(device)), {}
        for name, how in CONDITIONS.items():
            utterances = augmented(manifests["dev"], run_dir / "score" / name, how)
            scores[name] = evaluate(model, utterances, decoder=decoder)
            write_score_folder(run_dir / "score" / name, scores[name])
        lines.append(table_by_part(scores, {"all": data["dev"], **english.by_set(data["dev"])}))
    if "release" in config.stages:
        lines.append(write_release(run_dir / "acoustic.safetensors", path, "recipes/english.py", data, runs))
    return "\n".join(lines)


def tiny(config: Config) -> Config:
    """The same with a net that learns nothing."""
    model, beam = replace(config.model, width=8, depth=1), replace(config.beam, beam_size=4)
    config = replace(config, model=model, beam=beam, grid=replace(config.grid, points=2), branch_epochs=1)
    return replace(config, train=replace(config.train, epochs=1))


if __name__ == "__main__":
    recipe(main, CONFIG)
