"""The best path of words against torchaudio, and against every choice of pronunciations and missing words."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torchaudio
from torch import Tensor

from asr.decoding import word_alignment
from asr.decoding.word_alignment import align_words
from asr.decoding.word_graph import Alignment, AlignmentCosts, WordGraph

EXACT = AlignmentCosts(math.inf, math.inf, math.inf, math.inf, math.inf, math.inf)


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in every test: moves that are found again have to be the same."""
    monkeypatch.setattr(word_alignment, "_BLOCK", 7)


def torchaudio_path(log_probs: Tensor, tokens: Sequence[int]) -> tuple[list[int], float]:
    """(steps,) tokens of the best path, and its score; -inf where the tokens do not fit."""
    repeats = sum(one == other for one, other in itertools.pairwise(tokens))
    if len(tokens) + repeats > len(log_probs):
        return [], -math.inf
    if not tokens:
        return [0] * len(log_probs), float(log_probs[:, 0].sum())
    path, scores = torchaudio.functional.forced_align(log_probs[None], torch.tensor([tokens]).int())
    return path[0].tolist(), float(scores.sum())


def path_of(found: Alignment, steps: int) -> list[int]:
    path = [0] * steps
    for word in found.words:
        if word is not None:
            for token, (begin, end) in zip(word.tokens.tolist(), word.spans.tolist(), strict=True):
                path[begin:end] = [token] * (end - begin)
    return path


def random_words(seed: int, count: int) -> list[list[list[int]]]:
    """Words of one to three tokens."""
    draw = np.random.default_rng(seed)
    return [[draw.integers(1, 5, draw.integers(1, 4)).tolist()] for _ in range(count)]


@pytest.mark.parametrize("seed", range(10))
def test_is_torchaudios_path(seed: int, random_rows: Callable[..., Tensor]) -> None:
    """Repeats within and across words, ends of blocks, words that are taken for others."""
    log_probs = random_rows(seed, steps=40, vocab=5).float()
    words = random_words(seed, 1 + seed)
    found = align_words(log_probs.numpy(), WordGraph(words), EXACT)
    path, score = torchaudio_path(log_probs, [token for (ids,) in words for token in ids])
    assert path_of(found, 40) == path
    assert found.score == pytest.approx(score, abs=1e-3)
    assert [word.tokens.tolist() for word in found.words if word] == [ids for (ids,) in words]
    assert len(found.stars) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_best_pronunciations(seed: int, random_rows: Callable[..., Tensor]) -> None:
    """A pronunciation that does not compete, or a transition into or out of one that is missing."""
    log_probs = random_rows(seed, steps=15, vocab=5).float()
    draw = np.random.default_rng(seed)
    words = [[draw.integers(1, 5, draw.integers(1, 4)).tolist() for _ in range(3)] for _ in range(3)]
    found = align_words(log_probs.numpy(), WordGraph(words), EXACT)
    path, score = max(
        (torchaudio_path(log_probs, [*itertools.chain(*ids)]) for ids in itertools.product(*words)),
        key=lambda one: one[1],
    )
    assert path_of(found, 15) == path
    assert found.score == pytest.approx(score, abs=1e-3)
    spoken = [word.tokens.tolist() for word in found.words if word]
    assert spoken == [ids[word.pronunciation] for ids, word in zip(words, found.words, strict=True) if word]


@pytest.mark.parametrize("seed", range(8))
def test_the_best_words_to_leave_out(seed: int, random_rows: Callable[..., Tensor]) -> None:
    """Costs of missing words at the ends or between that are counted wrongly."""
    log_probs = random_rows(seed, steps=12, vocab=5).float()
    words = random_words(100 + seed, 5)
    costs = AlignmentCosts(math.inf, math.inf, skip=2.0, skip_token=1.5, skip_at_ends=0.7, window=math.inf)
    found = align_words(log_probs.numpy(), WordGraph(words), costs)
    # One blank at least is where words are left out: here a token of its own, as probable as the blank.
    with_gap = torch.cat([log_probs, log_probs[:, :1]], dim=1)
    gap = log_probs.shape[1]
    best = (-math.inf, ())
    for kept in itertools.product([True, False], repeat=len(words)):
        tokens: list[int] = []
        cost = 0.0
        for keep, group in itertools.groupby(range(len(words)), key=lambda number: kept[number]):
            numbers = list(group)
            size = sum(len(words[number][0]) for number in numbers)
            if keep:
                tokens += [token for number in numbers for token in words[number][0]]
            elif numbers[0] == 0 or numbers[-1] == len(words) - 1:
                cost += costs.skip + costs.skip_at_ends * size
            else:
                cost += costs.skip + costs.skip_token * size
                tokens.append(gap)
        if any(kept):
            best = max(best, (torchaudio_path(with_gap, tokens)[1] - cost, kept))
    assert found.score == pytest.approx(best[0], abs=1e-3)
    assert tuple(word is not None for word in found.words) == best[1]


def test_the_window_prunes_nothing_that_counts(peaky_rows: Callable[..., Tensor]) -> None:
    """A search that loses its way where text is missing, or that prunes what it needs later."""
    words = random_words(3, 60)
    spoken = words[:20] + words[40:]
    log_probs = peaky_rows([token for (ids,) in spoken for token in ids], 5, seed=1).float().numpy()
    found = align_words(log_probs, WordGraph(words), AlignmentCosts(window=60.0))
    exact = align_words(log_probs, WordGraph(words), AlignmentCosts(window=math.inf))
    assert found.score == exact.score
    assert [word is None for word in found.words] == [word is None for word in exact.words]
    missing = [number for number, word in enumerate(found.words) if word is None]
    assert set(range(21, 39)) <= set(missing) <= set(range(18, 42))


def test_speech_that_is_not_in_the_text(peaky_rows: Callable[..., Tensor]) -> None:
    """A title that is read first, or applause, that moves words from where they are said."""
    words = random_words(4, 40)
    tokens = [token for (ids,) in words for token in ids]
    rows = peaky_rows(tokens, 5, seed=1).float()
    other = [peaky_rows(np.random.default_rng(n).integers(1, 5, 40), 5, seed=n).float() for n in range(3)]
    expected = path_of(align_words(rows.numpy(), WordGraph(words), EXACT), len(rows))
    middle = len(rows) // 2
    while expected[middle - 1 : middle + 1] != [0, 0]:
        middle += 1
    log_probs = torch.cat([other[0], rows[:middle], other[1], rows[middle:], other[2]])
    found = align_words(log_probs.numpy(), WordGraph(words), AlignmentCosts())
    path = path_of(found, len(log_probs))
    first, second, last = (len(one) for one in other)
    kept = path[first : first + middle] + path[first + middle + second : len(path) - last]
    assert np.mean(np.array(kept) == np.array(expected)) > 0.97
    assert sum(word is None for word in found.words) <= 2
    assert len(found.stars) == 3
    for (begin, end), at in zip(found.stars, (0, first + middle, len(path) - last), strict=True):
        assert abs(begin - at) < 12
        assert end - begin > 0.7 * first


def test_separators_are_no_part_of_words(peaky_rows: Callable[..., Tensor]) -> None:
    """A word that begins with the space before it."""
    log_probs = peaky_rows([1, 2, 4, 3, 4, 2], 5, seed=0).float().numpy()
    found = align_words(log_probs, WordGraph([[[1, 2]], [[3]], [[2]]], separator=4), EXACT)
    assert [word.tokens.tolist() for word in found.words if word] == [[1, 2], [3], [2]]


def test_a_word_without_a_pronunciation_is_left_out(peaky_rows: Callable[..., Tensor]) -> None:
    """A number that nobody can pronounce takes the words beside it with it."""
    log_probs = peaky_rows([1, 2, 3, 4], 5, seed=0).float().numpy()
    found = align_words(log_probs, WordGraph([[[1, 2]], [], [[3, 4]]]), AlignmentCosts())
    assert [word is not None for word in found.words] == [True, False, True]


def test_what_does_not_fit_has_no_path() -> None:
    """Steps or words that are none, and tokens that do not fit into the steps."""
    log_probs = np.log(np.full((2, 3), 1 / 3, np.float32))
    assert align_words(log_probs, WordGraph([[[1, 2, 1]]]), EXACT).score == -math.inf
    assert align_words(log_probs, WordGraph([[[1, 2, 1]]]), EXACT).words == (None,)
    assert align_words(log_probs, WordGraph([[[1, 2, 1]]])).words == (None,)
    assert align_words(log_probs[:0], WordGraph([[[1]]])).words == (None,)
    assert align_words(log_probs, WordGraph([])).words == ()
