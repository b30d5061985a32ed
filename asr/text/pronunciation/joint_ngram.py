"""The joint n-gram: letters with their phones as one sequence, learned from a lexicon.

1. Each letter of a word is aligned with no, one or two phones (`letter_alignment`).
2. A letter with its phones is a *graphone*; a word with its pronunciation is a sequence of graphones, whose
   probability comes from an n-gram model of order 6 with modified Kneser-Ney smoothing.

`letter_to_sound` searches it from letters to phones, `sound_to_spelling` from phones to letters. Learning
takes a few seconds; the same lexicon gives the same model.

Source: Bisani, Ney, "Joint-sequence models for grapheme-to-phoneme conversion", Speech Communication 50,
2008; Chen, Goodman, "An empirical study of smoothing techniques for language modeling", 1999, for the
smoothing.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from asr.compiled import kernel
from asr.errors import DataError
from asr.text.pronunciation.letter_alignment import Floats, Ints, align, count_chunks

__all__ = ["GraphoneNgram", "JointNgram", "advance", "learn_joint_ngram"]

log = logging.getLogger("asr")

_ORDER = 6  # of the n-gram model; 8 was no better
_MAX_LETTERS = 63  # of a word that is learned from
_UNSEEN_LOG_PROB = -20.0  # of a graphone that was never seen


class GraphoneNgram(NamedTuple):
    """An n-gram model as a tree: node 0 is the empty context, a child is the context with one token more.

    Attributes: each (nodes,), except `begin`, which is one longer: the children of node i are
    begin[i] to begin[i + 1] - 1, sorted by token.
    """

    token: Ints
    log_prob: Floats  # of the node's last token after the others
    backoff: Floats  # log of the back-off weight, for tokens that the node has no child for
    suffix: Ints  # the node without its first token
    begin: Ints
    first_leaf: int  # first node of the highest order, which has no children


class JointNgram(NamedTuple):
    """Graphones, and the n-gram model over them.

    Attributes:
        letters: that occur, sorted.
        phones: that occur, sorted.
        kinds: (graphones,) letter * chunks + chunk of each graphone, sorted, so that those of one letter are
            next to each other.
        bounds: (letters + 1,) first graphone of each letter.
        ngram: over graphones.
        start: the node of a word's beginning.
        end: the token of a word's end.
    """

    letters: tuple[str, ...]
    phones: tuple[str, ...]
    kinds: Ints
    bounds: Ints
    ngram: GraphoneNgram
    start: int
    end: int


def learn_joint_ngram(lexicon: Iterable[tuple[str, Sequence[str]]]) -> JointNgram:
    """The joint n-gram of a lexicon.

    Args:
        lexicon: (word, phones) pairs to learn from; a word may have more than one pronunciation.

    Raises:
        DataError: there is no pair to learn from.
    """
    given = {(word, tuple(phones)) for word, phones in lexicon}
    # Abbreviations ("w") have more than two phones a letter.
    pairs = sorted(pair for pair in given if 0 < len(pair[1]) <= 2 * len(pair[0]) <= 2 * _MAX_LETTERS)
    log.info(
        "learning letter-to-sound from %d words; %d of %d pronunciations have more than two phones a "
        "letter and are left out", len({word for word, _ in pairs}), len(given) - len(pairs), len(given),
    )  # fmt: skip
    if not pairs:
        raise DataError("no word to learn letter-to-sound from. Expected a lexicon of words and phones.")
    letters = tuple(sorted({letter for word, _ in pairs for letter in word}))
    phones = tuple(sorted({phone for _, phones in pairs for phone in phones}))
    letter_ids, letter_bounds = _flatten([word for word, _ in pairs], letters)
    phone_ids, phone_bounds = _flatten([phones for _, phones in pairs], phones)
    chunks = align(letter_ids, letter_bounds, phone_ids, phone_bounds)
    count = count_chunks(len(phones))
    kinds, graphones = np.unique(letter_ids * count + chunks, return_inverse=True)
    bounds = np.searchsorted(kinds // count, np.arange(len(letters) + 1)).astype(np.int64)
    begin, end = len(kinds), len(kinds) + 1
    lengths = np.diff(letter_bounds) + 2
    starts = np.cumsum(lengths) - lengths
    tokens = np.full(lengths.sum(), -1)
    tokens[starts], tokens[starts + lengths - 1] = begin, end
    tokens[tokens < 0] = graphones
    ngram = _learn_ngram(tokens, np.arange(len(tokens)) - np.repeat(starts, lengths), _ORDER)
    return JointNgram(letters, phones, kinds, bounds, ngram, int(advance(ngram, 0, begin)[1]), end)


def _flatten(rows: Sequence[Sequence[str]], symbols: Sequence[str]) -> tuple[Ints, Ints]:
    """Numbers of all symbols of all rows as one array; where each row begins, and the end of the last one."""
    ids = {symbol: number for number, symbol in enumerate(symbols)}
    flat = np.array([ids[symbol] for row in rows for symbol in row], dtype=np.int64)
    return flat, np.cumsum([0, *(len(row) for row in rows)])


def _learn_ngram(tokens: Ints, position: Ints, order: int) -> GraphoneNgram:
    """An n-gram model with interpolated modified Kneser-Ney smoothing.

    Args:
        tokens: (tokens,) all sequences in a row.
        position: (tokens,) position of each token in its sequence, from 0; no n-gram spans two sequences.
        order: length of the longest n-grams.
    """
    size = int(tokens.max()) + 1
    ending = np.zeros(len(tokens), dtype=np.int64)  # the n-gram one shorter that ends at each token
    keys, counts, suffixes, at_start = [], [], [], []
    for length in range(1, order + 1):
        at = np.flatnonzero(position >= length - 1)
        parent = ending[at - 1] if length > 1 else np.zeros(len(at), dtype=np.int64)
        key, example, number, count = np.unique(
            parent * size + tokens[at], return_index=True, return_inverse=True, return_counts=True
        )
        keys.append(key)
        counts.append(count.astype(np.float64))
        suffixes.append(ending[at[example]])
        at_start.append(position[at[example]] == length - 1)  # nothing can precede it
        ending = np.zeros(len(tokens), dtype=np.int64)
        ending[at] = number
    sizes = [1, *map(len, keys)]
    offsets = np.cumsum([0, *sizes])
    token, suffix = np.zeros(offsets[-1], dtype=np.int64), np.zeros(offsets[-1], dtype=np.int64)
    prob, backoff = np.full(offsets[-1], 1 / size), np.ones(offsets[-1])
    begin = np.full(offsets[-1] + 1, offsets[-1])
    for length in range(1, order + 1):
        key, count = keys[length - 1], counts[length - 1]
        if length < order:  # number of different tokens before it
            preceding = np.bincount(suffixes[length], minlength=len(key))
            count = np.where(at_start[length - 1], count, preceding)
        parent, lower = key // size, suffixes[length - 1]
        above, here = slice(offsets[length - 1], offsets[length]), slice(offsets[length], offsets[length + 1])
        discount = _discounts(count)[np.minimum(count, 3).astype(np.int64)]
        total = np.bincount(parent, count, sizes[length - 1])
        # a context that nothing follows has the back-off weight 1
        backoff[above] = np.bincount(parent, discount, sizes[length - 1]) / np.maximum(total, 1)
        backoff[above][total == 0] = 1.0
        token[here], suffix[here] = key % size, offsets[length - 1] + lower
        lower_prob = prob[suffix[here]] if length > 1 else 1 / size
        prob[here] = (count - discount) / total[parent] + backoff[above][parent] * lower_prob
        begin[above] = offsets[length] + np.searchsorted(parent, np.arange(sizes[length - 1]))
    return GraphoneNgram(
        token, np.log(prob), np.log(np.maximum(backoff, 1e-9)), suffix, begin, int(offsets[order])
    )


def _discounts(count: Floats) -> Floats:
    """(4,) discounts of n-grams seen 0, 1, 2, and 3 or more times (Chen, Goodman, equation 26)."""
    n1, n2, n3, n4 = (max(float(np.sum(count == times)), 0.5) for times in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    clipped: Floats = np.clip(found, 0.0, [0.0, 0.9, 1.9, 2.9])  # for too few words
    return clipped


@kernel
def advance(ngram: GraphoneNgram, node: int, token: int) -> tuple[float, int]:
    """Log-probability of a token after the context of a node, and the node of the context with it."""
    log_prob = 0.0
    while True:
        low, end = ngram.begin[node], ngram.begin[node + 1]
        high = end
        while low < high:
            middle = (low + high) // 2
            if ngram.token[middle] < token:
                low = middle + 1
            else:
                high = middle
        if low < end and ngram.token[low] == token:
            after = low if low < ngram.first_leaf else ngram.suffix[low]
            return log_prob + ngram.log_prob[low], after
        log_prob += ngram.backoff[node]
        if node == 0:
            return log_prob + _UNSEEN_LOG_PROB, 0
        node = ngram.suffix[node]
