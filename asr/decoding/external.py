"""A language model that only Python can ask, such as a neural one, beside the compiled search.

A network answers a hundred questions in little more time than one. So a search does not ask by itself: it is
a conversation, a generator that yields what it would know and goes on with the answer, and the searches of a
batch hold their conversations together.
"""

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from asr.decoding.kernel.arena import INSIDE, ROOT, UNKNOWN, Beam
from asr.decoding.kernel.fusion import END, LEAVES, PARENT, TOKEN, WORD, Tables, add_all
from asr.decoding.vocabulary import Letters, Vocabulary
from asr.lm.interface import LanguageModel
from asr.lm.ngram.trie import UNKNOWN as UNKNOWN_WORD

__all__ = ["Conversation", "ExternalModel", "converse"]

T = TypeVar("T")

Question = tuple[Sequence[Any], Sequence[str]]  # states, and what is said after each: `LanguageModel.score`
Answer = tuple[NDArray[np.float64], Sequence[Any]]
Conversation = Generator[Question, Answer, T]


def converse(lm: LanguageModel[Any], conversations: Sequence[Conversation[T]]) -> list[T]:
    """Hold conversations with a language model; what they ask at the same time is one call.

    Args:
        lm: the model.
        conversations: each is held to its end.

    Returns:
        What each returns.
    """
    results: dict[int, T] = {}
    answers: dict[int, Answer | None] = dict.fromkeys(range(len(conversations)))
    while answers:
        questions: dict[int, Question] = {}
        for number, answer in answers.items():
            talk = conversations[number]
            try:
                questions[number] = next(talk) if answer is None else talk.send(answer)
            except StopIteration as over:
                results[number] = over.value
        answers = {}
        if questions:
            states = [state for several, _ in questions.values() for state in several]
            symbols = [symbol for _, several in questions.values() for symbol in several]
            nats, after = lm.score(states, symbols)
            begin = 0
            for number, (asked, _) in questions.items():
                end = begin + len(asked)
                answers[number] = nats[begin:end], after[begin:end]
                begin = end
    return [results[number] for number in range(len(conversations))]


class ExternalModel:
    """The states of a language model in one utterance's search.

    The compiled search knows a state by its number. What the model is told is what an n-gram model would be,
    see `fusion.say`; all prefixes that a step needs are asked together.

    Args:
        lm: the model.
        letters: of the tokenizer.
        vocabulary: the words, for a model of words.
    """

    def __init__(self, lm: LanguageModel[Any], letters: Letters, vocabulary: Vocabulary | None) -> None:
        self._lm = lm
        self._states: list[Any] = []
        self._numbers: dict[Any, int] = {}
        self._number(lm.start())
        self._words = vocabulary.words if vocabulary and lm.unit == "word" else None
        names = list(letters.numbers)
        self._spelt = [[names[letter] for letter in token] for token in letters.tokens]
        self._begins = letters.begins

    def make(self, beam: Beam, rows: NDArray[np.int32], tables: Tables) -> Conversation[None]:
        """Score proposals and make their prefixes; the arena must have room."""
        said, states = yield from self._say(beam, rows)
        add_all(beam, rows, said, np.array([self._number(state) for state in states], np.int64), tables)

    def say_ends(self, beam: Beam, rows: NDArray[np.int32]) -> NDArray[np.float64]:
        """(rows,) what the model says of how each row ends, the end included."""
        [(said, states)] = converse(self._lm, [self._say(beam, rows)])
        return said + self._lm.finish(states)

    def keep(self, beam: Beam) -> None:
        """Forget the states that no prefix in the arena has."""
        used = beam.nodes["state"][: beam.sizes[0]]
        kept, numbers = np.unique(used, return_inverse=True)
        states = [self._states[state] for state in kept]
        self._states, self._numbers = [], {}
        for state in states:
            self._number(state)
        beam.nodes["state"][: beam.sizes[0]] = numbers

    def _number(self, state: Any) -> int:
        """The number of a state; equal states share one, if they can be compared."""
        try:
            number = self._numbers.setdefault(state, len(self._states))
        except TypeError:  # what cannot be compared is a state of its own
            number = len(self._states)
        if number == len(self._states):
            self._states.append(state)
        return number

    def _say(
        self, beam: Beam, rows: NDArray[np.int32]
    ) -> Conversation[tuple[NDArray[np.float64], list[Any]]]:
        symbols = [self._symbols(beam, row) for row in rows.tolist()]
        states = [self._states[state] for state in beam.nodes["state"][rows[:, PARENT]]]
        said = np.zeros(len(rows))
        for turn in range(max(map(len, symbols), default=0)):
            asked = [row for row, several in enumerate(symbols) if len(several) > turn]
            nats, after = yield [states[row] for row in asked], [symbols[row][turn] for row in asked]
            said[asked] += nats
            for row, state in zip(asked, after, strict=True):
                states[row] = state
        return said, states

    def _symbols(self, beam: Beam, row: Sequence[int]) -> list[str]:
        parent, token, word = row[PARENT], row[TOKEN], row[WORD]
        if self._words is not None:
            said = []
            if word >= 0:
                said.append(self._words[word])
            elif word == UNKNOWN and beam.nodes[parent]["lex"] != INSIDE:
                said.append(UNKNOWN_WORD)
            return said + [UNKNOWN_WORD] * row[LEAVES]
        if token == END:
            return []
        spelt = self._spelt[token]
        return [" ", *spelt] if self._begins[token] and (parent != ROOT or not spelt) else spelt
