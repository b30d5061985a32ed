"""The n-gram of CTC-CRF's denominator: counts, smoothing, log-probabilities of transcripts."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

from asr.errors import SettingsError
from asr.model.loss import denominator as module
from asr.model.loss.denominator import DenominatorLm, count_ngrams, witten_bell

TRANSCRIPTS = [[1, 2, 2], [], [2], [1, 2, 1, 3], [3, 3, 1]]
VOCAB = 5  # one token, 4, is never seen


def counted(order: int) -> Counter[tuple[int, ...]]:
    """N-grams one by one."""
    found: Counter[tuple[int, ...]] = Counter()
    for tokens in TRANSCRIPTS:
        padded = [0, 0, *tokens, 0]
        for end in range(3, len(padded) + 1):
            found[tuple(padded[end - order : end])] += 1
    return found


def smoothed(order: int, ngram: tuple[int, ...]) -> float:
    """Witten and Bell's interpolation, by its recursion."""
    if order == 0:
        return 1 / VOCAB
    here = {key: count for key, count in counted(order).items() if key[:-1] == ngram[:-1]}
    lower = smoothed(order - 1, ngram[1:])
    if not here:
        return lower
    total, types = sum(here.values()), len(here)
    return (here.get(ngram, 0) + types * lower) / (total + types)


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("order", [2, 3])
def test_counts_equal_those_of_a_loop(order: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the borders between transcripts, empty transcripts, and text that is counted in parts."""
    monkeypatch.setattr(module, "_CHUNK", chunk)
    counts = count_ngrams(iter(TRANSCRIPTS), order, VOCAB)
    expected = np.zeros_like(counts)
    for ngram, count in counted(order).items():
        expected[(ngram if order == 3 else (0, *ngram))] = count
    assert (counts == expected).all()
    assert counts.sum() == sum(len(tokens) + 1 for tokens in TRANSCRIPTS)


@pytest.mark.parametrize("order", [2, 3])
def test_smoothing(order: int) -> None:
    """Guards the recursion, contexts that were never seen, and a floor: nothing is impossible."""
    table = witten_bell(count_ngrams(TRANSCRIPTS, order, VOCAB))
    assert table.shape == (VOCAB if order == 3 else 1, VOCAB, VOCAB)
    np.testing.assert_allclose(table.sum(-1), 1, rtol=1e-12)
    assert (table > 0).all()
    for index in np.ndindex(table.shape):
        if order == 2 or index[:2] != (1, 0):
            ngram = tuple(index[1:]) if order == 2 else tuple(index)
            assert table[index] == pytest.approx(smoothed(order, ngram), rel=1e-12)


@pytest.mark.parametrize("order", [2, 3])
def test_log_prob_of_transcripts(order: int) -> None:
    """Guards the boundaries, the padding, and the perplexity that is reported."""
    counts = count_ngrams(TRANSCRIPTS, order, VOCAB)
    denominator = DenominatorLm(order, VOCAB).double()
    denominator.set_probs(witten_bell(counts))
    assert denominator.order == order
    lengths = torch.tensor([len(tokens) for tokens in TRANSCRIPTS])
    padded = torch.full((len(TRANSCRIPTS), 4), 99)
    for row, tokens in enumerate(TRANSCRIPTS):
        padded[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
    log_probs = denominator.log_prob(padded, lengths).tolist()
    for tokens, found in zip(TRANSCRIPTS, log_probs, strict=True):
        ids = [0, 0, *tokens, 0]
        ngrams = [tuple(ids[end - order : end]) for end in range(3, len(ids) + 1)]
        assert found == pytest.approx(sum(math.log(smoothed(order, ngram)) for ngram in ngrams), rel=1e-6)
    expected = math.exp(-sum(log_probs) / counts.sum())
    assert denominator.perplexity(counts) == pytest.approx(expected, rel=1e-6)


def test_a_trigram_fits_a_trigram_language_better() -> None:
    """Guards the context of two tokens: an alternation that a bigram cannot know."""
    rng = random.Random(0)
    texts = [[1, 2, 3, 2, 1, 2, 3][: rng.randint(4, 7)] for _ in range(200)]
    perplexities = []
    for order in (2, 3):
        counts = count_ngrams(texts, order, 4)
        denominator = DenominatorLm(order, 4)
        denominator.set_probs(witten_bell(counts))
        perplexities.append(denominator.perplexity(counts))
    assert perplexities[1] < 0.8 * perplexities[0]


def test_too_large() -> None:
    """Guards the memory: a trigram of many pieces is refused before its table is made."""
    with pytest.raises(SettingsError, match=r"500 to the power of 3 .* or a bigram: --model.denominator-ord"):
        DenominatorLm(3, 500)
    with pytest.raises(
        SettingsError, match=r"--model.denominator-order 2: .* \(there are about 40 phones\)\.$"
    ):
        DenominatorLm(2, 5000)
    assert DenominatorLm(2, 500).order == 2
