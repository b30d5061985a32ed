"""Letter-to-sound on CMUdict: joint n-gram, fixed summary vector, attention, BiLSTM-CTC, and all together.

python recipes/letter_to_sound.py [--networks dot ctc] [--split.seed N]
python recipes/letter_to_sound.py --quick

Trains each network for about half an hour on one core. Ctrl-C stops it, and the same command goes on. Then it
scores all of them on the test words and prints, of the words that are wrong, how many there are by length.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from asr.cli import recipe
from asr.commands.lexicon import LexiconScoreSettings, score_all
from asr.model.encoder_decoder import EncoderDecoderConfig
from asr.model.sequence_ctc import SequenceCtcConfig
from asr.text.lexicon import cmudict
from asr.text.lexicon_split import SplitConfig
from asr.training.config import TrainConfig
from asr.training.pronouncer import CtcSettings, EncoderDecoderSettings, train_pronouncer

Network = Literal["none", "additive", "dot", "ctc"]

# Epochs that take about half an hour on one core.
EPOCHS = {"none": 14, "additive": 10, "dot": 16, "ctc": 11}


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
    quick: bool = False  # small networks, one epoch on 1,000 words: shows that it runs, not what it can do


def main(config: Config) -> str:
    """Train every network, score all on the test words."""
    runs, split = config.train.run_dir, config.split
    if config.quick:
        runs, split = runs.with_name(f"{runs.name}-quick"), replace(split, words=1000)
    models = []
    for name in config.networks:
        plan = replace(config.train, run_dir=runs / name, epochs=1 if config.quick else EPOCHS[name])
        small = {"width": 16, "embedding": 8} if config.quick else {}
        if name == "ctc":
            settings = CtcSettings(SequenceCtcConfig(**small), split=split, train=plan)
        else:
            model = EncoderDecoderConfig(attention=name, **small)
            settings = EncoderDecoderSettings(model, split=split, train=plan)
        models.append(train_pronouncer(cmudict(), settings))
    results = runs / "results.jsonl"
    table = score_all(LexiconScoreSettings(models=tuple(models), split=split, results=results))
    (runs / "table.txt").write_text(f"{table}\n", encoding="utf-8")
    return f"{table}\n\n{by_length(results)}\n{results}"


def by_length(results: Path) -> str:
    """Percent of the words that are wrong, by their number of letters: what a summary vector cannot hold."""
    counts: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for line in results.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for system, given in row["given"].items():
            length = min(max(len(row["word"]), 3), 13)
            counts[system][length].append(given not in row["right"])
    lengths = sorted({length for of_system in counts.values() for length in of_system})
    lines = ["% wrong by letters" + " " * 22 + "".join(f"{length:>7}" for length in lengths)]
    for system, of_system in counts.items():
        shares = (100 * sum(of_system[length]) / max(len(of_system[length]), 1) for length in lengths)
        lines.append(f"{system:<40}" + "".join(f"{share:7.1f}" for share in shares))
    return "\n".join(lines)


if __name__ == "__main__":
    recipe(main, Config())
