"""YesNo (OpenSLR 1): one man says eight times yes or no, in Hebrew. The smallest real recipe; read it first.

python recipes/yesno.py [--data.root DIR] [--train.seed N]
"""

from dataclasses import dataclass, field
from pathlib import Path

from asr.batching.batches import BatchConfig
from asr.cli import recipe
from asr.corpora import yesno
from asr.device import choose_device
from asr.frontend.augment import AugmentConfig
from asr.model.encoder import EncoderConfig
from asr.model.saved import load_model
from asr.scoring.evaluation import evaluate
from asr.scoring.results import write_score_folder
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings, train_recogniser


@dataclass(frozen=True)
class Data:
    """Where the corpus is."""

    root: Path | None = None  # a folder that holds the wav files; None downloads them
    dir: Path = Path("data")  # where downloads go


@dataclass(frozen=True)
class Config(Settings):
    """Everything that can be set."""

    data: Data = field(default_factory=Data)


CONFIG = Config(
    model=EncoderConfig(width=64, depth=2, dropout=0.3, channels=8),
    augment=AugmentConfig(mel_mask_bands=10, masks_from_epoch=15),
    batch=BatchConfig(seconds=12),
    train=TrainConfig(run_dir=Path("runs/yesno"), epochs=45, learning_rate=3e-3),
)


def main(config: Config) -> str:
    """Prepare, train, score the test set once."""
    splits = yesno.prepare(config.data.root, config.data.dir)
    model = train_recogniser(splits.train, splits.dev, config)
    score = evaluate(load_model(model, choose_device(config.train.device)), splits.test)
    return f"{write_score_folder(config.train.run_dir / 'test', score)}\nmodel: {model}"


if __name__ == "__main__":
    recipe(main, CONFIG)
