"""Random n-gram models, with every kind of gap."""

import random
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from asr.lm.ngram.trie import NgramArrays, link

Gram = tuple[int, ...]
Table = dict[Gram, tuple[float, float]]  # log-probability and back-off of each n-gram


def _random_table(seed: int, order: int, n_words: int = 4) -> Table:
    """Prefixes are always there, as ARPA demands; suffixes are often missing, as after SRILM's pruning."""
    draw = random.Random(seed)
    table: Table = {}
    for n in range(1, order + 1):
        for gram in product(range(n_words), repeat=n):
            if n == 1 or (gram[:-1] in table and draw.random() < 0.4):
                backoff = draw.choice([0.0, -draw.random()]) if n < order else 0.0
                table[gram] = (-draw.random(), backoff)
    return table


def _arrays_of(table: Table, order: int) -> NgramArrays:
    grams: list[Gram] = [()]
    begin = [1]
    for n in range(1, order + 1):
        for parent in [gram for gram in grams if len(gram) == n - 1]:
            grams += sorted(gram for gram in table if gram[:-1] == parent and len(gram) == n)
            begin.append(len(grams))
    inner = len(begin) - 1
    arrays = NgramArrays(
        np.array([gram[-1] if gram else -1 for gram in grams], np.int32),
        np.array([table[gram][0] if gram else 0 for gram in grams], np.float32),
        np.zeros(len(grams), np.int32),
        np.array([table[gram][1] if gram else 0 for gram in grams[:inner]], np.float32),
        np.array(begin, np.int32),
    )
    link(arrays)
    return arrays


@pytest.fixture(scope="session")
def random_table() -> Callable[..., Table]:
    return _random_table


@pytest.fixture(scope="session")
def arrays_of() -> Callable[[Table, int], NgramArrays]:
    return _arrays_of
