"""`asr stream`: a pipe or a microphone in, lines out."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asr.frontend.microphone import Microphone

Run = Callable[..., tuple[int, str, str]]

FAST = ("--vad", "energy", "--chunk-s", "0.16", "--right-context-s", "0.32")


def recording(tones: Any) -> NDArray[np.float32]:
    """Two utterances."""
    pause = 1e-3 * np.random.default_rng(9).standard_normal(16_000).astype(np.float32)
    return np.concatenate([tones.sound("ab c a b"), pause, tones.sound("cab bca", seed=1), pause])


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))


def letters(line: str) -> str:
    return line.replace(" ", "")


def test_pcm_and_wav_from_a_pipe(
    tones: Any, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Guards the form of the samples, and a line for each utterance and nothing else."""
    samples = recording(tones)
    pipe(monkeypatch, (32767 * samples).astype("<i2").tobytes())
    status, out, err = run("stream", "-", "--model", tones.model, *FAST)
    assert (status, letters(out)) == (0, "abcab\ncabbca\n")
    assert "ab" not in err  # partial results are for a terminal
    both = np.stack([samples, samples], axis=1).astype("<f8")
    pipe(monkeypatch, both.tobytes())
    options = ("--pcm.samples", "f64le", "--pcm.channels", "2")
    status, out, _ = run("stream", "-", "--model", tones.model, *FAST, *options)
    assert (status, letters(out)) == (0, "abcab\ncabbca\n")


def test_json(tones: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what programs read: partial results whose stable part only grows, final ones with times."""
    pipe(monkeypatch, (32767 * recording(tones)).astype("<i2").tobytes())
    status, out, _ = run("stream", "-", "--model", tones.model, "--format", "json", *FAST)
    rows = [json.loads(line) for line in out.splitlines()]
    finals = [row for row in rows if row["final"]]
    assert status == 0
    assert [letters(row["text"]) for row in finals] == ["abcab", "cabbca"]
    assert finals[1]["words"][0].keys() == {"word", "start", "end", "confidence"}
    assert 2.0 < finals[1]["words"][0]["start"] < 2.6
    assert all(row["text"].startswith(row["stable"]) for row in rows if not row["final"])
    assert len(rows) > 4


def test_ctrl_c_ends_the_stream(tones: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the last utterance before Ctrl-C, which ends a microphone: it is printed, with status 0."""

    def blocks(self: Microphone) -> Iterator[NDArray[np.float32]]:
        yield tones.sound("ab c a b")
        raise KeyboardInterrupt

    def no_device(self: Microphone, name: str) -> None:
        self.name, self.sample_rate = name, 16_000

    monkeypatch.setattr(Microphone, "__init__", no_device)
    monkeypatch.setattr(Microphone, "blocks", blocks)
    status, out, err = run("stream", "--model", tones.model, "--microphone", "Desk", *FAST)
    assert (status, letters(out)) == (0, "abcab\n")
    assert "listening to Desk" in err


def test_a_terminal_shows_the_text_so_far(tones: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the end of a long text, which is what changes, against being cut off at the terminal's width."""
    from asr.cli import main

    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(
        "asr.commands.stream.run",
        lambda settings: (
            logging.getLogger("asr").info(
                "one two three four five six", extra={"transient": True, "live": True}
            )
            or iter(["done"])
        ),
    )
    assert main(["stream", "-"]) == 0
    assert "\r\x1b[K…hree four five six" in terminal.getvalue()


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        (["-"], b"", "the standard input is empty"),
        (
            ["talk.wav"],
            b"",
            "talk.wav: a stream comes from the microphone (nothing) or the standard input (-)",
        ),
        (["-", "--pcm.rate", "16"], b"", "--pcm.rate must be in 1000..768000 Hz. Got 16."),
        (["-", "--threads", "0"], b"", "--threads must be at least 1. Got 0."),
        (["-", "--chunk-s", "-1"], bytes(64), "--chunk-s must be at least 0 seconds. Got -1."),
        (["-", "--model", "nonsense"], bytes(64), "nonsense: no such model"),
    ],
)
def test_unusable(
    arguments: list[str], data: bytes, message: str, tones: Any, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the one line and the status of each error."""
    pipe(monkeypatch, data)
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(tones.model)]
    status, out, err = run("stream", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
