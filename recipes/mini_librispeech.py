"""mini LibriSpeech (OpenSLR 31): 5.3 hours of read English, 28 speakers; the first recipe that takes hours.

python recipes/mini_librispeech.py [--data.root DIR] [--train.… …]

Trains on train-clean-5, chooses the epoch on the 8 dev-clean speakers whose ids sort first, scores the others.
"""

from dataclasses import dataclass, field
from pathlib import Path

from asr.cli import recipe
from asr.corpora import librispeech
from asr.evaluate import evaluate, report
from asr.frontend.augment import AugmentConfig
from asr.model.encoder import EncoderConfig
from asr.model.saved import load_model
from asr.train import Settings, train
from asr.training.batches import BatchConfig
from asr.training.trainer import TrainConfig


@dataclass(frozen=True)
class Data:
    """Where the corpus is."""

    root: Path | None = None  # a folder that holds LibriSpeech/, or is it; None downloads the parts
    dir: Path = Path("data")  # where downloads go


@dataclass(frozen=True)
class Config(Settings):
    """Everything that can be set."""

    data: Data = field(default_factory=Data)


CONFIG = Config(
    model=EncoderConfig(size="small", dropout=0.2),
    augment=AugmentConfig(time_masks_per_s=0.5, mel_mask_bands=12, masks_from_epoch=3),
    batch=BatchConfig(seconds=50),
    train=TrainConfig(run_dir=Path("runs/mini_librispeech"), epochs=14, learning_rate=1e-3),
)


def main(config: Config) -> str:
    """Prepare, train, score the unseen speakers once."""
    splits = librispeech.prepare(config.data.root, config.data.dir, librispeech.MINI)
    model = train(splits.train, splits.dev, config)
    score = evaluate(load_model(model), splits.test)
    return f"{report(score, config.train.run_dir / 'test')}\nmodel: {model}"


if __name__ == "__main__":
    recipe(main, CONFIG)
