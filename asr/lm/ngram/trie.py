"""An n-gram model as a trie in flat arrays, as it is trained, pruned and read from ARPA files.

Decoders use its packed form, see `packed`.

Node 0 is the empty context; the node of the word with id w is 1 + w; then follow the bigrams, the trigrams
and so on. Within an order nodes are sorted by parent, then by word, so that the children of a node (n-grams
that extend it by one word on the right) are a sorted run of nodes, and later parents have later children.
Nodes of the highest order have no children and no back-off weight, and are stored without these.

A state is the node of the longest context that can still matter: one with children, or with a back-off weight
other than 1. Two histories after which all probabilities are equal have the same state.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.lm.interface import Unit

__all__ = [
    "BOS", "BOS_ID", "EOS", "EOS_ID", "LOG10_ZERO", "LOG_ZERO", "MAX_NODES", "RESERVED", "ROOT", "UNK",
    "UNK_ID", "NgramArrays", "UnpackedNgrams", "advance_unpacked", "child_of", "first_not_below", "link",
    "state_of",
]  # fmt: skip

ROOT = 0  # the empty context
UNK, BOS, EOS = RESERVED = "<unk>", "<s>", "</s>"  # the words with the ids 0, 1 and 2
UNK_ID, BOS_ID, EOS_ID = 0, 1, 2
MAX_NODES = 2**31 - 2  # int32
LOG10_ZERO = -99.0  # the logarithm of 0, as ARPA files write it
LOG_ZERO = LOG10_ZERO * math.log(10)  # nats


class NgramArrays(NamedTuple):
    """An n-gram model: n nodes, of which the first m (all but the highest order) can be contexts.

    Attributes:
        word: (n,) int32, the last word of each n-gram; -1 for the root.
        log_prob: (n,) float32 natural logs, of that word after the others.
        suffix: (n,) int32, the longest state that is a node without its first word, or without more words.
        backoff: (m,) float32 natural logs, the back-off weight of a context.
        begin: (m + 1,) int32; the children of node i are begin[i] to begin[i + 1] - 1.
    """

    word: NDArray[np.int32]
    log_prob: NDArray[np.float32]
    suffix: NDArray[np.int32]
    backoff: NDArray[np.float32]
    begin: NDArray[np.int32]


class UnpackedNgrams(NamedTuple):
    """An n-gram model with its words.

    Attributes:
        arrays: the n-grams.
        words: the word of each id.
        counts: the number of n-grams of each order, unigrams first.
        unit: whether a word of `words` is a word or a character.
    """

    arrays: NgramArrays
    words: tuple[str, ...]
    counts: tuple[int, ...]
    unit: Unit


@kernel(inline=True)
def first_not_below(word: NDArray[np.int32], low: int, high: int, sought: int) -> int:
    """The first index from `low` to `high` - 1 whose word is not below `sought`; `high` if there is none.

    Args:
        word: word ids, sorted from `low` to `high` - 1.
        low: first index.
        high: index after the last.
        sought: a word id.
    """
    while low < high:
        middle = (low + high) >> 1
        if word[middle] < sought:
            low = middle + 1
        else:
            high = middle
    return low


@kernel(inline=True)
def child_of(word: NDArray[np.int32], begin: NDArray[np.int32], node: int, sought: int) -> int:
    """The child of a context for a word, in arrays as those of `NgramArrays`; -1 if there is none."""
    if node == 0:
        return 1 + sought
    child = first_not_below(word, begin[node], begin[node + 1], sought)
    if child < begin[node + 1] and word[child] == sought:
        return int(child)
    return -1


@kernel
def state_of(arrays: NgramArrays, node: int) -> int:
    """The state after the words of a node: the node, or its longest suffix that can still matter."""
    if node < len(arrays.backoff) and (
        arrays.begin[node] < arrays.begin[node + 1] or arrays.backoff[node] != 0.0
    ):
        return node
    return int(arrays.suffix[node])


@kernel
def advance_unpacked(arrays: NgramArrays, state: int, word: int) -> tuple[float, int]:
    """The log-probability of a word after a state, and the state that follows.

    Args:
        arrays: the model.
        state: a node: what this function returned for the words before, or ROOT.
        word: a word's id, 0 to the number of words - 1. It is not checked.

    Returns:
        Natural log-probability, and the new state.

    Source: back-off as in the ARPA format; state minimisation as in KenLM (Heafield 2011, section 4.1).
    """
    total = 0.0
    child = child_of(arrays.word, arrays.begin, state, word)
    while child < 0:
        total += arrays.backoff[state]
        state = arrays.suffix[state]
        child = child_of(arrays.word, arrays.begin, state, word)
    return total + arrays.log_prob[child], state_of(arrays, child)


@kernel
def link(arrays: NgramArrays) -> None:
    """Fill in `suffix` of a trie whose other arrays are complete.

    A suffix that is no n-gram of the model is skipped (SRILM's pruning leaves such gaps), and so is one that
    is no state.
    """
    arrays.suffix[:] = 0
    for parent in range(1, len(arrays.backoff)):
        for node in range(arrays.begin[parent], arrays.begin[parent + 1]):
            context = arrays.suffix[parent]
            shorter = child_of(arrays.word, arrays.begin, context, arrays.word[node])
            while shorter < 0:
                context = arrays.suffix[context]
                shorter = child_of(arrays.word, arrays.begin, context, arrays.word[node])
            arrays.suffix[node] = state_of(arrays, shorter)
