"""An n-gram model as decoders use it and as its file holds it: bit-packed, with quantised values.

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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.lm.ngram.trie import NgramArrays, link

__all__ = [
    "PackedNgrams",
    "advance",
    "empty",
    "fits",
    "is_sound",
    "pack",
    "read_field",
    "unpack",
    "word_log_probs",
]

# The columns. Of nodes: last word and code of the log-probability (of longer n-grams only), whether it is a
# state; of each 64 nodes how many states are before. Of states: first child, code of the back-off, suffix.
WORD, LOG_PROB, IS_STATE, STATES_BEFORE, FIRST_CHILD, BACKOFF, SUFFIX = range(7)

# The columns of `orders`: the first node and state of each order (the empty context is state 0), and where
# its log-probabilities and back-off weights begin in `values`.
NODES, STATES, LOG_PROBS, BACKOFFS = range(4)


class PackedNgrams(NamedTuple):
    """An n-gram model; only four arrays, because compiled code passes each on as an argument.

    Attributes:
        data: uint64: integers of a fixed number of bits, column by column; some span two words.
        columns: (7, 2) int64: the first bit of each column in `data`, and the bits of one of its integers.
        values: float32 natural logs: log-probabilities of single words, then the tables of the codes: of the
            log-probabilities of each longer order, and of the back-off weights of each length from 0.
        orders: (order + 1, 4) int64: row n is where the n-grams of order n + 1, the states of length n, and
            their values begin; the last row is where they end.
    """

    data: NDArray[np.uint64]
    columns: NDArray[np.int64]
    values: NDArray[np.float32]
    orders: NDArray[np.int64]


@kernel(allocates=False, inline=True)
def read_field(ngrams: PackedNgrams, column: int, index: int) -> int:
    """One integer of a column, such as WORD; the index is not checked."""
    bits = ngrams.columns[column, 1]
    position = np.uint64(ngrams.columns[column, 0] + index * bits)
    word, shift = position >> np.uint64(6), position & np.uint64(63)
    low = ngrams.data[word] >> shift
    high = (ngrams.data[word + np.uint64(1)] << np.uint64(1)) << (np.uint64(63) - shift)  # 0 if shift is 0
    return int(np.int64((low | high) & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1))))


@kernel(allocates=False, inline=True)
def _state_of(ngrams: PackedNgrams, node: int) -> int:
    """The state of a node; 0 if it is none."""
    if read_field(ngrams, IS_STATE, node) == 0:
        return 0
    word = np.uint64((ngrams.columns[IS_STATE, 0] + node) >> 6)  # the column begins at a word of `data`
    below = ngrams.data[word] & ((np.uint64(1) << np.uint64(node & 63)) - np.uint64(1))
    # How many bits are set, counted in pairs, fours and bytes; the product adds the bytes up.
    below -= (below >> np.uint64(1)) & np.uint64(0x5555555555555555)
    below = (below & np.uint64(0x3333333333333333)) + (
        (below >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    below = (below + (below >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    count = (below * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return 1 + read_field(ngrams, STATES_BEFORE, node >> 6) + int(np.int64(count))


@kernel(allocates=False, inline=True)
def _child_of(ngrams: PackedNgrams, state: int, word: int) -> int:
    """The node of a state's words and one more; -1 if there is none."""
    if state == 0:
        return word
    n_words = ngrams.orders[1, NODES]
    low, end = read_field(ngrams, FIRST_CHILD, state), read_field(ngrams, FIRST_CHILD, state + 1)
    high = end
    while low < high:
        middle = (low + high) >> 1
        if read_field(ngrams, WORD, middle - n_words) < word:
            low = middle + 1
        else:
            high = middle
    if low < end and read_field(ngrams, WORD, low - n_words) == word:
        return low
    return -1


@kernel(allocates=False, inline=True)
def _log_prob(ngrams: PackedNgrams, node: int) -> float:
    """Natural log-probability of a node's last word after its others."""
    n_words = ngrams.orders[1, NODES]
    if node < n_words:
        return float(ngrams.values[node])
    row = 1
    while node >= ngrams.orders[row + 1, NODES]:
        row += 1
    return float(ngrams.values[ngrams.orders[row, LOG_PROBS] + read_field(ngrams, LOG_PROB, node - n_words)])


@kernel(allocates=False, inline=True)
def _backoff(ngrams: PackedNgrams, state: int) -> float:
    """Natural logarithm of a state's back-off weight."""
    row = 0
    while state >= ngrams.orders[row + 1, STATES]:
        row += 1
    return float(ngrams.values[ngrams.orders[row, BACKOFFS] + read_field(ngrams, BACKOFF, state)])


@kernel
def advance(ngrams: PackedNgrams, state: int, word: int) -> tuple[float, int]:
    """The log-probability of a word after a state, and the state that follows.

    Args:
        ngrams: the model.
        state: what this function returned for the words before, or 0 for the empty context.
        word: a word's id, 0 to the number of words - 1. It is not checked.

    Returns:
        Natural log-probability, and the new state.

    Source: back-off as in the ARPA format; state minimisation as in KenLM (Heafield 2011, section 4.1).
    """
    total, following, scored = 0.0, 0, False
    while True:
        node = _child_of(ngrams, state, word)
        if node >= 0:
            if not scored:
                total += _log_prob(ngrams, node)
                scored = True
            # A suffix of these words may be a context even if they are none.
            following = _state_of(ngrams, node)
            if following > 0 or state == 0:
                return total, following
        elif not scored:
            total += _backoff(ngrams, state)
        state = read_field(ngrams, SUFFIX, state)


def word_log_probs(ngrams: PackedNgrams, ids: NDArray[np.int32]) -> NDArray[np.float64]:
    """(n,) natural log-probabilities of n words without context."""
    return ngrams.values[ids].astype(np.float64)


def pack(arrays: NgramArrays, counts: tuple[int, ...], bits: int = 0) -> PackedNgrams:
    """Pack a model.

    Args:
        arrays: the model, with its suffixes linked.
        counts: the number of n-grams of each order.
        bits: 2 to 16: of the codes of log-probabilities and of back-off weights; 0 keeps every value exactly.
    """
    inner = len(arrays.backoff)
    flags = (np.diff(arrays.begin) > 0) | (np.asarray(arrays.backoff) != 0.0)
    flags[0] = True
    contexts = np.flatnonzero(flags)
    numbers = np.cumsum(flags) - 1  # of the contexts among them
    nodes = np.cumsum([0, *counts])
    states = np.searchsorted(contexts, [0, *(1 + nodes[:-1])])  # the root is the first node of the arrays
    is_state = np.zeros(-(-int(nodes[-1]) // 64) * 64, np.bool_)
    is_state[: inner - 1] = flags[1:]
    in_words = is_state.reshape(-1, 64).sum(1)
    log_probs = [_quantize(arrays.log_prob[1 + low : 1 + high], bits) for low, high in pairwise(nodes[1:])]
    backoffs = [_quantize(arrays.backoff[contexts[low:high]], bits) for low, high in pairwise(states)]
    nothing = np.zeros(0, np.int64)
    data, columns = _pack_columns(
        [
            arrays.word[1 + counts[0] :],
            np.concatenate([nothing, *(codes for codes, _ in log_probs)]),
            is_state,
            np.cumsum(in_words) - in_words,
            np.append(arrays.begin[contexts], arrays.begin[inner]) - 1,
            np.concatenate([codes for codes, _ in backoffs]),
            numbers[arrays.suffix[contexts]],
        ]
    )
    tables = [arrays.log_prob[1 : 1 + counts[0]], *(table for _, table in log_probs)]
    starts = np.cumsum([0, *map(len, tables), *(len(table) for _, table in backoffs)])
    order = len(counts)
    return PackedNgrams(
        data,
        columns,
        np.concatenate([*tables, *(table for _, table in backoffs)]).astype(np.float32),
        np.stack([nodes, states, starts[: order + 1], starts[order:]], axis=1),
    )


def unpack(ngrams: PackedNgrams, counts: tuple[int, ...]) -> NgramArrays:
    """The model in the arrays that training and the ARPA format work with.

    Args:
        ngrams: the model.
        counts: the number of n-grams of each order.
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
    """A model without n-grams, for compiled code that always takes one."""
    return PackedNgrams(
        np.zeros(0, np.uint64),
        np.zeros((0, 2), np.int64),
        np.zeros(0, np.float32),
        np.zeros((0, 4), np.int64),
    )


def _quantize(values: NDArray[np.float32], bits: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(n,) the code of each value, and the value of each code."""
    table, codes = np.unique(values, return_inverse=True)
    if bits and len(table) > 1 << bits:
        borders = np.linspace(0, len(values), (1 << bits) + 1).astype(np.int64)
        sums = np.add.reduceat(np.sort(values).astype(np.float64), borders[:-1])
        table = np.unique((sums / np.diff(borders)).astype(np.float32))
        codes = np.searchsorted((table[1:] + table[:-1]) / 2, values)
    return codes.astype(np.int64), table.astype(np.float32)


def _pack_columns(columns: list[NDArray[Any]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """`data` and `columns` of integers; `data` has a spare word, because two are read at a time."""
    widths = [max(1, int(values.max(initial=0)).bit_length()) for values in columns]
    words = [-(-len(values) * bits // 64) for values, bits in zip(columns, widths, strict=True)]
    starts = np.cumsum([0, *words])
    data = np.zeros(starts[-1] + 1, np.uint64)
    for values, bits, start in zip(columns, widths, starts, strict=False):
        _write(np.ascontiguousarray(values, np.uint64), bits, data[start:])
    return data, np.stack([64 * starts[:-1], widths], axis=1)


@kernel
def _write(values: NDArray[np.uint64], bits: int, data: NDArray[np.uint64]) -> None:
    """Write integers of a number of bits into `data` (zeros), one after the other."""
    for index in range(len(values)):
        position = index * bits
        word, shift = position >> 6, position & 63
        data[word] |= values[index] << np.uint64(shift)
        if shift + bits > 64:
            data[word + 1] |= values[index] >> np.uint64(64 - shift)


@kernel
def _unpack(ngrams: PackedNgrams, arrays: NgramArrays) -> None:
    """Write all arrays but `suffix`."""
    n_words, inner = ngrams.orders[1, NODES], len(arrays.backoff)
    states = 0
    for i in range(len(arrays.word)):  # with the root
        node = i - 1
        state = 0
        if node >= 0:
            arrays.word[i] = node if node < n_words else read_field(ngrams, WORD, node - n_words)
            arrays.log_prob[i] = _log_prob(ngrams, node)
            state = _state_of(ngrams, node)
        if i < inner:
            arrays.begin[i] = 1 + read_field(ngrams, FIRST_CHILD, states)
            if state > 0 or i == 0:
                arrays.backoff[i] = _backoff(ngrams, state)
                states += 1
    arrays.begin[inner] = 1 + read_field(ngrams, FIRST_CHILD, states)


def fits(ngrams: PackedNgrams, counts: tuple[int, ...]) -> bool:
    """Whether the arrays have the shapes and sizes of a model with these counts; see `is_sound`."""
    data, columns, values, orders = ngrams
    order, longer = len(counts), sum(counts[1:])
    if (
        not counts
        or columns.shape != (7, 2)
        or orders.shape != (order + 1, 4)
        or (np.diff(orders, axis=0) < 0).any()
    ):
        return False
    if orders[:, NODES].tolist() != np.cumsum([0, *counts]).tolist() or orders[:2, STATES].tolist() != [0, 1]:
        return False
    if orders[:2, LOG_PROBS].tolist() != [0, counts[0]] or orders[0, BACKOFFS] != orders[-1, LOG_PROBS]:
        return False
    nodes, states = int(orders[-1, NODES]), int(orders[-1, STATES])
    blocks = -(-nodes // 64)
    sizes = np.array([longer, longer, 64 * blocks, blocks, states + 1, states, states])
    if orders[-1, BACKOFFS] != len(values) or (columns[:, 1] < 1).any() or (columns[:, 1] > 32).any():
        return False
    words = -(-sizes * columns[:, 1] // 64)
    starts = np.cumsum([0, *words])
    if columns[IS_STATE, 1] != 1 or (columns[:, 0] != 64 * starts[:-1]).any():
        return False
    return len(data) == int(starts[-1]) + 1


@kernel
def is_sound(ngrams: PackedNgrams) -> bool:
    """Whether no walk through a model that `fits` can leave its arrays or run forever."""
    order, n_words = len(ngrams.orders) - 1, ngrams.orders[1, NODES]
    nodes, states = ngrams.orders[order, NODES], ngrams.orders[order, STATES]
    if read_field(ngrams, FIRST_CHILD, 0) != 0 or read_field(ngrams, FIRST_CHILD, states) != nodes:
        return False
    if states > 1 and read_field(ngrams, FIRST_CHILD, 1) != n_words:
        return False
    before = 0
    for node in range(nodes):
        if node & 63 == 0 and read_field(ngrams, STATES_BEFORE, node >> 6) != before:
            return False
        before += read_field(ngrams, IS_STATE, node)
    if 1 + before != states:
        return False
    row = 0
    for state in range(states):
        while state >= ngrams.orders[row + 1, STATES]:
            row += 1
        code = read_field(ngrams, BACKOFF, state)
        if ngrams.orders[row, BACKOFFS] + code >= ngrams.orders[row + 1, BACKOFFS]:
            return False
        # A suffix's number is lower, so that every walk along suffixes ends at the empty context.
        if state > 0 and read_field(ngrams, SUFFIX, state) >= state:
            return False
        low, high = read_field(ngrams, FIRST_CHILD, state), read_field(ngrams, FIRST_CHILD, state + 1)
        if low > high:
            return False
        last = -1
        for node in range(max(low, n_words), high):
            word = read_field(ngrams, WORD, node - n_words)
            if not last < word < n_words:
                return False
            last = word
    row = 1
    for node in range(n_words, nodes):
        while node >= ngrams.orders[row + 1, NODES]:
            row += 1
        code = read_field(ngrams, LOG_PROB, node - n_words)
        if ngrams.orders[row, LOG_PROBS] + code >= ngrams.orders[row + 1, LOG_PROBS]:
            return False
    return True
