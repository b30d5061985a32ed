"""What the benchmarks share: the state of the machine, and the speech."""

import os
import platform
import time
from pathlib import Path

import numpy as np
import torch

from asr.corpora import digits
from asr.corpora.librispeech import read_part
from asr.device import usable_cores
from asr.errors import DataError
from asr.manifests.utterance import Utterance

PART = "train-clean-5"
IDLE_CORES = 0.2  # cores in use by others, above which a machine is not called idle


def describe_machine() -> str:
    """Processor, versions and load, and a warning where other work disturbs the measurement.

    Call it before anything is computed: what else is busy now is not this process.
    """
    busy, load = _busy_cores(), os.getloadavg()[0]
    lines = [
        f"machine: {_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.backends.cpu.get_cpu_capability()}",
        f"other work at the start: {busy:.2f} cores; load {load:.2f} in the last minute",
    ]
    if busy > IDLE_CORES:
        lines.append(
            "WARNING: this machine is not idle. With as many threads as cores, any other process makes\n"
            "torch's fused recurrent layers up to 100 times slower: do not report these numbers."
        )
    return "\n".join(lines)


def _busy_cores(interval_s: float = 2.0) -> float:
    """Cores in use while this process sleeps; elsewhere than on Linux, the load of the last minute."""
    before = _core_times()
    time.sleep(interval_s)
    spent = [after - earlier for after, earlier in zip(_core_times(), before, strict=True)]
    if sum(spent) == 0:
        return os.getloadavg()[0]
    return (1 - (spent[3] + spent[4]) / sum(spent)) * (os.cpu_count() or 1)  # idle and waiting for disks


def _core_times() -> list[int]:
    """Linux: the time of all cores spent in user, nice, system, idle, iowait, irq, softirq and steal."""
    stat = Path("/proc/stat")
    return [int(ticks) for ticks in stat.read_text().split()[1:9]] if stat.is_file() else [0] * 8


def set_threads(threads: int | None) -> None:
    """Threads for all systems; None: as many as cores that this process may use, or OMP_NUM_THREADS."""
    torch.set_num_threads(threads or min(usable_cores(), torch.get_num_threads()))


def find_speech(root: Path | None, count: int, seed: int = 1) -> tuple[list[Utterance], str]:
    """Utterances of mixed length, drawn at random.

    Args:
        root: the folder that holds LibriSpeech/, or is it, or is train-clean-5; None for the digits in data/.
        count: at most so many.
        seed: of the draw.

    Returns:
        The utterances, and a line that describes them.

    Raises:
        DataError: the folder has no train-clean-5.
    """
    if root is None:
        utterances, name = digits.prepare().train, "data/digits (synthetic voices; --root for LibriSpeech)"
    else:
        folders = [root / "LibriSpeech" / PART, root / PART, root]
        folder = next((folder for folder in folders if folder.name == PART and folder.is_dir()), None)
        if folder is None:
            raise DataError(
                f"{root}: no {PART} in it. Expected a LibriSpeech folder with that part. Correct --root."
            )
        utterances, name = read_part(folder), f"LibriSpeech {PART}"
    order = np.random.default_rng(seed).permutation(len(utterances))[:count]
    chosen = [utterances[index] for index in order]
    seconds = [utterance.duration for utterance in chosen]
    return chosen, (
        f"speech: {len(chosen)} of {len(utterances)} utterances of {name}, {min(seconds):.1f} to "
        f"{max(seconds):.1f} s, {sum(seconds) / 60:.1f} min in all"
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
