"""A recogniser from manifests: its settings, and the training that leaves the best model in a run folder."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from asr.batching.batches import Batch, BatchConfig, Batches
from asr.batching.examples import TextConfig, learn_tokenizer, make_examples
from asr.corpora.manifest import Utterance
from asr.device import describe_precision, make_deterministic, share_cores
from asr.frontend.augment import AugmentConfig
from asr.frontend.augment.conditions import recordings_digest
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig, parameter_count
from asr.training.config import TrainConfig
from asr.training.distributed import Process, processes
from asr.training.faults import plain_failures
from asr.training.runs import (
    DATA_DIGEST,
    FREE,
    SHARDS,
    SOUNDS_DIGEST,
    TOKENIZER_DIGEST,
    find_checkpoint,
    plain_settings,
    provenance,
    run_log,
    run_to_end,
)
from asr.training.stopping import StopRequest
from asr.training.tasks.speech import SpeechTask
from asr.training.trainer import BEST_MODEL, Trainer

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


def train(utterances: Sequence[Utterance], dev: Sequence[Utterance], settings: Settings) -> Path:
    """Train a model.

    Under torchrun every process calls this, and they train together.

    Args:
        utterances: to learn from.
        dev: to choose the best epoch by.
        settings: all settings.

    Returns:
        The best model's file.

    Raises:
        AsrError: the data, the settings or the disk do not allow it; `Interrupted` after Ctrl-C.
    """
    config = settings.train
    if config.deterministic:
        make_deterministic()
    stop = StopRequest(config.max_hours)
    with processes(config.device) as process, run_log(config.run_dir, process), plain_failures():
        record = _record(settings, utterances, dev)
        # Batches depend on it, so another number of processes needs it to go on.
        record[SHARDS] = settings.batch.shards or process.world_size
        tokenizer = learn_tokenizer(utterances, settings.text)
        # Another version of sentencepiece or of the lexicon may give tokens that the weights do not mean.
        record[TOKENIZER_DIGEST] = hashlib.blake2b(tokenizer.to_json().encode(), digest_size=8).hexdigest()
        # Draws are places in the list of files: one more, and every utterance hears another.
        record[SOUNDS_DIGEST] = recordings_digest(settings.augment)
        known = {name: record[name] for name in (TOKENIZER_DIGEST, SOUNDS_DIGEST)}
        defaults = {**_record(Settings()), **known}
        resumed = find_checkpoint(config, record, defaults, process)
        text, features, subsampling = settings.text, settings.features, settings.model.subsampling
        speeds = settings.augment.speeds
        examples = make_examples(utterances, tokenizer, text, features, subsampling, speeds)
        dev_examples = make_examples(dev, tokenizer, text, features, subsampling, kind="dev")
        batches = Batches(
            examples, features, settings.batch, settings.augment, seed=config.seed,
            rank=process.rank, world_size=process.world_size, device=process.device,
        )  # fmt: skip
        dev_batches = Batches(
            dev_examples, features, settings.batch, None, seed=config.seed,
            rank=process.rank, world_size=process.world_size, device=process.device,
        )  # fmt: skip
        if process.device.type == "cpu":
            share_cores(config.threads, batches.workers)
        torch.manual_seed(config.seed)
        origin = provenance(process.device, config.precision)
        model = AcousticModel(ModelSettings(features, settings.model, tokenizer, text.normalizer, origin))
        if features.normalize == "global" and not resumed:
            model.normalize.set_statistics(*feature_statistics(batches, features, process))
        task = SpeechTask(model.to(process.device), batches, dev_batches, config.deterministic)
        trainer = Trainer(task, config, process, record)
        _announce(trainer, task, settings)
        position = run_to_end(trainer, resumed, stop)
        log.info("best %s %.2f%% in %s", task.score_name, position.best_score, position.best_model())
    return config.run_dir / BEST_MODEL


def feature_statistics(
    batches: Batches, config: FeatureConfig, process: Process
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each mel band over the unaugmented training set, each (n_mels,).

    Args:
        batches: this process's part of the training set.
        config: how features are computed.
        process: the others have the other parts.
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


def _record(settings: Settings, *data: Sequence[Utterance]) -> dict[str, Any]:
    """All settings as plain values under dotted names, with a digest of the data."""
    digest = hashlib.blake2b(digest_size=8)
    for utterances in data:
        digest.update(b"\n\n")
        for utterance in utterances:
            digest.update(f"{utterance.id}\t{utterance.duration}\t{utterance.text}\n".encode())
    topics = [topic.name for topic in fields(Settings)]  # a recipe's settings have others besides
    return {**plain_settings(settings, topics), DATA_DIGEST: digest.hexdigest()}


def _announce(trainer: Trainer[Batch], task: SpeechTask, settings: Settings) -> None:
    device, used = trainer.device, task.train.examples
    where = f"CPU, threads: {torch.get_num_threads()}"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    log.info(
        "training on %d utterances (%.2f h), choosing by %d: %.1f M weights, precision %s, %s",
        len(used), sum(example.utterance.duration for example in used) / 3600, len(task.dev.examples),
        parameter_count(task.net) / 1e6, describe_precision(trainer.precision, device), where,
    )  # fmt: skip
    defaults, ours = _record(Settings()), _record(settings)
    changed = [
        f"{name}={value}" for name, value in ours.items() if value != defaults[name] and name not in FREE
    ]
    log.info("settings that differ from the defaults: %s", ", ".join(changed) or "none")
