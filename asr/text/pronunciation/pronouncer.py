"""Pronouncers: what a model has to offer that pronounces words, and several of them combined.

`asr.text` has one, the joint n-gram of `letter_to_sound`; networks that are others are in
`asr.model.sequence.pronouncer`. Whoever makes a lexicon chooses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asr.errors import SettingsError

__all__ = ["Candidates", "CombinedPronouncer", "Pronounced", "Pronouncer", "Pronunciation", "pronounce_words"]

Spelling = tuple[str, ...]
"""Phones."""

LOWEST_LOG_PROB = -100.0  # of a pronunciation that a model cannot give, where models are combined


@dataclass(frozen=True)
class Pronunciation:
    """One way to pronounce a word."""

    phones: Spelling
    log_prob: float  # nats, given the word


class Pronouncer(Protocol):
    """A model that pronounces words of the letters that it has seen, in lower case."""

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters that it knows."""

    def search(self, words: Sequence[str], count: int) -> list[list[Pronunciation]]:
        """At most `count` pronunciations of each word, best first; words are not empty, letters are known.

        There may be none.
        """

    def score(self, words: Sequence[str], phones: Sequence[Spelling]) -> list[float]:
        """Log-probability of a pronunciation for each word, in nats; up to a constant of the word.

        It is -inf for a pronunciation that the model cannot give.
        """


@dataclass(frozen=True)
class Pronounced:
    """A word with its pronunciations."""

    word: str
    pronunciations: tuple[Pronunciation, ...]  # best first; none for a word of unknown letters only
    unknown: str  # letters of the word that no word of the training had: it is pronounced without them


def pronounce_words(
    pronouncer: Pronouncer, words: Sequence[str], count: int = 1, at_once: int = 1000
) -> Iterator[Pronounced]:
    """Pronounce words of any letters, in their order.

    Args:
        pronouncer: any.
        words: of any case; not empty.
        count: pronunciations of each word, at most.
        at_once: words that the pronouncer gets in one call.
    """
    alphabet = set(pronouncer.letters)
    for begin in range(0, len(words), at_once):
        part = words[begin : begin + at_once]
        spelled = ["".join(letter for letter in word.lower() if letter in alphabet) for word in part]
        found = iter(pronouncer.search([word for word in spelled if word], count))
        for word, letters in zip(part, spelled, strict=True):
            unknown = "".join(dict.fromkeys(letter for letter in word if letter.lower() not in alphabet))
            yield Pronounced(word, tuple(next(found)) if letters else (), unknown)


@dataclass(frozen=True)
class Candidates:
    """Pronunciations of words, each scored by several pronouncers.

    Attributes:
        phones: of each word, its candidates.
        scores: (words, most candidates, pronouncers) nats; -inf after a word's last candidate.
    """

    phones: Sequence[Sequence[Spelling]]
    scores: NDArray[np.float64]

    @classmethod
    def of(cls, pronouncers: Sequence[Pronouncer], words: Sequence[str], count: int) -> "Candidates":
        """What each pronouncer finds, scored by all.

        Args:
            pronouncers: at least one, which know all letters of the words.
            words: not empty.
            count: pronunciations that each of them finds, at most.
        """
        found = [pronouncer.search(words, count) for pronouncer in pronouncers]
        phones = [
            list(dict.fromkeys(one.phones for of_one in of_word for one in of_one))
            for of_word in zip(*found, strict=True)
        ]
        rows = [word for word, candidates in zip(words, phones, strict=True) for _ in candidates]
        flat = [one for candidates in phones for one in candidates]
        scores = np.full((len(words), max(map(len, phones), default=0), len(pronouncers)), -np.inf)
        filled = np.arange(scores.shape[1]) < np.array([len(one) for one in phones])[:, None]
        for number, pronouncer in enumerate(pronouncers):
            values = np.maximum(pronouncer.score(rows, flat), LOWEST_LOG_PROB)
            scores[:, :, number][filled] = values
        return cls(phones, scores)

    def best(self, weights: Sequence[float]) -> NDArray[np.int64]:
        """(words,) the candidate of each word with the largest weighted sum of scores."""
        valid = np.isfinite(self.scores[:, :, 0])
        sums = np.where(valid, np.where(valid[:, :, None], self.scores, 0.0) @ np.asarray(weights), -np.inf)
        chosen: NDArray[np.int64] = sums.argmax(1)
        return chosen

    def tune(self, references: Sequence[Sequence[Spelling]]) -> tuple[tuple[float, ...], float]:
        """The weights with the fewest words wrong: from equal ones, one weight at a time.

        Args:
            references: the right pronunciations of each word.

        Returns:
            The weights, which add up to 1, and the percentage of words that they get wrong.
        """
        right = np.zeros(self.scores.shape[:2], dtype=bool)
        for row, (found, wanted) in enumerate(zip(self.phones, references, strict=True)):
            right[row, : len(found)] = [one in wanted for one in found]
        words = np.arange(len(right))

        def wrong(weights: NDArray[np.float64]) -> float:
            return float(1 - right[words, self.best(weights.tolist())].mean())

        weights = np.full(self.scores.shape[2], 1 / self.scores.shape[2])
        lowest = wrong(weights)
        for step in (1.0, 0.5, 0.25, 0.1, 0.05) if len(weights) > 1 else ():
            for number in range(len(weights)):
                for factor in (-step, step):
                    tried = weights.copy()
                    tried[number] = max(tried[number] * (1 + factor), 0.0)
                    if tried.sum() > 0 and (errors := wrong(tried / tried.sum())) < lowest:
                        weights, lowest = tried / tried.sum(), errors
        return tuple(float(weight) for weight in weights), 100 * lowest


class CombinedPronouncer:
    """Several pronouncers as one: each finds candidates, and a weighted sum of all scores ranks them.

    Args:
        pronouncers: at least one.
        weights: of their log-probabilities; at least 0, and one above it.
        count: candidates that each of them finds.

    Raises:
        SettingsError: there is not one weight for each pronouncer, or they are not as expected.
    """

    def __init__(self, pronouncers: Sequence[Pronouncer], weights: Sequence[float], count: int = 5) -> None:
        if len(weights) != len(pronouncers) or min(weights) < 0 or not sum(weights) > 0:
            raise SettingsError(
                f"--weights {' '.join(f'{weight:g}' for weight in weights)}: {len(weights)} for "
                f"{len(pronouncers)} models. Expected one for each, at least 0, and not all of them 0."
            )
        self.pronouncers, self.weights, self.count = pronouncers, weights, count

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters that all of them know."""
        common = set.intersection(*(set(pronouncer.letters) for pronouncer in self.pronouncers))
        return tuple(sorted(common))

    def search(self, words: Sequence[str], count: int) -> list[list[Pronunciation]]:
        """At most `count` pronunciations of each word; the probabilities of all candidates add up to 1."""
        if not words:
            return []
        made = Candidates.of(self.pronouncers, words, max(count, self.count))
        result = []
        for phones, scores in zip(made.phones, made.scores, strict=True):
            sums = scores[: len(phones)] @ np.asarray(self.weights)
            log_probs = sums - np.logaddexp.reduce(sums) if len(sums) else sums
            order = np.argsort(-sums, kind="stable")[:count]
            result.append([Pronunciation(phones[row], float(log_probs[row])) for row in order])
        return result

    def score(self, words: Sequence[str], phones: Sequence[Spelling]) -> list[float]:
        """The weighted sum of the log-probabilities, up to a constant of the word."""
        rows = np.array([one.score(words, phones) for one in self.pronouncers])
        total = np.asarray(self.weights) @ np.maximum(rows, LOWEST_LOG_PROB)
        return [float(value) for value in total]
