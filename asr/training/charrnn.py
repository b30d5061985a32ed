"""Train a character RNN on text: all its settings, and the function that the command calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError
from asr.lm.charrnn import CharRnn, CharRnnConfig
from asr.training.config import TrainConfig
from asr.training.run.provenance import provenance
from asr.training.run.start import open_run, settings_record
from asr.training.tasks.charrnn import CharRnnTask, TextStreamConfig
from asr.training.texts import HELD_OUT_EVERY, text_digest

__all__ = ["CharRnnSettings", "encode", "held_out", "train_charrnn"]


@dataclass(frozen=True)
class CharRnnSettings:
    """All settings of the training of a character RNN."""

    model: CharRnnConfig = field(default_factory=CharRnnConfig)
    text: TextStreamConfig = field(default_factory=TextStreamConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(run_dir=Path("runs/lm"), epochs=5, learning_rate=2e-3)
    )


def held_out(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split lines into a training text and a dev text, every 100th line.

    A line with a character that the training text lacks is moved to the training text.

    Raises:
        DataError: there is only one line, or no line that can be held out.
    """
    if len(lines) < 2:
        raise DataError("one line of text. Two were expected, or a dev text (--dev).")
    learned = [line for number, line in enumerate(lines) if number % HELD_OUT_EVERY]
    alphabet = set().union(*map(set, learned))
    dev: list[str] = []
    for line in lines[::HELD_OUT_EVERY]:
        (dev if alphabet.issuperset(line) else learned).append(line)
    if not dev:
        raise DataError(
            "each line that would be held out has a character that no other line has. Expected more text, "
            "another normalizer (--normalizer), or a dev text (--dev)."
        )
    return learned, dev


def train_charrnn(lines: Sequence[str], dev: Sequence[str], settings: CharRnnSettings) -> Path:
    """Train a character RNN; under torchrun every process calls this, and they train together.

    Args:
        lines: the training text; its characters are the alphabet.
        dev: lines of the text to choose the best epoch by.
        settings: all settings.

    Returns:
        The best model's file.

    Raises:
        DataError: too little text, or a dev text with characters that the training text lacks.
        AsrError: the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    symbols = tuple(sorted(set().union(*map(set, lines))))
    unknown = set().union(*map(set, dev)) - set(symbols)
    if unknown:
        raise DataError(
            f"the dev text has {', '.join(map(repr, sorted(unknown)[:10]))}, which the training text never "
            f"has. Choose another normalizer (--normalizer), or another text."
        )
    with open_run(settings.train, "--text.block or --text.streams") as run:
        process = run.process
        record = settings_record(settings, text_digest(lines, dev))
        resumed = run.should_resume(record, settings_record(CharRnnSettings(), ""))
        run.seed()
        net = CharRnn(symbols, settings.model).to(process.device)
        texts = (encode(lines, symbols), encode(dev, symbols))
        task = CharRnnTask(net, *texts, settings.text, process, settings.train.seed)
        record |= provenance(process.device, settings.train.precision)
        sizes = [len(text) / 1e6 for text in texts]
        data = f"{sizes[0]:.2f} M characters ({len(symbols)} different ones), dev text of {sizes[1]:.2f} M"
        return run.start(task, record, data, resumed=resumed)


def encode(lines: Sequence[str], symbols: Sequence[str]) -> NDArray[np.uint16]:
    """(n,) ids of lines, each followed by its end (id 0); symbol i has the id i + 1."""
    codes = np.frombuffer("".join(f"{line}\n" for line in lines).encode("utf-32-le"), np.uint32)
    alphabet = np.array([ord("\n"), *map(ord, symbols)], np.uint32)
    by_code = np.argsort(alphabet)
    return by_code[np.searchsorted(alphabet[by_code], codes)].astype(np.uint16)
