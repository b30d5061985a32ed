"""Your own recordings with their transcripts: manifests, a model, a tuned language model, scores.

python recipes/own_data.py --data.root DIR [--from-scratch] [--lm FILE] [--train.… …]

DIR is any folder that `asr corpus folder` understands. Where nine of ten words are English, the model that
ships is fine-tuned, and its language model mixed with one of your transcripts; else, or with --from-scratch,
a model of the size that suits the hours of speech learns from them alone. Test is scored once.
"""

import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from corpus import Config as CorpusConfig
from corpus import learn, tune_and_score

from asr.batching.batches import BatchConfig
from asr.batching.examples import TextConfig
from asr.cli import recipe
from asr.commands.lm import NgramInterpolateSettings, run_interpolate
from asr.commands.options import option_value
from asr.corpora.folder.reading import FolderReading, check_outside, read_folder
from asr.decoding.config import DecoderSettings
from asr.device import choose_device
from asr.errors import DataError, SettingsError
from asr.frontend.augment import AugmentConfig
from asr.manifests.utterance import Utterance
from asr.model.saved import load_model
from asr.model.shipped import DEFAULT_MODEL, find_model
from asr.scoring.evaluation import evaluate
from asr.text.lexicon import read_lexicon
from asr.text.normalize import normalize
from asr.training.config import TrainConfig
from asr.training.sizing import settings_for_hours
from asr.transcripts.segments import SEGMENT_READERS

log = logging.getLogger("asr")

AUGMENT = AugmentConfig(time_masks_per_s=0.4, mel_mask_bands=8, masks_from_epoch=1, mel_warp=(0.88, 1.12))


@dataclass(frozen=True)
class Data:
    """Where the recordings are."""

    root: Path | None = None  # the folder
    seed: int = 0  # of the choice of dev and test, where the folder has no split of its own


@dataclass(frozen=True)
class Config(CorpusConfig):
    """Everything that can be set."""

    data: Data = field(default_factory=Data)  # type: ignore[assignment]
    from_scratch: bool = False  # learn from your recordings alone


def read(root: Path | None, seed: int = 0) -> FolderReading:
    """The recordings of the folder."""
    if root is None:
        raise SettingsError("--data.root is missing. Expected the folder of your recordings. Name it.")
    reading = read_folder(root, SEGMENT_READERS, seed=seed)
    if missing := [name for name in ("train", "dev", "test") if name not in reading.splits]:
        raise DataError(f"{root}: no {missing[0]} set. Expected ten recordings, or three sets. Add some.")
    return reading


def fits_english(utterances: Sequence[Utterance]) -> bool:
    """Whether the words of the transcripts are those of the model that ships."""
    words = [word for one in utterances for word in normalize(one.text, "english").split()]
    lexicon = read_lexicon(find_model(DEFAULT_MODEL).lexicon or Path())
    known = sum(bool(lexicon.spellings(word)) for word in words) / max(len(words), 1)
    log.info("%.1f%% of the words are in the English lexicon", 100 * known)
    return known >= 0.9


def settings_for(arguments: Sequence[str]) -> Config:
    """The settings for the hours and the words of the folder that a command line names."""
    root, scratch = option_value(arguments, "--data.root"), "--from-scratch" in arguments
    found = read(Path(root)).splits["train"] if root else []
    hours, run_dir = sum(one.duration for one in found) / 3600, Path("runs/own_data")
    if scratch or (found and not fits_english(found)):
        sized = settings_for_hours(hours)
        text, run = TextConfig(normalizer="words", unknown="drop"), replace(sized.train, run_dir=run_dir)
        return Config(**vars(replace(sized, text=text, train=run)))
    epochs, text = 20 if hours <= 1 else 12 if hours <= 10 else 6, TextConfig(units="phones", unknown="drop")
    train = TrainConfig(epochs=epochs, schedule="linear", learning_rate=3e-4, ema=0.998)
    train = replace(train, run_dir=run_dir, warm_start=Path(DEFAULT_MODEL))
    return Config(text=text, augment=AUGMENT, batch=BatchConfig(seconds=30), train=train)


def better(tuned: Path, dev: Sequence[Utterance], device: str) -> Path:
    """The fine-tuned model, or a copy of the one that ships where that makes fewer errors on dev."""
    copy = tuned.with_name("before.safetensors")
    shutil.copyfile(find_model(DEFAULT_MODEL).path, copy)
    rates = {path: evaluate(load_model(path, choose_device(device)), dev).wer for path in (copy, tuned)}
    log.info("errors on dev: %.2f%% before, %.2f%% after", *(100 * rate for rate in rates.values()))
    return min(rates, key=lambda path: rates[path])


def main(config: Config) -> str:
    """Prepare, train, tune, score the test set once."""
    reading, run_dir = read(config.data.root, config.data.seed), config.train.run_dir
    check_outside(config.data.root or Path(), run_dir, "--train.run-dir")
    log.info("%d left out: `asr corpus folder` lists them; split %s", len(reading.left_out), reading.split_by)
    path, lm = learn(reading.splits, config)
    decoding = DecoderSettings(lm=lm)
    if config.train.warm_start == Path(DEFAULT_MODEL) and config.lm is None:
        path = better(path, reading.splits["dev"], config.train.device)
        shipped, mixed, dev = find_model(DEFAULT_MODEL), run_dir / "mixed.bin", (run_dir / "dev.txt",)
        log.info("%s", run_interpolate(NgramInterpolateSettings((shipped.lm or Path(), lm), mixed, dev)))
        decoding = replace(decoding, lm=mixed, lexicon=shipped.lexicon)
    return tune_and_score(path, reading.splits["test"], config, decoding)


if __name__ == "__main__":
    recipe(main, lambda: settings_for(sys.argv[1:]))
