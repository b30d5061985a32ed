"""Perplexity: how well a language model predicts texts, with and without unknown words."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from asr.errors import DataError
from asr.lm.text_files import read_blocks
from asr.text.normalize import normalize

if TYPE_CHECKING:
    from asr.lm.loading import AnyLanguageModel

__all__ = ["PerplexityResult", "perplexity"]


@dataclass(frozen=True)
class PerplexityResult:
    """How well a model predicts texts; the end of a sentence counts as a predicted symbol.

    Attributes:
        sentences: lines with at least one symbol.
        symbols: words, or characters, without sentence ends.
        unknown: out-of-vocabulary symbols among them.
        log_prob: natural log-probability of the texts, sentence ends included.
        unknown_log_prob: that of the unknown symbols alone.
    """

    sentences: int
    symbols: int
    unknown: int
    log_prob: float
    unknown_log_prob: float

    def __add__(self, other: "PerplexityResult") -> "PerplexityResult":
        """The result for both texts together."""
        return PerplexityResult(
            self.sentences + other.sentences,
            self.symbols + other.symbols,
            self.unknown + other.unknown,
            self.log_prob + other.log_prob,
            self.unknown_log_prob + other.unknown_log_prob,
        )

    @property
    def perplexity(self) -> float:
        """With unknown symbols, at the probability of `<unk>`."""
        return math.exp(-self.log_prob / (self.symbols + self.sentences))

    @property
    def in_vocabulary_perplexity(self) -> float:
        """Without unknown symbols."""
        predicted = self.symbols - self.unknown + self.sentences
        return math.exp(-(self.log_prob - self.unknown_log_prob) / predicted)


def perplexity(
    model: "AnyLanguageModel",
    texts: Sequence[Path],
    normalizer: str = "verbatim",
    results: IO[str] | None = None,
) -> PerplexityResult:
    """How well a model predicts texts.

    Args:
        model: the model.
        texts: text files, see `lm.text_files`.
        normalizer: rules for each line, see `text.normalize`.
        results: a file for one JSON object per sentence.

    Raises:
        DataError: a text cannot be read, or there is no text at all.
        SettingsError: the normalizer is unknown.
    """
    total = PerplexityResult(0, 0, 0, 0.0, 0.0)
    for block, path, first in read_blocks(texts):
        for number, line in enumerate(block.decode().split("\n")[:-1], start=first):
            text = normalize(line, normalizer)
            if not text:
                continue
            result = sentence_perplexity(model, text)
            total += result
            if results is not None:
                row = {
                    "text": str(path), "line": number, f"{model.unit}s": result.symbols,
                    "unknown": result.unknown, "log_prob": round(result.log_prob, 6),
                }  # fmt: skip
                results.write(json.dumps(row) + "\n")
    if not total.sentences:
        raise DataError(
            f"no text in {', '.join(map(str, texts))}. Lines with at least one word were expected."
        )
    return total


def sentence_perplexity(model: "AnyLanguageModel", text: str) -> PerplexityResult:
    """How well a model predicts one sentence, its end included."""
    ids, log_probs = model.encode(text), model.log_probs(text)
    is_unknown = ids == 0
    unknown_log_prob = float(log_probs[:-1][is_unknown].sum())
    return PerplexityResult(1, len(ids), int(is_unknown.sum()), float(log_probs.sum()), unknown_log_prob)
