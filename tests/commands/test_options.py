"""An error in a command line is one line; help texts are printed as they are."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from asr.commands.options import one_line, option_value, parse
from asr.errors import SettingsError

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Net:
    """The network."""

    cell: Literal["rnn", "gru", "a-cell-with-a-long-name", "another-cell-with-a-long-name"] = "rnn"  # kind
    width: int | None = None  # units
    depth: int = 1  # layers


@dataclass(frozen=True)
class Options:
    """For the test."""

    manifest: Path  # a file
    net: Net = field(default_factory=Net)
    sizes: tuple[int, ...] = ()  # numbers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--manifest", "a", "--net.cell", "foo"],
            "invalid choice 'foo' for argument '--net.cell'. Expected one of ('rnn', 'gru', "
            "'a-cell-with-a-long-name', 'another-cell-with-a-long-name').",
        ),
        (
            ["--manifest", "a", "--net.wdth", "3"],
            "unrecognized options: --net.wdth, 3. Did you mean --net.width or --net.depth?",
        ),
        ([], "missing: --manifest."),
        (["--manifest"], "missing value for argument '--manifest'."),
        (["--manifest", "a", "--net.width", "x"], "error parsing --net.width: "),
        (["--manifest", "a", "--sizes", "1", "x"], "error parsing --sizes: "),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box of several lines, or a sentence that lost a part where the box broke its line."""
    for columns in ("50", "80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SettingsError) as raised:
            parse(Options, "asr try", arguments)
        message_text = str(raised.value)
        assert message_text.startswith(message)
        assert message_text.endswith(" `asr try --help` lists all options.")
        assert "\n" not in message_text
        assert not set("│╭╰─").intersection(message_text)
    assert capsys.readouterr() == ("", "")


def test_nothing_message_text_is_one_line_too() -> None:
    """An end without a box, as another version of tyro may make one: no traceback."""
    with (
        pytest.raises(SettingsError, match=r"^wrong options\. `asr --help` lists all options\.$"),
        one_line("asr"),
    ):
        sys.exit(2)


def test_right_ones_are_read_and_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The frame must not swallow what is right."""
    assert parse(Options, "asr try", ["--manifest", "a", "--net.width", "3"]) == Options(
        Path("a"), Net(width=3)
    )
    with pytest.raises(SystemExit) as ended:
        parse(Options, "asr try", ["--help"])
    assert ended.value.code == 0
    assert "usage: asr try" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_wrong_cell_is_one_line(encoding: str) -> None:
    """The same, as a user meets it, also where the terminal has no signs to draw a box with."""
    command = [sys.executable, "-m", "asr", "train", "a.jsonl", "--dev", "b.jsonl", "--model.cell", "lstn"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    [line] = result.stderr.splitlines()
    assert line.startswith(
        "error: invalid choice 'lstn' for argument '--model.cell'. Expected one of ('rnn',"
    )


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["a", "--b.c-d", "e"], "e"),
        (["--b.c_d=e", "a"], "e"),
        (["--b.c-d", "e", "--b.c-d", "f"], "f"),
        (["--b.c-d"], None),
        (["--b.c-d-rate", "0.1"], None),
        ([], None),
    ],
)
def test_value_before_parsing(arguments: list[str], value: str | None) -> None:
    """Guards the look at --train.warm-start before its settings are known: both ways to write an option."""
    assert option_value(arguments, "--b.c-d") == value
