"""Files written in the background: a snapshot of the tensors is taken, and a thread writes it.

On a GPU the copy goes to page-locked memory of the host without the host waiting for it; the thread does.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from asr.errors import AsrError
from asr.training.update import record_event

log = logging.getLogger("asr")

T = TypeVar("T")


class Snapshot(Generic[T]):
    """A copy in the host's memory of a tree of tensors, as they are after all work queued so far.

    Args:
        tree: dicts, lists and tuples of tensors (on any device) and plain values.
    """

    def __init__(self, tree: T) -> None:
        self._tree: T = _map_tensors(tree, _copy)
        self._copied = record_event() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]

    def get(self) -> T:
        """The copy; waits until it is complete."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._tree


class BackgroundWriter:
    """Writes files in a thread, one after the other, in the order of `submit`.

    After an error nothing more is written, so that no later file (a checkpoint) refers to one that is missing
    (a model). The error is raised by `wait`. On leaving the context, all is written.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._jobs: list[Future[None]] = []
        self._error: BaseException | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Queue a function that writes a file."""
        self._thread = self._thread or ThreadPoolExecutor(1, "asr-writer")
        self._jobs.append(self._thread.submit(self._run, write))

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            ModelError: something could not be written, such as for a full disk.
        """
        for job in self._jobs:
            job.result()
        self._jobs.clear()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except AsrError as write_error:
            if error is None:
                raise
            log.warning("%s", write_error)  # besides the error that ends the run
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            self._thread = None

    def _run(self, write: Callable[[], None]) -> None:
        if self._error is None:
            try:
                write()
            except BaseException as error:  # noqa: BLE001 (the main thread raises it)
                self._error = error


def _copy(tensor: Tensor) -> Tensor:
    if tensor.device.type == "cpu":
        return tensor.detach().clone()
    return tensor.detach().to("cpu", non_blocking=True)  # into page-locked memory


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_tensors(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map_tensors(part, change) for part in value)
    return value
