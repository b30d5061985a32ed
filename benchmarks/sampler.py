"""What planning an epoch costs, and how good the plan is: 1 to 1,000 processes, up to 10 million utterances.

Nothing is trained: the sampler of `asr train` plans an epoch with speed perturbation; the plan is looked at.
Each row is a separate process, of rank 0: every process of a training plans the whole epoch.

  padding   share of the padded seconds that is not speech
  waiting   share of the processes' time spent waiting for the slowest, if a part takes as long as it has
            seconds, padding included
  set up    seconds until the sampler is ready, once a run: it hashes the ids
  epoch     seconds to the first batch of an epoch; in brackets those that the processor worked
  memory    of the sampler at its peak, without torch and the ids; of the ids alone
  largest   padded seconds in the largest part of any batch

python benchmarks/sampler.py [--utterances 10000 1000000 --ranks 1 8]
"""

import json
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from conditions import find_speech
from numpy.typing import NDArray

from asr.batching.examples import ExampleColumns
from asr.batching.sampler import Sampler, Sharding
from asr.cli import recipe
from asr.frontend.augment import AugmentConfig
from asr.frontend.augment.draws import hash_ids
from asr.frontend.augment.speed import draw_speeds

# Quantiles 0, 0.05, ... 1 of the 1,519 durations in LibriSpeech's train-clean-5, in seconds. Lengths are
# drawn from the distribution that is linear between them.
QUANTILES = (
    1.87, 4.07, 6.32, 8.63, 10.0, 11.34, 12.26, 12.73, 13.22, 13.63, 13.92, 14.2, 14.49, 14.7, 14.93, 15.17,
    15.37, 15.53, 15.78, 16.05, 17.27,
)  # fmt: skip
TOKENS_A_SECOND = 14.6  # characters of the same utterances


@dataclass(frozen=True)
class Options:
    """What is simulated."""

    utterances: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    ranks: tuple[int, ...] = (1, 8, 64, 1000)
    rank_s: float = 100.0  # seconds of audio in each process's part of a batch
    root: Path | None = None  # folder of LibriSpeech/ to draw lengths from; None: the quantiles in this file
    row: str = ""  # internal: utterances and ranks of one row


def main(options: Options) -> str:
    """Simulate and print the results."""
    if options.row:
        utterances, ranks = json.loads(options.row)
        return json.dumps(simulate(utterances, ranks, options))
    lines = [
        f"Python {platform.python_version()}, numpy {np.__version__}; "
        f"{options.rank_s:g} s a process and batch",
        f"{'utterances':>11}{'ranks':>6}{'batches':>11}{'padding':>9}{'waiting':>9}"
        f"{'set up':>15}{'epoch':>15}"
        f"{'memory':>9}{'ids':>8}{'largest':>9}",
    ]
    for utterances in options.utterances:
        for ranks in options.ranks:
            lines.append(run_row(utterances, ranks, options))
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def run_row(utterances: int, ranks: int, options: Options) -> str:
    """One row, from a fresh process."""
    arguments = ["--row", json.dumps([utterances, ranks]), "--rank-s", str(options.rank_s)]
    arguments += ["--root", str(options.root)] if options.root else []
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    row = json.loads(done.stdout.splitlines()[-1])

    def timed(name: str) -> str:
        return f"{row[name + '_s']:7.1f}s ({row[name + '_cpu_s']:.1f})".rjust(15)

    return (
        f"{utterances:11,}{ranks:6}{row['batches']:11,}{row['padding']:9.2%}{row['waiting']:9.2%}"
        f"{timed('setup')}{timed('epoch')}{row['memory_mb']:6.0f} MB{row['ids_mb']:5.0f} MB"
        f"{row['largest_s']:8.1f}s"
    )


def simulate(utterances: int, ranks: int, options: Options) -> dict[str, float]:
    """Plan one epoch and judge it."""
    rng = np.random.default_rng(1)
    quantiles: NDArray[np.float64] = np.array(QUANTILES)
    if options.root:
        found, _ = find_speech(options.root, count=10**9)
        quantiles = np.sort([utterance.duration for utterance in found])
    seconds = np.interp(rng.random(utterances), np.linspace(0, 1, len(quantiles)), quantiles)
    tokens = np.rint(seconds * TOKENS_A_SECOND).astype(np.int32)
    before = peak_mb()
    ids = [f"{number // 1000}-{number // 25}-{number % 25:04d}" for number in range(utterances)]
    with_ids = peak_mb()
    began, worked = time.perf_counter(), time.process_time()
    sampler = Sampler(
        ExampleColumns(hash_ids(ids), seconds, tokens, np.full(utterances, np.inf)),
        options.rank_s * ranks,
        AugmentConfig(),
        seed=1,
        sharding=Sharding(world_size=ranks, shards=ranks),
    )
    set_up, worked_set_up = time.perf_counter(), time.process_time()
    plan = sampler.plan(1)
    first = plan[0]
    ready, worked_ready = time.perf_counter(), time.process_time()
    memory = peak_mb() - with_ids
    audio_s = sum(planned.global_seconds for planned in plan)
    costs = part_costs(sampler, plan.groups.order, plan.groups.cuts).reshape(len(plan), ranks)
    assert first.indices
    assert sum(len(plan.groups.batch(number)) for number in range(len(plan))) == utterances
    return {
        "batches": len(plan),
        "padding": 1 - audio_s / costs.sum(),
        "waiting": 1 - costs.mean(axis=1).sum() / costs.max(axis=1).sum(),
        "setup_s": set_up - began,
        "setup_cpu_s": worked_set_up - worked,
        "epoch_s": ready - set_up,
        "epoch_cpu_s": worked_ready - worked_set_up,
        "memory_mb": memory
        + (seconds.nbytes + tokens.nbytes) / 1e6,  # made before, but the sampler keeps them
        "ids_mb": with_ids - before,
        "largest_s": costs.max(),
    }


def part_costs(sampler: Sampler, order: NDArray[np.int32], cuts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds in each part of every batch, padding included."""
    columns = sampler.columns
    speeds = draw_speeds(sampler.augment.speeds, columns.top_speeds, columns.hashes, sampler.seed, 1)
    longest = np.maximum.reduceat((columns.seconds / speeds)[order], cuts[:-1])
    return longest * np.diff(cuts)


def peak_mb() -> float:
    """Most memory that this process has had so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    recipe(main, Options())
