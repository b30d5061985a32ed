"""Run the parts of the kit one after the other, each in a separate process with a separate time limit."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import KitSettings, part_file, read_json, write_json
from benchmarks.gpu.report import markdown

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WHEELS = HERE / "bundle" / "wheels"


@dataclass(frozen=True)
class Planned:
    """A part in the kit's order."""

    module: str  # in this package; has run(part)
    weight_s: float  # its share of the budget, in seconds of the default budget
    answers: str  # for the README and the progress lines


TRAINING_OVERHEAD_S = 50.0  # of the part `training`, around the training itself

# In the order of their value: when time is short, the last ones lose.
PARTS: dict[str, Planned] = {
    "facts": Planned("facts", 30, "which GPU, driver, versions, cores, memory"),
    "tests": Planned("correctness", 60, "do the gpu tests pass"),
    "throughput": Planned("throughput", 80, "audio-s/s of real training, waiting, memory, syncs, profile"),
    "recurrent": Planned("recurrent", 60, "which arrangement of two directions is fastest, for every cell"),
    "training": Planned(
        "training", 240 + TRAINING_OVERHEAD_S, "which %WER after some minutes; leaves the model"
    ),
    "peers": Planned("peers", 25, "packed nn.LSTM, speechbrain's block, GEMM peak"),
    "faults": Planned("faults", 45, "out of memory, Ctrl-C and resume, deterministic twice"),
    "loader": Planned("loader", 28, "audio-s/s of the loader alone, cached and not"),
}
GRACE_S = 5.0  # between a part's deadline, which it sees itself, and its end by force


def run_kit(settings: KitSettings, names: Sequence[str], budget_s: float) -> dict[str, Any]:
    """Run parts; after each, results.json and report.md in the output folder are complete.

    Args:
        settings: for all parts.
        names: of the parts, in their order.
        budget_s: seconds for all. A part gets its share of what is left, so that time that earlier parts did
            not need goes to the later ones.

    Returns:
        What results.json holds.
    """
    out = Path(settings.out)
    (out / "logs").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "scratch", ignore_errors=True)  # of a kit that was ended by force
    end = time.monotonic() + budget_s
    environment = _environment(out)
    weights = {name: 1.0 if settings.quick else PARTS[name].weight_s for name in names}
    if "training" in weights and not settings.quick:
        weights["training"] = 60 * settings.minutes + TRAINING_OVERHEAD_S
    combined: dict[str, Any] = {"settings": asdict(settings), "budget_s": budget_s, "parts": {}}
    for index, name in enumerate(names):
        left_s = end - time.monotonic()
        limit_s = max(left_s * weights[name] / sum(weights[other] for other in names[index:]), 2 * GRACE_S)
        print(f"{name}: {PARTS[name].answers} (at most {limit_s:.0f} s)", flush=True)
        entry = run_part(name, settings, limit_s, environment)
        combined["parts"][name] = entry
        write_json(out / "results.json", combined)
        (out / "report.md").write_text(markdown(combined), encoding="utf-8")
        print(f"{name}: {entry['status']} after {entry['seconds']:.0f} s", flush=True)
        if settings.device != "cpu" and entry["results"].get("cuda_available") is False:
            print("torch sees no GPU here, so that is all. Check the driver, or use --device cpu --quick.")
            break
    shutil.rmtree(out / "scratch", ignore_errors=True)
    return combined


def run_part(name: str, settings: KitSettings, limit_s: float, environment: dict[str, str]) -> dict[str, Any]:
    """Run one part to its end, or to the end of its time; its processes do not outlive it."""
    out = Path(settings.out)
    part_file(out, name).unlink(missing_ok=True)  # of an earlier run into the same folder
    log = out / "logs" / f"{name}.log"
    began = time.monotonic()
    deadline = time.time() + limit_s - GRACE_S
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "part",
        name,
        json.dumps(asdict(settings)),
        f"{deadline:.3f}",
    ]
    with log.open("w", encoding="utf-8") as output:
        # A new session, so that everything it starts, loader processes too, can be ended together.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = "done" if process.wait(limit_s) == 0 else f"failed with status {process.returncode}"
        except subprocess.TimeoutExpired:
            status = f"stopped at its limit of {limit_s:.0f} s"
        finally:
            _end_session(process)
    entry = {
        "status": status,
        "seconds": round(time.monotonic() - began, 1),
        "limit_s": round(limit_s, 1),
        "results": read_json(part_file(out, name)).get("results", {}),
    }
    if status != "done":
        entry["log"] = log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:]
    write_json(part_file(out, name), entry)
    return entry


def _end_session(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(out: Path) -> dict[str, str]:
    """The environment of the parts: this project, and from the bundle's wheels what the machine lacks."""
    paths = [str(ROOT)]
    site = (out / "site").absolute()
    for wheel in sorted(WHEELS.glob("*.whl")):
        name = wheel.name.split("-")[0]
        if not _is_installed(name) and not list(site.glob(f"{name}-*.dist-info")):
            zipfile.ZipFile(wheel).extractall(site)  # what pip does, but for scripts
    if site.is_dir():
        paths.append(str(site))
    inherited = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths + ([inherited] if inherited else [])),
        "PYTHONUNBUFFERED": "1",
    }


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
