"""Cost of CTC-CRF: seconds of an update with --model.criterion crf, beside one with CTC.

The updates are asr's own (forward, loss, backward, clipping, AdamW) of a net and a batch of the size of
recipes/mini_librispeech.py, on noise with random phones, since the cost depends on sizes only. They take
turns; each gets the seconds of its fastest turn, in CPU time, so that a busy machine disturbs little.

python benchmarks/criterion.py [--batch-s 60] [--phones 40]
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from conditions import describe_machine, set_threads
from torch.nn.utils import clip_grad_norm_

from asr.batching.batches import Batch
from asr.cli import recipe
from asr.frontend.features import FeatureConfig
from asr.model.acoustic import AcousticModel, ModelSettings
from asr.model.encoder import EncoderConfig, LossConfig
from asr.model.loss.denominator import count_ngrams, witten_bell
from asr.model.recurrent.layers import LayerConfig
from asr.text.characters import CharTokenizer
from asr.training.tasks.speech import speech_losses
from asr.training.update import make_optimizer

LOSSES = {"ctc": LossConfig(), "crf, bigram": LossConfig("crf", 2), "crf, trigram": LossConfig("crf", 3)}


@dataclass(frozen=True)
class Options:
    """What is measured."""

    batch_s: float = 60.0  # seconds of audio in a batch
    utterance_s: float = 12.0  # of each of its utterances
    phones: int = 40
    phones_per_s: float = 10.0
    turns: int = 8
    threads: int = 1


def main(options: Options) -> str:
    """Let the criteria take turns; the result is a table."""
    set_threads(options.threads)
    features = FeatureConfig(n_mels=40)
    shape = EncoderConfig(width=192, depth=4, dropout=0.1, subsampling=3, layers=LayerConfig(cell="ligru"))
    tokenizer = CharTokenizer(tuple(chr(ord("0") + number) for number in range(options.phones)))
    batch = _batch(options, features)
    best, updates = dict.fromkeys(LOSSES, float("inf")), {}
    for name, loss in LOSSES.items():
        torch.manual_seed(1)
        model = AcousticModel(ModelSettings(features, replace(shape, loss=loss), tokenizer, "verbatim"))
        if model.denominator is not None:
            transcripts = [
                row[:length].tolist() for row, length in zip(batch.tokens, batch.token_lengths, strict=True)
            ]
            counts = count_ngrams(transcripts, model.denominator.order, tokenizer.vocab_size)
            model.denominator.set_probs(witten_bell(counts))
        updates[name] = (model.train(), make_optimizer(model, 1e-4, 0.01))
    for turn in range(options.turns + 1):
        for name, (model, optimizer) in updates.items():
            began = time.process_time()
            losses = speech_losses(model, batch, torch.float32).losses
            optimizer.zero_grad()
            (losses.sum() / batch.global_tokens).backward()
            clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            if turn:  # the first one compiles
                best[name] = min(best[name], time.process_time() - began)
    rows = [
        f"| {name} | {1000 * seconds:.0f} | {100 * (seconds / best['ctc'] - 1):+.1f}% |"
        for name, seconds in best.items()
    ]
    steps = options.batch_s / features.frame_s / shape.subsampling
    size = f"{options.phones} phones, batches of {options.batch_s:g} s ({steps:.0f} steps)"
    head = f"light GRU 4 x 192, {size}, float32, threads: {options.threads}"
    return "\n".join(
        [
            describe_machine(),
            head,
            "| criterion | ms an update (CPU time) | against CTC |",
            "|---|---|---|",
            *rows,
        ]
    )


def _batch(options: Options, features: FeatureConfig) -> Batch:
    """Noise with random transcripts."""
    rng = np.random.default_rng(1)
    rows = round(options.batch_s / options.utterance_s)
    frames = round(options.utterance_s / features.frame_s)
    count = round(options.utterance_s * options.phones_per_s)
    return Batch(
        ids=tuple(map(str, range(rows))),
        cached_features=torch.from_numpy(
            rng.standard_normal((rows, frames, features.n_mels)).astype(np.float32)
        ),
        frame_lengths=torch.full((rows,), frames),
        tokens=torch.from_numpy(rng.integers(1, options.phones + 1, (rows, count))),
        token_lengths=torch.full((rows,), count),
        masks=None,
        global_tokens=rows * count,
        global_seconds=options.batch_s,
    )


if __name__ == "__main__":
    recipe(main, Options())
