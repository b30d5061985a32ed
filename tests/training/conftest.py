"""A small language that a small model can learn: every letter is a tone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open

from asr.batching.batches import BatchConfig, Batches
from asr.batching.examples import Examples, TextConfig, learn_tokenizer, make_examples
from asr.device import use_precision
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig
from asr.text.characters import CharTokenizer
from asr.training import diagnostics
from asr.training.config import TrainConfig
from asr.training.context import TrainingContext
from asr.training.distributed import Process
from asr.training.recogniser import Settings
from asr.training.run.stopping import StopRequest
from asr.training.tasks.speech import SpeechTask
from asr.training.trainer import Trainer

RATE = 8000
FEATURES = FeatureConfig(sample_rate=RATE, n_mels=20)
ENCODER = EncoderConfig(width=16, depth=1, channels=4, dropout=0.2)
PLAIN = AugmentConfig(speeds=(1.0,), time_masks_per_s=0, mel_masks=0)
AUGMENT = AugmentConfig(speeds=(0.9, 1.0, 1.1), time_mask_frames=5, mel_mask_bands=5, masks_from_epoch=2)
TONES = {"a": 400, "b": 800, "c": 1600, "d": 3000}
ALONE = Process(0, 1, torch.device("cpu"))


def rows(run_dir: Path, event: str) -> list[dict[str, Any]]:
    """What metrics.jsonl holds of one kind."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["event"] == event]


def same_tree(left: Any, right: Any) -> bool:
    """Whether two trees of tensors and plain values have the same bits."""
    if isinstance(left, torch.Tensor):
        return bool(torch.equal(left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_tree(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same_tree, left, right))
    return bool(left == right)


class StopAfter(StopRequest):
    """A Ctrl-C after a number of updates have been started."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.left = updates

    @property
    def received(self) -> bool:
        self.left -= 1
        return self.left < 0


def write_tones(folder: Path, texts: Sequence[str], letter_s: float = 0.12) -> list[Utterance]:
    """One wav a text, each letter a tone between pauses."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    utterances = []
    for number, text in enumerate(texts):
        t = np.arange(round(letter_s * RATE)) / RATE
        parts = [
            np.concatenate([np.sin(2 * np.pi * TONES[letter] * t), np.zeros(len(t) // 2)]) for letter in text
        ]
        samples = 0.3 * np.concatenate(parts) + 0.003 * rng.standard_normal(sum(map(len, parts)))
        path = folder / f"u{number:02d}.wav"
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        utterances.append(
            Utterance(id=path.stem, audio_filepath=path, duration=len(samples) / RATE, text=text, speaker="s")
        )
    return utterances


def examples_of(utterances: Sequence[Utterance], speeds: Sequence[float] = (1.0,)) -> Examples:
    """Examples in the settings of these tests."""
    return make_examples(utterances, CharTokenizer.from_texts(TONES), TextConfig(), FEATURES, 4, speeds)


def silent(name: str, seconds: float, tokens: int = 2) -> Utterance:
    """An utterance without audio, for plans."""
    text = "".join(islice(cycle("ab"), tokens))
    return Utterance(id=name, audio_filepath=Path("none.wav"), duration=seconds, text=text)


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Twelve utterances of two to five letters."""
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("abcd"), size=2 + number % 4)) for number in range(12)]
    return write_tones(tmp_path_factory.mktemp("tones"), texts)


@pytest.fixture
def make_trainer(tones: list[Utterance], tmp_path: Path) -> Callable[..., Trainer]:
    """Builds a trainer in tmp_path/<name>; the same arguments build the same one."""

    def make(
        name: str = "run",
        *,
        augment: AugmentConfig = PLAIN,
        examples: Examples | None = None,
        workers: int = 0,
        encoder: EncoderConfig = ENCODER,
        features: FeatureConfig = FEATURES,
        **config: Any,
    ) -> Trainer:
        text = TextConfig()
        tokenizer = learn_tokenizer(tones, text)
        chosen = (
            make_examples(tones, tokenizer, text, features, 4, augment.speeds)
            if examples is None
            else examples
        )
        settings = TrainConfig(
            **{"epochs": 3, "precision": "float32", "log_every_s": 0.0, "run_dir": tmp_path / name, **config}
        )
        batch = BatchConfig(seconds=2.0, cache_dir=tmp_path / "features", workers=workers)
        train = Batches(chosen, features, batch, augment, seed=settings.seed)
        dev = Batches(make_examples(tones[:4], tokenizer, text, features, 4), features, batch, None, seed=0)
        torch.manual_seed(settings.seed)
        model = AcousticModel(ModelSettings(features, replace(encoder), tokenizer, "english"))
        precision = use_precision(settings.precision, ALONE.device)
        record = {"train.seed": settings.seed}
        return Trainer(TrainingContext(SpeechTask(model, train, dev), settings, ALONE, record, precision))

    return make


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests under the gradient microscope: drawing takes longer than all else in them."""
    monkeypatch.setattr(diagnostics, "draw", lambda *_: [])


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen recordings in which every letter is a tone."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    utterances = []
    for number in range(16):
        text = "".join(rng.choice(list("abc"), size=3 + number % 3))
        t = np.arange(1600) / RATE
        samples = np.concatenate([0.3 * np.sin(2 * np.pi * TONES[letter] * t) for letter in text])
        samples += 0.003 * rng.standard_normal(len(samples))
        path = folder / f"u{number:02d}.wav"
        soundfile.write(path, samples, RATE, subtype="PCM_16")
        seconds = len(samples) / RATE
        utterances.append(Utterance(id=path.stem, audio_filepath=path, duration=seconds, text=text))
    write_manifest(folder / "train.jsonl", utterances)
    return folder / "train.jsonl"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        features=FeatureConfig(sample_rate=RATE, n_mels=20),
        augment=AugmentConfig(speeds=(0.9, 1.0), time_mask_frames=5, mel_mask_bands=5),
        model=EncoderConfig(width=16, depth=1, channels=4),
        batch=BatchConfig(seconds=3.0, cache_dir=tmp_path / "features"),
        train=TrainConfig(run_dir=tmp_path / "run", epochs=2, precision="float32", device="cpu"),
    )


def changed(settings: Settings, topic: str, **values: Any) -> Settings:
    return replace(settings, **{topic: replace(getattr(settings, topic), **values)})


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_same_weights(left: Path, right: Path, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(weights_of(left), weights_of(right), rtol=tolerance, atol=tolerance)
