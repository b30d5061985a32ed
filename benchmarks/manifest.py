"""What a manifest of millions of utterances costs: its conversion to Arrow, and the start of a training.

A synthetic manifest is made: lengths and characters a second of LibriSpeech, words of random letters, and
recordings in tar files of 20,000 s. All tar files are links to one with a single recording, so that batches
can be read.
Each row is a process of its own:

  make         the JSON Lines are written
  convert      asr corpus convert --to arrow --normalizer english: lines are checked, transcripts normalised
  open         the manifest is read (JSONL) or mapped (Arrow), and the last utterance is looked at
  first batch  a training with default settings from the start of the process to its first batch of waveforms

  seconds      of wall time; in brackets those that the processor worked
  memory       most that the process held itself; with the pages of the mapped file, which the system may take
               back

python benchmarks/manifest.py [--utterances 1000000 --forms jsonl arrow --folder DIR]
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from conditions import describe_machine
from sampler import QUANTILES, TOKENS_A_SECOND

from asr.batching.batches import Batch, BatchConfig, Batches
from asr.batching.sampler import Plan
from asr.cli import recipe
from asr.manifests.arrow import ArrowManifest, write_arrow
from asr.manifests.manifest import read_manifest
from asr.training.config import TrainConfig
from asr.training.recogniser import Settings, train_recogniser

_TAR_S = 20_000.0
_RATE = 16_000


@dataclass(frozen=True)
class Options:
    """What is measured."""

    utterances: int = 1_000_000
    forms: tuple[str, ...] = ("jsonl", "arrow")
    folder: Path | None = None  # for the files, which stay there; None: a temporary one
    row: str = ""  # internal: step, manifest, and when the process was started


def main(options: Options) -> str:
    """Measure and report."""
    if options.row:
        step, manifest, began = json.loads(options.row)
        return measure(step, Path(manifest), began)
    print(describe_machine(), f"{options.utterances:,} utterances", sep="\n", flush=True)
    print(f"{'':22}{'seconds':>18}{'memory':>10}{'with mapped pages':>20}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        make(folder, options.utterances)
        steps = [(step, form) for form in options.forms for step in ("convert", "open", "first batch")]
        for step, form in steps:
            manifest = folder / f"manifest.{form}"
            if step == "convert" and (form == "jsonl" or manifest.exists()):
                continue
            row = json.dumps([step, str(manifest), time.time()])
            done = subprocess.run(
                [sys.executable, __file__, "--row", row], check=True, stdout=subprocess.PIPE, text=True
            )
            print(f"{f'{step}, {form}':22}{done.stdout.splitlines()[-1]}", flush=True)
        sizes = [
            f"{path.name} {path.stat().st_size / 1e9:.2f} GB" for path in sorted(folder.glob("manifest.*"))
        ]
    return f"on the disk: {', '.join(sizes)}"


def make(folder: Path, utterances: int) -> None:
    """Write the manifest, the tar files and a dev set of 100 utterances."""
    if (folder / "dev.jsonl").exists():
        return
    began, worked = time.perf_counter(), time.process_time()
    rng = np.random.default_rng(1)
    (folder / "tars").mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "a.wav", 0.01 * rng.standard_normal(round(17.3 * _RATE)), _RATE)
    with tarfile.open(folder / "tars" / "one.tar", "w") as tar:
        tar.add(folder / "a.wav", "a.wav")
    with tarfile.open(folder / "tars" / "one.tar") as tar:
        (member,) = tar
    part = f"{member.offset_data}:{member.size}"
    words = ["".join(rng.choice(list("etaoinshrdlu"), 1 + rng.poisson(3.5))) for _ in range(20_000)]
    text = " ".join(rng.choice(words, 200_000))
    seconds = np.interp(rng.random(utterances), np.linspace(0, 1, len(QUANTILES)), QUANTILES).round(3)
    starts = rng.integers(0, len(text) - 300, utterances)
    tars = (np.cumsum(seconds) // _TAR_S).astype(int)
    for number in range(tars[-1] + 1):
        (folder / "tars" / f"{number:06d}.tar").symlink_to("one.tar")
    for name, count in (("manifest.jsonl", utterances), ("dev.jsonl", 100)):
        with (folder / name).open("w") as file:
            for number, (duration, start, tar) in enumerate(zip(seconds[:count], starts, tars, strict=False)):
                words_said = text[start : start + int(TOKENS_A_SECOND * duration)].strip()
                file.write(
                    f'{{"id": "{number // 1000}-{number // 25}-{number % 25:04d}", '
                    f'"audio_filepath": "tars/{tar:06d}.tar:{part}", "duration": {duration}, '
                    f'"text": "{words_said}", "speaker": "{number // 1000}"}}\n'
                )
    took, cpu = time.perf_counter() - began, time.process_time() - worked
    print(f"{'make':22}{f'{took:.1f} ({cpu:.1f})':>18}", flush=True)


def measure(step: str, manifest: Path, began: float) -> str:
    """One row."""
    memory = Memory()
    if step == "convert":
        write_arrow(manifest.with_suffix(".jsonl"), manifest, "english")
    else:
        in_arrow = manifest.suffix == ".arrow"
        utterances = ArrowManifest([manifest]) if in_arrow else read_manifest(manifest)
        if step == "first batch":
            load = Batches.load

            def stop_at_first(batches: Batches, plan: Plan) -> Iterator[Batch]:
                for batch in load(batches, plan):
                    print(memory.row(began) + f"  ({len(batch.ids)} utterances)", flush=True)
                    os._exit(0)

            Batches.load = stop_at_first  # type: ignore[method-assign, assignment]
            with tempfile.TemporaryDirectory() as folder:
                train = TrainConfig(run_dir=Path(folder), device="cpu", updates=1)
                settings = Settings(batch=BatchConfig(cache_dir=None), train=train)
                train_recogniser(utterances, read_manifest(manifest.with_name("dev.jsonl")), settings)
        print(utterances[-1].id)
    return memory.row(began)


class Memory:
    """The most memory that this process has had, looked at ten times a second."""

    def __init__(self) -> None:
        self.own = self.all = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(0.1)

    def look(self) -> None:
        """See what it is now."""
        status = Path("/proc/self/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        own, mapped = (int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
        self.own, self.all = max(self.own, own), max(self.all, own + mapped)

    def row(self, began: float) -> str:
        """What is printed."""
        self.look()
        took = f"{time.time() - began:.1f} ({time.process_time():.1f})"
        return f"{took:>18}{self.own / 1e9:7.2f} GB{self.all / 1e9:17.2f} GB"


if __name__ == "__main__":
    recipe(main, Options())
