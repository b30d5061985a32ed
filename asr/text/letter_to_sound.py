"""Letter-to-sound: pronunciations of words outside the lexicon, learned from a large lexicon.

1. Each letter of a word is aligned with no, one or two phones, by expectation-maximisation over all words of
   the lexicon.
2. A letter with its phones is a *graphone*; a word with its pronunciation is a sequence of graphones, whose
   probability comes from an n-gram model of order 6 with modified Kneser-Ney smoothing.
3. A new word gets the most likely sequence of graphones with its letters, found by a beam search.

Learned from 95% of CMUdict and tested on the 6,302 words of the other 5% (tests/text/test_letter_to_sound.py,
marked slow), 6.2% of the phones and 26% of the words are wrong; the closest of a word's pronunciations
counts, and stress is removed. Most of these words are names or foreign. Learning takes a few seconds; the
same lexicon gives the same model.

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
from asr.text.pronouncer import Pronunciation

__all__ = ["LetterToSound"]

log = logging.getLogger("asr")

_ORDER = 6  # of the n-gram model; 8 was no better
_ITERATIONS = 8  # of expectation-maximisation; more change nothing
_INITIAL_PAIR = 0.01  # initial weight of two phones a letter, which few have ("x"); of none or one: 1
_BEAM_SIZE = 20
_SCORED = 200  # graphone sequences of one pronunciation that are followed when it is scored
_MAX_LETTERS = 63  # of a word that is learned from
_UNSEEN_LOG_PROB = -20.0  # of a graphone that was never seen

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class _Ngram(NamedTuple):
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


class LetterToSound:
    """Pronunciations for any word whose letters are in the lexicon.

    Args:
        lexicon: (word, phones) pairs to learn from; a word may have more than one pronunciation.

    Raises:
        DataError: there is no pair to learn from.
    """

    def __init__(self, lexicon: Iterable[tuple[str, Sequence[str]]]) -> None:
        given = {(word, tuple(phones)) for word, phones in lexicon}
        # Abbreviations ("w") have more than two phones a letter.
        pairs = sorted(pair for pair in given if 0 < len(pair[1]) <= 2 * len(pair[0]) <= 2 * _MAX_LETTERS)
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
        phone_ids = {phone: number for number, phone in enumerate(self.phones)}
        phones, phone_bounds = _flatten([phones for _, phones in pairs], phone_ids)
        chunks = _align(letters, letter_bounds, phones, phone_bounds)
        self._phone_ids = phone_ids
        count = 1 + len(self.phones) + len(self.phones) ** 2
        # Graphones are sorted by letter, so those of one letter are next to each other.
        kinds, graphones = np.unique(letters * count + chunks, return_inverse=True)
        self._kinds = kinds
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
        """The characters of a word that are in no word of the lexicon."""
        return "".join(letter for letter in word if letter not in self._ids)

    def pronounce(self, word: str) -> tuple[str, ...]:
        """The most likely phones of a word; for some unusual words there are none.

        Raises:
            DataError: the word has unknown letters.
        """
        if unknown := self.unknown(word):
            raise DataError(
                f"no pronunciation for {word!r}: the lexicon has no word with {unknown!r}. "
                "Spell it differently, or add it to the lexicon."
            )
        found = self._hypotheses(word, _BEAM_SIZE, merge=True)
        return max(found, key=lambda one: one[1])[0]

    def search(self, words: Sequence[str], count: int) -> list[list[Pronunciation]]:
        """At most `count` pronunciations of each word, best first; a `Pronouncer`'s.

        A pronunciation's probability is the sum over the graphone sequences that the beam has found, as a
        share of all that it has found. With a count of 1 it is that of `pronounce`, whose probability is 1.
        """
        result = []
        for word in words:
            if count == 1:
                phones = self.pronounce(word)
                result.append([Pronunciation(phones, 0.0)] if phones else [])
                continue
            sums: dict[tuple[str, ...], float] = {}
            for phones, log_prob in self._hypotheses(word, max(_BEAM_SIZE, 3 * count), merge=False):
                sums[phones] = float(np.logaddexp(sums.get(phones, -np.inf), log_prob))
            total = float(np.logaddexp.reduce(list(sums.values())))
            ranked = sorted(((-value, phones) for phones, value in sums.items() if phones))[:count]
            result.append([Pronunciation(phones, -value - total) for value, phones in ranked])
        return result

    def score(self, words: Sequence[str], phones: Sequence[tuple[str, ...]]) -> list[float]:
        """Log-probability of each word together with a pronunciation; a `Pronouncer`'s.

        The sum is over all graphone sequences; it is -inf where there is none.
        """
        result = []
        scratch = [np.zeros((2, _SCORED), dtype=np.int64) for _ in range(2)]
        for word, one in zip(words, phones, strict=True):
            if any(phone not in self._phone_ids for phone in one):
                result.append(-np.inf)
                continue
            result.append(_score(
                self._ngram, self._start, self._end, np.array([self._ids[letter] for letter in word]),
                np.array([self._phone_ids[phone] for phone in one], dtype=np.int64), len(self.phones),
                self._kinds, scratch[0], scratch[1], np.zeros((2, _SCORED)),
            ))  # fmt: skip
        return result

    def _hypotheses(self, word: str, beam_size: int, *, merge: bool) -> list[tuple[tuple[str, ...], float]]:
        """Phones and log-probability of the graphone sequences in the beam after the whole word."""
        letters = np.array([self._ids[letter] for letter in word], dtype=np.int64)
        width = beam_size * int(np.diff(self._bounds).max())
        scores, nodes = np.zeros((2, width)), np.zeros((2, width), dtype=np.int64)
        paths = np.zeros((2, len(letters) + 1, beam_size), dtype=np.int64)
        kept = _search(
            self._ngram, self._start, self._end, letters, self._bounds, merge, scores, nodes, paths
        )
        result = []
        for index in range(kept):
            graphones, number = [], index
            for letter in range(len(letters) - 1, -1, -1):
                graphones.append(paths[0, letter, number])
                number = paths[1, letter, number]
            phones = chain.from_iterable(self._chunks[graphone] for graphone in reversed(graphones))
            result.append((tuple(phones), float(scores[0, index])))
        return result


def _flatten(rows: Sequence[Sequence[str]], ids: dict[str, int]) -> tuple[Ints, Ints]:
    """All symbols of all rows as one array, and where each row begins, with the end of the last one."""
    flat = np.array([ids[symbol] for row in rows for symbol in row], dtype=np.int64)
    return flat, np.cumsum([0, *(len(row) for row in rows)])


def _phones_of(chunk: int, phones: Sequence[str]) -> tuple[str, ...]:
    """The phones of a chunk, that is, of one letter: 0 is none, then each phone, then each pair of phones."""
    if chunk == 0:
        return ()
    if chunk <= len(phones):
        return (phones[chunk - 1],)
    first, second = divmod(chunk - 1 - len(phones), len(phones))
    return (phones[first], phones[second])


@kernel
def _chunk(phones: Ints, begin: int, taken: int, phone_count: int) -> int:
    """The chunk of `taken` (0 to 2) phones from `begin` on, numbered as in `_phones_of`."""
    if taken == 0:
        return 0
    if taken == 1:
        return int(1 + phones[begin])
    return int(1 + phone_count + phones[begin] * phone_count + phones[begin + 1])


def _align(letters: Ints, letter_bounds: Ints, phones: Ints, phone_bounds: Ints) -> Ints:
    """(letters,) the chunk of phones that each letter is aligned with, numbered as in `_phones_of`."""
    phone_count = int(phones.max()) + 1
    weights = np.ones((int(letters.max()) + 1, 1 + phone_count + phone_count**2))
    weights[:, 1 + phone_count :] = _INITIAL_PAIR
    longest = 2 * int(np.diff(letter_bounds).max()) + 1
    tables = np.zeros((2, longest, longest))
    flat = (letters, letter_bounds, phones, phone_bounds, phone_count)
    for _ in range(_ITERATIONS):
        probs = weights / weights.sum(axis=1, keepdims=True)
        weights = np.zeros_like(probs)
        _count_sounds(*flat, probs, tables, weights)
    costs = -np.log(np.maximum(weights / weights.sum(axis=1, keepdims=True), 1e-300))
    chunks = np.zeros(len(letters), dtype=np.int64)
    _find_paths(*flat, costs, tables, chunks)
    return chunks


# The kernels are plain loops over arrays that their callers allocate, which numba compiles fastest.


@kernel
def _count_sounds(
    letters: Ints, letter_bounds: Ints, phones: Ints, phone_bounds: Ints, phone_count: int,
    probs: Floats, tables: Floats, counts: Floats,
) -> None:  # fmt: skip
    """Add to `counts` the expected number of times that each letter is aligned with each chunk.

    Args:
        letters: (all letters,) ids, of all words in a row.
        letter_bounds: (words + 1,) where each word begins in `letters`.
        phones: (all phones,) ids.
        phone_bounds: (words + 1,) where each word begins in `phones`.
        phone_count: number of different phones.
        probs: (alphabet, chunks) probability of each chunk for each letter.
        tables: (2, longest + 1, longest + 1) scratch: forward and backward probabilities.
        counts: (alphabet, chunks) output.
    """
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
                    forward[i + 1, j + taken] += forward[i, j] * probs[letters[x + i], chunk]
        total = max(forward[n, m], 1e-300)
        for i in range(n - 1, -1, -1):
            for j in range(m + 1):
                for taken in range(min(3, m + 1 - j)):
                    chunk = _chunk(phones, y + j, taken, phone_count)
                    value = probs[letters[x + i], chunk] * backward[i + 1, j + taken]
                    backward[i, j] += value
                    counts[letters[x + i], chunk] += forward[i, j] * value / total


@kernel
def _find_paths(
    letters: Ints, letter_bounds: Ints, phones: Ints, phone_bounds: Ints, phone_count: int,
    costs: Floats, tables: Floats, chunks: Ints,
) -> None:  # fmt: skip
    """Write into `chunks` (all letters,) the chunk of each letter on the best path of its word.

    The first five arguments are those of `_count_sounds`; `costs` (alphabet, chunks) are negative
    log-probabilities in nats; `tables` (2, longest + 1, longest + 1) is scratch: costs of the best paths, and
    how many phones the last letter of each one has.
    """
    cost, taken_last = tables[0], tables[1]
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
                    # Either letter of "ll" may be silent at the same cost: always take the same one.
                    if value < cost[i + 1, j + taken] - 1e-9:
                        cost[i + 1, j + taken] = value
                        taken_last[i + 1, j + taken] = taken
        j = m
        for i in range(n, 0, -1):
            taken = int(taken_last[i, j])
            j -= taken
            chunks[x + i - 1] = _chunk(phones, y + j, taken, phone_count)


def _learn_ngram(tokens: Ints, position: Ints, order: int) -> _Ngram:
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
    return _Ngram(token, np.log(prob), np.log(np.maximum(backoff, 1e-9)), suffix, begin, int(offsets[order]))


def _discounts(count: Floats) -> Floats:
    """(4,) discounts of n-grams seen 0, 1, 2, and 3 or more times (Chen, Goodman, equation 26)."""
    n1, n2, n3, n4 = (max(float(np.sum(count == times)), 0.5) for times in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    clipped: Floats = np.clip(found, 0.0, [0.0, 0.9, 1.9, 2.9])  # for too few words
    return clipped


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
            after = low if low < ngram.first_leaf else ngram.suffix[low]
            return log_prob + ngram.log_prob[low], after
        log_prob += ngram.backoff[node]
        if node == 0:
            return log_prob + _UNSEEN_LOG_PROB, 0
        node = ngram.suffix[node]


@kernel
def _search(
    ngram: _Ngram, start: int, end: int, letters: Ints, bounds: Ints, merge: bool,
    scores: Floats, nodes: Ints, paths: Ints,
) -> int:  # fmt: skip
    """Find the most likely graphones of a word; those of letter i are bounds[i] to bounds[i + 1] - 1.

    Args:
        ngram: over graphones.
        start: the node of a word's beginning.
        end: the token of a word's end.
        letters: (letters,) the word.
        bounds: (alphabet + 1,) first graphone of each letter.
        merge: of sequences with the same context keep the best alone; without it there are more alternatives.
        scores: (2, width) scratch; width is the beam size times the most graphones of a letter. Afterwards
            scores[0] begins with the log-probabilities of the sequences, their ends included.
        nodes: (2, width) scratch.
        paths: (2, letters + 1, beam) scratch; afterwards the graphone of each letter and sequence, and the
            sequence that it continues.

    Returns:
        The number of sequences.
    """
    beam = paths.shape[2]
    came_from, graphones = paths[1], paths[0]
    scores[0, 0], nodes[0, 0], kept = 0.0, start, 1
    for i in range(len(letters)):
        first, choices = bounds[letters[i]], bounds[letters[i] + 1] - bounds[letters[i]]
        for b in range(kept):
            for c in range(choices):
                log_prob, node = _advance(ngram, nodes[0, b], first + c)
                scores[1, b * choices + c], nodes[1, b * choices + c] = scores[0, b] + log_prob, node
        candidates, kept = kept * choices, 0
        while kept < beam:
            best = 0
            for candidate in range(1, candidates):
                if scores[1, candidate] > scores[1, best]:
                    best = candidate
            if scores[1, best] == -np.inf:
                break
            scores[0, kept], nodes[0, kept] = scores[1, best], nodes[1, best]
            came_from[i, kept], graphones[i, kept] = best // choices, first + best % choices
            kept += 1
            node = nodes[1, best]
            scores[1, best] = -np.inf
            for candidate in range(candidates if merge else 0):  # worse ones with the same context
                if nodes[1, candidate] == node:
                    scores[1, candidate] = -np.inf
    for b in range(kept):
        scores[0, b] += _advance(ngram, nodes[0, b], end)[0]
    return kept


@kernel
def _score(
    ngram: _Ngram, start: int, end: int, letters: Ints, phones: Ints, phone_count: int, kinds: Ints,
    taken: Ints, nodes: Ints, scores: Floats,
) -> float:  # fmt: skip
    """Log-probability of a word with its phones, summed over its graphone sequences.

    Args:
        ngram: over graphones.
        start: the node of a word's beginning.
        end: the token of a word's end.
        letters: (letters,) the word.
        phones: (phones,) its pronunciation.
        phone_count: number of different phones.
        kinds: (graphones,) letter * chunks + chunk of each graphone, sorted.
        taken: (2, size) scratch: phones that the sequences so far have used.
        nodes: (2, size) scratch: their contexts.
        scores: (2, size) scratch: their log-probabilities.
    """
    size, chunks = taken.shape[1], 1 + phone_count + phone_count**2
    taken[0, 0], nodes[0, 0], scores[0, 0], kept = 0, start, 0.0, 1
    for i in range(len(letters)):
        new = 0
        for b in range(kept):
            for more in range(min(3, len(phones) + 1 - taken[0, b])):
                kind = letters[i] * chunks + _chunk(phones, taken[0, b], more, phone_count)
                graphone = np.searchsorted(kinds, kind)
                if graphone == len(kinds) or kinds[graphone] != kind:
                    continue
                log_prob, node = _advance(ngram, nodes[0, b], graphone)
                log_prob += scores[0, b]
                used = taken[0, b] + more
                at = 0
                while at < new and (nodes[1, at] != node or taken[1, at] != used):
                    at += 1
                if at < new:
                    low, high = min(scores[1, at], log_prob), max(scores[1, at], log_prob)
                    scores[1, at] = high + np.log1p(np.exp(low - high))
                    continue
                if new == size:  # in place of the least likely one
                    at = int(np.argmin(scores[1]))
                    if scores[1, at] >= log_prob:
                        continue
                else:
                    new += 1
                taken[1, at], nodes[1, at], scores[1, at] = used, node, log_prob
        kept = new
        for b in range(kept):
            taken[0, b], nodes[0, b], scores[0, b] = taken[1, b], nodes[1, b], scores[1, b]
    best, total = -np.inf, 0.0
    for b in range(kept):
        if taken[0, b] == len(phones):
            scores[0, b] += _advance(ngram, nodes[0, b], end)[0]
            best = max(best, scores[0, b])
    for b in range(kept):
        if taken[0, b] == len(phones):
            total += np.exp(scores[0, b] - best)
    return best + np.log(total) if total > 0 else -np.inf
