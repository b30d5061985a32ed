"""Provenance of a model: the command, versions, commit, machine and arithmetic that made it."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import asr
from asr.device import PRECISION_NAMES, Precision, choose_precision

__all__ = ["provenance"]


def provenance(device: torch.device, precision: Precision) -> dict[str, Any]:
    """The command, versions, commit, machine, arithmetic and date of this run; no commit outside a clone.

    Args:
        device: on which the net is trained.
        precision: the setting.

    Raises:
        SettingsError: the device has no such precision.
    """
    return {
        "command": shlex.join(sys.argv),
        "asr": asr.__version__,
        "commit": git_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "precision": PRECISION_NAMES[choose_precision(precision, device)],
        **(gpu_facts(device, precision) if device.type == "cuda" else {}),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def gpu_facts(device: torch.device, precision: Precision) -> dict[str, Any]:
    """What the numbers of a GPU depend on: its model, CUDA, cuDNN, and whether TF32 is on."""
    return {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "tf32": precision == "tf32",
    }


def git_commit() -> str:
    """The short commit of the clone that this runs from, with a plus for changes; "" outside a clone."""
    folder = Path(__file__).parent
    try:
        # An installed copy may be inside an unrelated repository, which does not track it.
        tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, cwd=folder, capture_output=True, timeout=10, check=True)
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.stdout.strip()
