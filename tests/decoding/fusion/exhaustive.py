"""Exhaustive search with what is fused, and what its tests share: models, tokenizers, comparison."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.decoding.hypothesis import Hypothesis
from asr.lm.ngram.model import NgramModel
from asr.model.decoding_weights import DecodingWeights
from asr.text.characters import CharTokenizer
from asr.text.tokenizer import Piece, cut_words

TOKENIZER = CharTokenizer((" ", "a", "b"))


UNLIMITED = BeamConfig(
    beam_size=20000,
    nbest=20000,
    beam_threshold=math.inf,
    token_threshold=math.inf,
    blank_skip=1.0,
    recombine=False,
    threads=1,
    weights=DecodingWeights(lm_weight=0.8, word_bonus=0.6, unknown_penalty=-1.5, unknown_letter_penalty=-0.4),
)


Rows = Callable[..., Tensor]


Enumerate = Callable[[Tensor], dict[tuple[int, ...], float]]


Words = tuple[str, ...]


class Outside:
    """An n-gram model that does not look like one: the beam has to ask it through its three calls."""

    def __init__(self, model: NgramModel) -> None:
        self._model = model
        self.unit = model.unit
        self.words = model.words

    def start(self) -> tuple[int]:
        return (self._model.start(),)

    def score(self, states: Sequence[Any], symbols: Sequence[str]) -> tuple[Any, list[Any]]:
        nats, after = self._model.score([state for (state,) in states], symbols)
        return nats, [(state,) for state in after]

    def finish(self, states: Sequence[Any]) -> Any:
        return self._model.finish([state for (state,) in states])


@dataclass(frozen=True)
class Pieces:
    """A tokenizer of word pieces, `_` for the beginning of a word."""

    names: tuple[str, ...] = ("_", "_a", "_ab", "a", "b")
    units = "bpe"

    @property
    def symbols(self) -> tuple[str, ...]:
        return self.names

    @property
    def vocab_size(self) -> int:
        return len(self.names) + 1

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return (Piece("", False), *(Piece(n.removeprefix("_"), n.startswith("_")) for n in self.names))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.names[n - 1] for n in ids).replace("_", " ").removeprefix(" ")

    def words(self, ids: Sequence[int]) -> list[slice]:
        return cut_words(ids, self.pieces)

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        return ((1,),) if word and set(word) <= {"a", "b"} else ()  # the search walks letters, not these


@dataclass(frozen=True)
class Expected:
    """What exhaustive search finds."""

    text: str
    tokens: tuple[int, ...]
    score: float
    acoustic: float
    lm: float


def exhaust(
    sums: dict[tuple[int, ...], float],
    readings: Callable[[tuple[int, ...]], Iterable[Words]],
    fused: Callable[[tuple[int, ...], Words], tuple[float, float]],
) -> list[Expected]:
    """Every reading of every token sequence; of each text the best, best first.

    Args:
        sums: token sequences and their log-probabilities.
        readings: the word sequences that tokens can stand for.
        fused: of tokens and words, nats beside the acoustics and the language model's log-probability.
    """
    best: dict[str, Expected] = {}
    for tokens, acoustic in sums.items():
        for words in readings(tokens):
            nats, lm = fused(tokens, words)
            one = Expected(" ".join(words), tokens, acoustic + nats, acoustic, lm)
            if one.text not in best or one.score > best[one.text].score:
                best[one.text] = one
    return sorted(best.values(), key=lambda one: -one.score)


def compare(found: list[Hypothesis], expected: list[Expected], tolerance: float = 1e-9) -> None:
    assert len(found) == len(expected)
    assert [hypothesis.score for hypothesis in found] == sorted([h.score for h in found], reverse=True)
    by_text = {one.text: one for one in expected}
    for hypothesis in found:
        one = by_text.pop(hypothesis.text)
        assert hypothesis.tokens == one.tokens
        assert hypothesis.score == pytest.approx(one.score, abs=tolerance)
        assert hypothesis.acoustic_score == pytest.approx(one.acoustic, abs=tolerance)
        assert hypothesis.lm_log_prob == pytest.approx(one.lm, abs=tolerance)
        assert " ".join(word.text for word in hypothesis.words) == one.text


def decode_one(decoder: BeamDecoder, log_probs: Tensor) -> list[Hypothesis]:
    [found] = decoder.decode(log_probs[None], torch.tensor([len(log_probs)]), 0.04)
    return found


def spelled(tokens: tuple[int, ...], tokenizer: Any = TOKENIZER) -> list[Words]:
    return [tuple(tokenizer.decode(tokens).split())]


def fused_word_scores(
    model: NgramModel, config: BeamConfig, boosts: dict[str, float] | None = None, hot: Sequence[str] = ()
) -> Callable[[tuple[int, ...], Words], tuple[float, float]]:
    """The scores of a sentence, scored by the model at once; hot words are in the vocabulary."""

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        del tokens
        lm = float(model.log_probs(" ".join(words)).sum())
        unknown = [word for word in words if word not in model.ids and word not in hot]
        if unknown and config.unknown_words == "forbid":
            return -math.inf, lm
        nats = config.weights.lm_weight * lm + config.weights.word_bonus * len(words)
        nats += sum(
            config.weights.unknown_penalty + config.weights.unknown_letter_penalty * len(word)
            for word in unknown
        )
        return nats + sum((boosts or {}).get(word, 0.0) for word in words), lm

    return fused
