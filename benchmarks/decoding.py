"""Speed of decoding at equal word error rate: asr against flashlight-text (C++), torchaudio, pyctcdecode.

All get the same log-probabilities, ARPA files, vocabulary and beams, in turns (A B C A B C ...); the least of
each one's turns counts, on the clock and in processor time. First each one's weights are tuned on other
utterances, then the beams are swept. Two comparisons: at the same beam, and at equal WER, where each has its
fastest setting that comes within 0.1 of what both can reach. Greedy decoding is compared with the encoder
before it. A peer that is not installed is left out, with a line that says so.

python benchmarks/decoding.py --model FILE --root DIR --arpa FILE [--character-arpa FILE]
                              [--pyctcdecode PYTHON]
"""

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conditions import describe_machine, set_threads
from decoders import (
    SPACE,
    AsrBeamSearch,
    Flashlight,
    Pyctcdecode,
    SeparateProcess,
    Setting,
    System,
    Torchaudio,
    Turn,
    with_last_space,
)
from torch.nn.utils.rnn import pad_sequence

from asr.cli import recipe
from asr.corpora.librispeech import read_part
from asr.decoding.greedy import GreedyDecoder
from asr.device import usable_cores
from asr.errors import SettingsError
from asr.frontend.audio import read_audio
from asr.frontend.features import frame_count, log_mel
from asr.lm.ngram.model import NgramModel
from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.recognition.emissions import Emissions, cached_emissions
from asr.scoring.wer import score

PART = "dev-clean"
TUNED, SCORED = "tuned", "scored"  # names of the two parts of the utterances
CLOSE = 0.1  # % of WER that count as equal


@dataclass(frozen=True)
class Options:
    """What is measured."""

    model: Path  # a model of characters
    arpa: Path  # n-grams of words, as ARPA; its words are the vocabulary of all
    character_arpa: Path | None = None  # n-grams of characters, of order 6 at most; None: not compared
    root: Path | None = None  # folder of LibriSpeech/ with dev-clean
    manifest: Path | None = None  # or a manifest
    emissions: Path | None = None  # where the log-probabilities are kept for the next run; None: nowhere
    pyctcdecode: Path | None = None  # the interpreter of an environment with pyctcdecode and kenlm
    scored: int = 100  # utterances on which speed and WER are measured, spread over the speakers
    tuned: int = 40  # other utterances, for the weights
    beams: tuple[int, ...] = (10, 25, 50, 100, 200, 400)
    tokens: tuple[int, ...] = (0, 10)  # tokens tried in a step; 0: all
    same_beam: int = 100  # of the comparison at the same beam; one of beams
    lm_weights: tuple[float, ...] = (0.5, 0.7, 0.9, 1.1)  # tried, of natural logarithms
    word_bonuses: tuple[float, ...] = (0.0, 1.0, 2.0)  # tried, nats
    tuning_beam: int = 50  # beam with which they are tried
    repeats: int = 3  # turns that every system gets; the least counts
    threads: int | None = None  # of the measurement with several; None: all cores


class Bench:
    """The speech, and what was measured on it."""

    def __init__(self, options: Options, model: AcousticModel, folder: Path) -> None:
        self.options, self.folder, self.tokenizer = options, folder, model.settings.tokenizer
        utterances = choose(options)
        kept = options.emissions or folder / "emissions.safetensors"
        emissions = cached_emissions(kept, model, utterances, batch_s=100.0)
        count = min(options.scored, len(utterances) - 1)  # one is left to tune on
        self.utterances = {SCORED: utterances[:count], TUNED: utterances[count:]}
        rows = emissions.log_probs
        self.parts = {
            SCORED: Emissions(rows[:count], emissions.step_s),
            TUNED: Emissions(rows[count:], emissions.step_s),
        }
        self.symbols = ["<blank>", *(SPACE if name == " " else name for name in self.tokenizer.symbols)]
        space = self.symbols.index(SPACE)
        self.longer = {name: with_last_space(part, space) for name, part in self.parts.items()}
        self.seconds = sum(utterance.duration for utterance in self.utterances[SCORED])

    def wer(self, part: str, turn: Turn) -> float:
        """Percent."""
        references = [utterance.text for utterance in self.utterances[part]]
        ids = [utterance.id for utterance in self.utterances[part]]
        return 100 * score(references, turn.texts, ids, "lower").words.rate

    def tune(self, system: System) -> Setting:
        """The weights with the least WER on the utterances for tuning."""
        options = self.options
        tried = [
            Setting(options.tuning_beam, 0, weight, bonus)
            for weight, bonus in itertools.product(options.lm_weights, options.word_bonuses)
        ]
        return min(tried, key=lambda setting: self.wer(TUNED, system.decode(TUNED, setting, 1)))


@dataclass(frozen=True)
class Row:
    """What a decoder achieved with a setting: % WER, least seconds of its turns."""

    setting: Setting
    wer: float
    wall: float
    cpu: float


def main(options: Options) -> str:
    """Measure and print the results."""
    if options.same_beam not in options.beams:
        raise SettingsError(
            f"--same-beam {options.same_beam} is none of --beams. One of {options.beams} was expected."
        )
    lines = [describe_machine()]
    set_threads(1)
    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(options, model, Path(folder))
        lines.append(
            f"speech: {len(bench.utterances[SCORED])} utterances, {bench.seconds / 60:.1f} min; weights "
            f"tuned on {len(bench.utterances[TUNED])} others; least of {options.repeats} turns"
        )
        lines.append(greedy_line(bench, model))
        lm = NgramModel.load(options.arpa)
        known = frozenset(bench.tokenizer.symbols)
        words = [word for word in lm.words if word not in ("<unk>", "<s>", "</s>") and known.issuperset(word)]
        lexicon = f"words of {options.arpa.name} (order {lm.order}, {sum(lm.counts):,} n-grams)"
        group: list[System] = [AsrBeamSearch(bench.tokenizer, bench.parts, lm, unknown=False)]
        speech = (bench.symbols, bench.longer)
        peers = [(Flashlight, (*speech, options.arpa, words, sums)) for sums in (False, True)]
        peers.append((Torchaudio, (*speech, options.arpa, words, bench.folder)))
        group += start(peers, stack, lines)
        lines += compare(bench, group, f"{lexicon}, a vocabulary of {len(words):,}, no other words")
        if options.character_arpa is not None:
            characters = NgramModel.load(options.character_arpa, "character")
            group = [AsrBeamSearch(bench.tokenizer, bench.parts, characters, unknown=True)]
            peers = [(Flashlight, (*speech, options.character_arpa, (), False))]
            group += start(peers, stack, lines)
            name = f"characters of {options.character_arpa.name} (order {characters.order}), any words"
            lines += compare(bench, group, name)
        if options.pyctcdecode is None:
            lines.append("\npyctcdecode: left out; --pyctcdecode names the interpreter of its environment")
        else:
            peer = Pyctcdecode(options.pyctcdecode, bench.symbols, bench.parts, options.arpa, bench.folder)
            stack.callback(peer.close)
            ours = AsrBeamSearch(bench.tokenizer, bench.parts, lm, unknown=True)
            lines += compare(bench, [ours, peer], f"{lexicon}, unknown words allowed")
    return "\n".join(lines)


def start(
    peers: Sequence[tuple[Callable[..., System], tuple[Any, ...]]], stack: ExitStack, lines: list[str]
) -> list[System]:
    """Those that are installed, each in a separate process; what is left out is added to the lines."""
    started: list[System] = []
    for kind, arguments in peers:
        try:
            started.append(SeparateProcess(kind, *arguments))
        except (ImportError, RuntimeError) as error:
            lines.append(f"{kind.__name__} is left out: {error}".splitlines()[0])
        else:
            stack.callback(started[-1].close)
    return started


def choose(options: Options) -> list[Utterance]:
    """The utterances to score, then those to tune on, drawn so that all speakers come in turn."""
    if (options.root is None) == (options.manifest is None):
        raise SettingsError("--root and --manifest: one of the two was expected.")
    if options.manifest is not None:
        utterances = read_manifest(options.manifest)
    else:
        root = options.root
        folders = [root / "LibriSpeech" / PART, root / PART, root]
        utterances = read_part(next((folder for folder in folders if folder.is_dir()), root))
    seen: Counter[str | None] = Counter()
    turns = []
    for number in np.random.default_rng(1).permutation(len(utterances)):
        speaker = utterances[number].speaker
        turns.append((seen[speaker], len(turns), number))
        seen[speaker] += 1
    return [utterances[number] for _, _, number in sorted(turns)][: options.scored + options.tuned]


def compare(bench: Bench, group: Sequence[System], title: str) -> list[str]:
    """Tune, sweep, and compare at the same beam and at equal WER."""
    options = bench.options
    weights: dict[str, Setting] = {}
    lines = [f"\n## {title}\n"]
    for system in group:
        # the same C++ with the same weights
        same = weights.get("flashlight LexiconDecoder") if system.name == Torchaudio.name else None
        weights[system.name] = same or bench.tune(system)
    found: dict[str, list[Row]] = {system.name: [] for system in group}
    for beam, tokens in itertools.product(options.beams, options.tokens):
        for system, row in zip(
            group,
            measure(bench, group, [replace(weights[one.name], beam=beam, tokens=tokens) for one in group], 1),
            strict=True,
        ):
            found[system.name].append(row)
    lines.append(
        f"{'':30}{'beam':>6}{'tokens':>8}{'weight':>8}{'bonus':>7}{'WER':>8}{'cpu s':>9}"
        f"{'clock s':>9}{'RTF':>9}{'/ asr, cpu':>12}{'clock':>8}"
    )
    lines.append("every setting, one thread")
    for number in range(len(options.beams) * len(options.tokens)):
        lines += table_lines(bench, group, [found[system.name][number] for system in group])
    alike = [
        min(rows, key=lambda row: (row.setting.beam != options.same_beam, row.setting.tokens))
        for rows in found.values()
    ]
    lines += conclude(bench, group, alike, "same beam")
    ours = found[group[0].name]
    for system in group[1:]:
        # what both reach, so that neither is asked for what it cannot do
        target = max(min(row.wer for row in found[name]) for name in (group[0].name, system.name)) + CLOSE
        pair = [
            min((row for row in rows if row.wer <= target), key=lambda row: row.cpu)
            for rows in (ours, found[system.name])
        ]
        lines += conclude(bench, [group[0], system], pair, f"equal WER, at most {target:.2f}")
    return lines


def conclude(bench: Bench, group: Sequence[System], rows: Sequence[Row], title: str) -> list[str]:
    """A comparison, with one thread as it was measured, and with all that are to be used."""
    lines = [title, *table_lines(bench, group, rows)]
    threads = bench.options.threads or usable_cores()
    parallel = [pair for pair in zip(group, rows, strict=True) if pair[0].parallel]
    if threads > 1 and len(parallel) > 1:
        concurrent = [system for system, _ in parallel]
        lines.append(f"{title}, {threads} threads (C++ and Python: processes)")
        lines += table_lines(
            bench, concurrent, measure(bench, concurrent, [row.setting for _, row in parallel], threads)
        )
    return lines


def measure(bench: Bench, group: Sequence[System], settings: Sequence[Setting], threads: int) -> list[Row]:
    """Every decoder with its setting, in turns."""
    turns = [
        [system.decode(SCORED, setting, threads) for system, setting in zip(group, settings, strict=True)]
        for _ in range(bench.options.repeats)
    ]
    return [
        Row(
            setting,
            bench.wer(SCORED, own[0]),
            min(turn.wall for turn in own),
            min(turn.cpu for turn in own),
        )
        for setting, own in zip(settings, zip(*turns, strict=True), strict=True)
    ]


def table_lines(bench: Bench, group: Sequence[System], rows: Sequence[Row]) -> list[str]:
    """A line for each; the first is what the others are compared with."""
    return [
        f"{system.name:30}{row.setting.beam:6}{row.setting.tokens or 'all':>8}{row.setting.lm_weight:8.2f}"
        f"{row.setting.word_bonus:7.1f}{row.wer:8.2f}{row.cpu:9.2f}{row.wall:9.2f}"
        f"{row.wall / bench.seconds:9.5f}{row.cpu / rows[0].cpu:12.2f}{row.wall / rows[0].wall:8.2f}"
        for system, row in zip(group, rows, strict=True)
    ]


def greedy_line(bench: Bench, model: AcousticModel, batch: int = 16, batches: int = 2) -> str:
    """Processor time of greedy decoding beside that of the encoder, one thread, batches on the CPU."""
    config = model.settings.features
    utterances = sorted(bench.utterances[SCORED], key=lambda utterance: utterance.duration)
    encoder = decoder = 0.0
    model.eval()
    with torch.inference_mode():
        for number in range(batches):
            begin = (number + 1) * len(utterances) // (batches + 1)
            audio = [
                read_audio(
                    one.audio_filepath, config.sample_rate, offset_s=one.offset, duration_s=one.duration
                )
                for one in utterances[begin : begin + batch]
            ]
            lengths = frame_count(torch.tensor([len(waveform) for waveform in audio]), config)
            features = log_mel(pad_sequence(audio, batch_first=True), config)
            times = []
            for _ in range(bench.options.repeats):
                began = time.process_time()
                log_probs, steps, _ = model(features, lengths)
                between = time.process_time()
                GreedyDecoder(bench.tokenizer).decode(log_probs, steps, model.step_s)
                times.append((between - began, time.process_time() - between))
            encoder += min(spent for spent, _ in times)
            decoder += min(spent for _, spent in times)
    return (
        f"greedy decoding: {decoder * 1000:.1f} ms for {batches} batches of {batch}, encoder "
        f"{encoder * 1000:.0f} ms: {100 * decoder / encoder:.2f}% (processor time, one thread)"
    )


if __name__ == "__main__":
    recipe(main, Options(model=Path(), arpa=Path()))
