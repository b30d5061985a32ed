"""The machine's cores, shared between computing threads, loader processes and the processes of torchrun."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from asr.cores import usable_cores

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
