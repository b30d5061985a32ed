"""The packed model against the flat arrays that it is made of, and what quantisation may change."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asr.lm import packed, trie
from asr.lm.packed import Column, PackedNgrams, is_sound, pack, pack_column, read_column, unpack
from asr.lm.trie import NgramArrays

Table = dict[tuple[int, ...], tuple[float, float]]
RandomTable = Callable[..., Table]
ArraysOf = Callable[[Table, int], NgramArrays]

ORDERS = range(1, 7)


def counts_of(table: Table, order: int) -> tuple[int, ...]:
    return tuple(sum(len(gram) == n for gram in table) for n in range(1, order + 1))


@pytest.mark.parametrize("bits", [1, 3, 8, 13, 31, 32])
def test_columns_cross_the_borders_of_words(bits: int) -> None:
    """An integer that lies in two 64-bit words, and the sign bit of either."""
    draw = random.Random(bits)
    values = [draw.randrange(1 << bits) for _ in range(300)] + [(1 << bits) - 1] * 70
    column = pack_column(np.array(values))
    assert column.bits == bits
    assert [read_column(column, index) for index in range(len(values))] == values


@pytest.mark.parametrize("order", ORDERS)
def test_exact_walk_is_that_of_the_arrays(order: int, random_table: RandomTable, arrays_of: ArraysOf) -> None:
    """A state that forgets too much or too little, a value that is rounded, a table of another order."""
    for seed in range(5):
        table = random_table(seed, order, n_words=5)
        arrays = arrays_of(table, order)
        ngrams = pack(arrays, counts_of(table, order))
        assert is_sound(ngrams, 5)
        node = state = 0
        states = {0: 0}
        for word in random.Random(seed).choices(range(5), k=600):
            wanted, node = trie.advance(arrays, node, word)
            found, state = packed.advance(ngrams, state, word)
            assert found == wanted
            assert states.setdefault(node, state) == state  # the same histories are one state
        assert len(set(states.values())) == len(states)


@pytest.mark.parametrize("order", ORDERS)
def test_unpacked_is_what_was_packed(order: int, random_table: RandomTable, arrays_of: ArraysOf) -> None:
    """What the ARPA writer writes of a packed model."""
    table = random_table(order, order)
    arrays, counts = arrays_of(table, order), counts_of(table, order)
    for ours, theirs in zip(unpack(pack(arrays, counts), counts), arrays, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_quantized_values_are_close(random_table: RandomTable, arrays_of: ArraysOf) -> None:
    """A code that names another bin's value: no value may lie further off than its bin is wide."""
    table = random_table(1, 6)
    arrays, counts = arrays_of(table, 6), counts_of(table, 6)
    quantized = unpack(pack(arrays, counts, 4), counts)
    first = 1 + counts[0]
    assert np.array_equal(quantized.log_prob[:first], arrays.log_prob[:first])  # words are exact
    for begin, end in zip(np.cumsum(counts)[:-1] + 1, np.cumsum(counts)[1:] + 1, strict=True):
        ours, theirs = quantized.log_prob[begin:end], arrays.log_prob[begin:end]
        assert len(np.unique(ours)) <= 16
        widest = max(
            (np.diff(part).max() if len(part) > 1 else 0.0) + part[-1] - part[0]
            for part in np.array_split(np.sort(theirs), min(16, len(theirs)))
        )
        assert np.abs(ours - theirs).max() <= widest + 1e-6
        assert abs(ours.mean() - theirs.mean()) < 0.02
    assert is_sound(pack(arrays, counts, 4), 4)


def changed(ngrams: PackedNgrams, name: str, index: int, value: int) -> PackedNgrams:
    """The model with another number in one of its arrays or columns."""
    old: Any = getattr(ngrams, name)
    if isinstance(old, Column):
        size = len(old.data) * 64 // old.bits
        values = np.array([read_column(old, i) for i in range(size - 64 // old.bits - 1)])
        values[index] = value
        return ngrams._replace(**{name: pack_column(values)})
    array = old.copy()
    array[index] = value
    return ngrams._replace(**{name: array})


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [("begin", 0, 1), ("begin", 1, 5), ("begin", 3, 10**6), ("suffix", 5, 5), ("suffix", 3, 10**6),
     ("word", 0, 99), ("word", 1, 0), ("log_prob", 0, 10**5), ("backoff", 2, 10**5), ("is_state", 0, 0),
     ("states_before", 0, 7), ("log_prob_start", 0, -1), ("backoff_start", 1, -9)],
)  # fmt: skip
def test_walks_that_leave_the_arrays_are_found(
    name: str, index: int, value: int, random_table: RandomTable, arrays_of: ArraysOf
) -> None:
    """Compiled code does not check its indices: one wrong number would crash the decoder or hang it."""
    table = random_table(1, 3)
    ngrams = pack(arrays_of(table, 3), counts_of(table, 3))
    assert is_sound(ngrams, 4)
    assert not is_sound(changed(ngrams, name, index, value), 4)
