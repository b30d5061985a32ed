"""Time of work on a device, and the number formats in which it is measured."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

# float32 is exact; tf32 stores the same numbers and multiplies with ten bits of mantissa.
FORMATS: dict[str, torch.dtype] = {
    "bf16": torch.bfloat16, "tf32": torch.float32, "fp16": torch.float16, "float32": torch.float32
}  # fmt: skip


@contextmanager
def number_format(name: str) -> Iterator[torch.dtype]:
    """While entered, float32 products are exact, or TF32 for "tf32"; gives the type of the tensors."""
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "tf32" if name == "tf32" else "ieee"
    try:
        yield FORMATS[name]
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def milliseconds(function: Callable[[], object], *, cuda: bool, repeats: int = 5, warmup: int = 2) -> float:
    """Median time of a call, after a warm-up; on a GPU between events, so that the host's share counts only
    where the device waits for it."""
    for _ in range(warmup):
        function()
    if not cuda:
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            function()
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for event in events[1:]:
        function()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(first.elapsed_time(second) for first, second in itertools.pairwise(events))
