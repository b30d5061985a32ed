"""The walk through the trie against the definition of back-off, on random models with every kind of gap."""

import random
from collections.abc import Callable

import pytest

from asr.lm.ngram.trie import NgramArrays, advance_unpacked

Gram = tuple[int, ...]
Table = dict[Gram, tuple[float, float]]  # log-probability and back-off of each n-gram
RandomTable = Callable[..., Table]
ArraysOf = Callable[[Table, int], NgramArrays]


def by_definition(table: Table, history: Gram, word: int, order: int) -> float:
    """The longest n-gram there is; for each word of history given up, the back-off of what it began."""
    history = history[-(order - 1) :] if order > 1 else ()
    if (*history, word) in table:
        return table[(*history, word)][0]
    return table.get(history, (0.0, 0.0))[1] + by_definition(table, history[1:], word, order)


@pytest.mark.parametrize("order", range(1, 7))
def test_walk_is_the_definition(order: int, random_table: RandomTable, arrays_of: ArraysOf) -> None:
    """A state that forgets too much or too little: seen only some words later, in rare histories."""
    for seed in range(5):
        table = random_table(seed, order)
        arrays = arrays_of(table, order)
        words = random.Random(seed).choices(range(4), k=400)
        state = 0
        for i, word in enumerate(words):
            log_prob, state = advance_unpacked(arrays, state, word)
            wanted = by_definition(table, tuple(words[:i]), word, order)
            assert log_prob == pytest.approx(wanted, abs=1e-6)


def test_equal_futures_have_equal_states(arrays_of: ArraysOf) -> None:
    """Hypotheses that differ only in what no longer matters are kept apart and crowd a beam."""
    table: Table = {(0,): (-1, -0.5), (1,): (-1, 0.0), (2,): (-1, 0.0), (3,): (-1, -0.25)}
    table |= {(0, 1): (-0.5, 0.0), (1, 2): (-0.5, 0.0), (0, 2): (-0.5, -0.1)}
    arrays = arrays_of(table, 3)
    nodes = {(): 0, (0,): 1, (1,): 2, (2,): 3, (3,): 4, (0, 1): 5, (0, 2): 6, (1, 2): 7}

    def after(*words: int) -> int:
        state = 0
        for word in words:
            state = advance_unpacked(arrays, state, word)[1]
        return state

    assert after(0, 1) == after(1) == nodes[(1,)]  # "0 1" begins nothing and costs nothing to forget
    assert after(1, 2) == after(2) == nodes[()]  # nor does "2"
    assert after(0, 2) == nodes[(0, 2)]  # begins nothing, but costs something
    assert after(2, 3) == after(3) == nodes[(3,)]
