"""The command line: `asr COMMAND …`, and the frame in which recipes run.

The only file that prints for a person or sets an exit status: 0 for success, 1 when some files of a list could not
be used, 2 for an error that ended the command, 130 after Ctrl-C.
"""

import errno
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from asr import __version__
from asr.errors import AsrError

_HELP = """\
asr: train recurrent speech recognisers with CTC, transcribe recordings, score the result.

usage: asr COMMAND [--help] ...

  train       learn a model from manifests
  transcribe  recordings -> text
  evaluate    word error rate of a model on a manifest
  score       word error rate of one text file against another

  asr train train.jsonl --dev dev.jsonl --train.run-dir runs/mine
  asr transcribe recording.wav --model runs/mine/model.safetensors
  asr evaluate test.jsonl --model runs/mine/model.safetensors
  asr score reference.txt hypothesis.txt

`asr COMMAND --help` lists a command's settings; `asr --version` tells the version.
Recipes for public data sets: python recipes/yesno.py, and its neighbours."""

log = logging.getLogger("asr")

Config = TypeVar("Config")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the result is the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(_HELP)
        return 0
    if command == "--version":
        print(f"asr {__version__}")
        return 0
    if command not in _COMMANDS:
        print(f"asr: unknown command {command!r}. Expected one of: {', '.join(_COMMANDS)}.", file=sys.stderr)
        return 2
    return _guarded(lambda: _COMMANDS[command](rest))


def recipe(run: Callable[[Config], str], config: Config) -> None:
    """Run a recipe: settings from the command line, errors and progress as for every command; then exit.

    Args:
        run: takes the settings, returns what to tell the user at the end.
        config: the recipe's own settings, which the command line can change.
    """
    import tyro

    def parse_and_run() -> int:
        settings = tyro.cli(type(config), default=config, description=sys.modules["__main__"].__doc__)
        text = run(settings)
        if os.environ.get("RANK", "0") == "0":  # under torchrun one process speaks
            print(text)
        return 0

    sys.exit(_guarded(parse_and_run))


# Each command is imported when it is called: torch takes seconds, and `asr --help` has no use for it.


def _train(arguments: Sequence[str]) -> int:
    import tyro

    from asr.train import TrainSettings, run

    print(run(tyro.cli(TrainSettings, prog="asr train", args=arguments)))
    return 0


def _transcribe(arguments: Sequence[str]) -> int:
    import tyro

    from asr.transcribe import TranscribeSettings, run

    failed = 0
    for line, error in run(tyro.cli(TranscribeSettings, prog="asr transcribe", args=arguments)):
        print(line, flush=True)
        if error is not None:
            log.error("%s", error)
            failed += 1
    return 1 if failed else 0


def _evaluate(arguments: Sequence[str]) -> int:
    import tyro

    from asr.evaluate import EvaluateSettings, run

    print(run(tyro.cli(EvaluateSettings, prog="asr evaluate", args=arguments)))
    return 0


def _score(arguments: Sequence[str]) -> int:
    import tyro

    from asr.score import ScoreSettings, run

    print(run(tyro.cli(ScoreSettings, prog="asr score", args=arguments)))
    return 0


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train, "transcribe": _transcribe, "evaluate": _evaluate, "score": _score,
}  # fmt: skip


def _guarded(run: Callable[[], int]) -> int:
    """Turn what a user can cause into one clear line and an exit status."""
    log.setLevel(logging.INFO)
    console = _Console()
    log.addHandler(console)
    try:
        return run()
    except AsrError as error:
        log.error("%s", error)
        if _is_interruption(error):
            log.error("saved. To go on, add --train.resume to the same command.")
            return 130
        return 2
    except KeyboardInterrupt:
        log.error("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output (head, say) has left: nothing to complain about, and nothing more to flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        log.error("%s: %s. Free some space or choose another folder.", error.filename or "a file", error.strerror)
        return 2
    finally:
        console.end_line()
        log.removeHandler(console)


def _is_interruption(error: AsrError) -> bool:
    return type(error).__name__ == "Interrupted"


class _Console(logging.Handler):
    """Log lines to stderr; a transient one is overwritten by the next, or left out where nobody watches."""

    def __init__(self) -> None:
        super().__init__()
        self._watched = sys.stderr.isatty()
        self._pending = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if getattr(record, "transient", False):
            if self._watched:
                width = os.get_terminal_size(sys.stderr.fileno()).columns
                print(f"\r\x1b[K{text[: width - 1]}", end="", file=sys.stderr, flush=True)
                self._pending = True
            return
        self.end_line()
        print(text, file=sys.stderr, flush=True)

    def end_line(self) -> None:
        """Remove a progress line that still stands."""
        if self._pending:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._pending = False
