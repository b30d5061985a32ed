"""What goes wrong in real trainings: running out of memory, Ctrl-C, and runs that should be the same.

out_of_memory: an epoch with all memory, then the same with less than its peak. Batches have to be halved, and
  the loss has to stay the same.
repeated: two runs of `asr train --train.deterministic`; their weights should have the same bits.
interrupted: the same run stopped by SIGINT after its first update and resumed; its weights, too.
"""

import gc
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from asr.errors import AsrError
from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance
from asr.training.recogniser import train_recogniser
from benchmarks.gpu.part import Part
from benchmarks.gpu.speech import load_speech, settings_for

UTTERANCES, BATCH_S = 96, 100.0  # about 20 minutes of speech
QUICK = "--model.width 16 --model.depth 1 --model.channels 4 --batch.seconds 10"
EPOCHS = 4
INTERRUPTED = 130  # exit status


def run(part: Part) -> None:
    """Provoke each; one that fails does not stop the others."""
    utterances, dev = load_speech(part)
    utterances, dev = utterances[:UTTERANCES], dev[:8]
    for name, provoke in (("out_of_memory", _provoke_out_of_memory), ("same_bits", _compare_runs)):
        try:
            part.record(**{name: provoke(part, utterances, dev)})
        except (AsrError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            part.record(**{name: {"error": f"{type(error).__name__}: {error}"[:400]}})


def _compare_runs(part: Part, utterances: Sequence[Utterance], dev: Sequence[Utterance]) -> dict[str, Any]:
    folder = part.scratch("faults")
    write_manifest(folder / "train.jsonl", utterances)
    write_manifest(folder / "dev.jsonl", dev)
    one, other, stopped = (_start(part, folder, name) for name in ("one", "other", "stopped"))
    metrics = folder / "stopped" / "metrics.jsonl"
    while stopped.poll() is None and '"updates"' not in _text(metrics):
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    statuses = {"stopped": stopped.wait(part.left_s)}
    statuses["resumed"] = _start(part, folder, "stopped", "--train.resume").wait(max(part.left_s, 1))
    statuses |= {"one": one.wait(max(part.left_s, 1)), "other": other.wait(max(part.left_s, 1))}
    logs = {name: _text(folder / f"{name}.log").splitlines()[-6:] for name in ("one", "other", "stopped")}
    result: dict[str, Any] = {
        "exit_statuses": statuses,
        "stopped_in_time": statuses["stopped"] == INTERRUPTED,
        "resumed": "resuming in epoch" in _text(folder / "stopped.log"),
    }
    if statuses["one"] or statuses["other"] or statuses["resumed"]:
        return {**result, "logs": logs}
    weights = {name: load_file(folder / name / "last.safetensors") for name in ("one", "other", "stopped")}
    for name, label in (("other", "repeated_differs_by"), ("stopped", "resumed_differs_by")):
        result[label] = max(
            float((weights["one"][key] - tensor).abs().max()) for key, tensor in weights[name].items()
        )
    return result


def _start(part: Part, folder: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    """A training in a separate process: small, deterministic, with a checkpoint's worth of epochs."""
    shape = shlex.split(QUICK if part.settings.quick else f"--batch.seconds {BATCH_S:g}")
    command = [
        sys.executable, "-m", "asr", "train", str(folder / "train.jsonl"), "--dev", str(folder / "dev.jsonl"),
        "--train.run-dir", str(folder / name), "--train.device", part.settings.device,
        "--train.deterministic",
        "--train.epochs", str(EPOCHS), "--train.log-every-s", "0", "--train.precision", "float32",
        "--batch.cache-dir", str(folder / "features"), "--augment.speeds", "1.0", *shape, *more,
    ]  # fmt: skip
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ)


def _provoke_out_of_memory(
    part: Part, utterances: Sequence[Utterance], dev: Sequence[Utterance]
) -> dict[str, Any]:
    """Train one epoch with all memory and one with two thirds of what it took."""
    if not part.cuda:
        return {"skipped": "memory can only be limited on a GPU"}
    settings = settings_for(
        part, "plenty", 10 * BATCH_S, None, epochs=1, log_every_s=0.0, precision="float32"
    )
    torch.cuda.reset_peak_memory_stats()
    train_recogniser(utterances, dev, settings)
    peak = torch.cuda.max_memory_reserved()
    gc.collect()
    torch.cuda.empty_cache()
    halved = _Halvings()
    logging.getLogger("asr").addHandler(halved)
    total = torch.cuda.get_device_properties(part.settings.device).total_memory
    torch.cuda.set_per_process_memory_fraction(0.66 * peak / total)
    try:
        short = replace(settings, train=replace(settings.train, run_dir=part.scratch("runs") / "short"))
        train_recogniser(utterances, dev, short)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        logging.getLogger("asr").removeHandler(halved)
    losses = [_loss(run.train.run_dir / "metrics.jsonl") for run in (settings, short)]
    return {
        "peak_gib": round(peak / 2**30, 2),
        "halvings": len(halved.messages),
        "message": halved.messages[:1],
        "epoch_losses": losses,
    }


class _Halvings(logging.Handler):
    """Collects the log messages about batches that did not fit."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "out of memory" in record.getMessage():
            self.messages.append(record.getMessage()[:300])


def _loss(metrics: Path) -> float | None:
    """The training loss of the last epoch."""
    rows = [json.loads(line) for line in _text(metrics).splitlines()]
    return next((row["train_loss"] for row in reversed(rows) if row["event"] == "epoch"), None)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
