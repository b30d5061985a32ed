"""Parse a command line into settings; an error is one line, as every other error is."""

import contextlib
import io
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from asr.errors import SettingsError
from asr.files import make_writable

__all__ = ["check_folder", "check_output", "one_line", "option_value", "parse"]

Settings = TypeVar("Settings")

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def parse(
    kind: type[Settings], prog: str, arguments: Sequence[str], default: Settings | None = None
) -> Settings:
    """Parse the options of a command.

    Args:
        kind: a dataclass.
        prog: the command, for its help text.
        arguments: everything after the command.
        default: what the options change; None for the dataclass's own defaults.

    Raises:
        SettingsError: an option is unknown, missing, or has a value that it cannot have.
        SystemExit: the help text was requested, and has been printed.
    """
    import tyro  # slow, and `asr --help` does not need it

    with one_line(prog):
        if default is None:
            return tyro.cli(kind, prog=prog, args=arguments)
        return tyro.cli(kind, prog=prog, args=arguments, default=default)


def option_value(arguments: Sequence[str], option: str) -> str | None:
    """The value of an option on a command line that is not parsed yet; None if it is not given."""
    value = None
    for word, following in itertools.pairwise([*arguments, ""]):
        name, equals, text = word.partition("=")
        if name.replace("_", "-") == option:
            value = text if equals else following
    return value or None


@contextlib.contextmanager
def one_line(prog: str) -> Iterator[None]:
    """Turn tyro's box about wrong options, of several lines, into a SettingsError of one line."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            yield
    except SystemExit as end:
        if not end.code:
            raise
        raise SettingsError(f"{_message(box.getvalue())} `{prog} --help` lists all options.") from None


def _message(box: str) -> str:
    """The first part of tyro's box, and the options that it suggests or misses."""
    lines = _COLOUR.sub("", box).splitlines() or ["", "", "  wrong options"]
    framed = lines[0].startswith("╭")  # otherwise (an ASCII terminal) title and rule come first
    inside = [line[2:].rstrip(" │") for line in lines[1 if framed else 2 :]]
    rows = [*itertools.takewhile(lambda row: not row.startswith("For full helptext"), inside)]
    first: list[str] = []
    for row in rows:
        if not row or set(row) <= set("─-"):
            break
        first.append(row)
    # Names are at the first indent, their descriptions deeper.
    named = [row.split()[0] for row in rows if re.match(r" {4}\S", row)]
    text = " ".join(row for row in first if not row.startswith(" ")).removesuffix(".").removesuffix(":")
    text = text[:1].lower() + text[1:]
    if "Perhaps you meant:" in rows:
        return f"{text}. Did you mean {' or '.join(named)}?"
    if text.startswith("missing from"):
        return f"missing: {', '.join(named)}."
    return f"{text}."


def check_folder(folder: Path, option: str = "--output") -> None:
    """Refuse a folder that cannot be written to, before an hour of reading, and not after it.

    Args:
        folder: the folder, which is made later where it is missing.
        option: that names it.

    Raises:
        SettingsError: it is a file, or cannot be written to.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        what = "cannot be written to" if existing.is_dir() else "is a file"
        raise SettingsError(f"{option}: {existing} {what}. Expected a folder. Choose another one.")


def check_output(
    output: Path, inputs: Sequence[Path], option: str = "--output", example: str = "lm.bin"
) -> None:
    """Refuse an output file that cannot be written, before the work and not after it.

    Args:
        output: the file.
        inputs: what is read.
        option: that names the file.
        example: name of such a file, for a message.

    Raises:
        SettingsError: the output's folder does not exist or cannot be written, it is a folder itself, or it
            is one of the inputs.
    """
    if output.is_dir():
        raise SettingsError(f"{option} {output}: is a folder. Name a file, such as {output / example}.")
    folder = output.absolute().parent
    if folder.is_file():
        raise SettingsError(f"{option} {output}: {folder} is a file, not a folder. Choose another one.")
    if not folder.is_dir():
        raise SettingsError(
            f"{option} {output}: the folder {folder} does not exist. Make it, or choose another one."
        )
    if not output.exists() or output.is_file():  # /dev/null is neither
        try:
            make_writable(folder)
        except OSError as error:
            raise SettingsError(
                f"{option} {output}: the folder {folder} cannot be written: {error.strerror}. "
                "Choose another one."
            ) from None
    if any(path.resolve() == output.resolve() for path in inputs):
        raise SettingsError(f"{option} {output} would overwrite what is read. Choose another file.")
