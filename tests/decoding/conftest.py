"""An exhaustive decoder: slow and obviously right."""

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

Enumerate = Callable[[Tensor], dict[tuple[int, ...], float]]


def enumerate_prefixes(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Every token sequence that (steps, vocab) log-probabilities can give, and its log-probability.

    Each of the vocab ** steps paths is walked, collapsed, and its probability added to what it spells.
    """
    sums: dict[tuple[int, ...], float] = {}
    steps, vocab = log_probs.shape
    probs = log_probs.double().exp().tolist()
    for path in itertools.product(range(vocab), repeat=steps):
        tokens = tuple(token for token, _ in itertools.groupby(path) if token != 0)
        prob = 1.0
        for step, token in enumerate(path):
            prob *= probs[step][token]
        sums[tokens] = sums.get(tokens, 0.0) + prob
    return {tokens: float(torch.tensor(prob, dtype=torch.float64).log()) for tokens, prob in sums.items()}


@pytest.fixture(scope="session")
def enumerated() -> Enumerate:
    return enumerate_prefixes


def random_log_probs(seed: int, steps: int, vocab: int, sharpness: float = 2.0) -> Tensor:
    """(steps, vocab) float64 log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(steps, vocab, generator=generator, dtype=torch.float64)
    return logits.log_softmax(dim=1)


@pytest.fixture(scope="session")
def random_rows() -> Callable[..., Tensor]:
    return random_log_probs


def peaky_log_probs(tokens: Sequence[int], vocab: int, seed: int, noise: float = 1.0) -> Tensor:
    """(steps, vocab) float64 log-probabilities like a trained model's: a peak a token, blanks between."""
    generator = torch.Generator().manual_seed(seed)
    path: list[int] = []
    for token in tokens:
        path += [0] * int(torch.randint(1, 5, (1,), generator=generator)) + [token] * int(
            torch.randint(1, 3, (1,), generator=generator)
        )
    logits = noise * torch.randn(len(path), vocab, generator=generator, dtype=torch.float64)
    logits[torch.arange(len(path)), torch.tensor(path)] += 8.0
    return logits.log_softmax(dim=1)


@pytest.fixture(scope="session")
def peaky_rows() -> Callable[..., Tensor]:
    return peaky_log_probs
