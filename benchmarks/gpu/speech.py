"""The speech that the parts run on, and the settings of the net that the figures are of."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from asr.batching.batches import BatchConfig, Batches
from asr.batching.examples import TextConfig, learn_tokenizer, make_examples
from asr.corpora import digits
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Utterance
from asr.model.encoder import EncoderConfig
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings
from benchmarks.gpu.part import Part

BUNDLED = Path(__file__).resolve().parent / "bundle" / "speech"
QUICK_TRAIN, QUICK_DEV, QUICK_S = 16, 4, 6.0  # utterances, and seconds of the longest, with --quick

# 4 x 320 BiLSTM with CTC, the net that all speeds of this project are quoted of.
ENCODER = EncoderConfig(width=320, depth=4)
QUICK_ENCODER = EncoderConfig(width=16, depth=1, channels=4)
# One speed: the cache is filled once, and what is measured does not depend on it. Masks as in training.
AUGMENT = AugmentConfig(speeds=(1.0,), masks_from_epoch=1)


def load_speech(part: Part) -> tuple[list[Utterance], list[Utterance]]:
    """(train, dev): the given manifests, or the bundle's, or the digits in data/; a few with --quick."""
    settings = part.settings
    train_path = Path(settings.train) if settings.train else BUNDLED / "train.jsonl"
    dev_path = Path(settings.dev) if settings.dev else BUNDLED / "dev.jsonl"
    if settings.train or train_path.exists():
        train, dev = read_manifest(train_path), read_manifest(dev_path)
    else:
        splits = digits.prepare()
        train, dev, train_path = splits.train, splits.dev, Path("data/digits")
    if settings.quick:
        train = [utterance for utterance in train if utterance.duration < QUICK_S][:QUICK_TRAIN]
        dev = [utterance for utterance in dev if utterance.duration < QUICK_S][:QUICK_DEV]
    hours = sum(utterance.duration for utterance in train) / 3600
    part.record(
        speech=f"{len(train)} utterances, {hours:.2f} h of {train_path.name}; dev: {len(dev)} utterances"
    )
    return train, dev


def settings_for(part: Part, run: str, batch_s: float, cache_dir: Path | None, **train: Any) -> Settings:
    """Settings of a training of the measured net."""
    return Settings(
        model=QUICK_ENCODER if part.settings.quick else ENCODER,
        augment=AUGMENT,
        batch=BatchConfig(seconds=batch_s, cache_dir=cache_dir),
        train=TrainConfig(
            **{
                "run_dir": part.scratch("runs") / run,
                "epochs": 10_000,
                "device": part.settings.device,
                **train,
            }
        ),
    )


def make_batches(
    part: Part,
    utterances: Sequence[Utterance],
    batch_s: float,
    cache_dir: Path | None,
    workers: int | None = None,
) -> Batches:
    """The training set's batches, as `asr train` makes them; what the cache lacks is computed now."""
    features, text = FeatureConfig(), TextConfig()
    examples = make_examples(
        utterances, learn_tokenizer(utterances, text), text, features, ENCODER.subsampling
    )
    config = BatchConfig(seconds=batch_s, cache_dir=cache_dir, workers=workers)
    return Batches(examples, features, config, AUGMENT, seed=1, device=torch.device(part.settings.device))


def fill_cache(part: Part, utterances: Sequence[Utterance], seconds: float) -> list[Utterance]:
    """Measure how fast the feature cache is filled, and fill it.

    Args:
        part: gets the figures.
        utterances: the training set.
        seconds: that filling may take, about.

    Returns:
        Utterances whose features are in the cache: all, or so many of them as the time allows.
    """
    few = 4 if part.settings.quick else 100
    trial, rate = list(utterances)[-few:], 0.0
    for sample in (trial, list(utterances)):
        sample = sample if not rate else _first(utterances, rate * seconds)
        audio_s = sum(utterance.duration for utterance in sample)
        began = time.monotonic()
        make_batches(part, sample, 100.0, cache_folder(part))
        elapsed = time.monotonic() - began
        rate = audio_s / elapsed
        part.record(
            cache_fill={"audio_s": round(audio_s), "seconds": round(elapsed, 1), "audio_s_per_s": round(rate)}
        )
    return sample


def cache_folder(part: Part) -> Path:
    """The feature cache that the parts share."""
    return part.out / "scratch" / "features"


def _first(utterances: Sequence[Utterance], audio_s: float) -> list[Utterance]:
    total, chosen = 0.0, []
    for utterance in utterances:
        if chosen and total + utterance.duration > audio_s:
            break
        chosen.append(utterance)
        total += utterance.duration
    return chosen
