"""mini LibriSpeech (OpenSLR 31): 5.3 hours of read English, 28 speakers; the first recipe that takes hours.

python recipes/mini_librispeech.py [--data.root DIR] [--lm FILE] [--train.… …]

Trains on train-clean-5, chooses the epoch on the 8 dev-clean speakers whose ids (as numbers) sort first, and
scores the others: greedily and, where a language model is given, with a beam search that is tuned on the 8.
"""

from dataclasses import dataclass, field
from pathlib import Path

from asr.batching.batches import BatchConfig
from asr.cli import recipe
from asr.commands.tune import TuneSettings, tuned_decoder
from asr.corpora import librispeech
from asr.corpora.manifest import write_manifest
from asr.decoding.config import BeamConfig, DecoderSettings
from asr.device import choose_device
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.model.encoder import EncoderConfig
from asr.model.saved import load_model
from asr.scoring.evaluation import evaluate
from asr.scoring.report import write_report
from asr.scoring.weight_search import Grid
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings, train


@dataclass(frozen=True)
class Data:
    """Where the corpus is."""

    root: Path | None = None  # a folder that holds LibriSpeech/, or is it; None downloads the parts
    dir: Path = Path("data")  # where downloads go
    preset: librispeech.Preset = librispeech.MINI  # which parts are for what


@dataclass(frozen=True)
class Config(Settings):
    """Everything that can be set."""

    data: Data = field(default_factory=Data)
    lm: Path | None = None  # language model of the beam search, .bin or .arpa; None: greedy only
    lexicon: Path | None = None  # its words and their spellings; None: as the model's tokenizer spells them
    beam: BeamConfig = field(default_factory=BeamConfig)
    grid: Grid = field(default_factory=Grid)  # weights of the search that are tried


# Few passes over little speech: a small net, regularised little, learns the most in them. 30 ms a step, since
# at 40 ms fast speech has hardly more steps than letters.
CONFIG = Config(
    features=FeatureConfig(n_mels=40),
    model=EncoderConfig(width=192, depth=4, dropout=0.1, subsampling=3),
    augment=AugmentConfig(time_masks_per_s=0.3, mel_mask_bands=6, masks_from_epoch=6),
    batch=BatchConfig(seconds=50),
    train=TrainConfig(run_dir=Path("runs/mini_librispeech"), epochs=18, learning_rate=2e-3),
)


def main(config: Config) -> str:
    """Prepare, train, tune, score each test part once."""
    splits = librispeech.prepare(config.data.root, config.data.dir, config.data.preset)
    path = train(splits.train, splits.dev, config)
    model = load_model(path, choose_device(config.train.device))
    decoder = None
    if config.lm is not None:
        dev = config.train.run_dir / "dev.jsonl"
        write_manifest(dev, splits.dev)
        settings = DecoderSettings(lm=config.lm, lexicon=config.lexicon, beam=config.beam)
        tuning = TuneSettings(dev, path, grid=config.grid, device=config.train.device, decoding=settings)
        decoder = tuned_decoder(tuning)
    lines = []
    for part, utterances in librispeech.by_part(splits.test).items():
        lines.append(f"{part}, {len({utterance.speaker for utterance in utterances})} speakers:")
        lines.append(write_report(config.train.run_dir / part, evaluate(model, utterances)))
        if decoder is not None:
            score = evaluate(model, utterances, decoder=decoder)
            notes = [f"Decoder: {decoder.name}", f"Weights: {decoder.weights}"]
            lines.append(write_report(config.train.run_dir / f"{part}-lm", score, notes))
    return "\n".join([*lines, f"Model: {path}"])


if __name__ == "__main__":
    recipe(main, CONFIG)
