"""The README as a newcomer uses it: short, and every command in it works."""

import json
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDING = ROOT / "tests" / "recordings" / "652-129742-0018.opus"

# Commands that need a network or change the machine; `make demo` in CI's clone is what tests them.
NOT_RUN = ("git clone <this repository> asr && cd asr", "python3 -m venv .venv && . .venv/bin/activate")

# Commands that wait for somebody; tests/commands/test_stream.py and test_serve.py run them.
WAITING = ("asr stream", "asr serve")

# What makes a command of the README cheap; it does the same with less.
CHEAPER = {
    "train": (
        "--model.width 8 --model.depth 1 --model.channels 2 --features.n-mels 20 --augment.speeds 1.0 "
        "--train.epochs 1 --batch.cache-dir features --batch.workers 0"
    ),
    "tune": "--grid.points 2 --search-beam 4 --beam.beam-size 8",
}


def blocks(language: str, page: str = README) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


PYTHON_PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


EVALUATING_PAGE = (ROOT / "docs" / "evaluating.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every command: lines of shell blocks without comments, and inline code that begins like one."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    inline = re.findall(r"`((?:asr|make|pip|python\d?) [^`]+)`", README)
    return [re.sub(r"\s+#.*", "", line) for line in lines] + inline


def test_length_and_first_lines() -> None:
    """A README that nobody reads to its end, or whose first screen advertises."""
    lines = README.splitlines()
    assert len(lines) <= 120
    first = "\n".join(lines[:45])
    for command in ("pip install", "asr transcribe", "make demo"):
        assert command in first, f"{command!r} is not in the first 45 lines"


def test_one_number_for_one_thing() -> None:
    """A result that stands in two places, with two values."""
    rates = re.findall(r"\d+ / \d+ = \d+\.\d\d%", README)
    assert len(rates) >= 5
    assert len(set(rates)) == len(rates)
    results = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    for errors, words, percent in re.findall(r"(\d+) / (\d+) = (\d+\.\d\d)%", README):
        assert f"{errors} / {words}" in results, f"not in recipes/README.md: {errors} / {words}"
        assert f"{100 * int(errors) / int(words):.2f}" == percent


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    """A command that no test runs; the tests below find theirs by how they begin."""
    assert len(commands()) > 15
    kinds = ("asr ", "make ", "pip install ", "python recipes/", "python -m benchmarks.")
    odd = [line for line in commands() if line not in NOT_RUN and not line.startswith(kinds)]
    assert not odd, f"commands that no test runs: {odd}"


def test_make_commands_exist() -> None:
    """`make` of a target that was renamed."""
    targets = set(
        re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = {line.split()[1] for line in commands() if line.startswith("make ")}
    assert "demo" in named
    assert named <= targets


def test_installations_name_extras_that_exist() -> None:
    """`pip install '.[x]'` of an extra that was renamed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installations = [line for line in commands() if line.startswith("pip install ")]
    assert "pip install ." in installations
    extras = {name for line in installations for name in re.findall(r"\[(.*?)\]", line)}
    assert extras <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("python recipes/")])
def test_recipes_start(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe or an option that was renamed: everything is parsed, then the folder of data is missing.

    tests/test_recipes.py runs the recipes on look-alikes.
    """
    _, path, *arguments = shlex.split(command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [path, *arguments, "--data.root", "missing"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert "missing" in error or "MODEL" in error
    assert "option" not in error


def test_the_kit_is_a_module() -> None:
    """`python -m benchmarks.…` of a module that was moved; tests/benchmarks runs it."""
    modules = {line.split()[2] for line in commands() if line.startswith("python -m ")}
    assert modules == {"benchmarks.gpu"}
    assert (ROOT / "benchmarks" / "gpu" / "__main__.py").is_file()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tones: Any) -> Path:
    """The files that the README's commands name: recordings, manifests, texts."""
    path = tmp_path_factory.mktemp("readme")
    shutil.copy(RECORDING, path / "talk.opus")
    shutil.copy(tones.files[2], path / "talk.wav")
    rows = [json.loads(line) for line in tones.manifest.read_text().splitlines()]
    for row in rows:
        row["audio_filepath"] = str(tones.folder / row["audio_filepath"])
    for name in ("train", "dev", "test"):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "text.txt").write_text("ab c\ncab\na b\nbb ca\n")
    (path / "reference.txt").write_text("ab c\ncab\n")
    (path / "hypothesis.txt").write_text("ab c\nca b\n")
    (path / "talk.stm").write_text("talk 1 ann 0.0 1.8 ab c\n")
    (path / "talk.ctm").write_text("talk 1 0.2 0.4 ab\n")
    assert soundfile.info(path / "talk.opus").duration > 1
    return path


def test_commands_and_python_run_in_their_order(
    folder: Path,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command of the README that fails, or whose file no earlier command has written; Python that fails."""
    monkeypatch.chdir(folder)
    outputs = {}
    for command in commands():
        name, *arguments = shlex.split(command)
        if name != "asr" or command in WAITING:
            continue
        status, out, err = run(*arguments, *shlex.split(CHEAPER.get(arguments[0], "")))
        assert status == 0, f"{command}: {err}"
        outputs[command] = out
    assert len(outputs) > 9
    assert outputs["asr transcribe talk.opus"].count("\n") == 1
    words = json.loads(outputs["asr transcribe talk.opus --format json"])["words"]
    assert {"start", "end", "confidence"} <= words[0].keys()
    assert "[ 2 / 3, 1 ins, 0 del, 1 sub ]" in outputs["asr score reference.txt hypothesis.txt"]
    for command in "".join(blocks("sh", EVALUATING_PAGE)).splitlines():
        if command not in outputs:
            status, _, err = run(*shlex.split(command.partition(">")[0])[1:])
            assert status == 0, f"{command}: {err}"
    capsys.readouterr()
    names: dict[str, Any] = {}
    for block in [*blocks("python"), *blocks("python", PYTHON_PAGE)]:
        exec(compile(block, "python block", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "20.00%"
    assert outputs["asr transcribe talk.opus"].rstrip("\n") in printed
    assert len(names["transcripts"]) == 2
    assert "95% interval" in outputs["asr evaluate test.jsonl --model runs/mine/model.safetensors"]
