"""The machine's cores, shared between computing threads, loader processes and the processes of torchrun."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from asr.cores import usable_cores
from asr.training.loader import PREFETCH

log = logging.getLogger("asr")


@contextmanager
def one_thread() -> Iterator[None]:
    """Read audio with as many threads as loader processes have: with more, sums round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def loader_processes(cached: bool, batch_bytes: int) -> int:
    """Loader processes that keep up with a GPU.

    Batches reach the training process through shared memory, of which a container may have 64 MB: there are
    no more processes than there is room for their batches, and none where there is no room at all.

    Args:
        cached: whether a cache has all features; then four processes read as much as 20,000 s of audio a
            second, with room to spare.
        batch_bytes: of a batch.
    """
    wanted = min(4 if cached else 8, max(1, usable_cores() - 1))
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:  # macOS has no such folder, and no such limit
        return wanted
    # Each process makes one batch while others wait to be taken; the dev set's processes need as much.
    fitting = free // (2 * (PREFETCH + 1) * max(batch_bytes, 1))
    if fitting < wanted:
        log.warning(
            "%s has %.0f MB free, and batches of %.0f MB: %d loader processes where %d would be faster. Give "
            "the container more (docker run --shm-size 8g), or lower --batch.seconds.",
            _SHARED_MEMORY, free / 1e6, batch_bytes / 1e6, fitting, wanted,
        )  # fmt: skip
    return min(wanted, fitting)


_SHARED_MEMORY = "/dev/shm"


def share_cores(threads: int | None, workers: int) -> int:
    """Set torch's threads so that they and the loader processes do not outnumber the cores.

    Threads that do make a recurrent net's training many times slower, which is why a wish for more gets a
    warning.

    Args:
        threads: of one operation; None takes the cores that the workers leave, or fewer where
            OMP_NUM_THREADS says so.
        workers: loader processes.

    Returns:
        The number of threads.
    """
    cores = usable_cores()
    chosen = threads or min(max(1, cores - workers), torch.get_num_threads())
    if chosen + workers > cores:
        log.warning(
            "%d threads and %d loader processes for %d usable cores: this is often many times slower. Lower "
            "--train.threads or --batch.workers.",
            chosen,
            workers,
            cores,
        )
    torch.set_num_threads(chosen)
    return chosen
