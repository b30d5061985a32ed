"""Several processes, started as torchrun starts them but without the time that it takes itself."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from asr.training.distributed import Process

PROJECT = Path(__file__).parents[2]

SCRIPT = """
import os, signal, sys
from pathlib import Path
from asr.errors import AsrError, DataError
from asr.training.distributed import processes

mode, rank = sys.argv[1], int(os.environ["RANK"])
try:
    with processes("cpu") as process:
        assert process.gather(rank) == [0, 1]
        if rank == 1 and mode == "raise":
            raise DataError("the disk is on fire")
        if rank == 1 and mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        process.gather("again")
except AsrError as error:
    print(type(error).__name__, error)
    sys.exit(error.exit_status)
tasks = Path("/proc/self/task")
names = [(task / "comm").read_text().strip() for task in tasks.iterdir()] if tasks.exists() else []
print([name for name in names if "gloo" in name])
"""


def run_two(mode: str) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, mode],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    results = []
    for rank in ranks:
        output, errors = rank.communicate(timeout=240)
        results.append((rank.returncode, output, errors))
    return results


def test_no_thread_outlives_the_group() -> None:
    """Guards the end of a run against SIGABRT, by a thread of gloo that outlives the interpreter."""
    for status, output, errors in run_two("well"):
        assert (status, output) == (0, "[]\n"), errors


@pytest.mark.parametrize("mode", ["raise", "kill"])
def test_a_dead_process_ends_the_others(mode: str) -> None:
    """Guards against waiting forever: one fails by itself, the other by a lost connection; both end."""
    (status, output, errors), (other_status, other_output, _) = run_two(mode)
    assert status == 2, errors
    assert output.startswith("TrainingError 2 processes trained together, and one has ended too early")
    assert len(output.splitlines()) == 1
    if mode == "raise":
        assert (other_status, other_output) == (2, "DataError the disk is on fire\n")
    else:
        assert other_status == -9


def test_sums_keep_names_and_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the one message of an update: a value that comes back under another name or in another shape."""
    monkeypatch.setattr(dist, "all_reduce", lambda message: message.mul_(2))
    values = {"loss": torch.tensor(1.5), "statistics": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    sums = Process(0, 2, torch.device("cpu")).sums(values | {"none": torch.zeros(0, 2)})
    assert sums["loss"] == 3
    assert sums["statistics"].tolist() == [[2, 4], [6, 8]]
    assert sums["none"].shape == (0, 2)
