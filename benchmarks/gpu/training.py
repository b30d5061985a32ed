"""A training of some minutes on the given speech, which ends with a `%WER` and leaves the model.

`asr train` and `asr evaluate` in separate processes, as a user calls them. Characters, decoded greedily.
"""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from asr.manifests.manifest import write_manifest
from asr.manifests.utterance import Utterance
from asr.training.config import TrainConfig
from asr.training.metrics import METRICS
from benchmarks.gpu.part import Part, part_file, read_json
from benchmarks.gpu.speech import cache_folder, load_speech

EVALUATION_S = 25.0  # kept for scoring and for writing the model
BATCH_S = 200.0
GUESSED_RATE, START_S = 2000.0, 15.0  # audio-s/s where nothing was measured; seconds until the first update

# Some dozens of passes over five hours. 30 ms a step, since at 40 ms fast speech has hardly more steps than
# letters (recipes/mini_librispeech.py).
RECIPE = (
    "--model.width 320 --model.depth 4 --model.dropout 0.2 --model.subsampling 3 "
    f"--augment.time-masks-per-s 0.3 --augment.mel-mask-bands 6 --batch.seconds {BATCH_S:g} "
    "--train.learning-rate 2e-3"
)
QUICK = "--model.width 16 --model.depth 1 --model.channels 4 --batch.seconds 20 --augment.speeds 1.0"
QUICK_EPOCHS = 2


def run(part: Part) -> None:
    """Train, score, keep the model."""
    utterances, dev = load_speech(part)
    folder = part.scratch("training")
    write_manifest(folder / "train.jsonl", utterances)
    write_manifest(folder / "dev.jsonl", dev)
    quick = part.settings.quick
    seconds = min(60 * part.settings.minutes, part.left_s - EVALUATION_S - START_S)
    run_dir = folder / "run"
    command = [
        sys.executable, "-m", "asr", "train", str(folder / "train.jsonl"), "--dev", str(folder / "dev.jsonl"),
        "--train.run-dir", str(run_dir), "--train.device", part.settings.device, "--train.log-every-s", "2",
        "--batch.cache-dir", str(cache_folder(part)), *shlex.split(QUICK if quick else RECIPE),
        *_schedule(part, utterances, seconds), *shlex.split(part.settings.asr_args),
    ]  # fmt: skip
    part.record(command=shlex.join(command[1:]), seconds=round(seconds))
    began = time.monotonic()
    process = subprocess.Popen(command)
    try:
        status = process.wait(max(part.left_s - EVALUATION_S, 1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # saves, and leaves the best model so far
        status = process.wait(EVALUATION_S / 2)
    part.record(exit_status=status, training_s=round(time.monotonic() - began, 1), **_pace(run_dir / METRICS))
    if (run_dir / METRICS).exists():
        shutil.copy(run_dir / METRICS, part.out / "training.metrics.jsonl")
    _evaluate(part, folder, run_dir / "model.safetensors")


def _schedule(part: Part, utterances: Sequence[Utterance], seconds: float) -> list[str]:
    """How long to train."""
    if part.settings.quick:
        return ["--train.epochs", str(QUICK_EPOCHS)]
    if "minutes" in {field.name for field in fields(TrainConfig)}:
        return ["--train.minutes", f"{seconds / 60:.3f}"]
    measured = read_json(part_file(part.out, "throughput")).get("results", {}).get("training", [])
    rates = [row["audio_s_per_s"] for row in measured if row["batch_s"] <= 2 * BATCH_S]
    audio_s = sum(utterance.duration for utterance in utterances)
    rate = min(rates) if rates else GUESSED_RATE
    return [
        "--train.epochs",
        str(max(int(0.8 * seconds * rate / audio_s), 1)),
        "--train.max-hours",
        f"{seconds / 3600:.5f}",
    ]


def _pace(metrics: Path) -> dict[str, Any]:
    """Epochs, seconds of one, and the speed, from what the run has written."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    epochs = [row for row in rows if row["event"] == "epoch"]
    speeds = sorted(row["audio_s_per_s"] for row in rows if row["event"] == "updates")
    waits = sorted(row["waiting_share"] for row in rows if row["event"] == "updates")
    if not epochs:
        return {"epochs": 0}
    return {
        "epochs": len(epochs),
        "updates": epochs[-1]["update"],
        "epoch_s": round(epochs[-1]["training_s"] / len(epochs), 2),
        "audio_s_per_s": round(speeds[len(speeds) // 2]) if speeds else None,
        "waiting_share": round(waits[len(waits) // 2], 4) if waits else None,
        "dev": [
            {key: row.get(key) for key in ("epoch", "train_loss", "dev_loss", "dev_wer", "dev_per")}
            for row in epochs[-3:]
        ],
    }


def _evaluate(part: Part, folder: Path, model: Path) -> None:
    if not model.exists():
        part.record(wer=None, error="no epoch was finished, so there is no model")
        return
    shutil.copy(model, part.out / "model.safetensors")
    command = [
        sys.executable, "-m", "asr", "evaluate", str(folder / "dev.jsonl"), "--model", str(model),
        "--device", part.settings.device, "--batch-s", "20" if part.settings.quick else "1200",
    ]  # fmt: skip
    began = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=max(part.left_s, 1))
    print(result.stdout, result.stderr)
    line = next((line for line in result.stdout.splitlines() if "%WER" in line), None)
    rate = re.search(r"%WER\s+([\d.]+)", line or "")
    part.record(
        wer_line=line,
        wer=float(rate.group(1)) if rate else None,
        evaluation_s=round(time.monotonic() - began, 1),
    )
    if result.returncode:
        part.record(evaluation_error=result.stderr.splitlines()[-5:])
