"""A language model fitted to a subject: a person's text interpolated into a model of other text."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr.errors import DataError
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.interpolate import best_weights, interpolate, word_probs
from asr.lm.ngram.model import NgramModel
from asr.lm.text_files import read_blocks
from asr.text.normalize import normalize

__all__ = ["AdaptedLm", "SubjectText", "adapt_lm", "read_subject_text"]

log = logging.getLogger("asr")

_FOLDS = 5  # each line is held out of one of these models, of much text only those of the first
_MUCH = 2000  # different lines
_MIN_LINES = 10  # different ones
_SMALLEST_WEIGHT = 0.01  # of either model: with 0 its words would be missing
_WORD_ALONE = 1e-4  # the probability of each word without a text: once in 10,000 words, an hour of speech
_MOST_WORDS = 0.1  # and of all of them together
_BITS = 8  # of the values, as in the model that ships


@dataclass(frozen=True)
class SubjectText:
    """Text of a subject.

    Attributes:
        lines: normalised; none is empty. No line at all: there is no text.
        words: how often each occurs.
    """

    lines: list[str]
    words: Counter[str]


@dataclass(frozen=True, eq=False)
class AdaptedLm:
    """A language model that was fitted to a text.

    Attributes:
        model: the result.
        weights: of each model in it, by its name: the source, `text`, and `words`, of those that the text
            lacks, where there are any. Together they are 1.
        before: the source's perplexity of lines that were held out, of the words that it knows; None without
            a text.
        after: that of both together, of the same words.
    """

    model: NgramModel
    weights: dict[str, float]
    before: float | None = None
    after: float | None = None


def read_subject_text(texts: Sequence[Path], normalizer: str) -> SubjectText:
    """Read and normalise text.

    Args:
        texts: see `lm.text_files`.
        normalizer: rules for each line, see `text.normalize`.

    Raises:
        DataError: a text cannot be read, or there are fewer than ten different lines.
    """
    blocks = (block.decode().split("\n") for block, _, _ in read_blocks(texts))
    lines = [text for block in blocks for line in block if (text := normalize(line, normalizer))]
    if (different := len(set(lines))) < _MIN_LINES:
        raise DataError(
            f"{', '.join(map(str, texts))}: {different} different lines of text. At least {_MIN_LINES} were "
            "expected, one sentence a line: on lines that are held out the weight is found. Give more text."
        )
    return SubjectText(lines, Counter(word for line in lines for word in line.split()))


def adapt_lm(
    source: NgramModel, name: str, text: SubjectText, vocabulary: Iterable[str], folder: Path
) -> AdaptedLm:
    """A model of the text interpolated into another one, with the weight that predicts held-out lines best.

    The weight is found on each line with a model of other lines: words that only the held-out lines have are
    unknown to it. Then a model of all lines takes its place. Known words that the text does not have are as
    probable as one that occurs in it once; without a text, as a word that is said once in 10,000.

    Args:
        source: a model of words.
        name: of the source, for messages.
        text: see `read_subject_text`.
        vocabulary: the words that the result is to have besides those of the source; other words of the text
            are `<unk>`.
        folder: for temporary files.

    Raises:
        DataError: no word of the held-out lines is known.
    """
    vocabulary = dict.fromkeys(vocabulary)
    if not text.lines:
        weight = min(_WORD_ALONE * len(vocabulary), _MOST_WORDS)
        words = _build([" ".join(vocabulary)], vocabulary, 1, folder)
        mixed = interpolate({name: source, "words": words}, [1 - weight, weight])
        return AdaptedLm(mixed.quantized(_BITS), {name: 1 - weight, "words": weight})
    different = list(dict.fromkeys(text.lines))
    rows = []
    for fold in range(_FOLDS if len(different) < _MUCH else 1):
        held_out = dict.fromkeys(different[fold::_FOLDS])
        path = _write(folder / "held-out.txt", held_out)
        of_others = _build(
            [line for line in text.lines if line not in held_out], vocabulary, source.order, folder
        )
        rows.append(word_probs({name: source, "text": of_others}, [path]))
    probs = np.concatenate(rows)
    best = np.clip(best_weights(probs), _SMALLEST_WEIGHT, 1 - _SMALLEST_WEIGHT)
    given = probs[probs[:, 0] > 0]
    before, after = (float(np.exp(-np.log(column).mean())) for column in (given[:, 0], given @ best))
    models = {name: source, "text": _build(text.lines, vocabulary, source.order, folder)}
    weights = dict(zip(models, best.tolist(), strict=True))
    if unseen := [word for word in vocabulary if word not in text.words]:
        models["words"] = _build([" ".join(unseen)], vocabulary, 1, folder)
        weights["words"] = weights["text"] * len(unseen) / (len(unseen) + text.words.total())
        weights["text"] -= weights["words"]
    mixed = interpolate(models, list(weights.values()))
    return AdaptedLm(mixed.quantized(_BITS), weights, before, after)


def _build(lines: Sequence[str], vocabulary: Iterable[str], order: int, folder: Path) -> NgramModel:
    """A model of lines; its words are those of the lines that are in the vocabulary."""
    words = {word for line in lines for word in line.split()}
    listed = _write(folder / "words.txt", [word for word in vocabulary if word in words])
    config = NgramConfig(order=order, vocabulary=listed)
    with _no_messages():
        return build([_write(folder / "lines.txt", lines)], config, folder / "lm.bin")


def _write(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@contextmanager
def _no_messages() -> Iterator[None]:
    """Of several small models, which nobody asked for: that each has little text, and how much."""

    def drop(_: logging.LogRecord) -> bool:
        return False

    log.addFilter(drop)
    try:
        yield
    finally:
        log.removeFilter(drop)
