"""`asr lm train --kind charrnn`: train a character language model, a recurrent network, on text."""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from asr.commands.options import check_output
from asr.device import describe_precision, make_deterministic, share_cores
from asr.errors import DataError, SettingsError
from asr.lm.charrnn import CharRnn, CharRnnConfig
from asr.lm.text_files import read_blocks
from asr.model.encoder import parameter_count
from asr.text.normalize import normalize
from asr.training.config import TrainConfig
from asr.training.distributed import processes
from asr.training.faults import translate_errors
from asr.training.runs import (
    DATA_DIGEST,
    flatten_settings,
    provenance,
    run_log,
    should_resume,
    start_or_resume,
)
from asr.training.stopping import StopRequest
from asr.training.tasks.character_lm import CharacterLmTask, StreamConfig
from asr.training.trainer import BEST_MODEL, Trainer

__all__ = ["CharacterLmSettings", "CharacterLmTrainSettings", "read_text", "run", "train"]

log = logging.getLogger("asr")

_DEV_EVERY = 100  # lines: without a dev text, one of so many is held out


@dataclass(frozen=True)
class CharacterLmSettings:
    """All settings of the training of a character language model."""

    model: CharRnnConfig = field(default_factory=CharRnnConfig)
    text: StreamConfig = field(default_factory=StreamConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(run_dir=Path("runs/lm"), epochs=5, learning_rate=2e-3)
    )


@dataclass(frozen=True)
class CharacterLmTrainSettings:
    """Train a character language model, a recurrent network.

    The best model by bits per character is RUN_DIR/model.safetensors. Stop with Ctrl-C; resume with
    --train.resume.
    """

    # text files, one sentence a line, in UTF-8, plain or compressed (.gz, .xz)
    texts: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="TEXT...", help_behavior_hint="(required)"),
    ]
    # text to choose the best epoch by; None: every 100th line of the other texts, which is held out
    dev: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    # rules for the text: verbatim, lower or english; those of the recogniser's transcripts
    normalizer: str = "verbatim"
    # where the best model is copied at the end; None leaves it in the run folder
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    settings: Annotated[CharacterLmSettings, tyro.conf.arg(name="")] = field(
        default_factory=CharacterLmSettings
    )


def run(command: CharacterLmTrainSettings) -> str:
    """Train as the command line asks; the summary to print.

    Raises:
        AsrError: the text, the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    if not command.texts:
        raise SettingsError("no TEXT is given. One text file or more was expected.")
    if command.output is not None:
        check_output(command.output, [*command.texts, *([command.dev] if command.dev else [])])
        if command.output.suffix != ".safetensors":  # which distinguishes it from n-grams
            raise SettingsError(
                f"--output {command.output}: a network's file has to end in .safetensors. Call it "
                f"{command.output.with_suffix('.safetensors')}."
            )
    lines = read_text(command.texts, command.normalizer)
    if command.dev is None:
        lines, dev = held_out(lines)
    else:
        dev = read_text([command.dev], command.normalizer)
    model = train(lines, dev, command.settings)
    if command.output is not None:
        shutil.copyfile(model, command.output)
        model = command.output
    return f"language model: {model}\nnext:  asr lm score TEXT --lm {model}"


def read_text(paths: Sequence[Path], normalizer: str = "verbatim") -> list[str]:
    """The lines of text files that are not empty, normalised.

    Raises:
        DataError: a file cannot be read, or there is no text at all.
        SettingsError: the normalizer is unknown.
    """
    lines: list[str] = []
    for block, _, _ in read_blocks(paths):
        lines += [text for line in block.decode().split("\n") if (text := normalize(line, normalizer))]
    if not lines:
        raise DataError(
            f"no text in {', '.join(map(str, paths))}. Lines with at least one character were expected."
        )
    return lines


def held_out(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split lines into a training text and a dev text, every 100th line.

    A line with a character that the training text lacks is moved to the training text.

    Raises:
        DataError: there is only one line, or no line that can be held out.
    """
    if len(lines) < 2:
        raise DataError("one line of text. Two were expected, or a dev text (--dev).")
    learned = [line for number, line in enumerate(lines) if number % _DEV_EVERY]
    alphabet = set().union(*map(set, learned))
    dev: list[str] = []
    for line in lines[::_DEV_EVERY]:
        (dev if alphabet.issuperset(line) else learned).append(line)
    if not dev:
        raise DataError(
            "each line that would be held out has a character that no other line has. Expected more text, "
            "another normalizer (--normalizer), or a dev text (--dev)."
        )
    return learned, dev


def train(lines: Sequence[str], dev: Sequence[str], settings: CharacterLmSettings) -> Path:
    """Train a character language model; under torchrun every process calls this, and they train together.

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
    config = settings.train
    symbols = tuple(sorted(set().union(*map(set, lines))))
    unknown = set().union(*map(set, dev)) - set(symbols)
    if unknown:
        raise DataError(
            f"the dev text has {', '.join(map(repr, sorted(unknown)[:10]))}, which the training text never "
            f"has. Choose another normalizer (--normalizer), or another text."
        )
    if config.deterministic:
        make_deterministic()
    stop = StopRequest(config.max_hours)
    smaller = "--text.block or --text.streams"
    with processes(config.device) as process, run_log(config.run_dir, process), translate_errors(smaller):
        record = _record(settings, lines, dev)
        resumed = should_resume(config, record, _record(CharacterLmSettings(), (), ()), process)
        if process.device.type == "cpu":
            share_cores(config.threads, 0)
        torch.manual_seed(config.seed)
        net = CharRnn(symbols, settings.model).to(process.device)
        texts = (encode(lines, symbols), encode(dev, symbols))
        task = CharacterLmTask(net, *texts, settings.text, process, config.seed)
        trainer = Trainer(task, config, process, {**record, **provenance(process.device, config.precision)})
        log.info(
            "training on %.2f M characters (%d different ones), dev text %.2f M; %.1f M parameters, "
            "precision %s",
            len(texts[0]) / 1e6, len(symbols), len(texts[1]) / 1e6, parameter_count(net) / 1e6,
            describe_precision(trainer.precision, process.device),
        )  # fmt: skip
        position = start_or_resume(trainer, resumed, stop)
        log.info("best dev %.3f bits per character in %s", position.best_score, position.best_model())
    return config.run_dir / BEST_MODEL


def encode(lines: Sequence[str], symbols: Sequence[str]) -> NDArray[np.uint16]:
    """(n,) ids of lines, each followed by its end (id 0); symbol i has the id i + 1."""
    codes = np.frombuffer("".join(f"{line}\n" for line in lines).encode("utf-32-le"), np.uint32)
    alphabet = np.array([ord("\n"), *map(ord, symbols)], np.uint32)
    by_code = np.argsort(alphabet)
    return by_code[np.searchsorted(alphabet[by_code], codes)].astype(np.uint16)


def _record(settings: CharacterLmSettings, *texts: Sequence[str]) -> dict[str, Any]:
    """All settings as plain values under dotted names, with a digest of the texts."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(b"\n\n")
        for line in text:
            digest.update(f"{line}\n".encode())
    topics = [topic.name for topic in fields(CharacterLmSettings)]
    return {**flatten_settings(settings, topics), DATA_DIGEST: digest.hexdigest()}
