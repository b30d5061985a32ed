"""Any public corpus of `asr corpus list`: prepared, trained on, tuned with its own language model, reported.

python recipes/corpus.py NAME [--data.root DIR] [--data.parts PART ...] [--lm FILE] [--train.… …]

Downloads the corpus unless --data.root is given. Settings are chosen by hours of speech: they suit no corpus
in particular, and on most they were never run, as the log says. The language model is a word trigram of the
training transcripts. Epoch and weights are chosen on dev; test is scored once.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from asr.batching.batches import BatchConfig
from asr.batching.examples import TextConfig
from asr.cli import recipe
from asr.commands.tune import TuneSettings, tuned_decoder
from asr.corpora.catalogue import CORPORA
from asr.corpora.corpus import Corpus
from asr.corpora.manifest import write_manifest
from asr.decoding.config import DecoderSettings
from asr.device import choose_device
from asr.errors import DataError
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.lm.ngram.build import NgramConfig, build
from asr.model.encoder import EncoderConfig
from asr.model.recurrent.layers import LayerConfig
from asr.model.saved import load_model
from asr.scoring.evaluation import evaluate
from asr.scoring.report import write_report
from asr.scoring.weight_search import Grid
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings, train_recogniser

log = logging.getLogger("asr")


@dataclass(frozen=True)
class Data:
    """Where the corpus is, and which parts of it."""

    corpus: str = "yesno"  # its name
    root: Path | None = None  # its folder, or the one that holds it; None downloads it
    dir: Path = Path("data")  # where downloads go
    parts: tuple[str, ...] = ()  # such as a language; (): what the folder holds


@dataclass(frozen=True)
class Config(Settings):
    """Everything that can be set."""

    data: Data = field(default_factory=Data)
    lm: Path | None = None  # language model, .bin or .arpa; None: a trigram of the training transcripts
    grid: Grid = field(default_factory=Grid)  # weights of the search that are tried


# By hours of speech: up to 3 (minutes on a CPU), up to 60 (hours), up to 500 (a GPU), more (several).
TINY = Config(
    features=FeatureConfig(n_mels=40),
    model=EncoderConfig(width=96, depth=2, dropout=0.3, channels=16, layers=LayerConfig(cell="ligru")),
    augment=AugmentConfig(mel_mask_bands=8, masks_from_epoch=10),
    batch=BatchConfig(seconds=20),
    train=TrainConfig(epochs=45, learning_rate=3e-3),
)
SMALL = Config(
    features=FeatureConfig(n_mels=40),
    model=EncoderConfig(width=224, depth=4, dropout=0.25, layers=LayerConfig(cell="ligru")),
    augment=AugmentConfig(time_masks_per_s=0.4, mel_mask_bands=8, masks_from_epoch=4, mel_warp=(0.87, 1.13)),
    batch=BatchConfig(seconds=50),
    train=TrainConfig(epochs=40, schedule="linear", learning_rate=2e-3, warmup=0.03, ema=0.998),
)
GPU = BatchConfig(seconds=400, cache_dir=None)
MEDIUM = Config(model=EncoderConfig(size="medium"), batch=GPU, train=TrainConfig(epochs=60))
SEVERAL = BatchConfig(seconds=2400, cache_dir=None)
LARGE = Config(model=EncoderConfig(size="large"), batch=SEVERAL, train=TrainConfig(epochs=30))
HAVE_RUN = ("yesno",)  # with the settings below; results are in recipes/README.md


def settings_for(corpus: Corpus) -> Config:
    """The settings for a corpus of this size."""
    hours = 20.0 if corpus.hours is None or (corpus.one_part and corpus.hours > 3) else corpus.hours
    config = TINY if hours <= 3 else SMALL if hours <= 60 else MEDIUM if hours <= 500 else LARGE
    text = TextConfig(normalizer=corpus.normalizer, unknown="drop")
    run = replace(config.train, run_dir=Path("runs") / corpus.name)
    return replace(config, data=Data(corpus.name), text=text, train=run)


def main(config: Config) -> str:
    """Prepare, train, tune, score the test set once."""
    corpus, run_dir = CORPORA[config.data.corpus], config.train.run_dir
    if corpus.name not in HAVE_RUN:
        log.warning("%s: these settings were never run on this corpus", corpus.name)
    parts, root = corpus.choose(config.data.parts), config.data.root
    if root is None and not corpus.embedded:
        root = corpus.download(config.data.dir, parts)
    reading = corpus.prepare(root, parts)
    log.info("%d left out: `asr corpus prepare %s` lists them", len(reading.left_out), corpus.name)
    if missing := {"train", "dev", "test"} - reading.splits.keys():
        raise DataError(f"{root}: no {' and no '.join(sorted(missing))} split. Add parts that have it.")
    for split, utterances in reading.splits.items():
        write_manifest(run_dir / f"{split}.jsonl", utterances)
    path = train_recogniser(reading.splits["train"], reading.splits["dev"], config)
    lm = config.lm or run_dir / "words.bin"
    if config.lm is None:
        text = run_dir / "words.txt"
        text.write_text("".join(f"{one.text}\n" for one in reading.splits["train"]), encoding="utf-8")
        build([text], NgramConfig(order=3), lm)
    settings = TuneSettings(run_dir / "dev.jsonl", path, grid=config.grid, decoding=DecoderSettings(lm=lm))
    decoder = tuned_decoder(replace(settings, device=config.train.device))
    model, test = load_model(path, choose_device(config.train.device)), reading.splits["test"]
    greedy = write_report(run_dir / "test", evaluate(model, test))
    notes = [f"Decoder: {decoder.name}", f"Weights: {decoder.weights}"]
    with_lm = write_report(run_dir / "test-lm", evaluate(model, test, decoder=decoder), notes)
    return f"{greedy}\n{with_lm}\nModel: {path}"


if __name__ == "__main__":
    facts = {name: f"{one.title}, {one.hours or '?'} h, {one.languages}" for name, one in CORPORA.items()}
    recipe(main, {name: (facts[name], settings_for(corpus)) for name, corpus in CORPORA.items()})
