"""Smoothing against the textbook's formulas in plain Python, which shares no mistake with arrays."""

import itertools
import logging
import math
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from asr.errors import DataError
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.model import NgramModel
from asr.lm.ngram.smooth import FALLBACK, discounts

Gram = tuple[str, ...]


def sentences(seed: int, count: int = 400) -> list[str]:
    """Skewed nonsense, so that counts of 1, 2, 3 and 4 occur at every order."""
    draw = random.Random(seed)
    words = [*"abcdefgh", *(f"w{i}" for i in range(1000))]
    weights = [1 / (1 + i) ** 1.5 for i in range(len(words))]
    return [" ".join(draw.choices(words, weights, k=draw.randint(1, 9))) for _ in range(count)]


def naive(texts: list[str], order: int, cutoffs: list[int]) -> tuple[dict[Gram, float], dict[Gram, float]]:
    """Interpolated modified Kneser-Ney as Chen & Goodman write it: probabilities, and back-off weights."""
    raw: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
    for text in texts:
        words = ("<s>", *text.split(), "</s>")
        for n in range(1, order + 1):
            raw[n].update(words[i : i + n] for i in range(len(words) - n + 1))
    adjusted: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
    adjusted[order] = Counter(raw[order])
    for n in range(1, order):
        adjusted[n].update(gram[1:] for gram in raw[n + 1])
        adjusted[n].update({gram: count for gram, count in raw[n].items() if gram[0] == "<s>"})
    adjusted[1][("<s>",)] = 0
    probs: dict[Gram, float] = {}
    backoffs: dict[Gram, float] = {}
    vocabulary = {gram[0] for gram in raw[1]} - {"<s>"} | {"<unk>"}
    for n in range(1, order + 1):
        t = Counter(adjusted[n].values())
        y = t[1] / (t[1] + 2 * t[2])
        d = [0.0, *(k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))]
        children: defaultdict[Gram, list[Gram]] = defaultdict(list)
        for gram in adjusted[n]:
            children[gram[:-1]].append(gram)
        for context, grams in children.items():
            total = sum(adjusted[n][gram] for gram in grams)
            kept = [gram for gram in grams if n == 1 or raw[n][gram] > cutoffs[n - 1]]
            cut = sum(adjusted[n][gram] for gram in grams if gram not in kept)
            gamma = (sum(d[min(3, adjusted[n][gram])] for gram in kept) + cut) / total
            backoffs[context] = gamma
            for gram in kept:
                discounted = adjusted[n][gram] - d[min(3, adjusted[n][gram])]
                lower = 1 / len(vocabulary) if n == 1 else probs[gram[1:]]
                probs[gram] = discounted / total + gamma * lower
        if n == 1:
            probs[("<unk>",)] = backoffs[()] / len(vocabulary)
    return probs, backoffs


def written(model: NgramModel) -> dict[Gram, float]:
    """The probability of every n-gram of a model, read off its trie."""
    found: dict[Gram, float] = {}
    grams: list[Gram] = [()]
    arrays = model.unpacked().arrays
    for node in range(len(arrays.word)):
        if node:
            found[grams[node]] = math.exp(arrays.log_prob[node])
        if node < len(arrays.backoff):
            for child in range(arrays.begin[node], arrays.begin[node + 1]):
                grams.append((*grams[node], model.words[arrays.word[child]]))
    return found


def train(folder: Path, texts: list[str], **config: object) -> NgramModel:
    text = folder / "text.txt"
    text.write_text("\n".join(texts) + "\n")
    return build([text], NgramConfig(**config), folder / "model.bin")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("order", "cutoffs"), [(1, ()), (2, ()), (3, ()), (5, ()), (3, (0, 0, 1)), (4, (0, 1, 2))]
)
def test_probabilities_are_the_formulas(tmp_path: Path, order: int, cutoffs: tuple[int, ...]) -> None:
    """A wrong discount, adjusted count, interpolation or cut-off, at any order."""
    texts = sentences(seed=1)
    model = train(tmp_path, texts, order=order, cutoffs=cutoffs)
    padded = [*cutoffs, *[cutoffs[-1] if cutoffs else 0] * order][:order]
    probs, backoffs = naive(texts, order, padded)
    found = written(model)
    assert found.pop(("<s>",)) == pytest.approx(0, abs=1e-40)
    probs.pop(("<s>",))
    assert found.keys() == probs.keys()
    for gram, prob in probs.items():
        assert math.log(found[gram]) == pytest.approx(math.log(prob), abs=1e-6), gram
    if order > 1:
        weight = math.exp(model.unpacked().arrays.backoff[1 + model.ids["a"]])
        assert weight == pytest.approx(backoffs[("a",)], rel=1e-6)


@pytest.mark.parametrize("entropy", [0.0, 1e-5, 1e-3])
@pytest.mark.parametrize("cutoffs", [(), (0, 0, 1)])
def test_sums_to_one(tmp_path: Path, cutoffs: tuple[int, ...], entropy: float) -> None:
    """Probability that is lost or made, most of all by pruning: after any history all words sum to 1."""
    model = train(tmp_path, sentences(seed=2, count=200), order=4, cutoffs=cutoffs, entropy=entropy)
    words = [word for word in model.words if word != "<s>"]
    for history in itertools.product(["a", "b", "e", "zebra"], repeat=3):
        for begin in (model.start(), 0):
            state = begin
            for word in history:
                state = model.score([state], [word])[1][0]
            log_probs, _ = model.score([state] * len(words), words)
            assert np.exp(log_probs).sum() == pytest.approx(1, abs=2e-6), history


def test_discounts_of_a_hand_made_table() -> None:
    """Chen & Goodman's equation 26, with numbers: t = 8, 4, 2, 1 gives Y = 1/2 and D = 1/2, 5/4, 2."""
    counts = np.repeat(np.array([1, 2, 3, 4, 9], np.uint32), [8, 4, 2, 1, 5])
    assert discounts(counts) == pytest.approx((0.5, 1.25, 2.0))
    counts = np.repeat(np.array([1, 2, 3, 4], np.uint32), [6, 3, 4, 2])  # Y = 1/2 again
    assert discounts(counts) == pytest.approx((0.5, 0.0, 2.0))
    assert discounts(np.repeat(np.array([1, 2, 3, 4], np.uint32), [6, 3, 5, 2])) is None  # D2 = -1/2


def test_a_discount_of_0_leaves_a_model_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A back-off whose logarithm is minus infinity, which our own reader refuses."""
    monkeypatch.setattr("asr.lm.ngram.smooth.discounts", lambda counts: (0.0, 0.0, 0.0))
    model = train(tmp_path, sentences(seed=1), order=2)
    model.save(tmp_path / "model.arpa")
    again = NgramModel.load(tmp_path / "model.arpa")
    assert np.isfinite(again.log_probs("a zebra b")).all()
    assert again.log_probs("a b").sum() == pytest.approx(model.log_probs("a b").sum(), rel=1e-5)
    assert "-99\t<s>" in (tmp_path / "model.arpa").read_text()


def test_too_little_text_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Discounts that nothing supports, used in silence; lmplz refuses, we warn which ones are used."""
    with caplog.at_level(logging.WARNING, logger="asr"):
        model = train(tmp_path, ["a b"], order=2)
    assert discounts(np.ones(3, np.uint32)) is None
    assert "discounts of 1-grams: 0.5, 1, 1.5 are used" in caplog.text
    assert FALLBACK == (0.5, 1.0, 1.5)
    assert np.isfinite(model.log_probs("b a b")).all()


def test_same_text_same_bytes_whatever_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are merged wrongly, or keys lost at the borders of blocks: seen only on large texts."""
    texts = sentences(seed=3)
    train(tmp_path, texts, order=4)
    whole = (tmp_path / "model.bin").read_bytes()
    for block in (97, 256):
        monkeypatch.setattr("asr.lm.ngram.count._BLOCK", block)
        monkeypatch.setattr("asr.lm.text_files._BLOCK", block)
        monkeypatch.setattr("asr.lm.ngram.build._BLOCK", block)
        train(tmp_path, texts, order=4)
        assert (tmp_path / "model.bin").read_bytes() == whole


def test_limits_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of n-grams or words that overflow, and wrong counts in silence."""
    monkeypatch.setattr("asr.lm.ngram.count.MAX_NODES", 100)
    with pytest.raises(DataError, match="more than 100 different n-grams up to order 2"):
        train(tmp_path, sentences(seed=1), order=3)
    monkeypatch.setattr("asr.lm.ngram.count._MAX_WORDS", 50)
    with pytest.raises(DataError, match="more than 50 words and sentence ends"):
        train(tmp_path, sentences(seed=1), order=3)
