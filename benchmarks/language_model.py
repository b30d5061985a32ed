"""N-gram language models: time and memory to train one on a text of a given size, to load it, and to score.

Each step runs in a separate process, so that memory is that step's alone. Text that is smaller than asked for
is repeated, with a share of its words replaced by others of the text, because plain copies would bring no
new n-grams. Processor time is given too, which other work on the machine changes less.
Peers, where they are installed: kenlm's `lmplz` on the PATH for training, the module `kenlm` for scoring,
from the same ARPA file.

python benchmarks/language_model.py --text FILE... [--megabytes 100] [--order 4]
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from conditions import describe_machine

from asr.cli import recipe
from asr.errors import SettingsError
from asr.lm.ngram.symbols import SymbolTable
from asr.lm.ngram.trie import BOS_ID, EOS_ID
from asr.lm.text_files import read_blocks

# Runs a step with its peak memory: what the process itself holds (anonymous), sampled, and with mapped files.
_STEP = """
import json, sys, threading, time
from pathlib import Path
peak = 0
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines() if sys.platform == "linux" else []
    return max([int(line.split()[1]) for line in lines if line.startswith(name)], default=0)
def watch():
    global peak
    while True:
        peak = max(peak, memory("RssAnon"))
        time.sleep(0.05)
threading.Thread(target=watch, daemon=True).start()
path, text, order, times = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), {}
def clock(name, action):
    began, spent = time.perf_counter(), time.process_time()
    times[name] = (action(), time.perf_counter() - began, time.process_time() - spent)
    return times[name][0]
"""
_TRAIN = """
from asr.lm.ngram.build import NgramConfig, build
counts = clock("train", lambda: build([text], NgramConfig(order=order), path, path.parent).counts)
"""
_LOAD = """
from asr.lm.ngram.model import NgramModel
NgramModel.load(path)  # reads compiled code
counts = clock("load", lambda: NgramModel.load(path).counts)
"""
_SCORE = """
from asr.lm.ngram.model import NgramModel
model, lines = NgramModel.load(path), text.read_text().splitlines()
model.log_probs(lines[0])
clock("score", lambda: sum(len(model.log_probs(line)) for line in lines))
clock("total", lambda: sum(float(model.log_probs(line).sum()) for line in lines))
"""
_KENLM = """
import kenlm
model, lines = kenlm.Model(str(path)), text.read_text().splitlines()
clock("score", lambda: sum(len(list(model.full_scores(line))) for line in lines))
clock("total", lambda: sum(model.score(line) for line in lines) * 2.302585092994046)
"""
_END = """
print(json.dumps({"times": times, "anonymous": max(peak, memory("RssAnon")) * 1024,
                  "resident": memory("VmHWM") * 1024}))
"""


@dataclass(frozen=True)
class Options:
    """What is measured."""

    text: tuple[Path, ...]  # text files, one sentence a line
    megabytes: float | None = None  # size of the training text; None: as it is
    order: int = 4  # length of the longest n-grams
    changed: float = 0.1  # share of the words that are replaced where the text is repeated
    folder: Path | None = None  # where the large files go; None: where the system keeps temporary files
    kenlm: bool = True  # whether kenlm scores too; it reads an ARPA file, which takes time and memory


def main(options: Options) -> str:
    """Measure and print the results."""
    if not options.text:
        raise SettingsError("no --text is given. One text file or more was expected.")
    lines = [describe_machine()]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        text, model, held = Path(folder, "text"), Path(folder, "lm.bin"), Path(folder, "held")
        words = write_text(options, text, held)
        lines.append(f"text: {text.stat().st_size / 1e6:.0f} MB, {words:,} words; order {options.order}")
        step(_TRAIN, model, held, options.order)  # compiles
        done = step(_TRAIN, model, text, options.order)
        counts = done["times"]["train"][0]
        lines.append(f"n-grams: {', '.join(f'{count:,}' for count in counts)}")
        lines.append(table_line("asr, train", done, "train", words))
        lmplz = shutil.which("lmplz")
        if lmplz:
            lines.append(peer_training(lmplz, text, options.order))
        done = step(_LOAD, model, held, options.order)
        lines.append(
            table_line(
                f"asr, load {sum(counts):,} n-grams ({model.stat().st_size / 1e6:.0f} MB)", done, "load"
            )
        )
        done = step(_SCORE, model, held, options.order)
        lines.append(table_line("asr, score", done, "score", done["times"]["score"][0]))
        if options.kenlm:
            lines += peer_scoring(model, held, options.order, done["times"]["total"][0])
    return "\n".join(lines)


def write_text(options: Options, path: Path, held: Path) -> int:
    """The training text, and 1 MB of it to score; the words of the training text."""
    symbols = SymbolTable("word")
    ids = np.concatenate([symbols.encode(block) for block, _, _ in read_blocks(options.text)])
    ids = ids[ids != BOS_ID]
    names = np.array(symbols.names(), dtype=object)
    names[EOS_ID] = "\n"
    draw = np.random.default_rng(0)
    size = words = 0
    with open(path, "w", encoding="utf-8") as file:
        while size == 0 or (options.megabytes and size < options.megabytes * 1e6):
            copy = ids.copy()
            if size:
                other = copy[draw.integers(0, len(copy), len(copy))]
                swap = (copy != EOS_ID) & (other != EOS_ID) & (draw.random(len(copy)) < options.changed)
                copy[swap] = other[swap]
            ends = np.flatnonzero(copy == EOS_ID)
            for first in range(0, len(ends), 10_000):
                part = copy[
                    ends[first - 1] + 1 if first else 0 : ends[min(first + 10_000, len(ends)) - 1] + 1
                ]
                written = " ".join(names[part]).replace(" \n ", "\n").replace(" \n", "\n")
                size += file.write(written)
                words += int((part != EOS_ID).sum())
                if options.megabytes and size >= options.megabytes * 1e6:
                    break
    with open(path, encoding="utf-8") as file:
        held.write_text("".join(file.readlines(1_000_000)), encoding="utf-8")
    return words


def step(code: str, model: Path, text: Path, order: int) -> dict:
    """Run one step in a separate process."""
    command = [sys.executable, "-c", _STEP + code + _END, str(model), str(text), str(order)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def table_line(name: str, done: dict, what: str, words: int = 0) -> str:
    """One line: wall time, processor time, memory, and words per second."""
    _, wall, cpu = done["times"][what]
    speed = f", {words / cpu:,.0f} words/s of processor time" if words else ""
    return (
        f"{name}: {wall:.2f} s, {cpu:.2f} s of processor time; {done['anonymous'] / 1e9:.2f} GB of memory, "
        f"{done['resident'] / 1e9:.2f} GB with mapped files{speed}"
    )


def peer_training(lmplz: str, text: Path, order: int) -> str:
    """lmplz on the same text."""
    with open(text, "rb") as source:
        command = ["/usr/bin/env", "time", "-p", lmplz, "-o", str(order), "-S", "2G", "-T", str(text.parent)]
        result = subprocess.run(
            command, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
        )
    clocks = [
        line for line in result.stderr.decode().splitlines() if line.startswith(("real", "user", "sys"))
    ]
    return f"lmplz, train: {', '.join(clocks)}"


def peer_scoring(model: Path, held: Path, order: int, total: float) -> list[str]:
    """The module kenlm on the same model, and how far its result differs from that of `asr`."""
    arpa = model.with_suffix(".arpa")
    write = (
        "from asr.lm.ngram.model import NgramModel\n"
        "NgramModel.load(path).save(Path(str(path)[:-4] + '.arpa'))"
    )
    step(write, model, held, order)
    try:
        done = step(_KENLM, arpa, held, order)
    except subprocess.CalledProcessError as error:
        return [f"kenlm: not measured ({error.stderr.splitlines()[-1]})"]
    difference = abs(done["times"]["total"][0] - total) / done["times"]["score"][0]
    return [
        table_line("kenlm, score", done, "score", done["times"]["score"][0]),
        f"difference of the two: {difference:.1e} nats per word",
    ]


if __name__ == "__main__":
    recipe(main, Options(text=()))
