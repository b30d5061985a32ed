"""Train a network that pronounces words, from a lexicon: all its settings, and the function that trains."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from asr.model.sequence.ctc import SequenceCtcConfig
from asr.model.sequence.encoder_decoder import EncoderDecoderConfig
from asr.model.sequence.model import SequenceConfig, make_sequence_model
from asr.text.lexicon import Lexicon
from asr.text.pronunciation.lexicon_split import SplitConfig
from asr.training.config import TrainConfig
from asr.training.run.provenance import provenance
from asr.training.run.start import open_run, settings_record
from asr.training.tasks.sequence_pairs import PairConfig, SequencePair, SequencePairTask

__all__ = ["CtcSettings", "EncoderDecoderSettings", "PronouncerSettings", "make_pairs", "train_pronouncer"]

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


def train_pronouncer(lexicon: Lexicon, settings: PronouncerSettings[Any]) -> Path:
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
    with open_run(config, "--pairs.symbols") as run:
        process = run.process
        record = _record(settings, lexicon.digest)
        defaults = replace(settings, train=TrainConfig(), model=type(settings.model)())
        resumed = run.should_resume(record, _record(defaults, ""))
        run.seed()
        net = make_sequence_model(letters, phones, settings.model).to(process.device)
        dev = [pair for pair in make_pairs(split.dev, letters, phones) if pair.source]
        pairs = make_pairs(split.train, letters, phones)
        task = SequencePairTask(net, pairs, dev, settings.pairs, process, config.seed)
        record |= provenance(process.device, config.precision)
        data = f"{lexicon.name}: {split.summary()}; {len(letters)} letters, {len(phones)} phones"
        return run.start(task, record, data, resumed=resumed)


def make_pairs(lexicon: Lexicon, letters: Sequence[str], phones: Sequence[str]) -> list[SequencePair]:
    """The words of a lexicon as pairs of letters and phones; unknown letters are left out of a word."""
    letter_ids = {letter: number for number, letter in enumerate(letters, start=1)}
    phone_ids = {phone: number for number, phone in enumerate(phones, start=1)}
    return [
        SequencePair(
            word,
            tuple(letter_ids[letter] for letter in word if letter in letter_ids),
            tuple(tuple(phone_ids[phone] for phone in phones_of_one) for phones_of_one in pronunciations),
        )
        for word, pronunciations in lexicon.entries.items()
    ]


def _record(settings: PronouncerSettings[Any], data_digest: str) -> dict[str, Any]:
    """All settings and the kind of network as plain values, with a digest of the lexicon."""
    kind: SequenceConfig = settings.model
    return {"model.kind": type(kind).__name__, **settings_record(settings, data_digest)}
