"""The console: results to stdout, log lines and errors to stderr, and the exit status of a command.

The only file that prints or exits: 0 for success, 1 when some files of a list could not be used, 2 for an
error that ended the command, 130 after Ctrl-C, 141 when the reader of the output has closed it.
"""

import contextlib
import errno
import io
import logging
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable

from asr.errors import AsrError
from asr.torchrun import rank_and_world_size

__all__ = ["guarded", "print_result", "report"]

log = logging.getLogger("asr")


def print_result(text: str) -> None:
    """Print a result to stdout."""
    _console.print_result(text)


Results = str | None | Iterable[str | tuple[str | None, AsrError | None]]
"""What a command returns: its result, or lines as they come; of files, the line or the error of each."""


def report(results: Results) -> int:
    """Print what a command returns, as it comes; the exit status."""
    if results is None:
        return 0
    failures: list[bool] = []
    for result in [results] if isinstance(results, str) else results:
        line, error = (result, None) if isinstance(result, str) else result
        if line is not None:
            print_result(line)
        if error is not None:
            log.error("%s", error)
        failures.append(error is not None)
    return 2 if failures and all(failures) else 1 if any(failures) else 0


def guarded(run: Callable[[], int]) -> int:
    """Run a command; an error that a user can cause becomes one line and an exit status."""
    log.setLevel(logging.INFO)
    log.addHandler(_console)
    _console.start()
    hook, threading.excepthook = threading.excepthook, _ignore_full_disk
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal lacks must not be an error
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            status = run()
        except SystemExit as end:  # a help text has been printed
            status = end.code if isinstance(end.code, int) else 0
        _print("", end="")  # flushes a help text
        return status
    except AsrError as error:
        if _is_first(str(error)):
            log.error("%s", error)
        return error.exit_status
    except KeyboardInterrupt:
        log.error("interrupted")
        return 130
    except BrokenPipeError:
        return 141  # the reader of the output (such as head) has closed it: end silently, as after SIGPIPE
    except OSError as error:
        if error.errno not in _FILE_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        log.error("%s%s. %s", where, error.strerror, _FILE_ERRORS[error.errno])
        return 2
    finally:
        _console.end_line()
        log.removeHandler(_console)
        threading.excepthook = hook


def _is_first(message: str) -> bool:
    """Whether this process logs the error: of several that fail alike, one does."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    from asr.torchrun import first_to_report

    return first_to_report(message)


_SPACE = "Free some space, or write to another folder."
_ELSEWHERE = "Choose another file or folder."
_FILE_ERRORS = {
    errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EROFS: _ELSEWHERE, errno.EACCES: _ELSEWHERE,
    errno.EPERM: _ELSEWHERE, errno.EEXIST: _ELSEWHERE, errno.ENOTDIR: _ELSEWHERE, errno.EISDIR: _ELSEWHERE,
    errno.ENAMETOOLONG: _ELSEWHERE, errno.ENOENT: "Make its folder, or choose another one.",
}  # fmt: skip


def _print(text: str, end: str = "\n") -> None:
    """Print to stdout and flush: a failed write is an error here, not at exit."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        error.filename = "the output"
        # Otherwise Python's flush at exit fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _ignore_full_disk(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread passes its error to the main thread; a second traceback adds nothing."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


_MINUTE_S = 60.0


class _Console(logging.Handler):
    """Results to stdout, log lines to stderr.

    A transient log line is overwritten by the next line; without a terminal, as in a batch job's log, there
    is one per minute. A live one is the text of a stream so far: only a terminal shows it, and its end rather
    than its beginning.
    """

    _transient_shown = False  # whether the last line is a transient one
    _quiet_until = 0.0  # no transient line before this time, without a terminal

    def start(self) -> None:
        """Note that a command begins."""
        self._quiet_until = time.monotonic() + _MINUTE_S

    def print_result(self, text: str) -> None:
        """Print a result."""
        self.end_line()
        if rank_and_world_size()[0] == 0:  # under torchrun one process prints
            _print(text)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, as one line."""
        if sys.stderr is None:  # closed by the caller; print would fall back to stdout
            return
        text = record.getMessage()
        with contextlib.suppress(OSError):  # stderr is closed: no reason to end a training
            if getattr(record, "transient", False):
                live = getattr(record, "live", False)
                if sys.stderr.isatty():
                    width = max(shutil.get_terminal_size().columns, 20)
                    if live and len(text) >= width:
                        text = f"…{text[2 - width :]}"
                    print(f"\r\x1b[K{text[: width - 1]}", end="", file=sys.stderr, flush=True)
                    self._transient_shown = True
                    return
                if live or time.monotonic() < self._quiet_until:
                    return
                self._quiet_until = time.monotonic() + _MINUTE_S
            self.end_line()
            if record.levelno >= logging.WARNING:
                text = f"{record.levelname.lower()}: " + re.sub(r"\s*\n\s*", " ", text)
            print(text, file=sys.stderr, flush=True)

    def end_line(self) -> None:
        """Erase a transient line that is still shown."""
        if self._transient_shown:
            self._transient_shown = False
            with contextlib.suppress(OSError):
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)


_console = _Console()
