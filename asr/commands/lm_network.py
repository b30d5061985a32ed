"""`asr lm train --kind charrnn` and `--kind wordrnn`: texts -> a run folder with the best network."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from asr.commands.common_options import Rules, TextFiles
from asr.commands.options import check_output
from asr.errors import SettingsError
from asr.training import charrnn, wordrnn
from asr.training.charrnn import CharRnnSettings, train_charrnn
from asr.training.texts import read_text
from asr.training.wordrnn import WordRnnSettings, train_wordrnn

__all__ = ["CharRnnTrainSettings", "WordRnnTrainSettings", "run_charrnn", "run_wordrnn"]

Lines = Sequence[str]


@dataclass(frozen=True)
class _Texts:
    """What both kinds learn from, and where the model goes."""

    texts: TextFiles
    # text to choose the best epoch by; None: every 100th line of the other texts, which is held out
    dev: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    normalizer: Rules = "verbatim"
    # where the best model is copied at the end; None leaves it in the run folder
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None


@dataclass(frozen=True)
class CharRnnTrainSettings(_Texts):
    """Train a character RNN: a recurrent language model of characters.

    The best model by bits per character is RUN_DIR/model.safetensors. Stop with Ctrl-C; resume with
    --train.resume.
    """

    settings: Annotated[CharRnnSettings, tyro.conf.arg(name="")] = field(default_factory=CharRnnSettings)


@dataclass(frozen=True)
class WordRnnTrainSettings(_Texts):
    """Train a word RNN: a recurrent language model of words, with which a search is rescored.

    A text counts as often as it is named. The best model by perplexity is RUN_DIR/model.safetensors. Stop
    with Ctrl-C; resume with --train.resume.
    """

    settings: Annotated[WordRnnSettings, tyro.conf.arg(name="")] = field(default_factory=WordRnnSettings)


def run_charrnn(command: CharRnnTrainSettings) -> str:
    """Train as the command line asks; the summary to print.

    Raises:
        AsrError: the text, the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    return _run(command, command.settings, train_charrnn, charrnn.held_out)


def run_wordrnn(command: WordRnnTrainSettings) -> str:
    """Train as the command line asks; the summary to print.

    Raises:
        AsrError: the text, the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    return _run(command, command.settings, train_wordrnn, wordrnn.held_out)


def _run(
    command: _Texts,
    settings: Any,
    train: Callable[[Lines, Lines, Any], Path],
    held_out: Callable[[Lines], tuple[Lines, Lines]],
) -> str:
    if not command.texts:
        raise SettingsError("no TEXT is given. One text file or more was expected.")
    if command.output is not None:
        check_output(command.output, [*command.texts, *([command.dev] if command.dev else [])])
        if command.output.suffix != ".safetensors":  # which distinguishes it from n-grams
            raise SettingsError(
                f"--output {command.output}: a network's file has to end in .safetensors. Call it "
                f"{command.output.with_suffix('.safetensors')}."
            )
    lines: Lines = read_text(command.texts, command.normalizer)
    dev: Lines
    if command.dev is None:
        lines, dev = held_out(lines)
    else:
        dev = read_text([command.dev], command.normalizer)
    model = train(lines, dev, settings)
    if command.output is not None:
        shutil.copyfile(model, command.output)
        model = command.output
    return f"language model: {model}\nnext:  asr lm score TEXT --lm {model}"
