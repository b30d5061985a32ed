"""`asr serve`: started, answered, ended by Ctrl-C; settings that cannot be used."""

import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="no FastAPI: pip install '.[serve]'")

Run = Callable[..., tuple[int, str, str]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_it_serves_until_ctrl_c(tones: Any, run: Run) -> None:
    """Guards the way from the command to an answer, and an end without a traceback."""
    port, answers = free_port(), []

    def visit() -> None:
        try:
            for _ in range(600):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/about/limits") as answer:
                        answers.append(answer.read())
                    break
                except urllib.error.URLError:
                    time.sleep(0.05)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit)
    visitor.start()
    status, _, err = run("serve", "--model", tones.model, "--port", port, "--threads", 1)
    visitor.join()
    assert status == 0
    assert b'"max_duration_s":3600' in answers[0]
    assert f"serving tones at http://localhost:{port}" in err
    assert "whoever reaches" not in err
    assert err.endswith("stopped\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "--threads must be at least 1. Got 0."),
        (["--port", "70000"], "--port must be in 0..65535. Got 70000."),
        (["--host", "192.0.2.1"], "--host 192.0.2.1 --port 8000: cannot be served"),
        (["--limits.max-jobs", "0"], "--limits.max-jobs must be above 0. Got 0."),
        (["--limits.max-upload-mb", "-1"], "--limits.max-upload-mb must be above 0. Got -1."),
        (["--port", "0", "--model", "nonsense"], "nonsense: no such model"),
    ],
)
def test_unusable(arguments: list[str], message: str, run: Run) -> None:
    """Guards the one line and the status of each error."""
    status, out, err = run("serve", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_port_in_use(run: Run) -> None:
    """Guards a second service on the same port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, _, err = run("serve", "--port", port)
    assert status == 2
    assert f"--port {port}: cannot be served: Address already in use" in err


def test_without_its_packages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the line that says what to install."""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in [name for name in sys.modules if name.startswith(("asr.serve", "asr.commands.serve"))]:
        monkeypatch.delitem(sys.modules, name)
    status, _, err = run("serve")
    assert (status, err) == (
        2,
        "error: asr serve needs FastAPI and uvicorn: pip install 'asr-rnn[serve]'\n",
    )
