"""Throughput of the real training path: `train_recogniser`, watched from between its updates.

For each size of a batch, after a warm-up: seconds of audio trained on per second, the share of the time that
the loop waited for a batch, the time of an update, and the most memory. For the first size also the calls
that made the host wait for the GPU, with the lines that made them, and a profile of 20 updates. Validation
and saving, once an epoch, are left out: the plan of an epoch is repeated until the measurement is over.

The goal on one H100, at 1600 s a batch: 20,000 audio-s/s, waiting at most 5% of the time.
"""

import gc
import resource
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from asr.batching.batches import Batch
from asr.batching.sampler import PlannedBatch
from asr.errors import SettingsError
from asr.manifests.utterance import Utterance
from asr.training.recogniser import train_recogniser
from asr.training.tasks.speech import SpeechTask
from benchmarks.gpu.part import Part
from benchmarks.gpu.speech import cache_folder, fill_cache, load_speech, settings_for

BATCHES_S = (1600.0, 400.0, 100.0)  # the goal's first
OTHER_PRECISIONS = ("tf32", "fp16", "float32")
WARMUP, PROFILED, WATCHED = 6, 20, 5  # updates: before, in the profile, and while waits are counted
_REPEATS = 10_000  # of an epoch's plan: no epoch ends within a measurement

Script = Generator[None, tuple[Batch, float], None]  # is sent each batch and the seconds it was waited for


class _Enough(Exception):  # noqa: N818 (ends a training that has shown what it can)
    pass


def run(part: Part) -> None:
    """Measure the sizes at the precision that `auto` chooses, then the first size at the others."""
    utterances, dev = load_speech(part)
    utterances = fill_cache(part, utterances, seconds=max(part.left_s / 4, 1.0))
    quick = part.settings.quick
    sizes = (20.0,) if quick else BATCHES_S
    cases = [(size, "auto") for size in sizes]
    cases += [(sizes[0], name) for name in OTHER_PRECISIONS] if part.cuda else []
    for number, (batch_s, precision) in enumerate(cases):
        seconds = 0.5 if quick else part.left_s / (len(cases) - number) / 2  # half of it: start and warm-up
        if seconds <= 0:
            part.record(unmeasured=[f"{size:g} s, {name}" for size, name in cases[number:]])
            return
        try:
            measure(part, utterances, dev, batch_s, precision, seconds, closer=number == 0)
        except SettingsError as error:  # the device, or this version, has no such precision
            part.row("refused", precision=precision, error=str(error))


def measure(
    part: Part,
    utterances: Sequence[Utterance],
    dev: Sequence[Utterance],
    batch_s: float,
    precision: str,
    seconds: float,
    *,
    closer: bool,
) -> None:
    """Train for some seconds, and record how fast; closer: then also waits for the GPU, and the profile."""
    settings = settings_for(
        part, f"{batch_s:g}-{precision}", batch_s, cache_folder(part), precision=precision
    )

    def script() -> Script:
        for _ in range(WARMUP):
            yield
        yield from _timed(part, batch_s, precision, seconds)
        if closer:
            yield from _waits(part)
            yield from _profiled(part)

    gc.collect()  # what the training before has left
    if part.cuda:
        torch.cuda.empty_cache()
    with _between_updates(script):
        try:
            train_recogniser(utterances, dev[:8], settings)
        except _Enough:
            return


@contextmanager
def _between_updates(script: Callable[[], Script]) -> Iterator[None]:
    """While entered, each update of a training runs the script on to its next `yield`; its end ends both."""
    plan, load = SpeechTask.plan, SpeechTask.load

    def repeated(self: SpeechTask, epoch: int) -> Sequence[PlannedBatch]:
        return _Repeated(plan(self, epoch))

    def watched(self: SpeechTask, planned: Sequence[PlannedBatch]) -> Iterator[Batch]:
        running = script()
        next(running)
        batches = load(self, planned)
        while True:
            asked = time.perf_counter()
            batch = next(batches)
            try:
                running.send((batch, time.perf_counter() - asked))
            except StopIteration:
                raise _Enough from None
            yield batch

    SpeechTask.plan, SpeechTask.load = repeated, watched
    try:
        yield
    finally:
        SpeechTask.plan, SpeechTask.load = plan, load


class _Repeated(Sequence[PlannedBatch]):
    """A plan many times over."""

    def __init__(self, plan: Sequence[PlannedBatch], start: int = 0) -> None:
        self.plan, self.start = plan, start

    def __len__(self) -> int:
        return len(self.plan) * _REPEATS - self.start

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Repeated(self.plan, self.start + (index.start or 0))
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.plan[(self.start + index) % len(self.plan)]


def _timed(part: Part, batch_s: float, precision: str, seconds: float) -> Script:
    cuda = part.cuda
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    audio_s = waited_s = 0.0
    updates = padded = valid = 0
    while not updates or time.perf_counter() - began < seconds:
        batch, waited = yield
        updates, audio_s, waited_s = updates + 1, audio_s + batch.global_seconds, waited_s + waited
        padded += len(batch.ids) * int(batch.frame_lengths.max())
        valid += int(batch.frame_lengths.sum())
    if cuda:  # the batch that came last has not been trained on, and the one before the first has
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - began
    part.row(
        "training",
        batch_s=batch_s,
        precision=precision,
        updates=updates,
        audio_s_per_s=round(audio_s / elapsed, 1),
        waiting_share=round(waited_s / elapsed, 4),
        update_ms=round(1000 * elapsed / updates, 2),
        padding_share=round(1 - valid / padded, 4),
        peak_gib=round(_peak_bytes(cuda) / 2**30, 2),
    )


def _waits(part: Part) -> Script:
    """Count the calls that make the host wait for the device, by the line that makes them."""
    if not part.cuda:
        return
    lines: dict[str, int] = {}

    def count(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        if "synchroniz" in str(message):
            where = f"{'/'.join(filename.split('/')[-3:])}:{lineno}"
            lines[where] = lines.get(where, 0) + 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(WATCHED):
                yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    part.record(waits_per_update=sum(lines.values()) / WATCHED, waits_by_line=lines)


def _profiled(part: Part) -> Script:
    """The operations that take the most time: kernels on a GPU, torch's own on a CPU."""
    updates = 2 if part.settings.quick else PROFILED
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if part.cuda else [])]
    began = time.perf_counter()
    with profile(activities=activities, acc_events=True) as profiler:
        for _ in range(updates):
            yield
        if part.cuda:
            torch.cuda.synchronize()
    elapsed_ms = 1000 * (time.perf_counter() - began)
    # An operation of the host also has the time of its kernels, and so has a marked range: each counts once.
    kind = DeviceType.CUDA if part.cuda else DeviceType.CPU
    events = [
        (event.self_device_time_total if part.cuda else event.self_cpu_time_total, event.key, event.count)
        for event in profiler.key_averages()
        if event.device_type == kind and not event.is_user_annotation
    ]
    events.sort(reverse=True)
    busy_ms = sum(microseconds for microseconds, *_ in events) / 1000
    part.record(
        profile={"updates": updates, "elapsed_ms": round(elapsed_ms, 1), "busy_ms": round(busy_ms, 1)},
        profile_rows=[
            {
                "operation": name[:90],
                "calls": count,
                "ms": round(microseconds / 1000, 2),
                "share": round(microseconds / 1000 / max(busy_ms, 1e-9), 4),
            }
            for microseconds, name, count in events[:25]
        ],
    )


def _peak_bytes(cuda: bool) -> float:
    if cuda:
        return float(torch.cuda.max_memory_allocated())
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
