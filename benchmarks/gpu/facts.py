"""Facts: which GPU, driver, versions, cores and memory the figures are of."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import asr
from asr.device import usable_cores
from benchmarks.conditions import describe_machine
from benchmarks.gpu.part import Part

PACKAGES = ("torch", "torchaudio", "triton", "numpy", "numba", "soundfile", "tyro", "speechbrain")
GIB = 2**30


def run(part: Part) -> None:
    """Collect the facts."""
    part.record(
        asr=asr.__version__,
        commit=_output("git", "rev-parse", "--short", "HEAD") or _packed_commit(),
        python=platform.python_version(),
        system=platform.platform(),
        packages={name: _version(name) for name in PACKAGES},
        usable_cores=usable_cores(),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        shared_memory_gib=_free_gib(Path("/dev/shm")),
        disk_free_gib=_free_gib(part.out),
        environment={
            name: value for name, value in os.environ.items() if name.startswith(("OMP_", "PYTORCH_"))
        },
        torch_cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        cuda_available=torch.cuda.is_available(),
    )
    if part.cuda:
        part.record(gpu=_gpu(part.settings.device))
    part.record(machine=describe_machine())


def _gpu(device: str) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    fields = (
        "name,driver_version,pstate,clocks.max.sm,power.limit,temperature.gpu,compute_mode,mig.mode.current"
    )
    return {
        "name": properties.name,
        "count": torch.cuda.device_count(),
        "memory_gib": round(properties.total_memory / GIB, 1),
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "l2_mib": getattr(properties, "L2_cache_size", 0) / 2**20,
        "bf16": torch.cuda.is_bf16_supported(),
        "nvidia_smi": _output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"),
    }


def _packed_commit() -> str | None:
    """The commit that was packed, for a machine that has no git."""
    file = Path(__file__).parent / "bundle" / "commit"
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _free_gib(folder: Path) -> float | None:
    return round(shutil.disk_usage(folder).free / GIB, 1) if folder.is_dir() else None


def _output(*command: str) -> str | None:
    """What a command prints; None where it cannot be run."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
