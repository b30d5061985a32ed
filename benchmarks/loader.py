"""How fast batches are made: the feature cache filled, and read by loader processes. Nothing is trained.

  fill      audio-s/s of computing the cache from recordings, all speeds counted, by so many processes
  load      audio-s/s of batches with speed perturbation and SpecAugment from a full cache, by so many loader
            processes (0: in the training process); the fastest epoch counts

With each comes the same per second of processor time of all processes, which other work on the
machine disturbs less.

python benchmarks/loader.py [--root DIR] [--workers 0 1 4 --processes 1 4]
"""

import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from conditions import describe_machine, find_speech

from asr.batching.batches import BatchConfig, Batches
from asr.batching.cache import open_cache
from asr.batching.examples import Examples, TextConfig, learn_tokenizer, make_examples
from asr.cli import recipe
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig
from asr.manifests.utterance import Utterance

FEATURES, AUGMENT = FeatureConfig(), AugmentConfig()
_SUBSAMPLING = 4  # of `asr train` by default


@dataclass(frozen=True)
class Options:
    """What is measured."""

    root: Path | None = None  # folder of LibriSpeech/ with train-clean-5; None: the digits in data/
    utterances: int = 200  # recordings
    epoch_s: float = 16_000.0  # seconds of speech in an epoch: recordings are repeated as often as it takes
    batch_s: float = 1600.0  # seconds of a batch
    processes: tuple[int, ...] = (1, 2)  # that fill the cache, a row each
    workers: tuple[int, ...] = (0, 1, 2)  # loader processes, a row each
    epochs: int = 3  # of each row


def main(options: Options) -> str:
    """Measure and report."""
    lines = [describe_machine()]
    torch.set_num_threads(1)
    utterances, speech = find_speech(options.root, count=options.utterances)
    lines += [speech, f"\n{'':24}{'audio-s/s':>10}{'a processor-second':>20}"]
    with tempfile.TemporaryDirectory() as folder:
        for processes in options.processes:
            root = Path(folder) / str(processes)
            wall, worked = fill(root, utterances, processes)
            lines.append(f"{f'fill, processes: {processes}':24}{wall:10,.0f}{worked:20,.0f}")
        for workers in options.workers:
            config = BatchConfig(seconds=options.batch_s, cache_dir=root, workers=workers)
            wall, worked = load(config, repeated(utterances, options.epoch_s), options.epochs)
            lines.append(f"{f'load, workers: {workers}':24}{wall:10,.0f}{worked:20,.0f}")
    return "\n".join(lines)


def fill(root: Path, utterances: Sequence[Utterance], processes: int) -> tuple[float, float]:
    """Audio-seconds computed per second, and per second that processors worked."""
    seconds = sum(utterance.duration / speed for utterance in utterances for speed in AUGMENT.speeds)
    began, worked = time.perf_counter(), processor_s()
    open_cache(root, utterances, FEATURES, AUGMENT.speeds, processes)
    return seconds / (time.perf_counter() - began), seconds / (processor_s() - worked)


def repeated(utterances: Sequence[Utterance], epoch_s: float) -> Examples:
    """Examples of so many seconds; under another id, a recording has other draws and the same features."""
    times = max(1, round(epoch_s / sum(utterance.duration for utterance in utterances)))
    renamed = [
        replace(utterance, id=f"{utterance.id}-{number}")
        for number in range(times)
        for utterance in utterances
    ]
    text = TextConfig()
    tokenizer = learn_tokenizer(utterances, text)
    return make_examples(renamed, tokenizer, text, FEATURES, _SUBSAMPLING, AUGMENT.speeds)


def load(config: BatchConfig, examples: Examples, epochs: int) -> tuple[float, float]:
    """Audio-seconds loaded per second in the fastest epoch, and per second that processors worked in all."""
    batches = Batches(examples, FEATURES, config, AUGMENT, seed=1)
    worked = processor_s()
    total, fastest = 0.0, 0.0
    for number in range(2, 2 + epochs):  # the first epoch has no masks
        began = time.perf_counter()
        seconds = sum(batch.global_seconds for batch in batches.load(batches.plan(number)))
        total, fastest = total + seconds, max(fastest, seconds / (time.perf_counter() - began))
    batches.loader.close()  # the system counts a process when it has ended
    return fastest, total / (processor_s() - worked)


def processor_s() -> float:
    """Seconds that processors have worked for this process and for those of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    recipe(main, Options())
