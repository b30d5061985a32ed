"""Interpolate n-gram models: weights found by EM on a text, and one back-off model of them all.

The result has every n-gram that any of the models has. Its probability is the weighted mean of the models'
probabilities, each backed off where a model does not have the n-gram; back-off weights are computed so that
probabilities sum to 1. A model takes a word that it does not have for `<unk>` where the word is a part of the
history, and gives it no probability where it is predicted, so that nothing is counted twice.

Source: Jelinek & Mercer (1980), Interpolated estimation of Markov source parameters from sparse data (EM);
Stolcke (2002), SRILM - an extensible language modeling toolkit, section 4.2: what its `compute-best-mix` and,
for models of one vocabulary, its `ngram -mix-lm` compute.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.errors import DataError, ModelError, SettingsError
from asr.lm.interface import Unit
from asr.lm.ngram.build import select_vocabulary
from asr.lm.ngram.disk import DiskArrays
from asr.lm.ngram.model import NgramModel
from asr.lm.ngram.prune import keep, set_backoffs
from asr.lm.ngram.trie import (
    BOS_ID,
    LOG_ZERO,
    MAX_NODES,
    RESERVED,
    UNK_ID,
    NgramArrays,
    UnpackedNgrams,
    advance_unpacked,
    link,
)
from asr.lm.text_files import read_blocks
from asr.text.normalize import normalize

__all__ = ["best_weights", "interpolate", "perplexity_table", "word_probs"]

log = logging.getLogger("asr")

_MAX_ITERATIONS = 1000
_CONVERGED = 1e-7  # nats a word


def word_probs(
    models: Mapping[str, NgramModel], texts: Sequence[Path], normalizer: str = "verbatim"
) -> NDArray[np.float64]:
    """How probable each model finds each word (or character) of texts, and each end of a sentence.

    Args:
        models: at least one, by the name that messages give them.
        texts: text files, see `lm.text_files`.
        normalizer: rules for each line, see `text.normalize`.

    Returns:
        (symbols, models) probabilities; 0 where a model does not know the symbol.

    Raises:
        DataError: a text cannot be read, or holds no word that a model knows.
        ModelError: models of different units, or whose words are written by different rules.
        SettingsError: the normalizer is unknown.
    """
    _check(models)
    rows: list[NDArray[np.float64]] = []
    for block, _, _ in read_blocks(texts):
        for line in block.decode().split("\n")[:-1]:
            if text := normalize(line, normalizer):
                columns = []
                for model in models.values():
                    probs = np.exp(model.log_probs(text))
                    probs[:-1][model.encode(text) == UNK_ID] = 0.0
                    columns.append(probs)
                rows.append(np.stack(columns, axis=1))
    if not any(row[:-1].any() for row in rows):
        raise DataError(
            f"no text in {', '.join(map(str, texts))}. Lines with at least one word of the models were "
            "expected."
        )
    return np.concatenate(rows)


def best_weights(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights with which models together predict symbols best; those that none knows do not count.

    Args:
        probs: (symbols, models) what `word_probs` returns for texts that no model was trained on.

    Returns:
        (models,) weights, which sum to 1.
    """
    probs = probs[probs.any(1)]
    weights = np.full(probs.shape[1], 1 / probs.shape[1])
    before = -math.inf
    for _ in range(_MAX_ITERATIONS):
        weighted_probs = probs * weights
        totals = weighted_probs.sum(1, keepdims=True)
        log_likelihood = float(np.log(totals).mean())
        weights = (weighted_probs / totals).mean(0)
        if log_likelihood - before < _CONVERGED:
            break
        before = log_likelihood
    return weights


def perplexity_table(
    probs: NDArray[np.float64], weights: Sequence[float], names: Sequence[str], unit: Unit
) -> list[str]:
    """A table of models: their perplexities of the same symbols, since others would be cheap as `<unk>`.

    Args:
        probs: (symbols, models) from `word_probs`.
        weights: of all models but the last, which is made of the others.
        names: (models,) of their files.
        unit: of the models.
    """
    common = probs[probs.all(1)]
    unknown, perplexities = (probs == 0).sum(0), np.exp(-np.log(common).mean(0))
    shown_weights = [*(f"{weight / sum(weights):.4f}" for weight in weights), ""]
    return [
        "weight  unknown  perplexity  model",
        *map("{:6}  {:7,}  {:10.2f}  {}".format, shown_weights, unknown, perplexities, names),
        f"of {len(probs):,} {unit}s and sentence ends; perplexity of the {len(common):,} that all know",
    ]


def interpolate(
    models: Mapping[str, NgramModel], weights: Sequence[float], vocabulary: Path | int | None = None
) -> NgramModel:
    """One model of several; its order is the highest of theirs.

    Args:
        models: by the name that messages give them. Models with the weight 0 are left out.
        weights: (models,) not negative; they are divided by their sum.
        vocabulary: None: every word of the models; a number: so many words, the most probable ones; a file:
            those of its words that a model has. The probability of other words goes to `<unk>`.

    Returns:
        The model, with exact values; see `NgramModel.quantized`.

    Raises:
        DataError: the vocabulary cannot be read.
        ModelError: some models are of words and others of characters, their words are written by different
            rules, or there are too many n-grams.
        SettingsError: not a weight for each model, or weights that cannot be used.
    """
    _check(models)
    mixture_weights = np.asarray(weights, np.float64)
    if (
        len(mixture_weights) != len(models)
        or not np.isfinite(mixture_weights).all()
        or (mixture_weights < 0).any()
        or not mixture_weights.any()
    ):
        raise SettingsError(
            f"--weights is {' '.join(f'{weight:g}' for weight in weights)}. A number for each of the "
            f"{len(models)} models was expected: 0 or more, and not all 0."
        )
    for name, weight in zip(models, mixture_weights, strict=True):
        if weight == 0:
            log.warning("%s has the weight 0: neither its words nor its n-grams are in the result.", name)
    sources = [
        model.unpacked() for model, weight in zip(models.values(), mixture_weights, strict=True) if weight > 0
    ]
    mixture_weights = mixture_weights[mixture_weights > 0] / mixture_weights.sum()
    words, n_wanted = _rank_words(sources, mixture_weights, vocabulary)
    merged = _merge(sources, words)
    probs = np.zeros(len(merged.arrays.word))
    parents = np.repeat(np.arange(len(merged.arrays.backoff), dtype=np.int32), np.diff(merged.arrays.begin))
    ids = {word: index for index, word in enumerate(words)}
    for source, weight in zip(sources, mixture_weights, strict=True):
        model_word_ids = np.full(len(words), -1, np.int32)
        model_word_ids[[ids[word] for word in source.words]] = np.arange(len(source.words))
        _add_probabilities(source.arrays, model_word_ids, weight, merged.arrays, parents, probs)
    arrays = merged.arrays
    probs[1 + BOS_ID] = 0.0  # never predicted; lmplz writes 1
    with np.errstate(divide="ignore"):
        arrays.log_prob[1:] = np.maximum(np.log(probs[1:]), LOG_ZERO)
    link(arrays)
    set_backoffs(arrays)
    return _limited(merged, n_wanted) if n_wanted < len(words) else NgramModel.from_unpacked(merged)


def _check(models: Mapping[str, NgramModel]) -> None:
    """Refuse models that cannot be one.

    Raises:
        ModelError: they differ in their units, or in how their words are written.
    """
    names = [*models]
    first = models[names[0]]
    folded = {word.casefold() for word in first.words}
    for name in names[1:]:
        other = models[name]
        if other.unit != first.unit:
            raise ModelError(
                f"{names[0]} is a model of {first.unit}s, {name} of {other.unit}s. Models of one unit were "
                "expected."
            )
        common = len(first.ids.keys() & other.ids.keys()) - len(RESERVED)
        if len(folded & {word.casefold() for word in other.words}) - len(RESERVED) > 2 * common:
            raise ModelError(
                f"the words of {name} are written otherwise than those of {names[0]}: upper case and lower "
                "case. One form was expected. Train one of them again with `asr lm train --normalizer`."
            )


def _rank_words(
    sources: Sequence[UnpackedNgrams], mixture_weights: NDArray[np.float64], vocabulary: Path | int | None
) -> tuple[list[str], int]:
    """The words of all models, each at its id, and how many of them stay.

    Those that stay come first, and the most probable ones before the others.
    """
    probs: dict[str, float] = {}
    for source, weight in zip(sources, mixture_weights, strict=True):
        unigrams = weight * np.exp(source.arrays.log_prob[1 : 1 + len(source.words)].astype(np.float64))
        for word, prob in zip(source.words, unigrams.tolist(), strict=True):
            probs[word] = probs.get(word, 0.0) + prob
    for word in RESERVED:
        del probs[word]
    ranked = sorted(probs, key=lambda word: (-probs[word], word))
    ranks, missing = select_vocabulary(ranked, vocabulary)
    stay = [ranked[rank] for rank in ranks]
    if missing:
        wanted = len(missing) + sum(word != " " for word in stay)
        log.warning("%d of the %d words of %s are in no model, and not in the result.", len(missing), wanted,
                     vocabulary)  # fmt: skip
    chosen = set(stay)
    others = [word for word in ranked if word not in chosen]
    return [*RESERVED, *stay, *others], len(RESERVED) + len(stay)


def _merge(sources: Sequence[UnpackedNgrams], words: Sequence[str]) -> UnpackedNgrams:
    """The n-grams that any model has, without probabilities.

    Args:
        sources: the models.
        words: those of all models; one's place is its id.
    """
    ids = {word: index for index, word in enumerate(words)}
    new_ids = [np.array([ids[word] for word in source.words], np.int64) for source in sources]
    # Of each model, the number of its nodes of the order below among those of the result.
    placed = [np.zeros(1, np.int64) for _ in sources]
    starts = [np.cumsum([0, 1, *source.counts]) for source in sources]  # the root is before the words
    order = max(len(source.counts) for source in sources)
    columns, bounds, counts = [np.full(1, -1, np.int32)], [np.ones(1, np.int32)], []
    below, total = 1, 1
    for n in range(1, order + 1):
        keys: list[NDArray[np.int64]] = []
        for i, source in enumerate(sources):
            if n > len(source.counts):
                keys.append(np.zeros(0, np.int64))
                continue
            first, stop = starts[i][n], starts[i][n + 1]
            sizes = np.diff(source.arrays.begin[starts[i][n - 1] : first + 1])
            parents, last = np.repeat(placed[i], sizes), new_ids[i][source.arrays.word[first:stop]]
            keys.append(parents << 32 | last)
        merged = np.unique(np.concatenate(keys))
        if total + len(merged) > MAX_NODES:
            raise ModelError(f"together the models have more than {MAX_NODES:,} n-grams. Prune them first.")
        placed = [np.searchsorted(merged, key) for key in keys]
        columns.append((merged & 0xFFFFFFFF).astype(np.int32))
        ends = np.searchsorted(merged >> 32, np.arange(below) + 1) + total
        bounds.append(ends.astype(np.int32))
        counts.append(len(merged))
        below, total = len(merged), total + len(merged)
    inner = total - below
    arrays = NgramArrays(
        np.concatenate(columns), np.zeros(total, np.float32), np.zeros(total, np.int32),
        np.zeros(inner, np.float32), np.concatenate(bounds),
    )  # fmt: skip
    return UnpackedNgrams(arrays, tuple(words), tuple(counts), sources[0].unit)


def _limited(unpacked: UnpackedNgrams, n_words: int) -> NgramModel:
    """The model with the first words alone."""
    kept = unpacked.arrays.word < n_words
    _move_to_unknown(unpacked.arrays, kept)
    with DiskArrays() as disk:
        arrays, counts = keep(unpacked.arrays, unpacked.counts, kept, disk)
        return NgramModel.from_unpacked(
            UnpackedNgrams(arrays, unpacked.words[:n_words], counts, unpacked.unit)
        )


@kernel
def _move_to_unknown(arrays: NgramArrays, kept: NDArray[np.bool_]) -> None:
    """Add the probability of words that are left out to that of `<unk>` in each context that has it.

    In the others it is backed off to.

    Args:
        arrays: the model; log-probabilities are changed.
        kept: (nodes,) whether the last word of each stays; made false where an earlier one does not.
    """
    left_out = np.zeros(len(arrays.backoff))  # the probability of all these words after each context
    for parent in range(len(arrays.backoff)):
        explicit, lower, shorter = 0.0, 0.0, arrays.suffix[parent]
        for node in range(arrays.begin[parent], arrays.begin[parent + 1]):
            if not kept[node]:
                explicit += math.exp(arrays.log_prob[node])
                if parent > 0:
                    lower += math.exp(advance_unpacked(arrays, shorter, arrays.word[node])[0])
            kept[node] = kept[node] and kept[parent]
        backed_off = math.exp(arrays.backoff[parent]) * (left_out[shorter] - lower) if parent > 0 else 0.0
        left_out[parent] = explicit + max(backed_off, 0.0)
    for parent in range(len(arrays.backoff)):
        unknown = arrays.begin[parent]  # the first child, its id being 0
        if kept[parent] and unknown < arrays.begin[parent + 1] and arrays.word[unknown] == UNK_ID:
            arrays.log_prob[unknown] = math.log(math.exp(arrays.log_prob[unknown]) + left_out[parent])


@kernel
def _add_probabilities(
    model: NgramArrays,
    model_word_ids: NDArray[np.int32],
    weight: float,
    merged: NgramArrays,
    parents: NDArray[np.int32],
    probs: NDArray[np.float64],
) -> None:
    """Add the share of one model to the probability of each n-gram of the result.

    Args:
        model: the model.
        model_word_ids: (words of the result,) the id that each word has in the model; -1 where it has none.
        weight: its weight.
        merged: the n-grams of the result.
        parents: (nodes - 1,) the node of all words but the last, of each node after the root.
        probs: (nodes,) output.
    """
    states = np.zeros(len(merged.backoff), np.int32)  # of the model, after the words of each node
    for node in range(1, len(merged.word)):
        model_word_id = model_word_ids[merged.word[node]]
        log_prob, state = advance_unpacked(model, states[parents[node - 1]], max(model_word_id, UNK_ID))
        if model_word_id >= 0:
            probs[node] += weight * math.exp(log_prob)
        if node < len(states):
            states[node] = state
