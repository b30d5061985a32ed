"""Any public corpus of `asr corpus list`: prepared, trained on, tuned with its own language model, reported.

python recipes/corpus.py NAME [--data.root DIR] [--data.parts PART ...] [--lm FILE] [--train.… …]

Downloads the corpus unless --data.root is given. Settings are chosen by hours of speech: they suit no corpus
in particular, and on most they were never run, as the log says. The language model is a word trigram of the
training transcripts. Epoch and weights are chosen on dev; test is scored once.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from asr.batching.examples import TextConfig
from asr.cli import recipe
from asr.commands.tune import TuneSettings, tuned_decoder
from asr.corpora.catalogue import CORPORA
from asr.corpora.corpus import Corpus
from asr.decoding.config import DecoderSettings
from asr.device import choose_device
from asr.errors import DataError
from asr.lm.ngram.build import NgramConfig, build
from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance
from asr.model.saved import load_model
from asr.scoring.evaluation import evaluate
from asr.scoring.results import write_score_folder
from asr.scoring.weight_search import Grid
from asr.text.normalize import normalize
from asr.text.scripts import is_unspaced
from asr.training.recogniser import Settings, train_recogniser
from asr.training.sizing import settings_for_hours

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


HAVE_RUN = ("yesno",)  # with the settings below; results are in recipes/README.md


def settings_for(corpus: Corpus) -> Config:
    """The settings for a corpus of this size."""
    hours = 20.0 if corpus.hours is None or (corpus.one_part and corpus.hours > 3) else corpus.hours
    sized, text = settings_for_hours(hours), TextConfig(normalizer=corpus.normalizer, unknown="drop")
    run = replace(sized.train, run_dir=Path("runs") / corpus.name)
    return Config(**vars(replace(sized, text=text, train=run)), data=Data(corpus.name))


def main(config: Config) -> str:
    """Prepare, train, tune, score the test set once."""
    corpus = CORPORA[config.data.corpus]
    if corpus.name not in HAVE_RUN:
        log.warning("%s: these settings were never run on this corpus", corpus.name)
    parts, root = corpus.choose(config.data.parts), config.data.root
    if root is None and not corpus.embedded:
        root = corpus.download(config.data.dir, parts)
    reading = corpus.prepare(root, parts)
    log.info("%d left out: `asr corpus prepare %s` lists them", len(reading.left_out), corpus.name)
    if missing := {"train", "dev", "test"} - reading.splits.keys():
        raise DataError(f"{root}: no {' and no '.join(sorted(missing))} split. Add parts that have it.")
    path, lm = learn(reading.splits, config)
    return tune_and_score(path, reading.splits["test"], config, DecoderSettings(lm=lm))


def learn(splits: dict[str, list[Utterance]], config: Config) -> tuple[Path, Path]:
    """Train a model and, unless one is given, a trigram of the words of train; manifests are beside them.

    Of a script without spaces between words it is a 6-gram of characters.
    """
    run_dir = config.train.run_dir
    for split, utterances in splits.items():
        write_manifest(run_dir / f"{split}.jsonl", utterances)
        text = "".join(f"{normalize(one.text, config.text.rules)}\n" for one in utterances)
        (run_dir / f"{split}.txt").write_text(text, encoding="utf-8")
    path, lm = train_recogniser(splits["train"], splits["dev"], config), config.lm or run_dir / "words.bin"
    if config.lm is None:
        unspaced = is_unspaced(one.text for one in splits["train"])
        ngrams = NgramConfig(order=6, unit="character") if unspaced else NgramConfig(order=3)
        build([run_dir / "train.txt"], ngrams, lm)
    return path, lm


def tune_and_score(path: Path, test: list[Utterance], config: Config, decoding: DecoderSettings) -> str:
    """Tune the search on dev, score test without and with the language model."""
    run_dir, device = config.train.run_dir, config.train.device
    settings = TuneSettings(run_dir / "dev.jsonl", path, grid=config.grid, decoding=decoding)
    decoder = tuned_decoder(replace(settings, device=device))
    model = load_model(path, choose_device(device))
    greedy = write_score_folder(run_dir / "test", evaluate(model, test))
    notes = [f"Decoder: {decoder.name}", f"Weights: {decoder.weights}"]
    with_lm = write_score_folder(run_dir / "test-lm", evaluate(model, test, decoder=decoder), notes)
    return f"{greedy}\n{with_lm}\nModel: {path}"


if __name__ == "__main__":
    facts = {name: f"{one.title}, {one.hours or '?'} h, {one.languages}" for name, one in CORPORA.items()}
    recipe(main, {name: (facts[name], settings_for(corpus)) for name, corpus in CORPORA.items()})
