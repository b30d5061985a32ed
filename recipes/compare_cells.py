"""Graves' comparison of 2013 on data that anyone can have: which recurrent cell, one direction or two.

python recipes/compare_cells.py [digits] [--seeds 1 2 3] [--cells rnn gru lstm ligru]
python recipes/compare_cells.py mini-librispeech [--data.root DIR]

All nets have about as many weights and the same settings. Ctrl-C stops it, and the same command goes on.

Source: Graves, Mohamed and Hinton 2013, "Speech recognition with deep recurrent neural networks", table 1.
"""

from dataclasses import dataclass, fields, replace
from statistics import mean
from typing import Any

import torch
from digits import SCRATCH as DIGITS
from mini_librispeech import CONFIG as MINI
from mini_librispeech import Data

from asr.batching.batches import Batches
from asr.batching.examples import TextConfig, make_examples
from asr.cli import recipe
from asr.corpora import digits, librispeech
from asr.device import choose_device
from asr.manifests.utterance import Splits
from asr.microscope.measure import measure_layers
from asr.model.encoder import Encoder, EncoderConfig, parameter_count
from asr.model.recurrent.factory import Cell
from asr.model.saved import load_model
from asr.scoring.evaluation import evaluate
from asr.scoring.results import write_score_folder
from asr.scoring.system_table import System, draw, table
from asr.scoring.wer import Score
from asr.training.recogniser import Settings, train_recogniser
from asr.training.tasks.speech import speech_losses


@dataclass(frozen=True)
class Config(Settings):
    """Everything that can be set; model.width is the bidirectional LSTM's, the others get as many weights."""

    data: Data | None = None  # of mini LibriSpeech; None for the embedded digits
    cells: tuple[Cell, ...] = ("rnn", "gru", "lstm", "ligru")
    seeds: tuple[int, ...] = (1, 2, 3)


def preset(base: Settings, **more: Any) -> Config:
    """Another recipe's settings."""
    return Config(**{topic.name: getattr(base, topic.name) for topic in fields(Settings)} | more)


CONFIGS = {
    "digits": ("synthetic voices, embedded", preset(DIGITS, text=TextConfig())),
    "mini-librispeech": ("5 hours of read English; days on a CPU", preset(MINI, data=Data())),
}


def main(config: Config) -> str:
    """Train every net with every seed, score each once; one table, one figure."""
    splits = digits.prepare()
    if config.data is not None:
        splits = librispeech.prepare(config.data.root, config.data.dir, config.data.preset)
    out = config.train.run_dir.with_name(f"{config.train.run_dir.name}-cells")
    layers = config.model.layers
    size = weights(replace(config.model, layers=replace(layers, cell="lstm", bidirectional=True)), config)
    systems = []
    for bidirectional in (False, True):
        for cell in config.cells:
            model = replace(config.model, layers=replace(layers, cell=cell, bidirectional=bidirectional))
            model = matched(model, size, config)
            name = f"{cell} {'both ways' if bidirectional else 'one way'}"
            runs = []
            for seed in config.seeds:
                run_dir = out / f"{name.replace(' ', '-')}-{seed}"
                plan = replace(config.train, run_dir=run_dir, seed=seed, resume=True)
                runs.append(measure(replace(config, model=model, train=plan), splits))
            scores, epochs_s, horizons = zip(*runs, strict=True)
            columns = {
                "width": str(model.width),
                "weights": f"{weights(model, config) / 1e6:.3f} M",
                "s an epoch": f"{mean(epochs_s):.1f}",
                "gradient horizon, steps": f"{mean(horizons):.0f}",
            }
            systems.append(System(name, scores, columns))
    text = table(systems)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")
    draw(systems, out / "figure.png")
    return f"{text}\n{out / 'table.md'}, {out / 'figure.png'}"


def weights(model: EncoderConfig, config: Config) -> int:
    """Number of weights of an encoder for 27 characters; other alphabets change all networks alike."""
    with torch.device("meta"):
        return parameter_count(Encoder(model, config.features.n_mels, vocab_size=28))


def matched(model: EncoderConfig, size: int, config: Config) -> EncoderConfig:
    """The width that brings the number of weights nearest to `size`."""
    models = [replace(model, width=width) for width in range(8, 4 * model.recurrent().width, 8)]
    return min(models, key=lambda model: abs(weights(model, config) - size))


def measure(config: Config, splits: Splits) -> tuple[Score, float, float]:
    """Train and score one net: its score, seconds per epoch, mean gradient horizon of its layers in steps."""
    path = train_recogniser(splits.train, splits.dev, config)
    model = load_model(path, choose_device(config.train.device))
    score = evaluate(model, splits.test)
    write_score_folder(config.train.run_dir / "test", score)
    made, text, encoder = model.settings.provenance, config.text, model.settings.encoder
    dev = make_examples(splits.dev, model.settings.tokenizer, text, config.features, encoder.subsampling)
    batches = Batches(dev, config.features, config.batch, None, seed=config.train.seed)
    batch = next(batches.load(batches.plan(0)[:1]))
    layers = measure_layers(model, lambda: speech_losses(model, batch, torch.float32).losses.sum())
    horizon = mean(layer.horizon().steps for layer in layers)  # the scale of the loss does not matter
    epochs = made.get("epoch", config.train.epochs)  # an average of epochs is made at the end
    return score, made["training_s"] / epochs, horizon


if __name__ == "__main__":
    recipe(main, CONFIGS, default="digits")
