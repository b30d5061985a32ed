"""Speed of training recurrent layers with CTC: asr, packed sequences, speechbrain, and the matmul peak.

An update is forward, CTC, backward, clipping and AdamW, in float32, and in bf16 where the processor has
instructions for it; getting the batch from the feature cache counts. It is asr's update for every system:
only the recurrent layers differ, and for speechbrain the batches. They take turns (A B C, B C A, ...), each
turn on the next batch, the same one for all but speechbrain. First they are shown to compute the same.

asr: as users get it, but without layer norm and dropout, which the peers' layers do not have.
asr, norm and dropout: as users get it.
packed: one nn.LSTM(bidirectional=True) of all layers on packed sequences.
speechbrain: speechbrain.nnet.RNN.LSTM with lengths, DynamicBatchSampler, PaddedBatch; same utterances.
speechbrain, padded: without lengths, as its own CRDNN runs it. That is another function: the backward
direction reads the padding, so that an utterance's result depends on its neighbours.

With --compare cells: a row for each cell, and one for torch's layer of that cell on packed sequences, where
there is one.

python benchmarks/training.py --root DIR [--compare cells]
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from conditions import describe_machine, find_speech, set_threads
from flops import training_flops
from peers import (
    HAS_SPEECHBRAIN,
    TORCH,
    Layers,
    PackedStack,
    SpeechbrainStack,
    matching,
    speechbrain_batches,
)
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from asr.batching.batches import CPU, Batch, BatchConfig, Batches
from asr.batching.cache import open_cache
from asr.batching.examples import TextConfig, learn_tokenizer, make_examples
from asr.cli import recipe
from asr.device import Precision, autocast, choose_precision
from asr.errors import ModelError
from asr.frontend.augment import AugmentConfig
from asr.frontend.features import FeatureConfig, frame_mask
from asr.manifests.utterance import Utterance
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig
from asr.model.loss.ctc import blank_steps, ctc_loss
from asr.model.recurrent.factory import CELL_NAMES, Cell
from asr.model.recurrent.layers import LayerConfig
from asr.training.update import make_optimizer, step_unless

GEMM_SIZE = 4096  # rows and columns of the matrices whose product counts as the processor's peak
TOLERANCE = 1e-4  # of log-probabilities, and of gradients relative to the largest of the same parameter
PLAIN = AugmentConfig(speeds=(1.0,), time_masks_per_s=0, mel_masks=0)  # shuffled as in training


@dataclass(frozen=True)
class Options:
    """What is measured."""

    root: Path | None = None  # folder of LibriSpeech/ with train-clean-5; None: the digits in data/
    batch_s: float = 100.0  # seconds of audio in a batch, padding included
    seconds: float = 40.0  # of the slowest system, for each table
    compare: Literal["peers", "cells"] = "peers"  # a table for each cell, or one with a row for each cell
    threads: int | None = None  # None: all cores
    cell: tuple[Cell, ...] | None = None  # None: lstm among peers, and all where cells are compared
    precision: Literal["auto", "float32", "bf16"] = "auto"  # auto: both, where the processor has bf16
    utterances: int = 600  # drawn from the corpus
    width: int = 320  # units per layer and direction
    depth: int = 4  # layers


@dataclass
class System:
    """One way to train, and what its turns gave."""

    name: str
    against: str  # name of the system that it is compared with
    model: AcousticModel
    batches: Iterator[Batch]
    precision: torch.dtype
    ids: tuple[str, ...] = ()  # of the newest batch
    spent_s: float = 0.0
    speeds: list[float] = field(default_factory=list)  # audio-seconds per second
    rates: list[float] = field(default_factory=list)  # GF/s
    padding: list[float] = field(default_factory=list)  # share of the frames that is padding

    def __post_init__(self) -> None:
        self.optimizer = make_optimizer(self.model.train(), 1e-4, 0.01)

    def turn(self) -> None:
        """Get the next batch, train on it, and note how fast."""
        began = time.perf_counter()
        batch = next(self.batches)
        self.update(batch)
        elapsed = time.perf_counter() - began
        self.ids = batch.ids
        self.spent_s += elapsed
        frames = batch.frame_lengths.sum().item()
        self.speeds.append(frames * self.model.settings.features.frame_s / elapsed)
        self.rates.append(training_flops(self.model, batch.frame_lengths) / elapsed / 1e9)
        self.padding.append(1 - frames / batch.padded_size)

    def update(self, batch: Batch) -> None:
        """One update of the weights, in the steps of asr.training.trainer."""
        with autocast(self.precision, CPU):
            features = batch.features(self.model.settings.features)
            log_probs, steps, _ = self.model(features, batch.frame_lengths, batch.masks)
        losses = ctc_loss(log_probs, steps, batch.tokens, batch.token_lengths)
        loss = losses.sum() / batch.global_tokens
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = clip_grad_norm_(self.model.parameters(), 5.0)
        blank_steps(log_probs.detach(), steps)
        step_unless(self.optimizer, ~(torch.isfinite(norm) & torch.isfinite(loss)))


def main(options: Options) -> str:
    """Measure; tables are printed as they come."""
    print(describe_machine())
    set_threads(options.threads)
    utterances, speech = find_speech(options.root, options.utterances)
    print(f"threads in use: {torch.get_num_threads()}\n{speech}", flush=True)
    precisions: list[Precision] = ["float32", "bf16"] if options.precision == "auto" else [options.precision]
    if options.precision == "auto" and choose_precision("auto", CPU) is not torch.bfloat16:
        print("bf16 was not measured: this processor has no instructions for it.")
        precisions = ["float32"]
    with tempfile.TemporaryDirectory() as folder:
        if options.compare == "cells":
            benches = [Bench(utterances, cell, options, Path(folder)) for cell in options.cell or CELL_NAMES]
            for bench in benches:
                print(bench.check(), flush=True)
            for precision in precisions:
                systems = [entry for bench in benches for entry in bench.cell_and_packed(precision)]
                print(benches[0].measure(precision, systems), flush=True)
        else:
            if not HAS_SPEECHBRAIN:
                print('speechbrain is not installed, so its rows are left out: pip install -e ".[bench]"')
            for cell in options.cell or ("lstm",):
                bench = Bench(utterances, cell, options, Path(folder))
                print(bench.check(), flush=True)
                for precision in precisions:
                    print(bench.measure(precision, bench.systems(precision)), flush=True)
    return (
        "\nMedians of the turns. asr / it: how many times faster asr is (with the same cell). "
        f"GEMM: matmul of {GEMM_SIZE} x {GEMM_SIZE}, best turn."
    )


class Bench:
    """The systems for one kind of cell.

    Args:
        utterances: to train on.
        cell: the kind.
        options: all settings.
        folder: for the feature cache.
    """

    def __init__(self, utterances: Sequence[Utterance], cell: Cell, options: Options, folder: Path) -> None:
        self.options, self.folder, self.features = options, folder, FeatureConfig()
        self.shape = EncoderConfig(
            width=options.width,
            depth=options.depth,
            dropout=0.0,
            layers=LayerConfig(cell=cell, layer_norm=False),
        )
        text = TextConfig()
        self.tokenizer = learn_tokenizer(utterances, text)
        self.examples = make_examples(utterances, self.tokenizer, text, self.features, self.shape.subsampling)
        config = BatchConfig(seconds=options.batch_s, cache_dir=folder, workers=0)
        self.batches = Batches(self.examples, self.features, config, PLAIN, seed=1)

    def model(self, layers: Layers | None = None, shape: EncoderConfig | None = None) -> AcousticModel:
        """A model with the same weights as any other of this shape, and these layers instead of asr's."""
        torch.manual_seed(1)
        model = AcousticModel(ModelSettings(self.features, shape or self.shape, self.tokenizer, "english"))
        if layers:
            stack = model.encoder.recurrent
            model.encoder.recurrent = layers(model.encoder.front.output_size, self.shape.recurrent())
            with torch.no_grad():
                for ours, theirs in matching(stack, model.encoder.recurrent.rnn):
                    theirs.copy_(ours)
        return model

    def peers(self) -> dict[str, Layers]:
        """The layers that compute what asr's do; none for a cell that torch does not have."""
        if self.shape.layers.cell not in TORCH:
            return {}
        peers: dict[str, Layers] = {"packed": PackedStack}
        if HAS_SPEECHBRAIN:
            peers["speechbrain"] = lambda size, config: SpeechbrainStack(size, config, packed=True)
        return peers

    def batch_of(self, indices: Sequence[int]) -> Batch:
        """A batch of these examples."""
        return self.batches.dataset[replace(self.batches.plan(epoch=0)[0], indices=tuple(indices))]

    def check(self) -> str:
        """Compare log-probabilities and gradients on utterances of very different lengths.

        Raises:
            ModelError: a peer computes something else.
        """
        batch = self.batch_of(range(6))
        ours = self.model()
        expected, steps = run(ours, batch)
        lines = [
            f"\nmodel: {self.shape.front} front, {self.shape.subsampling} frames per step; "
            f"{self.shape.depth} x {self.shape.width} bidirectional {self.shape.layers.cell}; "
            f"{self.tokenizer.vocab_size} outputs"
        ]
        for name, layers in self.peers().items():
            peer = self.model(layers)
            log_probs, _ = run(peer, batch)
            valid = frame_mask(steps, expected.shape[1]).unsqueeze(-1)
            far = ((log_probs - expected) * valid).abs().max().item()
            pairs = list(matching(ours.encoder.recurrent, peer.encoder.recurrent.rnn))
            pairs += zip(ours.encoder.front.parameters(), peer.encoder.front.parameters(), strict=True)
            differences = [(a.grad - b.grad).abs().max() / a.grad.abs().max() for a, b in pairs]
            gradients = torch.stack(differences).max().item()
            if not (far < TOLERANCE and gradients < TOLERANCE):
                raise ModelError(
                    f"{name} differs from asr: log-probabilities by {far:.1e}, gradients by {gradients:.1e}. "
                    f"Expected less than {TOLERANCE:g}. A comparison of their speed would mean nothing."
                )
            lines.append(
                f"checked: {name} = asr; log-probabilities to {far:.0e}, gradients to {gradients:.0e}"
            )
        return "\n".join(lines)

    def systems(self, precision: Precision) -> list[System]:
        """All that take turns."""
        dtype = choose_precision(precision, CPU)
        entries = {
            "asr": self.model(),
            "asr, norm and dropout": self.model(shape=replace(self.shape, dropout=None, layer_norm=True)),
            **{name: self.model(layers) for name, layers in self.peers().items()},
        }
        if HAS_SPEECHBRAIN and self.shape.layers.cell in TORCH:
            entries["speechbrain, padded"] = self.model(
                lambda size, config: SpeechbrainStack(size, config, packed=False)
            )
        return [
            System(name, "asr", model, self.speechbrain() if "brain" in name else self.asr_batches(), dtype)
            for name, model in entries.items()
        ]

    def cell_and_packed(self, precision: Precision) -> list[System]:
        """asr's layers of this cell, and torch's on packed sequences."""
        dtype, cell = choose_precision(precision, CPU), self.shape.layers.cell
        entries = [System(cell, cell, self.model(), self.asr_batches(), dtype)]
        if cell in TORCH:
            entries.append(
                System(f"{cell}, packed", cell, self.model(PackedStack), self.asr_batches(), dtype)
            )
        return entries

    def asr_batches(self) -> Iterator[Batch]:
        """asr's batches, epoch after epoch, without the first, which is always the longest."""
        return chain.from_iterable(self.batches.load(self.batches.plan(epoch)[1:]) for epoch in count(1))

    def speechbrain(self) -> Iterator[Batch]:
        """speechbrain's batches of the same utterances, with the features from the same cache."""
        cache = open_cache(self.folder, [example.utterance for example in self.examples], self.features)
        template = next(self.asr_batches())
        return speechbrain_batches(self.examples, cache, template, self.options.batch_s)

    def measure(self, precision: Precision, systems: list[System]) -> str:
        """Take turns until the slowest has had its time; the result is a table.

        Raises:
            ModelError: two that should train on the same batches did not.
        """
        matrix = torch.randn(GEMM_SIZE, GEMM_SIZE).to(systems[0].precision)
        peaks: list[float] = []
        for system in systems:  # the first call of anything is slow
            system.update(self.batch_of(np.argsort(self.batches.sampler.columns.seconds)[:2].tolist()))
        matrix @ matrix
        while len(peaks) < 3 or max(system.spent_s for system in systems) < self.options.seconds:
            first = len(peaks) % len(systems)  # what came before may leave its mark: each is first at times
            for system in systems[first:] + systems[:first]:
                system.turn()
            if len({system.ids for system in systems if "brain" not in system.name}) > 1:
                raise ModelError("two systems got different batches. This is a mistake in the benchmark.")
            began = time.perf_counter()
            matrix @ matrix
            peaks.append(2 * GEMM_SIZE**3 / (time.perf_counter() - began) / 1e9)
        median = statistics.median
        lines = [
            f"\n{precision}, {len(peaks)} turns of about {self.options.batch_s:g} s of audio; "
            f"GEMM {max(peaks):.0f} GF/s",
            f"{'':24}{'audio-s/s':>10}{'asr / it':>10}{'GF/s':>8}{'of GEMM':>9}{'padding':>9}",
        ]
        speeds = {system.name: median(system.speeds) for system in systems}
        for system in systems:
            speed, rate = median(system.speeds), median(system.rates)
            lines.append(
                f"{system.name:24}{speed:10.1f}{speeds[system.against] / speed:10.2f}{rate:8.1f}"
                f"{rate / max(peaks):9.1%}{sum(system.padding) / len(system.padding):9.1%}"
            )
        return "\n".join(lines)


def run(model: AcousticModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Forward and backward once: (batch, steps, vocab) log-probabilities and (batch,) steps."""
    log_probs, steps, _ = model(batch.features(model.settings.features), batch.frame_lengths)
    ctc_loss(log_probs, steps, batch.tokens, batch.token_lengths).mean().backward()
    return log_probs.detach(), steps


if __name__ == "__main__":
    logging.getLogger("speechbrain").setLevel(logging.WARNING)
    recipe(main, Options())
