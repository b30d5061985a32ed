"""Where a model comes from: enough to make it again, stored inside it."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import asr


def provenance() -> dict[str, Any]:
    """The command, versions, commit, machine and date of this run; no commit outside a clone."""
    return {
        "command": shlex.join(sys.argv),
        "asr": asr.__version__,
        "commit": git_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_commit() -> str:
    """The short commit of the clone that this runs from, with a plus for changes; "" outside a clone."""
    folder = Path(__file__).parent
    try:
        # An installed copy may lie in a repository of somebody else's, which does not track it.
        tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, cwd=folder, capture_output=True, timeout=10, check=True)
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.stdout.strip()
