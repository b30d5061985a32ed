"""Files written in the background, by a thread, one after the other."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from asr.errors import AsrError

log = logging.getLogger("asr")


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
