"""Train a recogniser from manifests: all its settings, and the function that `asr train` calls."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import tyro

from asr.batching.audio_check import unusable_audio
from asr.batching.batches import BatchConfig, Batches
from asr.batching.examples import TextConfig, learn_tokenizer, make_examples
from asr.decoding.hypothesis import output_unit
from asr.frontend.augment import AugmentConfig
from asr.frontend.augment.conditions import recordings_digest
from asr.frontend.features import FeatureConfig
from asr.manifests.arrow import ArrowManifest
from asr.manifests.left_out import OnError, report_left_out
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig
from asr.model.saved import load_model
from asr.model.shipped import find_model
from asr.scoring.wer import RATE_NAMES
from asr.text.tokenizer import Tokenizer
from asr.training.config import TrainConfig
from asr.training.distributed import Process
from asr.training.run.provenance import provenance
from asr.training.run.start import (
    CHANGEABLE,
    DATA_DIGEST,
    DEV_LM_DIGEST,
    SHARDS,
    SOUNDS_DIGEST,
    TOKENIZER_DIGEST,
    flatten_settings,
    open_run,
)
from asr.training.tasks.denominator import check_denominator_text, estimate_denominator
from asr.training.tasks.dev_decoding import DevDecoder, DevDecodingConfig
from asr.training.tasks.speech import SpeechTask
from asr.training.validation import BEST_MODEL

log = logging.getLogger("asr")


@dataclass(frozen=True)
class Settings:
    """All settings of a training."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    text: TextConfig = field(default_factory=TextConfig)
    model: EncoderConfig = field(default_factory=EncoderConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    # on the command line without a prefix: --dev-lm stands beside --dev
    selection: Annotated[DevDecodingConfig, tyro.conf.arg(name="")] = field(default_factory=DevDecodingConfig)


S = TypeVar("S", bound=Settings)


def train_recogniser(
    utterances: Sequence[Utterance],
    dev: Sequence[Utterance],
    settings: Settings,
    on_error: OnError = "stop",
) -> Path:
    """Train a recogniser.

    Under torchrun every process calls this, and they train together.

    Args:
        utterances: the training set.
        dev: the set by which the best epoch is chosen.
        settings: all settings.
        on_error: whether an utterance whose audio cannot be used ends the training, or is left out and
            reported; then all audio is decoded before the training starts.

    Returns:
        The best model's file.

    Raises:
        AsrError: the data, the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    features, text = settings.features, settings.text
    check_denominator_text(settings.model.loss.criterion, text)
    with open_run(settings.train) as run:
        process = run.process
        if on_error == "skip":
            utterances = _usable(utterances, features, process, "training utterances")
            dev = _usable(dev, features, process, "dev utterances")
        tokenizer = learn_tokenizer(utterances, text)
        record = _resume_record(settings, utterances, dev, tokenizer, process)
        resumed = run.should_resume(record, _flat_settings(Settings()))
        batches, dev_batches = _make_batches(settings, utterances, dev, tokenizer, process)
        run.seed(batches.workers)
        origin = provenance(process.device, settings.train.precision)
        model = AcousticModel(ModelSettings(features, settings.model, tokenizer, text.rules, origin))
        if model.normalize.needs_statistics and not resumed:
            model.normalize.set_statistics(*feature_statistics(batches, features, process))
        if not resumed:
            estimate_denominator(model, batches.examples, text)
        model = model.to(process.device)
        decoder = _dev_decoder(settings, model, dev_batches)
        task = SpeechTask(model, batches, dev_batches, settings.train.deterministic, decoder)
        log.info("settings that differ from the defaults: %s", ", ".join(_differences(settings)) or "none")
        return run.start(task, record, _describe(batches, dev_batches), resumed=resumed)


def branch_of(trunk: Settings, run_dir: Path, epochs: int, augment: AugmentConfig) -> Settings:
    """Settings of a run that starts from a trunk's best model, and whose learning rate falls to 0.

    Args:
        trunk: of a run at a constant rate, at which the branch begins.
        run_dir: of the branch.
        epochs: of the branch.
        augment: for the branch.

    Source: Hägele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training durations":
        a constant rate and a linear decay to 0 at the end.
    """
    source = trunk.train.run_dir / BEST_MODEL
    branch = replace(trunk.train, run_dir=run_dir, warm_start=source, schedule="linear", epochs=epochs)
    return replace(trunk, train=branch, augment=augment)


def settings_of_source(settings: S, source: Path) -> S:
    """Settings for a training that starts from another model: features and encoder are the other model's.

    Args:
        settings: of which the others stay.
        source: a model that ships, by name, or a file. One that does not exist changes nothing: a run that is
            resumed does not need it, and any other reports it.

    Raises:
        ModelError: the file is not a model.
    """
    path = find_model(source).path
    if not path.is_file():
        return settings
    model = load_model(path).settings
    return replace(settings, features=model.features, model=model.encoder)


def feature_statistics(
    batches: Batches, config: FeatureConfig, process: Process
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each mel band over the unaugmented training set, each (n_mels,).

    Args:
        batches: this process's part of the training set.
        config: how features are computed.
        process: this process; the statistics are over all of them.
    """
    total, squares, count = torch.zeros(config.n_mels).double(), torch.zeros(config.n_mels).double(), 0
    for batch in batches.load(batches.plan(epoch=0)):
        for row, length in zip(batch.features(config).double(), batch.frame_lengths.tolist(), strict=True):
            total += row[:length].sum(0)
            squares += row[:length].square().sum(0)
            count += length
    parts = process.gather((total, squares, count))
    total, squares = sum(part[0] for part in parts), sum(part[1] for part in parts)
    count = sum(part[2] for part in parts)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp_min(1e-5).sqrt().float()


def _usable(
    utterances: Sequence[Utterance], config: FeatureConfig, process: Process, kind: str
) -> Sequence[Utterance]:
    """Those whose audio can be used; each process looks at a part of them, and all agree."""
    mine = utterances[process.rank :: process.world_size]
    left_out = {
        name: reason for part in process.gather(unusable_audio(mine, config)) for name, reason in part.items()
    }
    report_left_out(left_out, len(utterances), kind)
    return [utterance for utterance in utterances if utterance.id not in left_out]


def _make_batches(
    settings: Settings,
    utterances: Sequence[Utterance],
    dev: Sequence[Utterance],
    tokenizer: Tokenizer,
    process: Process,
) -> tuple[Batches, Batches]:
    """This process's batches of the training set, augmented, and of the dev set."""
    features, text, augment = settings.features, settings.text, settings.augment
    subsampling = settings.model.subsampling
    examples = make_examples(utterances, tokenizer, text, features, subsampling, augment.speeds)
    dev_examples = make_examples(dev, tokenizer, text, features, subsampling, kind="dev")
    batches, dev_batches = (
        Batches(
            items, features, settings.batch, augmentation, seed=settings.train.seed,
            rank=process.rank, world_size=process.world_size, device=process.device,
        )
        for items, augmentation in ((examples, augment), (dev_examples, None))
    )  # fmt: skip
    return batches, dev_batches


def _dev_decoder(settings: Settings, model: AcousticModel, dev: Batches) -> DevDecoder | None:
    """Decodes a part of the dev set with --dev-lm; without one, None, and a warning where that misleads."""
    if settings.selection.dev_lm is not None:
        decoder = DevDecoder(settings.selection, model, dev.examples)
        log.info(
            "dev WER is of %d of %d utterances, with a %s",
            len(decoder.references), len(dev.examples), decoder.decoder.name,
        )  # fmt: skip
        return decoder
    if model.denominator is not None:
        log.warning(
            "--model.criterion crf without --dev-lm: the best model is chosen by its greedy %s, which may "
            "get worse while the text decoded with a language model gets better. Name one: --dev-lm FILE.",
            RATE_NAMES[output_unit(model.settings.tokenizer)],
        )
    return None


def _resume_record(
    settings: Settings,
    utterances: Sequence[Utterance],
    dev: Sequence[Utterance],
    tokenizer: Tokenizer,
    process: Process,
) -> dict[str, Any]:
    """What a resumed run must have in common with its checkpoint, by name: settings and digests."""
    return {
        **_flat_settings(settings),
        # The batches depend on it: a resume with another number of processes has to set it.
        SHARDS: settings.batch.shards or process.world_size,
        DATA_DIGEST: _data_digest(utterances, dev),
        # Another version of sentencepiece or of the lexicon may give tokens that the weights do not mean.
        TOKENIZER_DIGEST: hashlib.blake2b(tokenizer.to_json().encode(), digest_size=8).hexdigest(),
        # Noises are drawn by their index in the list of files: a new file changes every utterance's draws.
        SOUNDS_DIGEST: recordings_digest(settings.augment),
        # Scores by another language model are not comparable.
        DEV_LM_DIGEST: settings.selection.digest(),
    }


def _flat_settings(settings: Settings) -> dict[str, Any]:
    """All settings by the names that a user types, as JSON gives them back."""
    topics = [topic.name for topic in fields(Settings)]  # a recipe's settings have further topics
    flat = flatten_settings(settings, topics)
    return {name.removeprefix("selection."): value for name, value in flat.items()}


def _data_digest(*data: Sequence[Utterance]) -> str:
    """A digest of ids, durations and transcripts."""
    digest = hashlib.blake2b(digest_size=8)
    for utterances in data:
        digest.update(b"\n\n")
        if isinstance(utterances, ArrowManifest):  # of its columns, without making utterances
            digest.update(utterances.digest().encode())
            continue
        for utterance in utterances:
            digest.update(f"{utterance.id}\t{utterance.duration}\t{utterance.text}\n".encode())
    return digest.hexdigest()


def _describe(train: Batches, dev: Batches) -> str:
    """The size of the data, for the log."""
    hours = train.sampler.columns.seconds.sum() / 3600
    return f"{len(train.examples)} utterances ({hours:.2f} h), dev set of {len(dev.examples)}"


def _differences(settings: Settings) -> list[str]:
    """What differs from the default settings, as NAME=VALUE."""
    defaults = _flat_settings(Settings())
    return [
        f"{name}={value}"
        for name, value in _flat_settings(settings).items()
        if value != defaults[name] and name not in CHANGEABLE
    ]
