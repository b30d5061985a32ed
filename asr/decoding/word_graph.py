"""The words of a text as states of CTC: their pronunciations, and that text and audio may differ.

The states follow each other: before each word a blank and the star, which stands for speech that is not in
the text, then the tokens of each pronunciation of the word, with blanks between them. Words can be left out
at a cost. Between two words the blank is optional, as everywhere in CTC: it is the silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.text.tokenizer import BLANK

__all__ = ["STAR", "AlignedWord", "Alignment", "AlignmentCosts", "WordGraph", "WordStates"]

STAR = -1  # instead of a token: the column of the star depends on the model

_MOST_PRONUNCIATIONS = 250  # of a word: where a path comes from is a byte


@dataclass(frozen=True)
class AlignmentCosts:
    """What it costs, in nats, that text and audio differ.

    Attributes:
        star: each time that speech begins which is not in the text.
        star_step: besides, each step of it, less than the most probable token of the step; a step that is
            most probably blank costs next to nothing.
        skip: words in a row that are not in the audio, however many.
        skip_token: besides, each token of them.
        skip_at_ends: instead, a token of the words before the first and after the last one that is in the
            audio.
        window: states so many nats below the best one of their step are pruned.
    """

    star: float = 15.0
    star_step: float = 1.5
    skip: float = 15.0
    skip_token: float = 0.3
    skip_at_ends: float = 0.05
    window: float = 1000.0

    def widened(self, factor: float) -> "AlignmentCosts":
        """The same costs with a window `factor` times as wide."""
        return replace(self, window=factor * self.window)


class WordStates(NamedTuple):
    """The states of a text as the kernel takes them; word `words` is the end of the text.

    Attributes:
        token: (states,) int32: what each one emits; the star is the column after the last token.
        first: (words + 2,) int64: the blank before each word. After it come its star, a state that is reached
            by leaving out the word before, within a step, and its pronunciations.
        pronunciation: (words + 2,) int64: the first one of each word.
        start: (pronunciations,) int64: the state of the first token of each.
        end: (pronunciations,) int64: the state of its last token.
        skip: (words,) float64 nats: of leaving each word out.
        skip_first: nats: of leaving out the first of several words, besides.
        star_first: nats: of going over to the star.
    """

    token: NDArray[np.int32]
    first: NDArray[np.int64]
    pronunciation: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    skip: NDArray[np.float64]
    skip_first: float
    star_first: float


@dataclass(frozen=True)
class AlignedWord:
    """Where a word of the text was found.

    Attributes:
        pronunciation: the number of the one that was found.
        tokens: (tokens,) int32 ids of it, without the space before it.
        spans: (tokens, 2) int64: the first step of each token, and the first after it.
    """

    pronunciation: int
    tokens: NDArray[np.int32]
    spans: NDArray[np.int64]


class WordGraph:
    """The words of a text with their pronunciations.

    Args:
        words: the token ids of each pronunciation of each word. A word without one is always left out.
        separator: the token between two words, such as the space; BLANK where there is none.
    """

    def __init__(self, words: Sequence[Sequence[Sequence[int]]], separator: int = BLANK) -> None:
        tokens: list[int] = []
        first, pronunciation = [], []
        start: list[int] = []
        end: list[int] = []
        self._lengths: list[int] = []  # tokens of the shortest pronunciation of each word
        self._separators: list[int] = []  # tokens before each word
        for number, of_word in enumerate(words):
            first.append(len(tokens))
            pronunciation.append(len(start))
            tokens += [BLANK, STAR, BLANK]
            lead = [separator] if separator != BLANK and number else []
            self._separators.append(len(lead))
            self._lengths.append(min(map(len, of_word), default=0))
            for ids in of_word[:_MOST_PRONUNCIATIONS]:
                start.append(len(tokens))
                for index, token in enumerate([*lead, *ids]):
                    tokens += [BLANK, token] if index else [token]
                end.append(len(tokens) - 1)
        first += [len(tokens), len(tokens) + 3]
        pronunciation += [len(start)] * 2
        tokens += [BLANK, STAR, BLANK]
        self._token = np.array(tokens, np.int32)
        self._first, self._pronunciation = np.array(first), np.array(pronunciation)
        self._start, self._end = np.array(start, np.int64), np.array(end, np.int64)

    def __len__(self) -> int:
        """How many words."""
        return len(self._lengths)

    def states(self, star: int, costs: AlignmentCosts) -> WordStates:
        """As the kernel takes them.

        Args:
            star: the column of the star.
            costs: of leaving words out.
        """
        token = np.where(self._token == STAR, star, self._token).astype(np.int32)
        skip = self.skip_costs(costs.skip_token)
        return WordStates(
            token, self._first, self._pronunciation, self._start, self._end, skip, float(costs.skip),
            float(costs.star),
        )  # fmt: skip

    def skip_costs(self, skip: float) -> NDArray[np.float64]:
        """(words,) nats: what it costs to leave each word out, at so many nats a token."""
        return np.array([skip * length if length else 0.0 for length in self._lengths])

    def follow(self, path: NDArray[np.int64], score: float) -> "Alignment":
        """What is on a path.

        Args:
            path: (steps,) int64: the state of each step.
            score: of the path.
        """
        found: list[AlignedWord | None] = [None] * len(self)
        begins = np.flatnonzero(np.diff(path, prepend=-1))
        ends = np.append(begins, len(path))[1:]
        states = path[begins]
        stars = self._token[states] == STAR
        owner = np.searchsorted(self._start, states, side="right") - 1  # the last pronunciation up to there
        rows = np.flatnonzero(owner >= 0)
        inside = states[rows] <= self._end[owner[rows]]
        inside &= (states[rows] - self._start[owner[rows]]) % 2 == 0  # tokens, no blanks
        rows = rows[inside]
        words = np.searchsorted(self._pronunciation, owner, side="right") - 1
        for part in np.split(rows, np.flatnonzero(np.diff(words[rows])) + 1) if len(rows) else ():
            word = int(words[part[0]])
            spoken = part[self._separators[word] :]
            found[word] = AlignedWord(
                pronunciation=int(owner[part[0]] - self._pronunciation[word]),
                tokens=self._token[states[spoken]],
                spans=np.stack([begins[spoken], ends[spoken]], axis=1),
            )
        return Alignment(tuple(found), np.stack([begins, ends], axis=1)[stars], score)


@dataclass(frozen=True)
class Alignment:
    """A text and an utterance, aligned.

    Attributes:
        words: of the text; None for each that is not in the audio.
        stars: (stretches, 2) int64: the first step of each stretch of speech that is not in the text, and the
            first after it.
        score: log-probability of the path in nats, less what the differences cost; -inf where there is none.
    """

    words: tuple[AlignedWord | None, ...]
    stars: NDArray[np.int64]
    score: float
