"""`asr lm train --kind charrnn`: text -> a character recurrent network as a language model."""

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

from asr.commands.lm import check_output
from asr.device import describe_precision, make_deterministic, share_cores
from asr.errors import DataError, SettingsError
from asr.lm.charrnn import CharRnn, CharRnnConfig
from asr.lm.corpus import read_blocks
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

__all__ = ["CharRnnSettings", "Settings", "read_text", "run", "train"]

log = logging.getLogger("asr")

_DEV_EVERY = 100  # lines: one of so many is held out where no text to choose by is given


@dataclass(frozen=True)
class Settings:
    """All settings of a character model's training."""

    model: CharRnnConfig = field(default_factory=CharRnnConfig)
    text: StreamConfig = field(default_factory=StreamConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(run_dir=Path("runs/lm"), epochs=5, learning_rate=2e-3)
    )


@dataclass(frozen=True)
class CharRnnSettings:
    """Train a character recurrent network as a language model.

    The best model by bits per character is RUN_DIR/model.safetensors. Stop with Ctrl-C; go on with
    --train.resume.
    """

    # text files, one sentence a line, in UTF-8; packed (.gz, .xz) ones too
    texts: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="TEXT...", help_behavior_hint="(required)"),
    ]
    # text to choose the best epoch by; None: every 100th line of the other texts, which is not learned from
    dev: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    # rules for the text: verbatim, lower or english; those of the recogniser's transcripts
    normalizer: str = "verbatim"
    # where the best model is copied at the end; None leaves it in the run folder
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)


def run(command: CharRnnSettings) -> str:
    """Train as the command line says; the text is for the user.

    Raises:
        AsrError: the text, the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    if not command.texts:
        raise SettingsError("no TEXT is given. One text file or more was expected.")
    if command.output is not None:
        check_output(command.output, [*command.texts, *([command.dev] if command.dev else [])])
        if command.output.suffix != ".safetensors":  # by which it is told from n-grams
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
    """The lines of text files that hold something, normalised.

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
    """Split lines into those to learn from and those to choose by, every 100th.

    A line with a character that no line to learn from has is learned from itself.

    Raises:
        DataError: one line, of which none can be held out.
    """
    if len(lines) < 2:
        raise DataError("one line of text. Two were expected, or a text to choose by (--dev).")
    learned = [line for number, line in enumerate(lines) if number % _DEV_EVERY]
    known = set().union(*map(set, learned))
    dev: list[str] = []
    for line in lines[::_DEV_EVERY]:
        (dev if known.issuperset(line) else learned).append(line)
    if not dev:
        raise DataError(
            "each line that would be held out has a character of its own. Expected more text, other rules "
            "(--normalizer), or a text to choose by (--dev)."
        )
    return learned, dev


def train(lines: Sequence[str], dev: Sequence[str], settings: Settings) -> Path:
    """Train a character model; under torchrun every process calls this, and they train together.

    Args:
        lines: to learn from; their characters are the alphabet.
        dev: to choose the best epoch by.
        settings: all settings.

    Returns:
        The best model's file.

    Raises:
        DataError: too little text, or characters to choose by that no line to learn from has.
        AsrError: the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    config = settings.train
    symbols = tuple(sorted(set().union(*map(set, lines))))
    unknown = set().union(*map(set, dev)) - set(symbols)
    if unknown:
        raise DataError(
            f"the text to choose by holds {', '.join(map(repr, sorted(unknown)[:10]))}, which the text "
            f"to learn from never does. Choose other rules (--normalizer), or another text."
        )
    if config.deterministic:
        make_deterministic()
    stop = StopRequest(config.max_hours)
    smaller = "--text.block or --text.streams"
    with processes(config.device) as process, run_log(config.run_dir, process), translate_errors(smaller):
        record = _record(settings, lines, dev)
        resumed = should_resume(config, record, _record(Settings(), (), ()), process)
        if process.device.type == "cpu":
            share_cores(config.threads, 0)
        torch.manual_seed(config.seed)
        net = CharRnn(symbols, settings.model).to(process.device)
        texts = (encode(lines, symbols), encode(dev, symbols))
        task = CharacterLmTask(net, *texts, settings.text, process, config.seed)
        trainer = Trainer(task, config, process, {**record, **provenance(process.device, config.precision)})
        log.info(
            "learning %.2f M characters (%d different ones), choosing by %.2f M: %.1f M weights, "
            "precision %s",
            len(texts[0]) / 1e6, len(symbols), len(texts[1]) / 1e6, parameter_count(net) / 1e6,
            describe_precision(trainer.precision, process.device),
        )  # fmt: skip
        position = start_or_resume(trainer, resumed, stop)
        log.info("best dev %.3f bits a character in %s", position.best_score, position.best_model())
    return config.run_dir / BEST_MODEL


def encode(lines: Sequence[str], symbols: Sequence[str]) -> NDArray[np.uint16]:
    """(n,) ids of lines, each with its end (id 0) behind it; symbol i has the id i + 1."""
    codes = np.frombuffer("".join(f"{line}\n" for line in lines).encode("utf-32-le"), np.uint32)
    order = np.array([ord("\n"), *map(ord, symbols)], np.uint32)
    places = np.argsort(order)
    return places[np.searchsorted(order[places], codes)].astype(np.uint16)


def _record(settings: Settings, *texts: Sequence[str]) -> dict[str, Any]:
    """All settings as plain values under dotted names, with a digest of the texts."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(b"\n\n")
        for line in text:
            digest.update(f"{line}\n".encode())
    topics = [topic.name for topic in fields(Settings)]
    return {**flatten_settings(settings, topics), DATA_DIGEST: digest.hexdigest()}
