"""Loader processes: they make the items of a data set and are kept from epoch to epoch."""

import atexit
import logging
import shutil
import signal
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset, Sampler

from asr.device import usable_cores
from asr.errors import AsrError, TrainingError

__all__ = ["Loader", "loader_processes"]

log = logging.getLogger("asr")

Item = TypeVar("Item")

PREFETCH = 2  # items that each process prepares
_SHARED_MEMORY = "/dev/shm"
_SIGNAL_S = 0.2  # within which the system reports a process that has ended


def loader_processes(cached: bool, batch_bytes: int) -> int:
    """Loader processes that keep up with a GPU.

    Batches reach the training process through shared memory, of which a container may have 64 MB: the number
    of processes is limited so that their batches fit; it may be 0.

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
    # Each process makes one batch while `PREFETCH` wait; the dev set's processes need as much again.
    fitting = free // (2 * (PREFETCH + 1) * max(batch_bytes, 1))
    if fitting < wanted:
        log.warning(
            "%s has %.0f MB free, and batches of %.0f MB: %d loader processes where %d would be faster. Give "
            "the container more (docker run --shm-size 8g), or lower --batch.seconds.",
            _SHARED_MEMORY, free / 1e6, batch_bytes / 1e6, fitting, wanted,
        )  # fmt: skip
    return min(wanted, fitting)


class Loader(Generic[Item]):
    """Makes the items of a plan in order, in loader processes or in this one.

    The first call of `load` starts the processes, which later calls reuse: starting eight of them takes as
    long as a short epoch. They end after an error, after a plan that is not read to its end, and at `close`.

    Args:
        dataset: makes an item for each entry of a plan. It returns an AsrError, which is raised here: raised
            in a loader process, it would arrive wrapped in its traceback.
        workers: loader processes; 0 makes the items in this process.
        pin_memory: return the items in page-locked memory, from which copies to a GPU are asynchronous.
        remedy: advice if a loader process is killed; None for the advice while training.
    """

    def __init__(
        self,
        dataset: Dataset[Item | AsrError],
        workers: int,
        *,
        pin_memory: bool = False,
        remedy: str | None = None,
    ) -> None:
        self.dataset, self.workers, self.pin_memory, self.remedy = dataset, workers, pin_memory, remedy
        self._idle: tuple[DataLoader[Item | AsrError], _PlanSampler] | None = None
        _LOADERS.add(self)

    def load(self, plan: Sequence[Any]) -> Iterator[Item]:
        """The planned items, one after the other.

        Raises:
            AsrError: the data set returned one.
            TrainingError: a loader process was killed.
        """
        # Taken, so that a second plan that is read at the same time gets other processes.
        (loader, sampler), self._idle = self._idle or self._start(), None
        sampler.plan = plan
        items = iter(loader)
        try:
            while True:
                item = self._next(items)
                if item is None:
                    break
                if isinstance(item, AsrError):
                    raise item
                yield item
            if self.workers:
                self._idle = loader, sampler
        finally:
            # An error keeps this frame alive, but not the loader processes: they ignore SIGTERM, with which
            # Python ends its children at exit, and it would wait for them forever.
            del loader, items

    def close(self) -> None:
        """End the loader processes."""
        self._idle = None

    def _start(self) -> "tuple[DataLoader[Item | AsrError], _PlanSampler]":
        sampler = _PlanSampler()
        loader: DataLoader[Item | AsrError] = DataLoader(
            self.dataset,
            sampler=sampler,
            batch_size=None,  # the data set makes whole items
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.pin_memory,
            prefetch_factor=PREFETCH if self.workers else None,
            worker_init_fn=_ignore_signals,
        )
        return loader, sampler

    def _next(self, items: Iterator[Item | AsrError]) -> Item | AsrError | None:
        try:
            return next(items, None)
        except (EOFError, ConnectionError, FileNotFoundError) as error:
            # Killed while it sent an item; at other moments torch notices. Wait for torch's signal handler to
            # raise here, not later.
            time.sleep(_SIGNAL_S)
            raise loader_killed(error, self.remedy) from error
        except RuntimeError as error:
            if is_killed_loader(error):
                raise loader_killed(error, self.remedy) from error
            raise


class _PlanSampler(Sampler[Any]):
    """Gives a DataLoader the entries of a plan, which may be replaced between epochs."""

    plan: Sequence[Any] = ()

    def __init__(self) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(self.plan)

    def __len__(self) -> int:
        return len(self.plan)


_LOADERS: "weakref.WeakSet[Loader[Any]]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End all loader processes before multiprocessing's exit handler, which would wait for them."""
    for loader in list(_LOADERS):
        loader.close()


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM may reach loader processes too, but the main process decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def loader_killed(error: BaseException, remedy: str | None = None) -> TrainingError:
    """The error for the user when a loader process was killed.

    Args:
        error: what torch or Python raised.
        remedy: advice for the user; None for the advice while training.
    """
    reason = str(error).strip().rstrip(".") or type(error).__name__
    remedy = remedy or (
        "Lower --batch.workers, or --batch.seconds. Resume from the newest checkpoint with --train.resume."
    )
    return TrainingError(
        f"a loader process was killed, most often by the system because memory ran out: {reason}. {remedy}"
    )


def is_killed_loader(error: BaseException) -> bool:
    """Whether torch reports that a loader process was killed."""
    return "DataLoader worker (pid" in str(error)  # torch has no error class for it
