"""An n-gram model as it lies in memory and in its file: bit-packed, with quantised values.

The n-grams are those of `trie.NgramArrays`, without its root, and in the same order: the node of the word
with id w is w; then follow the bigrams, the trigrams and so on, each order sorted by context, then by word.

Only some n-grams can be contexts: those with n-grams that extend them, or with a back-off weight. They are
the states, numbered from 1 in the order of their nodes; state 0 is the empty context. Only states have
children, a back-off weight and a suffix, so that the others, most of a pruned model, take 3 bytes.

A log-probability is a code: an index of a table, one table an order. With quantisation the table holds the
means of bins with equally many values; without it, every value that occurs, so that the model is exact. The
log-probabilities of single words are always exact.

Source: bit-packed trie and state minimisation as in KenLM (Heafield 2011, KenLM: Faster and Smaller Language
Model Queries, sections 3.2 and 4.1); quantisation by bins of equal size, Whittaker and Raj (2001),
Quantization-based language model compression. KenLM's `build_binary -q 8 -b 8 trie` takes as many bytes.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from asr.lm.trie import NgramArrays, link

__all__ = [
    "Column", "PackedNgrams", "advance", "empty", "is_sound", "pack", "pack_column", "read_column", "unpack",
]  # fmt: skip

_ONES = 0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 0x0101010101010101  # for counting bits


class Column(NamedTuple):
    """Integers from 0 on, each in the same number of bits, across the borders of 64-bit words.

    Attributes:
        data: int64, with one word more than is needed.
        bits: of an integer, 1 to 32.
    """

    data: NDArray[np.int64]
    bits: int


class PackedNgrams(NamedTuple):
    """An n-gram model of n nodes, v of them single words, and s states.

    Attributes:
        word: (n - v,) the last word of each longer n-gram.
        log_prob: (n - v,) code of the log-probability of that word after the others.
        is_state: (n,) bits, 64 in an int64: whether a node is a state.
        states_before: one int32 for each int64 of `is_state`: how many nodes before it are states.
        begin: (s + 1,) the children of state i are the nodes begin[i] to begin[i + 1] - 1.
        backoff: (s,) code of what it costs to forget the first word of a context.
        suffix: (s,) the state that is left when the first word of a context, or more, is forgotten.
        unigram: (v,) float32 natural log-probabilities of single words.
        log_prob_values: float32 natural logs: the tables of the codes, those of bigrams first.
        log_prob_start: (order,) int64: where the table of the bigrams begins, of the trigrams, and so on.
        backoff_values: likewise, the empty context first.
        backoff_start: (order,) int64.
        first_node: (order + 1,) int64: the first node of each order; the last is n.
        first_state: (order + 1,) int64: likewise, the empty context first; the last is s.
    """

    word: Column
    log_prob: Column
    is_state: NDArray[np.int64]
    states_before: NDArray[np.int32]
    begin: Column
    backoff: Column
    suffix: Column
    unigram: NDArray[np.float32]
    log_prob_values: NDArray[np.float32]
    log_prob_start: NDArray[np.int64]
    backoff_values: NDArray[np.float32]
    backoff_start: NDArray[np.int64]
    first_node: NDArray[np.int64]
    first_state: NDArray[np.int64]


@njit(cache=True, nogil=True, inline="always")
def read_column(column: Column, index: int) -> int:
    """One integer of a column; the index is not checked."""
    position = index * column.bits
    place, shift = position >> 6, position & 63
    value = column.data[place] >> shift
    if shift + column.bits > 64:
        value = (value & ((1 << (64 - shift)) - 1)) | (column.data[place + 1] << (64 - shift))
    return int(value & ((1 << column.bits) - 1))


@njit(cache=True, nogil=True)
def _state_of(ngrams: PackedNgrams, node: int) -> int:
    """The state of a node; 0 where it is none."""
    place, bit = node >> 6, node & 63
    flags = ngrams.is_state[place]
    if not (flags >> bit) & 1:
        return 0
    below = flags & ((1 << bit) - 1)
    below -= (below >> 1) & _ONES[0]
    below = (below & _ONES[1]) + ((below >> 2) & _ONES[1])
    below = (below + (below >> 4)) & _ONES[2]
    return 1 + int(ngrams.states_before[place]) + ((below * _ONES[3]) >> 56)


@njit(cache=True, nogil=True)
def _child_of(ngrams: PackedNgrams, state: int, word: int) -> int:
    """The node of a state's words and one more; -1 if there is none."""
    if state == 0:
        return word
    n_words = len(ngrams.unigram)
    low, end = read_column(ngrams.begin, state), read_column(ngrams.begin, state + 1)
    high = end
    while low < high:
        middle = (low + high) >> 1
        if read_column(ngrams.word, middle - n_words) < word:
            low = middle + 1
        else:
            high = middle
    if low < end and read_column(ngrams.word, low - n_words) == word:
        return low
    return -1


@njit(cache=True, nogil=True)
def _log_prob(ngrams: PackedNgrams, node: int) -> float:
    n_words = len(ngrams.unigram)
    if node < n_words:
        return float(ngrams.unigram[node])
    table = 0
    while node >= ngrams.first_node[table + 2]:
        table += 1
    code = read_column(ngrams.log_prob, node - n_words)
    return float(ngrams.log_prob_values[ngrams.log_prob_start[table] + code])


@njit(cache=True, nogil=True)
def _backoff(ngrams: PackedNgrams, state: int) -> float:
    table = 0
    while state >= ngrams.first_state[table + 1]:
        table += 1
    return float(ngrams.backoff_values[ngrams.backoff_start[table] + read_column(ngrams.backoff, state)])


@njit(cache=True, nogil=True)
def advance(ngrams: PackedNgrams, state: int, word: int) -> tuple[float, int]:
    """The log-probability of a word after a state, and the state that follows.

    Args:
        ngrams: the model.
        state: what this function returned for the words before, or 0 for the empty context.
        word: a word's id, 0 to the number of words - 1. It is not checked.

    Returns:
        natural log-probability, and the new state.

    Source: back-off as in the ARPA format; state minimisation as in KenLM (Heafield 2011, section 4.1).
    """
    total = 0.0
    node = _child_of(ngrams, state, word)
    while node < 0:
        total += _backoff(ngrams, state)
        state = read_column(ngrams.suffix, state)
        node = _child_of(ngrams, state, word)
    total += _log_prob(ngrams, node)
    following = _state_of(ngrams, node)
    while following == 0 and state != 0:  # what the words end with may be a context
        state = read_column(ngrams.suffix, state)
        node = _child_of(ngrams, state, word)
        if node >= 0:
            following = _state_of(ngrams, node)
    return total, following


def pack(arrays: NgramArrays, counts: tuple[int, ...], bits: int = 0) -> PackedNgrams:
    """Pack a model.

    Args:
        arrays: the model, with its suffixes linked.
        counts: how many n-grams it has of each order.
        bits: 2 to 16: of the codes of log-probabilities and of back-off weights; 0 keeps every value exactly.
    """
    inner = len(arrays.backoff)
    flags = (np.diff(arrays.begin) > 0) | (np.asarray(arrays.backoff) != 0.0)
    flags[0] = True
    contexts = np.flatnonzero(flags)
    numbers = np.cumsum(flags) - 1  # of the contexts among them
    first_node = np.cumsum([0, *counts])
    # The root is the first node of the arrays, and has a table of its own.
    first_state = np.searchsorted(contexts, [0, *(1 + first_node[:-1])])
    is_state = np.zeros(-(-int(first_node[-1]) // 64) * 64, np.bool_)
    is_state[: inner - 1] = flags[1:]
    words = np.packbits(is_state, bitorder="little").view("<i8").astype(np.int64)
    totals = is_state.reshape(-1, 64).sum(1)
    log_probs = [
        _quantize(arrays.log_prob[1 + begin : 1 + end], bits) for begin, end in pairwise(first_node[1:])
    ]
    backoffs = [_quantize(arrays.backoff[contexts[begin:end]], bits) for begin, end in pairwise(first_state)]
    begin = np.append(arrays.begin[contexts], arrays.begin[inner]) - 1
    return PackedNgrams(
        word=pack_column(arrays.word[1 + counts[0] :]),
        log_prob=pack_column(np.concatenate([np.zeros(0, np.int64), *(codes for codes, _ in log_probs)])),
        is_state=words,
        states_before=(np.cumsum(totals) - totals).astype(np.int32),
        begin=pack_column(begin),
        backoff=pack_column(np.concatenate([codes for codes, _ in backoffs])),
        suffix=pack_column(numbers[arrays.suffix[contexts]]),
        unigram=np.array(arrays.log_prob[1 : 1 + counts[0]], np.float32),
        log_prob_values=np.concatenate([np.zeros(0, np.float32), *(table for _, table in log_probs)]),
        log_prob_start=np.cumsum([0, *(len(table) for _, table in log_probs)]),
        backoff_values=np.concatenate([table for _, table in backoffs]),
        backoff_start=np.cumsum([0, *(len(table) for _, table in backoffs[:-1])]),
        first_node=first_node,
        first_state=first_state,
    )


def unpack(ngrams: PackedNgrams, counts: tuple[int, ...]) -> NgramArrays:
    """The model in the arrays that training and the ARPA format work with.

    Args:
        ngrams: the model.
        counts: how many n-grams it has of each order.
    """
    nodes, inner = sum(counts), 1 + sum(counts[:-1])
    arrays = NgramArrays(
        np.full(1 + nodes, -1, np.int32), np.zeros(1 + nodes, np.float32), np.zeros(1 + nodes, np.int32),
        np.zeros(inner, np.float32), np.zeros(inner + 1, np.int32),
    )  # fmt: skip
    _unpack(ngrams, arrays)
    link(arrays)
    return arrays


def empty() -> PackedNgrams:
    """A model of nothing, for compiled code that takes one also where there is none."""
    column = Column(np.zeros(1, np.int64), 1)
    reals, integers = np.zeros(0, np.float32), np.zeros(0, np.int64)
    return PackedNgrams(
        column, column, integers, np.zeros(0, np.int32), column, column, column,
        reals, reals, integers, reals, integers, integers, integers,
    )  # fmt: skip


def pack_column(values: NDArray[np.int64]) -> Column:
    """A column of these integers, none of them negative."""
    bits = max(1, int(values.max(initial=0)).bit_length())
    data = np.zeros(len(values) * bits // 64 + 2, np.int64)
    _write(np.ascontiguousarray(values, np.int64), bits, data)
    return Column(data, bits)


def _quantize(values: NDArray[np.float32], bits: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The code of each value, and the table of the codes."""
    table, codes = np.unique(values, return_inverse=True)
    if bits and len(table) > 1 << bits:
        borders = np.linspace(0, len(values), (1 << bits) + 1).astype(np.int64)
        sums = np.add.reduceat(np.sort(values).astype(np.float64), borders[:-1])
        table = np.unique((sums / np.diff(borders)).astype(np.float32))
        codes = np.searchsorted((table[1:] + table[:-1]) / 2, values)
    return codes.astype(np.int64), table.astype(np.float32)


@njit(cache=True, nogil=True)
def _write(values: NDArray[np.int64], bits: int, data: NDArray[np.int64]) -> None:
    for index in range(len(values)):
        position = index * bits
        place, shift = position >> 6, position & 63
        data[place] |= values[index] << shift
        if shift + bits > 64:
            data[place + 1] |= values[index] >> (64 - shift)


@njit(cache=True, nogil=True)
def _unpack(ngrams: PackedNgrams, arrays: NgramArrays) -> None:
    n_words, inner = len(ngrams.unigram), len(arrays.backoff)
    states = 0
    for i in range(len(arrays.word)):  # with the root
        node = i - 1
        state = 0
        if node >= 0:
            arrays.word[i] = node if node < n_words else read_column(ngrams.word, node - n_words)
            arrays.log_prob[i] = _log_prob(ngrams, node)
            state = _state_of(ngrams, node)
        if i < inner:
            arrays.begin[i] = 1 + read_column(ngrams.begin, states)
            if state > 0 or i == 0:
                arrays.backoff[i] = _backoff(ngrams, state)
                states += 1
    arrays.begin[inner] = 1 + read_column(ngrams.begin, states)


@njit(cache=True, nogil=True)
def is_sound(ngrams: PackedNgrams, n_words: int) -> bool:
    """Whether no walk through the model can leave its arrays or go on forever.

    The lengths of the arrays, `first_node` and `first_state` are those of the file's header, and are checked
    with it.
    """
    order = len(ngrams.first_node) - 1
    nodes, states = ngrams.first_node[order], ngrams.first_state[order]
    for table in range(order - 1):
        if not 0 <= ngrams.log_prob_start[table] <= ngrams.log_prob_start[table + 1]:
            return False
    if ngrams.log_prob_start[order - 1] != len(ngrams.log_prob_values):
        return False
    if read_column(ngrams.begin, 0) != 0 or read_column(ngrams.begin, states) != nodes:
        return False
    if states > 1 and read_column(ngrams.begin, 1) != n_words:
        return False
    before = 0
    for node in range(nodes):
        if node & 63 == 0 and ngrams.states_before[node >> 6] != before:
            return False
        before += (ngrams.is_state[node >> 6] >> (node & 63)) & 1
    if 1 + before != states:
        return False
    table = 0
    for state in range(states):
        while state >= ngrams.first_state[table + 1]:
            table += 1
        end = len(ngrams.backoff_values)
        if table + 1 < order:
            end = ngrams.backoff_start[table + 1]
        if not 0 <= ngrams.backoff_start[table] + read_column(ngrams.backoff, state) < end:
            return False
        # A suffix's number is lower, so that every walk along suffixes ends at the empty context.
        if state > 0 and read_column(ngrams.suffix, state) >= state:
            return False
        low, high = read_column(ngrams.begin, state), read_column(ngrams.begin, state + 1)
        if low > high:
            return False
        last = -1
        for node in range(max(low, n_words), high):
            word = read_column(ngrams.word, node - n_words)
            if not last < word < n_words:
                return False
            last = word
    table = 0
    for node in range(n_words, nodes):
        while node >= ngrams.first_node[table + 2]:
            table += 1
        code = ngrams.log_prob_start[table] + read_column(ngrams.log_prob, node - n_words)
        if code >= ngrams.log_prob_start[table + 1]:
            return False
    return True
