"""Letter-to-sound: pronunciations of words outside the lexicon, learned from a large lexicon.

A word gets the most likely sequence of graphones (`joint_ngram`) with its letters, found by a beam search.

Learned from 95% of CMUdict and tested on the 6,302 words of the other 5% (a test that is marked
slow), 6.2% of the phones and 26% of the words are wrong; the closest of a word's pronunciations counts, and
stress is removed. Most of these words are names or foreign.

Source: Bisani, Ney, "Joint-sequence models for grapheme-to-phoneme conversion", Speech Communication 50,
2008.
"""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from asr.compiled import kernel
from asr.errors import DataError
from asr.text.pronunciation.joint_ngram import GraphoneNgram, advance, learn_joint_ngram
from asr.text.pronunciation.letter_alignment import Floats, Ints, chunk_of, count_chunks, phones_of
from asr.text.pronunciation.pronouncer import Pronunciation

__all__ = ["LetterToSound"]

_BEAM_SIZE = 20
_SCORED = 200  # graphone sequences of one pronunciation that are followed when it is scored


class LetterToSound:
    """Pronunciations for any word whose letters are in the lexicon.

    Args:
        lexicon: (word, phones) pairs to learn from; a word may have more than one pronunciation.

    Attributes:
        joint: the joint n-gram that was learned.

    Raises:
        DataError: there is no pair to learn from.
    """

    def __init__(self, lexicon: Iterable[tuple[str, Sequence[str]]]) -> None:
        self.joint = joint = learn_joint_ngram(lexicon)
        self._ids = {letter: number for number, letter in enumerate(joint.letters)}
        self._phone_ids = {phone: number for number, phone in enumerate(joint.phones)}
        chunks = joint.kinds % count_chunks(len(joint.phones))
        self._chunks = [phones_of(chunk, joint.phones) for chunk in chunks.tolist()]

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters of the lexicon."""
        return self.joint.letters

    @property
    def phones(self) -> tuple[str, ...]:
        """The phones of the lexicon."""
        return self.joint.phones

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
        joint, result = self.joint, []
        scratch = [np.zeros((2, _SCORED), dtype=np.int64) for _ in range(2)]
        for word, one in zip(words, phones, strict=True):
            if any(phone not in self._phone_ids for phone in one):
                result.append(-np.inf)
                continue
            result.append(_score(
                joint.ngram, joint.start, joint.end, np.array([self._ids[letter] for letter in word]),
                np.array([self._phone_ids[phone] for phone in one], dtype=np.int64), len(joint.phones),
                joint.kinds, scratch[0], scratch[1], np.zeros((2, _SCORED)),
            ))  # fmt: skip
        return result

    def _hypotheses(self, word: str, beam_size: int, *, merge: bool) -> list[tuple[tuple[str, ...], float]]:
        """Phones and log-probability of the graphone sequences in the beam after the whole word."""
        letters = np.array([self._ids[letter] for letter in word], dtype=np.int64)
        width = beam_size * int(np.diff(self.joint.bounds).max())
        scores, nodes = np.zeros((2, width)), np.zeros((2, width), dtype=np.int64)
        paths = np.zeros((2, len(letters) + 1, beam_size), dtype=np.int64)
        kept = _search(
            self.joint.ngram,
            self.joint.start,
            self.joint.end,
            letters,
            self.joint.bounds,
            merge,
            scores,
            nodes,
            paths,
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


@kernel
def _search(
    ngram: GraphoneNgram, start: int, end: int, letters: Ints, bounds: Ints, merge: bool,
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
                log_prob, node = advance(ngram, nodes[0, b], first + c)
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
        scores[0, b] += advance(ngram, nodes[0, b], end)[0]
    return kept


@kernel
def _score(
    ngram: GraphoneNgram, start: int, end: int, letters: Ints, phones: Ints, phone_count: int, kinds: Ints,
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
                kind = letters[i] * chunks + chunk_of(phones, taken[0, b], more, phone_count)
                graphone = np.searchsorted(kinds, kind)
                if graphone == len(kinds) or kinds[graphone] != kind:
                    continue
                log_prob, node = advance(ngram, nodes[0, b], graphone)
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
            scores[0, b] += advance(ngram, nodes[0, b], end)[0]
            best = max(best, scores[0, b])
    for b in range(kept):
        if taken[0, b] == len(phones):
            total += np.exp(scores[0, b] - best)
    return best + np.log(total) if total > 0 else -np.inf
