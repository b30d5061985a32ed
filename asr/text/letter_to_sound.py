"""Phones of words that stand in no lexicon, learned from one that has many.

1. Each letter of a word sounds as no, one or two phones. Which, expectation-maximisation finds over all
   words at once, without being told anything but the lexicon.
2. A letter with its phones is a *graphone*; a word with its pronunciation is a sequence of graphones, and an
   n-gram model of order 6 with modified Kneser-Ney smoothing tells how likely a sequence is.
3. A new word is the most likely sequence of graphones with its letters, found by a beam from left to right.

Learned on 95% of CMUdict and asked for the 6,302 words of the other 5% (tests/text/test_letter_to_sound.py,
marked slow), 6.2% of the phones and 26% of the words are wrong; the best of several pronunciations counts,
and stress is removed. Names and foreign words are most of these. Learning takes a few seconds; the same
lexicon gives the same model.

Source: Bisani, Ney, "Joint-sequence models for grapheme-to-phoneme conversion", Speech Communication 50,
2008, with letters one by one; Chen, Goodman, "An empirical study of smoothing techniques for language
modeling", 1999, for the smoothing.
"""

import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.compiled import kernel
from asr.errors import DataError

__all__ = ["LetterToSound"]

log = logging.getLogger("asr")

_ORDER = 6  # of the n-gram; 8 brought nothing more
_ITERATIONS = 8  # of expectation-maximisation; more changed nothing
_TWO = 0.01  # how likely two phones are at first, beside none or one: few letters sound as two ("x")
_BEAM = 20
_LONGEST = 63  # letters of a word that is learned from
_UNSEEN = -20.0  # log-probability of a graphone that was never seen

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class _Ngram(NamedTuple):
    """An n-gram model as a tree: node 0 is the empty context, a child is the context with one token more.

    Attributes: each (nodes,), but for `begin`, which is one longer: the children of node i are
    begin[i]..begin[i + 1], sorted by token.
    """

    token: Ints
    log_prob: Floats  # of the node's last token after the others
    backoff: Floats  # log-probability that goes to tokens that the node has no child for
    suffix: Ints  # the node without its first token
    begin: Ints
    deepest: int  # first node that has no children by its length


class LetterToSound:
    """A pronunciation for any word of known letters.

    Args:
        lexicon: (word, phones) pairs to learn from; several with the same word are welcome.

    Raises:
        DataError: no pair is left to learn from.
    """

    def __init__(self, lexicon: Iterable[tuple[str, Sequence[str]]]) -> None:
        given = {(word, tuple(phones)) for word, phones in lexicon}
        # Abbreviations ("w") have more than two phones a letter.
        pairs = sorted(pair for pair in given if 0 < len(pair[1]) <= 2 * len(pair[0]) <= 2 * _LONGEST)
        log.info(
            "learning letter-to-sound from %d words; %d of %d pronunciations have more than two phones a "
            "letter and are left out", len({word for word, _ in pairs}), len(given) - len(pairs), len(given),
        )  # fmt: skip
        if not pairs:
            raise DataError("no word to learn letter-to-sound from. Expected a lexicon of words and phones.")
        self.letters = tuple(sorted({letter for word, _ in pairs for letter in word}))
        self.phones = tuple(sorted({phone for _, phones in pairs for phone in phones}))
        self._ids = {letter: number for number, letter in enumerate(self.letters)}
        letters, letter_bounds = _flatten([word for word, _ in pairs], self._ids)
        sounds = {phone: number for number, phone in enumerate(self.phones)}
        phones, phone_bounds = _flatten([phones for _, phones in pairs], sounds)
        chunks = _align(letters, letter_bounds, phones, phone_bounds)
        count = 1 + len(self.phones) + len(self.phones) ** 2
        # A graphone's number grows with its letter, so those of one letter stand together.
        kinds, graphones = np.unique(letters * count + chunks, return_inverse=True)
        self._chunks = [_phones_of(int(kind % count), self.phones) for kind in kinds]
        self._bounds = np.searchsorted(kinds // count, np.arange(len(self.letters) + 1)).astype(np.int64)
        begin, self._end = len(kinds), len(kinds) + 1
        lengths = np.diff(letter_bounds) + 2
        starts = np.cumsum(lengths) - lengths
        tokens = np.full(lengths.sum(), -1)
        tokens[starts], tokens[starts + lengths - 1] = begin, self._end
        tokens[tokens < 0] = graphones
        self._ngram = _learn_ngram(tokens, np.arange(len(tokens)) - np.repeat(starts, lengths), _ORDER)
        self._start = int(_advance(self._ngram, 0, begin)[1])

    def unknown(self, word: str) -> str:
        """The characters of a word that no word of the lexicon had."""
        return "".join(letter for letter in word if letter not in self._ids)

    def pronounce(self, word: str) -> tuple[str, ...]:
        """The most likely phones of a word; for some strange words none at all.

        Raises:
            DataError: the word has unknown letters.
        """
        if unknown := self.unknown(word):
            raise DataError(
                f"no pronunciation for {word!r}: the lexicon has no word with {unknown!r}. "
                "Write it otherwise, or add it to the lexicon."
            )
        letters = np.array([self._ids[letter] for letter in word], dtype=np.int64)
        width = _BEAM * int(np.diff(self._bounds).max())
        scores, nodes = np.zeros((2, width)), np.zeros((2, width), dtype=np.int64)
        paths = np.zeros((2, len(letters) + 1, _BEAM), dtype=np.int64)
        _search(self._ngram, self._start, self._end, letters, self._bounds, scores, nodes, paths)
        return tuple(chain.from_iterable(self._chunks[graphone] for graphone in paths[0, :-1, 0]))


def _flatten(rows: Sequence[Sequence[str]], ids: dict[str, int]) -> tuple[Ints, Ints]:
    """All symbols of all rows as one array, and where each row begins, with the end behind."""
    flat = np.array([ids[symbol] for row in rows for symbol in row], dtype=np.int64)
    return flat, np.cumsum([0, *(len(row) for row in rows)])


def _phones_of(chunk: int, phones: Sequence[str]) -> tuple[str, ...]:
    """What a letter sounds as: 0 is silence, then each phone, then each pair of phones."""
    if chunk == 0:
        return ()
    if chunk <= len(phones):
        return (phones[chunk - 1],)
    first, second = divmod(chunk - 1 - len(phones), len(phones))
    return (phones[first], phones[second])


@kernel
def _chunk(phones: Ints, begin: int, taken: int, phone_count: int) -> int:
    """The number of so many phones from `begin` on; see `_phones_of`."""
    if taken == 0:
        return 0
    if taken == 1:
        return int(1 + phones[begin])
    return int(1 + phone_count + phones[begin] * phone_count + phones[begin + 1])


def _align(letters: Ints, letter_bounds: Ints, phones: Ints, phone_bounds: Ints) -> Ints:
    """(letters,) the chunk of phones that each letter sounds as; see `_phones_of`."""
    phone_count = int(phones.max()) + 1
    likely = np.ones((int(letters.max()) + 1, 1 + phone_count + phone_count**2))
    likely[:, 1 + phone_count :] = _TWO
    longest = 2 * int(np.diff(letter_bounds).max()) + 1
    tables = np.zeros((2, longest, longest))
    flat = (letters, letter_bounds, phones, phone_bounds, phone_count)
    for _ in range(_ITERATIONS):
        sounds = likely / likely.sum(axis=1, keepdims=True)
        likely = np.zeros_like(sounds)
        _count_sounds(*flat, sounds, tables, likely)
    costs = -np.log(np.maximum(likely / likely.sum(axis=1, keepdims=True), 1e-300))
    chunks = np.zeros(len(letters), dtype=np.int64)
    _find_paths(*flat, costs, tables, chunks)
    return chunks


# The kernels are plain loops over arrays that are made outside: numba takes long to compile anything else.


@kernel
def _count_sounds(
    letters: Ints, letter_bounds: Ints, phones: Ints, phone_bounds: Ints, phone_count: int,
    sounds: Floats, tables: Floats, counts: Floats,
) -> None:  # fmt: skip
    """Add to counts (letters, chunks) how often each letter sounds as each chunk, over all paths."""
    forward, backward = tables[0], tables[1]
    for word in range(len(letter_bounds) - 1):
        x, n = letter_bounds[word], letter_bounds[word + 1] - letter_bounds[word]
        y, m = phone_bounds[word], phone_bounds[word + 1] - phone_bounds[word]
        for i in range(n + 1):
            for j in range(m + 1):
                forward[i, j] = backward[i, j] = 0.0
        forward[0, 0] = backward[n, m] = 1.0
        for i in range(n):
            for j in range(m + 1):
                for taken in range(min(3, m + 1 - j)):
                    chunk = _chunk(phones, y + j, taken, phone_count)
                    forward[i + 1, j + taken] += forward[i, j] * sounds[letters[x + i], chunk]
        total = max(forward[n, m], 1e-300)
        for i in range(n - 1, -1, -1):
            for j in range(m + 1):
                for taken in range(min(3, m + 1 - j)):
                    chunk = _chunk(phones, y + j, taken, phone_count)
                    value = sounds[letters[x + i], chunk] * backward[i + 1, j + taken]
                    backward[i, j] += value
                    counts[letters[x + i], chunk] += forward[i, j] * value / total


@kernel
def _find_paths(
    letters: Ints, letter_bounds: Ints, phones: Ints, phone_bounds: Ints, phone_count: int,
    costs: Floats, tables: Floats, chunks: Ints,
) -> None:  # fmt: skip
    """Write into chunks (letters,) what each letter sounds as on the cheapest path of its word."""
    cost, came_with = tables[0], tables[1]
    for word in range(len(letter_bounds) - 1):
        x, n = letter_bounds[word], letter_bounds[word + 1] - letter_bounds[word]
        y, m = phone_bounds[word], phone_bounds[word + 1] - phone_bounds[word]
        for i in range(n + 1):
            for j in range(m + 1):
                cost[i, j] = np.inf
        cost[0, 0] = 0.0
        for i in range(n):
            for j in range(m + 1):
                for taken in range(min(3, m + 1 - j)):
                    value = cost[i, j] + costs[letters[x + i], _chunk(phones, y + j, taken, phone_count)]
                    # Either letter of "ll" may be the silent one at the same cost: let it always be the same.
                    if value < cost[i + 1, j + taken] - 1e-9:
                        cost[i + 1, j + taken] = value
                        came_with[i + 1, j + taken] = taken
        j = m
        for i in range(n, 0, -1):
            taken = int(came_with[i, j])
            j -= taken
            chunks[x + i - 1] = _chunk(phones, y + j, taken, phone_count)


def _learn_ngram(tokens: Ints, place: Ints, order: int) -> _Ngram:
    """Modified Kneser-Ney, interpolated.

    Args:
        tokens: (tokens,) all sequences in a row.
        place: (tokens,) place of each token in its own sequence, from 0: no n-gram reaches over its begin.
        order: the longest n-gram.
    """
    size = int(tokens.max()) + 1
    ending = np.zeros(len(tokens), dtype=np.int64)  # the n-gram one shorter that ends at each token
    keys, counts, suffixes, whole = [], [], [], []
    for length in range(1, order + 1):
        at = np.flatnonzero(place >= length - 1)
        parent = ending[at - 1] if length > 1 else np.zeros(len(at), dtype=np.int64)
        key, example, number, count = np.unique(
            parent * size + tokens[at], return_index=True, return_inverse=True, return_counts=True
        )
        keys.append(key)
        counts.append(count.astype(np.float64))
        suffixes.append(ending[at[example]])
        whole.append(place[at[example]] == length - 1)  # from the begin on: nothing can stand before it
        ending = np.zeros(len(tokens), dtype=np.int64)
        ending[at] = number
    sizes = [1, *map(len, keys)]
    offsets = np.cumsum([0, *sizes])
    token, suffix = np.zeros(offsets[-1], dtype=np.int64), np.zeros(offsets[-1], dtype=np.int64)
    prob, backoff = np.full(offsets[-1], 1 / size), np.ones(offsets[-1])
    begin = np.full(offsets[-1] + 1, offsets[-1])
    for length in range(1, order + 1):
        key, count = keys[length - 1], counts[length - 1]
        if length < order:  # in how many ways it goes on to the left
            ways = np.bincount(suffixes[length], minlength=len(key))
            count = np.where(whole[length - 1], count, ways)
        parent, lower = key // size, suffixes[length - 1]
        above, here = slice(offsets[length - 1], offsets[length]), slice(offsets[length], offsets[length + 1])
        discount = _discounts(count)[np.minimum(count, 3).astype(np.int64)]
        total = np.bincount(parent, count, sizes[length - 1])
        # a context that nothing follows passes everything on
        backoff[above] = np.bincount(parent, discount, sizes[length - 1]) / np.maximum(total, 1)
        backoff[above][total == 0] = 1.0
        token[here], suffix[here] = key % size, offsets[length - 1] + lower
        shorter = prob[suffix[here]] if length > 1 else 1 / size
        prob[here] = (count - discount) / total[parent] + backoff[above][parent] * shorter
        begin[above] = offsets[length] + np.searchsorted(parent, np.arange(sizes[length - 1]))
    return _Ngram(token, np.log(prob), np.log(np.maximum(backoff, 1e-9)), suffix, begin, int(offsets[order]))


def _discounts(count: Floats) -> Floats:
    """(4,) what is taken from n-grams seen 0, 1, 2 and more times (Chen, Goodman, equation 26)."""
    n1, n2, n3, n4 = (max(float(np.sum(count == times)), 0.5) for times in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    sane: Floats = np.clip(found, 0.0, [0.0, 0.9, 1.9, 2.9])  # few words give wild values
    return sane


@kernel
def _advance(ngram: _Ngram, node: int, token: int) -> tuple[float, int]:
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
            after = low if low < ngram.deepest else ngram.suffix[low]
            return log_prob + ngram.log_prob[low], after
        log_prob += ngram.backoff[node]
        if node == 0:
            return log_prob + _UNSEEN, 0
        node = ngram.suffix[node]


@kernel
def _search(
    ngram: _Ngram, start: int, end: int, letters: Ints, bounds: Ints, scores: Floats, nodes: Ints, paths: Ints
) -> None:
    """Find the most likely graphones of a word; those of letter i are bounds[i]..bounds[i + 1].

    Args:
        ngram: over graphones.
        start: the node of a word's begin.
        end: the token of a word's end.
        letters: (letters,) the word.
        bounds: (all letters + 1,) see above.
        scores: (2, width) scratch; a width of beam x the most graphones of a letter.
        nodes: (2, width) scratch.
        paths: (2, letters + 1, beam) scratch; afterwards paths[0, :-1, 0] is the result.
    """
    beam = paths.shape[2]
    came_from, graphones = paths[1], paths[0]
    scores[0, 0], nodes[0, 0], kept = 0.0, start, 1
    for i in range(len(letters)):
        first, choices = bounds[letters[i]], bounds[letters[i] + 1] - bounds[letters[i]]
        for b in range(kept):
            for c in range(choices):
                gain, node = _advance(ngram, nodes[0, b], first + c)
                scores[1, b * choices + c], nodes[1, b * choices + c] = scores[0, b] + gain, node
        made, kept = kept * choices, 0
        while kept < beam:
            best = 0
            for candidate in range(1, made):
                if scores[1, candidate] > scores[1, best]:
                    best = candidate
            if scores[1, best] == -np.inf:
                break
            scores[0, kept], nodes[0, kept] = scores[1, best], nodes[1, best]
            came_from[i, kept], graphones[i, kept] = best // choices, first + best % choices
            kept += 1
            node = nodes[1, best]
            for candidate in range(made):  # this one, and what has the same future and a lower score
                if nodes[1, candidate] == node:
                    scores[1, candidate] = -np.inf
    best = 0
    for b in range(kept):
        scores[0, b] += _advance(ngram, nodes[0, b], end)[0]
        if scores[0, b] > scores[0, best]:
            best = b
    for i in range(len(letters) - 1, -1, -1):
        before = came_from[i, best]
        graphones[i, 0] = graphones[i, best]
        best = before
