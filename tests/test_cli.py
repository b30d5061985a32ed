"""The command line's frame: what is printed where, and with which exit status a command ends."""

import errno
import gc
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import asr
from asr import cli, console
from asr.errors import AsrError, Interrupted, ModelError

ROOT = Path(__file__).resolve().parents[1]
ASR = [sys.executable, "-m", "asr"]


def words(text: str) -> str:
    """Text without the frame around it (which depends on the terminal) and its line breaks."""
    return re.sub(r"[\s│─╭╮╰╯]+", " ", text)


def guarded(monkeypatch: pytest.MonkeyPatch, run: Any) -> int:
    """The exit status of a command that does what `run` does."""
    monkeypatch.setitem(cli.COMMANDS, "score", SimpleNamespace(run=lambda words, arguments: run()))
    return cli.main(["score"])


# ------------------------------------------------------------------------------------------------------- help


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that exists and that nobody finds."""
    texts = []
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert cli.main(arguments) == 0
        texts.append(capsys.readouterr().out)
    assert len(set(texts)) == 1
    for command in cli.COMMANDS:
        assert re.search(rf"^  {command} +\w", texts[0], re.MULTILINE)
        assert f"asr {command} " in texts[0]


def test_python_m_asr_is_asr() -> None:
    """`torchrun -m asr train` needs the package to be runnable; the version is that of the package."""
    result = subprocess.run([*ASR, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == f"asr {asr.__version__}\n"
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("transcribe", ["FILE...", "quoted globs", "--model MODEL", "--ids", "--batch-s FLOAT seconds"]),
        ("evaluate", ["MANIFEST", "--model MODEL", "--out DIR", "--normalizer NAME", "cuda:N"]),
        ("score", ["REF HYP", "--normalizer NAME", "--alignments FILE", "--results FILE"]),
        (
            "augment",
            [
                "FILE...", "--out DIR", "--epoch INT", "--seed INT", "--augment.noise-snr-db FLOAT FLOAT",
                "--augment.room-dir {None}|PATH", "0.88 1.12 is usual",
                "this changes nothing except",
            ],
        ),
        (
            "train",
            [
                "--dev", "--train.learning-rate FLOAT", "the peak, after the warm-up (default: 0.001)",
                "--model.size {small,medium,large}", "--features.n-mels INT", "--augment.speeds",
                "--text.too-long {drop,fail}", "--batch.seconds FLOAT", "--train.resume",
            ],
        ),
    ],
)  # fmt: skip
def test_help_of_a_command(command: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A setting without its name, unit or default, or a comment that does not arrive in the help."""
    assert cli.main([command, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"usage: asr {command} ")
    text = words(captured.out)
    for part in parts:
        assert part in text


@pytest.mark.parametrize("command", ["transcribe", "evaluate", "tune", "score", "train", "augment"])
def test_every_setting_is_explained(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A field that was added without a comment is in the help without an explanation."""
    cli.main([command, "--help"])
    text = capsys.readouterr().out
    options = re.findall(r"^[│ ] (--[a-z]\S+.*?)(?=^[│ ] -|^╰|^ *$)", text, re.MULTILINE | re.DOTALL)
    assert len(options) > 2
    self_evident = {"--train.epochs", "--train.seed"}
    for option in options:
        name = option.split()[0].rstrip(",")
        explanation = words(re.sub(r"\((default|required).*", "", option, flags=re.DOTALL))
        assert name in self_evident or len(explanation.split()) >= 4, f"{name} is not explained"


# ---------------------------------------------------------------------------------------- wrong command lines


def test_the_process_ends_with_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose failure no script notices."""
    threshold = gc.get_threshold()
    monkeypatch.setattr(cli, "main", lambda: 3)
    try:
        with pytest.raises(SystemExit) as end:
            cli.run_process()
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
    assert end.value.code == 3


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip of the pen that is answered with a list to read, or a traceback."""
    assert cli.main(["transcrbe", "x.wav"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    expected = f"Expected one of: {', '.join(cli.COMMANDS)}."
    assert captured.err == f"error: unknown command 'transcrbe'. Did you mean transcribe? {expected}\n"
    cli.main(["7"])
    assert capsys.readouterr().err == f"error: unknown command '7'. {expected}\n"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["transcribe", "x.wav", "--model", "m", "--batchs", "3"], ["--batchs", "Did you mean", "--batch-s"]),
        (["train", "x", "--dev", "y", "--learning-rate", "3"], ["--train.learning-rate"]),
        (["evaluate", "x.jsonl"], ["error: missing: --model. `asr evaluate --help`"]),
        (["transcribe", "x.wav", "--model", "m", "--batch-s", "ten"], ["--batch-s", "'ten'"]),
        (["transcribe", "x.wav", "--model", "m", "--format", "xml"], ["--format xml: unknown. Expected txt"]),
        (["evaluate", "--model", "m"], ["error: missing: MANIFEST. `asr evaluate --help`"]),
        (["score", "ref.txt"], ["error: missing: HYP. `asr score --help`"]),
        (["transcribe", "--model", "m"], ["error: no file to transcribe. Expected audio files, folders"]),
    ],
)  # fmt: skip
def test_wrong_options(arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An option that is ignored, or an answer that does not name it and its neighbours."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in captured.err
    assert captured.err.count("\n") == 1


# ------------------------------------------------------------------------------------------- how commands end


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ModelError("m: broken.\n  More\n of it."), 2, "error: m: broken. More of it."),
        (Interrupted("stopped, and saved."), 130, "error: stopped, and saved."),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"), 2,
            "error: runs/x: No space left on device. Free some space, or write to another folder.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "runs/x"), 2,
            "error: runs/x: Permission denied. Choose another file or folder.",
        ),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_a_status(
    error: BaseException,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A traceback for what a user can fix, a message over many lines, or a failure that exits with 0."""

    def fail() -> int:
        raise error

    assert guarded(monkeypatch, fail) == status
    assert capsys.readouterr() == ("", line + "\n")


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of the package reported as the user's error, without a traceback."""

    def fail() -> int:
        raise OSError(errno.ECONNREFUSED, "Connection refused")

    with pytest.raises(OSError, match="refused"):
        guarded(monkeypatch, fail)


def test_every_error_has_a_failing_status() -> None:
    """A new kind of error that exits with 0."""
    kinds = [AsrError, *AsrError.__subclasses__()]
    assert len(kinds) > 6
    assert all(kind.exit_status > 1 for kind in kinds)


def test_progress_is_left_out_where_nobody_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log file full of a thousand progress lines; and a handler that is not removed and prints twice."""

    def run() -> int:
        log = logging.getLogger("asr")
        log.info("1 of 2", extra={"transient": True})
        log.info("done")
        log.warning("odd")
        return 0

    for _ in range(2):
        assert guarded(monkeypatch, run) == 0
        assert capsys.readouterr().err == "done\nwarning: odd\n"


def test_progress_once_a_minute_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A batch job's log that shows nothing for hours, or a line every second."""
    log = logging.getLogger("asr")
    now = 1000.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)

    def run() -> int:
        nonlocal now
        for second in range(150):
            now = 1000.0 + second
            log.info("second %d", second, extra={"transient": True})
        return 0

    assert guarded(monkeypatch, run) == 0
    assert capsys.readouterr().err == "second 60\nsecond 120\n"


def test_progress_line_is_removed_before_results() -> None:
    """A transcript that begins with half a progress line, in a terminal that shows both."""
    code = (
        "import logging, types; from asr import cli; from asr.console import print_result\n"
        "log = logging.getLogger('asr')\n"
        "def run(words, arguments):\n"
        "    log.info('progress', extra={'transient': True}); print_result('text')\n"
        "    log.info('progress', extra={'transient': True}); return 0\n"
        "cli.COMMANDS['score'] = types.SimpleNamespace(run=run); cli.main(['score'])"
    )
    master, slave = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=slave, stderr=slave) as process:
        process.wait()
    os.close(slave)
    shown = os.read(master, 10000).decode()
    os.close(master)
    clear = "\r\x1b[K"
    assert shown == f"{clear}progress{clear}text\r\n{clear}progress{clear}"


def test_only_one_of_several_processes_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under torchrun on eight cards, eight times the same result."""
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------------ pipes and signals


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which $ASR is the command."""
    environment = {**os.environ, "ASR": " ".join(ASR), **variables}
    line = ["bash", "-c", command]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_reader_that_leaves_early(tmp_path: Path) -> None:
    """`asr … | head -1` that ends in a traceback about a broken pipe, or in one of Python's at exit."""
    for command in ("--help", "score --help"):
        result = shell(f"$ASR {command} | true; echo ${{PIPESTATUS[0]}}")
        assert (result.stdout, result.stderr) == ("141\n", "")


def test_output_on_a_full_disk() -> None:
    """A result that is lost silently: Python alone reports it only at exit, if at all."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    result = shell("$ASR --help > /dev/full")
    assert result.returncode == 2
    assert (
        result.stderr
        == "error: the output: No space left on device. Free some space, or write to another folder.\n"
    )


def test_closed_output() -> None:
    """A job scheduler that gives no stdout or stderr: errors must not land among the results, or crash."""
    assert shell("$ASR --help >&-").returncode == 0
    result = shell("$ASR nonsense 2>&-")
    assert (result.returncode, result.stdout) == (2, "")


def test_no_stdin_is_needed(tones: Any) -> None:
    """A command in a loop over a list (`while read`) that swallows the list; one real run as a process."""
    command = '$ASR transcribe "$FILE" --model "$MODEL" <&-'
    result = shell(command, FILE=tones.files[0], MODEL=str(tones.model))
    assert (result.returncode, result.stdout) == (0, "ab c\n")
    assert result.stderr.startswith("1 of 1 recordings, 0.6 s of audio in ")


def test_ctrl_c_while_transcribing(tones: Any) -> None:
    """A traceback of fifty lines after Ctrl-C, or results that were ready and are lost."""
    code = (
        # A shell that starts a job in the background lets it, and so this process, ignore Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys, time; from asr import cli; from asr.recognition import recognise\n"
        "read = recognise.read_audio\n"
        "def slow(path, *arguments, **more):\n"
        "    time.sleep(3 if path.stem == 't1' else 0); return read(path, *arguments, **more)\n"
        "recognise.read_audio = slow; sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ["transcribe", *tones.files[:2], "--model", str(tones.model), "--batch-s", "0.01"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ab c\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == "error: interrupted\n"


# ---------------------------------------------------------------------------------------------------- recipes


RECIPE = '''"""A recipe for the test."""
from dataclasses import dataclass
from asr.cli import recipe
from asr.errors import DataError

@dataclass(frozen=True)
class Config:
    """Settings."""
    epochs: int = 3  # rounds

def main(config):
    if config.epochs > 9:
        raise DataError("too many.")
    return f"epochs {config.epochs}"

recipe(main, Config(epochs=5))
'''


def test_recipes_run_in_the_same_frame(tmp_path: Path) -> None:
    """A recipe whose own defaults, overrides, help or errors are not those of the commands."""
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, str(path), *arguments]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return result.returncode, result.stdout, result.stderr

    assert run() == (0, "epochs 5\n", "")
    assert run("--epochs", "7") == (0, "epochs 7\n", "")
    assert run("--epochs", "10") == (2, "", "error: too many.\n")
    status, out, err = run("--epoch", "10")
    assert (status, out) == (2, "")
    assert "--epochs" in err
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    assert "A recipe for the test." in out
    assert "rounds (default: 5)" in words(out)
