"""The packed model against the flat arrays that it is made of, and what quantisation may change."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asr.compiled import kernel
from asr.lm.ngram import packed, trie
from asr.lm.ngram.packed import PackedNgrams, fits, is_sound, pack, unpack
from asr.lm.ngram.trie import NgramArrays

Table = dict[tuple[int, ...], tuple[float, float]]
RandomTable = Callable[..., Table]
ArraysOf = Callable[[Table, int], NgramArrays]

ORDERS = range(1, 7)


@kernel
def read_field(ngrams: PackedNgrams, column: int, index: int) -> int:
    return packed.read_field(ngrams, column, index)


def counts_of(table: Table, order: int) -> tuple[int, ...]:
    return tuple(sum(len(gram) == n for gram in table) for n in range(1, order + 1))


@pytest.mark.parametrize("bits", [1, 3, 8, 13, 31, 32])
def test_columns_cross_the_borders_of_words(bits: int) -> None:
    """An integer that spans two 64-bit words, the last of a column, and the sign bit of either."""
    draw = random.Random(bits)
    values = [draw.randrange(1 << bits) for _ in range(300)] + [(1 << bits) - 1] * 70
    parts = [np.array(values), np.array(values[::-1])]
    data, columns = packed._pack_columns(parts)
    ngrams = PackedNgrams(data, columns, np.zeros(0, np.float32), np.zeros((0, 4), np.int64))
    assert columns[:, 1].tolist() == [bits, bits]
    for column, part in enumerate(parts):
        assert [read_field(ngrams, column, index) for index in range(len(part))] == part.tolist()


@pytest.mark.parametrize("order", ORDERS)
def test_exact_walk_is_that_of_the_arrays(order: int, random_table: RandomTable, arrays_of: ArraysOf) -> None:
    """A state that forgets too much or too little, a value that is rounded, a table of another order."""
    for seed in range(5):
        table = random_table(seed, order, n_words=5)
        arrays = arrays_of(table, order)
        ngrams = pack(arrays, counts_of(table, order))
        assert fits(ngrams, counts_of(table, order))
        assert is_sound(ngrams)
        node = state = 0
        states = {0: 0}
        for word in random.Random(seed).choices(range(5), k=600):
            wanted, node = trie.advance_unpacked(arrays, node, word)
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
    """A code that names another bin's value: no value may differ by more than the width of its bin."""
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
    assert is_sound(pack(arrays, counts, 4))


def changed(ngrams: PackedNgrams, column: int, index: int, value: int) -> PackedNgrams:
    """The model with another number in one of its columns."""
    sizes = np.diff([*ngrams.columns[:, 0], 64 * len(ngrams.data) - 64]) // ngrams.columns[:, 1]
    columns = [np.array([read_field(ngrams, c, i) for i in range(size)]) for c, size in enumerate(sizes)]
    columns[column][index] = value
    data, layout = packed._pack_columns(columns)
    return ngrams._replace(data=data, columns=layout)


@pytest.mark.parametrize(
    ("column", "index", "value"),
    [(packed.FIRST_CHILD, 0, 1), (packed.FIRST_CHILD, 1, 5), (packed.FIRST_CHILD, 3, 10**6),
     (packed.SUFFIX, 5, 5),
     (packed.SUFFIX, 3, 10**6), (packed.WORD, 0, 99), (packed.WORD, 1, 0), (packed.LOG_PROB, 0, 10**5),
     (packed.BACKOFF, 2, 10**5), (packed.IS_STATE, 0, 0), (packed.STATES_BEFORE, 0, 7)],
)  # fmt: skip
def test_walks_that_leave_the_arrays_are_found(
    column: int, index: int, value: int, random_table: RandomTable, arrays_of: ArraysOf
) -> None:
    """Compiled code does not check its indices: one wrong number would crash the decoder or hang it."""
    table = random_table(1, 3)
    ngrams = pack(arrays_of(table, 3), counts_of(table, 3))
    assert is_sound(ngrams)
    assert is_sound(changed(ngrams, column, index, read_field(ngrams, column, index)))
    assert not is_sound(changed(ngrams, column, index, value))


@pytest.mark.parametrize("name", ["data", "values", "columns", "orders"])
def test_arrays_of_other_sizes_are_found(name: str, random_table: RandomTable, arrays_of: ArraysOf) -> None:
    """The check itself would read past the arrays: first their sizes must fit the counts."""
    table = random_table(1, 3)
    counts = counts_of(table, 3)
    ngrams = pack(arrays_of(table, 3), counts)
    assert fits(ngrams, counts)
    array: Any = getattr(ngrams, name)
    assert not fits(ngrams._replace(**{name: array[:-1]}), counts)
    more = array.copy()
    more.reshape(-1)[-1] += 40
    assert fits(ngrams._replace(**{name: more}), counts) == (name in ("data", "values"))
