"""`asr lm train --kind charrnn`: texts -> a run folder with the best character RNN."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from asr.commands.common_options import Rules, TextFiles
from asr.commands.options import check_output
from asr.errors import SettingsError
from asr.training.charrnn import CharRnnSettings, held_out, read_text, train_charrnn

__all__ = ["CharRnnTrainSettings", "run"]


@dataclass(frozen=True)
class CharRnnTrainSettings:
    """Train a character RNN: a recurrent language model of characters.

    The best model by bits per character is RUN_DIR/model.safetensors. Stop with Ctrl-C; resume with
    --train.resume.
    """

    texts: TextFiles
    # text to choose the best epoch by; None: every 100th line of the other texts, which is held out
    dev: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    normalizer: Rules = "verbatim"
    # where the best model is copied at the end; None leaves it in the run folder
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    settings: Annotated[CharRnnSettings, tyro.conf.arg(name="")] = field(default_factory=CharRnnSettings)


def run(command: CharRnnTrainSettings) -> str:
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
    model = train_charrnn(lines, dev, command.settings)
    if command.output is not None:
        shutil.copyfile(model, command.output)
        model = command.output
    return f"language model: {model}\nnext:  asr lm score TEXT --lm {model}"
