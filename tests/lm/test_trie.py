"""The walk through the trie against the definition of back-off, on random models with every kind of gap."""

import random
from itertools import product

import numpy as np
import pytest

from asr.lm.trie import NgramArrays, advance, is_sound, link

Gram = tuple[int, ...]
Table = dict[Gram, tuple[float, float]]  # log-probability and back-off of each n-gram


def random_table(seed: int, order: int, n_words: int = 4) -> Table:
    """Prefixes are always there, as ARPA demands; suffixes are often missing, as after SRILM's pruning."""
    draw = random.Random(seed)
    table: Table = {}
    for n in range(1, order + 1):
        for gram in product(range(n_words), repeat=n):
            if n == 1 or (gram[:-1] in table and draw.random() < 0.4):
                backoff = draw.choice([0.0, -draw.random()]) if n < order else 0.0
                table[gram] = (-draw.random(), backoff)
    return table


def arrays_of(table: Table, order: int) -> NgramArrays:
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


def by_definition(table: Table, history: Gram, word: int, order: int) -> float:
    """The longest n-gram there is; for each word of history given up, the back-off of what it began."""
    history = history[-(order - 1) :] if order > 1 else ()
    if (*history, word) in table:
        return table[(*history, word)][0]
    return table.get(history, (0.0, 0.0))[1] + by_definition(table, history[1:], word, order)


@pytest.mark.parametrize("order", range(1, 7))
def test_walk_is_the_definition(order: int) -> None:
    """A state that forgets too much or too little: seen only some words later, in rare histories."""
    for seed in range(5):
        table = random_table(seed, order)
        arrays = arrays_of(table, order)
        assert is_sound(arrays, 4)
        words = random.Random(seed).choices(range(4), k=400)
        state = 0
        for i, word in enumerate(words):
            log_prob, state = advance(arrays, state, word)
            wanted = by_definition(table, tuple(words[:i]), word, order)
            assert log_prob == pytest.approx(wanted, abs=1e-6)


def test_equal_futures_have_equal_states() -> None:
    """Hypotheses that differ only in what no longer matters are kept apart and crowd a beam."""
    table: Table = {(0,): (-1, -0.5), (1,): (-1, 0.0), (2,): (-1, 0.0), (3,): (-1, -0.25)}
    table |= {(0, 1): (-0.5, 0.0), (1, 2): (-0.5, 0.0), (0, 2): (-0.5, -0.1)}
    arrays = arrays_of(table, 3)
    nodes = {(): 0, (0,): 1, (1,): 2, (2,): 3, (3,): 4, (0, 1): 5, (0, 2): 6, (1, 2): 7}

    def after(*words: int) -> int:
        state = 0
        for word in words:
            state = advance(arrays, state, word)[1]
        return state

    assert after(0, 1) == after(1) == nodes[(1,)]  # "0 1" begins nothing and costs nothing to forget
    assert after(1, 2) == after(2) == nodes[()]  # nor does "2"
    assert after(0, 2) == nodes[(0, 2)]  # begins nothing, but costs something
    assert after(2, 3) == after(3) == nodes[(3,)]


def damaged(arrays: NgramArrays, name: str, place: int, value: int) -> NgramArrays:
    array = getattr(arrays, name).copy()
    array[place] = value
    return arrays._replace(**{name: array})


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [("begin", 0, 0), ("begin", 3, 10**6), ("begin", -1, 5), ("suffix", -1, 10**6), ("suffix", 6, -1),
     ("suffix", 6, 6), ("word", 2, 7), ("word", 6, 99)],
)  # fmt: skip
def test_walks_that_leave_the_arrays_are_found(name: str, place: int, value: int) -> None:
    """Compiled code does not check its indices: one wrong number would crash the decoder or hang it."""
    arrays = arrays_of(random_table(1, 3), 3)
    assert is_sound(arrays, 4)
    assert not is_sound(damaged(arrays, name, place, value), 4)
