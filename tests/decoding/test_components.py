"""Each part of the search on noisy output: without it, or with it ignored, there are more errors."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.decoding.fusion import tables
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.model import NgramModel
from asr.scoring.wer import count_errors
from asr.text.characters import CharTokenizer
from asr.text.lexicon import Lexicon

TOKENIZER = CharTokenizer(tuple(" abcde"))
NAME = "ebbeda"  # a word that the language model does not know
CONFIG = BeamConfig(threads=1)


def sentences(seed: int, count: int) -> list[str]:
    """A language of 60 short words, in which each word has four that like to follow it."""
    draw = random.Random(1)
    words = sorted({"".join(draw.choices("abcde", k=draw.randint(2, 4))) for _ in range(60)})
    after = {word: draw.sample(words, 4) for word in words}
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        text = [draw.choice(words)]
        for _ in range(draw.randint(3, 7)):
            text.append(draw.choice(after[text[-1]] if draw.random() < 0.8 else words))
        texts.append(" ".join(text))
    return texts


def noisy(text: str, seed: int) -> Tensor:
    """(steps, vocab) log-probabilities of a model that takes letters for others, and most for the last."""
    generator = torch.Generator().manual_seed(seed)
    path: list[int] = []
    for token in TOKENIZER.encode(text):
        path += [0] * int(torch.randint(1, 3, (1,), generator=generator)) + [token]
    logits = 1.7 * torch.randn(len(path), 7, generator=generator, dtype=torch.float64)
    logits[torch.arange(len(path)), torch.tensor(path)] += 4.0
    logits[:, 6] += 3.0
    return logits.log_softmax(1)


class Fixture:
    """Forty sentences, a tenth of the words of which are the name, and what a decoder makes of them."""

    def __init__(self, folder: Path) -> None:
        text = folder / "text.txt"
        text.write_text("\n".join(sentences(2, 1500)) + "\n")
        self.lm: NgramModel = build([text], NgramConfig(order=2), folder / "lm.bin")
        words = sorted({word for line in text.read_text().splitlines() for word in line.split()})
        self.lexicon = Lexicon({word: (tuple(word),) for word in words}, "the test's lexicon")
        draw = random.Random(3)
        self.texts = [
            " ".join(NAME if draw.random() < 0.1 else word for word in line.split())
            for line in sentences(4, 40)
        ]
        self.rows = [noisy(line, seed) for seed, line in enumerate(self.texts)]
        self.priors: NDArray[np.float64] = torch.cat(self.rows).exp().mean(0).numpy()

    def errors(self, config: BeamConfig, **parts: Any) -> int:
        """Word errors of a decoder."""
        decoder = BeamDecoder(TOKENIZER, replace(config, priors=tuple(self.priors)), **parts)
        lengths = torch.tensor([len(row) for row in self.rows])
        found = decoder.decode(pad_sequence(self.rows, batch_first=True), lengths, 0.04)
        return sum(count_errors(self.texts, [best[0].text for best in found]))


@pytest.fixture(scope="module")
def fixture(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    return Fixture(tmp_path_factory.mktemp("components"))


HOT: Mapping[str, float] = {NAME: 3.0}
FULL = CONFIG.with_weights(lm_weight=0.7, word_bonus=-1.0, prior_weight=0.6)


def test_every_part_helps(fixture: Fixture) -> None:
    """A part that is given and has no effect: each takes away errors, so that without it there are more."""
    everything = fixture.errors(FULL, lm=fixture.lm, hotwords=HOT)
    assert everything < 110  # of 232 words
    assert everything < fixture.errors(FULL.with_weights(word_bonus=0.0), lm=fixture.lm, hotwords=HOT)
    assert everything < fixture.errors(FULL.with_weights(prior_weight=0.0), lm=fixture.lm, hotwords=HOT)
    assert everything < fixture.errors(
        FULL.with_weights(unknown_letter_penalty=0.0), lm=fixture.lm, hotwords=HOT
    )
    assert everything < fixture.errors(FULL, lm=fixture.lm)
    words = fixture.errors(FULL, lexicon=fixture.lexicon, hotwords=HOT)
    assert everything < words < fixture.errors(FULL, hotwords=HOT)


def test_look_ahead_helps_a_narrow_beam(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ahead that is always 0: no final score changes, and a narrow beam loses words before they end."""
    narrow = replace(FULL, beam_size=6)
    found = fixture.errors(narrow, lm=fixture.lm, hotwords=HOT)
    monkeypatch.setattr(tables, "best_below", lambda tree, scores: np.zeros(len(tree.symbol)))
    assert found < fixture.errors(narrow, lm=fixture.lm, hotwords=HOT)
