"""Spoken digits, recognised as phones with a lexicon of ten words. Trains and scores on a CPU in minutes.

python recipes/digits.py english    the demo: from the weights of the English model that ships
python recipes/digits.py            from scratch, with synthetic voices besides
... --data.corpus fsdd              either, for each of six real people (FSDD), unheard in turn

All data is embedded in data/; --data.root DIR reads FSDD's original recordings instead.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from asr.batching.batches import BatchConfig
from asr.batching.examples import TextConfig
from asr.cli import recipe
from asr.corpora import digits, fsdd
from asr.decoding.config import BeamConfig, DecoderSettings
from asr.decoding.decoder import build_decoder
from asr.device import choose_device
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.manifests.utterance import Utterance
from asr.model.encoder import EncoderConfig
from asr.model.recurrent.layers import LayerConfig
from asr.model.saved import load_model
from asr.scoring.evaluation import evaluate
from asr.scoring.results import write_score_folder
from asr.scoring.wer import Score
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings, train_recogniser

DATA = Path(__file__).parents[1] / "data"
BEAM = BeamConfig(beam_size=16, unknown_words="forbid")
DECODER = DecoderSettings(lexicon=DATA / "digits" / "words.txt", beam=BEAM)


@dataclass(frozen=True)
class Data:
    """Who is scored, and what is learned from."""

    corpus: Literal["demo", "fsdd"] = "demo"  # one training, or one for each person
    root: Path | None = None  # of FSDD: a folder that holds recordings/; None: the embedded copy
    speakers: tuple[str, ...] = fsdd.SPEAKERS  # fsdd: who is the test speaker, one after the other
    synthetic: bool = True  # learn from the synthetic voices, too
    children: bool = True  # learn from the children of speechocean762, too


@dataclass(frozen=True)
class Config(Settings):
    """Everything that can be set."""

    data: Data = field(default_factory=Data)


# 8 kHz, as FSDD: no band tells people from synthetic voices. Without the prior, one word loses its vowel.
SCRATCH = Config(
    features=FeatureConfig(sample_rate=8000, n_mels=30, prior_frames=50),
    augment=AugmentConfig(speeds=(0.8, 0.9, 1.0, 1.1, 1.2), mel_mask_bands=6, mel_warp=(0.85, 1.15)),
    text=TextConfig(units="phones"), batch=BatchConfig(seconds=60),
    model=EncoderConfig(width=96, depth=2, dropout=0.2, subsampling=3, channels=16,
                        layers=LayerConfig(cell="ligru")),
    train=TrainConfig(run_dir=Path("runs/digits"), epochs=16, learning_rate=4e-3, precision="float32"),
)  # fmt: skip
# Two views that agree: four people are few, and the network is made for hundreds.
ENGLISH = replace(
    SCRATCH, data=Data(synthetic=False), batch=BatchConfig(seconds=30),
    augment=replace(SCRATCH.augment, consistency_weight=0.2),
    train=replace(SCRATCH.train, run_dir=Path("runs/digits-english"), epochs=5, learning_rate=1e-3,
                  warm_start=Path("english")),
)  # fmt: skip
CONFIGS = {
    "scratch": ("from people and synthetic voices alone", SCRATCH),
    "english": ("from the weights of the English model that ships, in its shape", ENGLISH),
}


def main(config: Config) -> str:
    """One training, scored on FSDD's first speaker and three voices; or one for each of its people."""
    if config.data.corpus == "fsdd":
        return leave_one_out(config)
    people, voices = fsdd.prepare(config.data.root, fsdd.SPEAKERS[0]), digits.prepare()
    model = train_recogniser(people.train + more_speech(config), people.dev + voices.dev, config)
    lines = []
    for name, test in ((f"a person, {fsdd.SPEAKERS[0]}", people.test), ("synthetic voices", voices.test)):
        report = write_score_folder(config.train.run_dir / name.split()[-1], decode(model, test, config))
        lines += ["", f"{name}, not in the training data:", report]
    options = f"--model {model} --lexicon {DECODER.lexicon} --beam.unknown-words forbid"
    return "\n".join([*lines, f"Try:   asr transcribe {DATA / 'digits' / 'wav'}/*.wav {options}"])


def leave_one_out(config: Config) -> str:
    """Each of FSDD's people is the test speaker once, the next one chooses, the others are learned from."""
    lines, errors, words = [], 0, 0
    for speaker in config.data.speakers:
        people = fsdd.prepare(config.data.root, speaker)
        run_dir = config.train.run_dir.with_name(f"{config.train.run_dir.name}-fsdd-{speaker}")
        settings = replace(config, train=replace(config.train, run_dir=run_dir))
        model = train_recogniser(people.train + more_speech(config), people.dev, settings)
        score = decode(model, people.test, config)
        write_score_folder(run_dir / "test", score)
        lines.append(f"{speaker:9} {score.wer_line()}  95% interval {score.interval()}")
        errors, words = errors + score.words.errors, words + score.words.reference_length
    return "\n".join([*lines, f"together  {errors} errors in {words} words: {100 * errors / words:.2f}%"])


def more_speech(config: Config) -> list[Utterance]:
    """What is learned from besides FSDD."""
    synthetic = digits.prepare().train if config.data.synthetic else []
    return synthetic + (digits.prepare_children() if config.data.children else [])


def decode(path: Path, test: list[Utterance], config: Config) -> Score:
    """Score a model with the ten words as its vocabulary."""
    model = load_model(path, choose_device(config.train.device))
    return evaluate(model, test, decoder=build_decoder(DECODER, model))


if __name__ == "__main__":
    recipe(main, CONFIGS, default="scratch")
