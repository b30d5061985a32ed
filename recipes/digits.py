"""Connected digits: the demo. Trains, transcribes and scores on a CPU in minutes.

python recipes/digits.py                                      synthetic voices, embedded in data/digits
python recipes/digits.py --data.corpus fsdd [--data.root DIR]  six real people, each unseen in turn
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from asr.batching.batches import BatchConfig
from asr.cli import recipe
from asr.corpora import digits, fsdd
from asr.device import choose_device
from asr.errors import AudioError
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.model.encoder import EncoderConfig
from asr.model.saved import load_model
from asr.recognition.recognise import Segment, recognise
from asr.scoring.evaluation import evaluate
from asr.scoring.report import write_report
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings, train

DEMO = Path(__file__).parents[1] / "data" / "digits" / "wav"


@dataclass(frozen=True)
class Data:
    """Which digits, and where they are."""

    corpus: Literal["embedded", "fsdd"] = "embedded"  # synthetic voices, or the Free Spoken Digit Dataset
    root: Path | None = None  # of fsdd: a folder that holds recordings/; None downloads it
    dir: Path = Path("data")  # where downloads go


@dataclass(frozen=True)
class Config(Settings):
    """Everything that can be set."""

    data: Data = field(default_factory=Data)


# Half the default mel bands: wide ones do not resolve a voice's pitch, and there are few voices.
CONFIG = Config(
    features=FeatureConfig(n_mels=40),
    augment=AugmentConfig(speeds=(0.8, 0.9, 1.0, 1.1, 1.2), mel_mask_bands=10),
    model=EncoderConfig(width=128, depth=2, dropout=0.3, subsampling=3, channels=16),
    batch=BatchConfig(seconds=25),
    train=TrainConfig(run_dir=Path("runs/digits"), epochs=16, learning_rate=2e-3),
)


def main(config: Config) -> str:
    """Train on some voices, score on others."""
    return real(config) if config.data.corpus == "fsdd" else synthetic(config)


def synthetic(config: Config) -> str:
    """Synthetic voices: train, transcribe three recordings, score the unseen voices."""
    splits = digits.prepare()
    path = train(splits.train, splits.dev, config)
    model = load_model(path, choose_device(config.train.device))
    lines = ["", "three recordings of voices that are not in the training data:"]
    for result in recognise(model, [Segment(file) for file in sorted(DEMO.glob("*.wav"))], batch_s=60):
        text = result.outcome if isinstance(result.outcome, AudioError) else result.outcome.text
        lines.append(f"  {result.segment.path.name:32} {text}")
    lines += ["", f"all {len(splits.test)} recordings of unseen voices:"]
    lines.append(write_report(config.train.run_dir / "test", evaluate(model, splits.test)))
    lines += [f"Model: {path}", f"Try:   asr transcribe {DEMO}/*.wav --model {path}"]
    return "\n".join(lines)


def real(config: Config) -> str:
    """Real people: each of the six is the test speaker once, the next one chooses, four are learned from."""
    lines: list[str] = []
    errors = words = 0
    for speaker in fsdd.SPEAKERS:
        splits = fsdd.prepare(config.data.root, config.data.dir, speaker)
        run_dir = config.train.run_dir.with_name(f"{config.train.run_dir.name}-fsdd-{speaker}")
        model = train(splits.train, splits.dev, replace(config, train=replace(config.train, run_dir=run_dir)))
        score = evaluate(load_model(model, choose_device(config.train.device)), splits.test)
        write_report(run_dir / "test", score)
        lines.append(f"{speaker:9} {score.wer_line()}  95% interval {score.interval()}")
        errors, words = errors + score.words.errors, words + score.words.reference_length
    return "\n".join([*lines, f"together  {errors} errors in {words} words: {100 * errors / words:.2f}%"])


if __name__ == "__main__":
    recipe(main, CONFIG)
