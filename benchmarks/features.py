"""Speed of log-mel extraction: asr against librosa and torchaudio, one recording at a time and in batches.

All three get the same waveforms, settings and threads, in turns (A B C A B C ...), and the largest difference
between their results is printed with the speed. librosa transforms with one thread whatever the setting.
Reading files is not measured. Needs the extra [bench].

python benchmarks/features.py [--root DIR]
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import librosa
import numpy as np
import torch
import torchaudio
from conditions import describe_machine, find_speech, set_threads
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.cli import recipe
from asr.frontend.audio import read_audio
from asr.frontend.features import FeatureConfig, log_mel

Extract = Callable[[Tensor], Tensor]  # (batch, samples) -> (batch, frames, n_mels)


@dataclass(frozen=True)
class Options:
    """What is measured."""

    root: Path | None = None  # folder of LibriSpeech/ with train-clean-5; None: the digits in data/
    audio_s: float = 200.0  # seconds of speech
    batch_s: float = 25.0  # seconds of a batch
    repeats: int = 9  # turns that every system gets; the median counts
    threads: int | None = None  # None: all cores


def main(options: Options) -> str:
    """Measure and print the results."""
    machine = describe_machine()
    set_threads(options.threads)
    config = FeatureConfig()
    utterances, speech = find_speech(options.root, count=2000)
    waveforms, total = [], 0.0
    for utterance in utterances:
        if total < options.audio_s:
            waveforms.append(
                read_audio(
                    utterance.audio_filepath,
                    config.sample_rate,
                    offset_s=utterance.offset,
                    duration_s=utterance.duration,
                )
            )
            total += utterance.duration
    kinds = {
        "one by one": [waveform.unsqueeze(0) for waveform in waveforms],
        "in batches": make_batches(waveforms, options.batch_s * config.sample_rate),
    }
    lines = [
        machine,
        f"threads in use: {torch.get_num_threads()}",
        f"{speech}; measured on {len(waveforms)} of them, {total:.0f} s",
    ]
    lines.append(f"settings: {config}; median of {options.repeats} turns, audio-seconds per second")
    lines.append(
        f"\n{'':14}{'':22}{'audio-s/s':>10}{'asr / it':>10}{'largest relative difference from asr':>38}"
    )
    systems = make_systems(config)
    with torch.inference_mode(), threadpool_limits(torch.get_num_threads()):
        for kind, batches in kinds.items():
            speeds = measure(systems, batches, total, options.repeats)
            for name, extract in systems.items():
                ratio = statistics.median(speeds["asr"]) / statistics.median(speeds[name])
                differs = (
                    "" if name == "asr" else f"{largest_difference(systems['asr'], extract, batches):.1e}"
                )
                lines.append(
                    f"{kind:14}{name:22}{statistics.median(speeds[name]):10.0f}{ratio:10.2f}{differs:>38}"
                )
    return "\n".join(lines)


def make_batches(waveforms: Sequence[Tensor], samples: float) -> list[Tensor]:
    """Batches of about so many samples, padding included, of waveforms of about the same length."""
    batches: list[list[Tensor]] = [[]]
    for waveform in sorted(waveforms, key=len):  # the newest is the longest of its batch
        if batches[-1] and (len(batches[-1]) + 1) * len(waveform) > samples:
            batches.append([])
        batches[-1].append(waveform)
    return [pad_sequence(batch, batch_first=True) for batch in batches]


def make_systems(config: FeatureConfig) -> dict[str, Extract]:
    """Three ways to the same log-mel energies."""
    transform = torchaudio.transforms.MelSpectrogram(
        sample_rate=config.sample_rate,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        pad_mode="constant",
        norm="slaney",
        mel_scale="slaney",
    )

    def from_torchaudio(waveform: Tensor) -> Tensor:
        return transform(waveform).clamp_min(config.log_floor).log().transpose(1, 2)

    def from_librosa(waveform: Tensor) -> Tensor:
        energies = librosa.feature.melspectrogram(
            y=waveform.numpy(),
            sr=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.win_length,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            pad_mode="constant",
        )
        return torch.from_numpy(np.log(np.maximum(energies, config.log_floor))).transpose(1, 2)

    return {
        "asr": lambda waveform: log_mel(waveform, config),
        "librosa": from_librosa,
        "torchaudio": from_torchaudio,
    }


def measure(
    systems: dict[str, Extract], batches: Sequence[Tensor], total_s: float, repeats: int
) -> dict[str, list[float]]:
    """Audio-seconds per second of every system in every turn."""
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for extract in systems.values():
        extract(batches[0])  # the first call makes windows and filters
    for _ in range(repeats):
        for name, extract in systems.items():
            began = time.perf_counter()
            for batch in batches:
                extract(batch)
            speeds[name].append(total_s / (time.perf_counter() - began))
    return speeds


def largest_difference(ours: Extract, theirs: Extract, batches: Sequence[Tensor]) -> float:
    """Largest relative difference between mel energies (not their logarithms), floor included."""
    return max((ours(batch) - theirs(batch)).double().expm1().abs().max().item() for batch in batches)


if __name__ == "__main__":
    recipe(main, Options())
