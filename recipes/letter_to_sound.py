"""Letter-to-sound on CMUdict: joint n-gram, fixed summary vector, attention, BiLSTM-CTC, and all together.

python recipes/letter_to_sound.py [--networks dot ctc] [--split.seed N]
python recipes/letter_to_sound.py --quick

Trains each network for about half an hour on one core. Ctrl-C stops it, and the same command goes on. Then it
scores all of them on the test words, prints how many are wrong by the length of words, and draws that
(lengths.png in the run folder) and what each encoder-decoder looks at while it writes (attention.png).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from asr.cli import recipe
from asr.microscope.encoder_decoder import draw_readings, read_symbols
from asr.model.sequence.ctc import SequenceCtcConfig
from asr.model.sequence.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from asr.model.sequence.model import load_sequence_model
from asr.scoring.pronunciations import score_pronouncers
from asr.scoring.word_lengths import draw_lengths, length_table, wrong_by_length
from asr.text.lexicon import cmudict
from asr.text.pronunciation.lexicon_split import SplitConfig
from asr.training.config import TrainConfig
from asr.training.pronouncer import CtcSettings, EncoderDecoderSettings, train_pronouncer

Network = Literal["none", "additive", "dot", "ctc"]

# Epochs that take about half an hour on one core.
EPOCHS = {"none": 14, "additive": 10, "dot": 16, "ctc": 11}
NAMES = {"none": "fixed vector", "additive": "additive attention", "dot": "dot attention"}  # in pictures


@dataclass(frozen=True)
class Config:
    """Everything that can be set."""

    networks: tuple[Network, ...] = get_args(Network)
    split: SplitConfig = field(default_factory=SplitConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            run_dir=Path("runs/letter-to-sound"), learning_rate=2e-3, clip_norm=1.0, resume=True
        )
    )
    words: tuple[str, ...] = ("knight", "thoroughly", "environmentalists")  # whose attention is drawn
    quick: bool = False  # small networks, one epoch on 1,000 words: shows that it runs, not what it can do


def main(config: Config) -> str:
    """Train every network, score all on the test words."""
    runs, split = config.train.run_dir, config.split
    if config.quick:
        runs, split = runs.with_name(f"{runs.name}-quick"), replace(split, words=1000)
    models: dict[str, Path] = {}
    for name in config.networks:
        plan = replace(config.train, run_dir=runs / name, epochs=1 if config.quick else EPOCHS[name])
        small = {"width": 16, "embedding": 8} if config.quick else {}
        if name == "ctc":
            settings = CtcSettings(SequenceCtcConfig(**small), split=split, train=plan)
        else:
            model = EncoderDecoderConfig(attention=name, **small)
            settings = EncoderDecoderSettings(model, split=split, train=plan)
        models[name] = train_pronouncer(cmudict(), settings)
    results = runs / "results.jsonl"
    table = score_pronouncers([*models.values()], cmudict(), split, results=results)
    table += f"\n\n{length_table(wrong_by_length(results))}"
    (runs / "table.txt").write_text(f"{table}\n", encoding="utf-8")
    return "\n".join([table, str(results), *map(str, draw(models, config.words, runs))])


def draw(models: dict[str, Path], words: Sequence[str], folder: Path) -> list[Path]:
    """Draw what is wrong by the length of words, and what the encoder-decoders look at in some words."""
    lengths, attention = folder / "lengths.png", folder / "attention.png"
    counts = wrong_by_length(folder / "results.jsonl")
    counts = {NAMES.get(system, system): by_length for system, by_length in counts.items()}
    draw_lengths(counts, lengths, "Letter-to-sound: words wrong by their number of letters")
    nets = [(name, load_sequence_model(path)) for name, path in models.items()]
    readings = [
        [read_symbols(NAMES[name], net, word) for word in words if set(word) <= set(net.sources)]
        for name, net in nets
        if isinstance(net, EncoderDecoder)
    ]
    if readings and readings[0]:
        draw_readings(readings, attention, "What each phone (down) owes to each letter (across)")
    return [path for path in (lengths, attention) if path.exists()]


if __name__ == "__main__":
    recipe(main, Config())
