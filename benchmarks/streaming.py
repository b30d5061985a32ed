"""Streaming: word error rate and delay of words, for chunks and right contexts of several lengths.

Each speaker is a stream: the utterances of a manifest with a second of silence between them, in blocks of
0.1 s, through all of `asr stream`, end-pointing included. A word is shown when the partial result first has
it, and all words before it, as the final result has them, and settled when it is stable; the delay is counted
from the end of the word's evidence. The offline row is `Model.transcribe` of whole utterances.

python benchmarks/streaming.py --manifest dev.jsonl [--every 2] [--model english] [--chunks 0.6/0.9 0.3/0.3]
python benchmarks/streaming.py --manifest dev.jsonl --hours 1    what a block costs at first and at last
"""

import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from conditions import describe_machine, set_threads

import asr
from asr.cli import recipe
from asr.frontend.audio import read_audio
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Utterance

_BLOCK_S = 0.1
_SILENCE_S = 1.0  # between utterances


@dataclass(frozen=True)
class Options:
    """What is measured."""

    manifest: Path = Path("../shared/speech/english/dev.jsonl")
    every: int = 2  # of so many utterances one
    model: Path = Path("english")
    # seconds of a chunk and of its right context
    chunks: tuple[str, ...] = (
        "0.3/0.3",
        "0.3/0.6",
        "0.6/0.3",
        "0.6/0.6",
        "0.6/0.9",
        "0.6/1.5",
        "1.2/0.9",
        "2/2",
    )
    hours: float = 0.0  # instead of the table: one stream of so many hours, with the first chunks
    threads: int = 1


@dataclass(frozen=True)
class Shown:
    """The delays of one word, seconds."""

    shown_s: float
    settled_s: float


def main(options: Options) -> str:
    """Run all settings over all streams; the result is a table."""
    set_threads(options.threads)
    model = asr.load(options.model, device="cpu")
    utterances = read_manifest(options.manifest)[:: options.every]
    waveforms = {one.id: _read(one, model.sample_rate) for one in utterances}
    if options.hours:
        return _hours(model, options, list(waveforms.values()))
    speakers: dict[str, list[Utterance]] = defaultdict(list)
    for one in utterances:
        speakers[one.speaker or one.id].append(one)
    references = [" ".join(one.text for one in spoken) for spoken in speakers.values()]
    seconds = sum(map(len, waveforms.values())) / model.sample_rate
    lines = [
        describe_machine(),
        f"{len(utterances)} utterances, {len(speakers)} speakers, {seconds:.0f} s",
        "",
    ]
    lines += ["chunk right  %WER              shown after   settled after  (s: median, 95%)  times real time"]
    began = time.process_time()
    texts = []
    for spoken in speakers.values():
        found = model.transcribe([waveforms[one.id] for one in spoken], sample_rate=model.sample_rate)
        texts.append(" ".join(one.text for one in found))
    lines.append(_row("offline", references, texts, [], seconds / (time.process_time() - began)))
    print(lines[-1], flush=True)
    for pair in options.chunks:
        chunk_s, right_s = map(float, pair.split("/"))
        config = asr.StreamConfig(chunk_s=chunk_s, right_context_s=right_s)
        began = time.process_time()
        texts, words = [], []
        for spoken in speakers.values():
            text, delays = _stream(model, config, [waveforms[one.id] for one in spoken])
            texts.append(text)
            words += delays
        speed = seconds / (time.process_time() - began)
        lines.append(_row(f"{chunk_s:4.1f} {right_s:5.1f}", references, texts, words, speed))
        print(lines[-1], flush=True)
    return "\n".join(lines)


def _hours(model: asr.Model, options: Options, waveforms: Sequence[torch.Tensor]) -> str:
    """Processor time and memory of each five minutes of one stream."""
    rate = model.sample_rate
    chunk_s, right_s = map(float, options.chunks[0].split("/"))
    samples = torch.cat([part for one in waveforms for part in (one, torch.zeros(round(_SILENCE_S * rate)))])
    stream = model.stream(config=asr.StreamConfig(chunk_s=chunk_s, right_context_s=right_s))
    page = resource.getpagesize()
    lines, began, count, finals = [describe_machine()], time.process_time(), 0, 0
    for number in range(round(options.hours * 3600 / _BLOCK_S)):
        block = torch.arange(count, count + round(_BLOCK_S * rate)) % len(samples)
        count += len(block)
        finals += sum(result.final for result in stream.accept(samples[block]))
        if (number + 1) % round(300 / _BLOCK_S) == 0:
            spent, began = time.process_time() - began, time.process_time()
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page / 1e6
            minutes = round((number + 1) * _BLOCK_S / 60)
            lines.append(
                f"minute {minutes:3d}: {1000 * spent / 300:.1f} ms of processor time a second of sound, "
                f"{resident:.0f} MB, {finals} utterances"
            )
            print(lines[-1], flush=True)
    return "\n".join(lines)


def _read(utterance: Utterance, sample_rate: int) -> torch.Tensor:
    return read_audio(
        utterance.audio_filepath, sample_rate, offset_s=utterance.offset, duration_s=utterance.duration
    )


def _stream(
    model: asr.Model, config: asr.StreamConfig, waveforms: Sequence[torch.Tensor]
) -> tuple[str, list[Shown]]:
    """The text of one stream, and the delays of its words."""
    rate = model.sample_rate
    silence = torch.zeros(round(_SILENCE_S * rate))
    samples = torch.cat([part for waveform in waveforms for part in (waveform, silence)])
    texts: list[str] = []
    delays: list[Shown] = []
    partials: list[tuple[float, asr.StreamResult]] = []
    for now_s, results in _results(model.stream(config=config), samples, rate):
        for result in results:
            partials.append((now_s, result))
            if result.final:
                texts.append(result.text)
                delays += _delays(partials)
                partials = []
    return " ".join(filter(None, texts)), delays


def _results(
    stream: asr.RecognitionStream, samples: torch.Tensor, rate: int
) -> Iterator[tuple[float, list[asr.StreamResult]]]:
    now = 0
    for block in torch.split(samples, round(_BLOCK_S * rate)):
        now += len(block)
        yield now / rate, stream.accept(block)
    yield now / rate, stream.finish()


def _delays(partials: Sequence[tuple[float, asr.StreamResult]]) -> list[Shown]:
    """Of the words of an utterance, whose last result is the final one."""
    end_s, final = partials[-1]
    texts = final.text.split()
    delays = []
    for index, word in enumerate(final.words):
        shown_s = settled_s = end_s
        for now_s, result in reversed(partials):
            if result.text.split()[: index + 1] != texts[: index + 1]:
                break
            shown_s = now_s
            if len(result.stable.split()) > index:
                settled_s = now_s
        delays.append(Shown(shown_s - word.end_s, settled_s - word.end_s))
    return delays


def _row(
    name: str, references: Sequence[str], texts: Sequence[str], words: Sequence[Shown], speed: float
) -> str:
    score = asr.score(references, texts)
    delays = [[one.shown_s for one in words], [one.settled_s for one in words]]
    columns = [
        " ".join(f"{np.quantile(values, q):5.2f}" for q in (0.5, 0.95)) if values else " " * 11
        for values in delays
    ]
    counts = f"{100 * score.wer:5.2f} [ {score.words.errors} / {score.words.reference_length} ]"
    return f"{name:10s}  {counts}   {'   '.join(columns)}   {speed:.0f}"


if __name__ == "__main__":
    recipe(main, Options())
