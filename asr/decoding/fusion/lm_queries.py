"""A language model that is called from Python, such as a network, fused by batched queries.

A network answers a hundred queries in little more time than one. So a search does not call it: it is a
generator that yields the queries it needs answered and continues with the answers, and the queries of all
searches of a batch are answered by one call.
"""

from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from asr.decoding.fusion.vocabulary import SearchVocabulary, SpellingAlphabet
from asr.decoding.kernel.arena import EMPTY_PREFIX, N_NODES, OOV_WORD, OUT_OF_TREE, Beam
from asr.decoding.kernel.prefixes import add_prefixes
from asr.decoding.kernel.proposals import END_OF_TEXT, ScoreTables
from asr.lm.interface import LanguageModel
from asr.lm.ngram.trie import UNK

__all__ = ["LmQueries", "PythonLmStates", "answer_queries"]

T = TypeVar("T")

Query = tuple[Sequence[Any], Sequence[str]]  # states, and the symbol after each: `LanguageModel.score`
Answer = tuple[NDArray[np.float64], Sequence[Any]]  # log-probabilities, and the states after the symbols
LmQueries = Generator[Query, Answer, T]


def answer_queries(lm: LanguageModel[Any], generators: Sequence[LmQueries[T]]) -> list[T]:
    """Run generators to their end, answering what they ask at the same time by one call.

    Args:
        lm: the model.
        generators: yield queries.

    Returns:
        What each generator returns.
    """
    results: dict[int, T] = {}
    answers: dict[int, Answer | None] = dict.fromkeys(range(len(generators)))
    while answers:
        queries: dict[int, Query] = {}
        for index, answer in answers.items():
            generator = generators[index]
            try:
                queries[index] = next(generator) if answer is None else generator.send(answer)
            except StopIteration as end:
                results[index] = end.value
        answers = {}
        if queries:
            states = [state for query_states, _ in queries.values() for state in query_states]
            lm_symbols = [symbol for _, query_symbols in queries.values() for symbol in query_symbols]
            log_probs, next_states = lm.score(states, lm_symbols)
            first = 0
            for index, (query_states, _) in queries.items():
                last = first + len(query_states)
                answers[index] = log_probs[first:last], next_states[first:last]
                first = last
    return [results[index] for index in range(len(generators))]


class PythonLmStates:
    """The states of a language model in one utterance's search.

    The compiled search has an id for each state. The model scores the same words or characters as an
    n-gram model would, see `advance_lm`; all prefixes that a step needs are scored together.

    Args:
        lm: the model.
        alphabet: of the tokenizer.
        vocabulary: the words, for a model of words.
    """

    def __init__(
        self, lm: LanguageModel[Any], alphabet: SpellingAlphabet, vocabulary: SearchVocabulary | None
    ) -> None:
        self._lm = lm
        self._states: list[Any] = []
        self._ids: dict[Any, int] = {}
        self._id_of(lm.start())
        self._words = vocabulary.words if vocabulary and lm.unit == "word" else None
        names = list(alphabet.ids)
        self._spellings = [[names[symbol] for symbol in token] for token in alphabet.token_symbols]
        self._begins_word = alphabet.begins_word

    def add_prefixes(self, beam: Beam, proposals: NDArray[Any], tables: ScoreTables) -> LmQueries[None]:
        """Score proposals and make their prefixes; the arena must have room.

        Args:
            beam: gets the prefixes.
            proposals: (n,) PROPOSAL.
            tables: what scores.
        """
        log_probs, states = yield from self._score(beam, proposals)
        ids = np.array([self._id_of(state) for state in states], np.int64)
        add_prefixes(beam, proposals, log_probs, ids, tables)

    def end_log_probs(self, beam: Beam, proposals: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) nats of how (n,) PROPOSAL end the text, its end included."""
        [(log_probs, states)] = answer_queries(self._lm, [self._score(beam, proposals)])
        return log_probs + self._lm.finish(states)

    def compact(self, beam: Beam) -> None:
        """Forget the states that no prefix in the arena has."""
        used = beam.nodes["lm_state"][: beam.sizes[N_NODES]]
        kept, ids = np.unique(used, return_inverse=True)
        states = [self._states[state] for state in kept]
        self._states, self._ids = [], {}
        for state in states:
            self._id_of(state)
        beam.nodes["lm_state"][: beam.sizes[N_NODES]] = ids

    def _id_of(self, state: Any) -> int:
        """The id of a state; equal states share one, if they can be compared."""
        try:
            state_id = self._ids.setdefault(state, len(self._states))
        except TypeError:  # a state that cannot be compared has its own id
            state_id = len(self._states)
        if state_id == len(self._states):
            self._states.append(state)
        return state_id

    def _score(self, beam: Beam, proposals: NDArray[Any]) -> LmQueries[tuple[NDArray[np.float64], list[Any]]]:
        """(n,) nats of (n,) PROPOSAL, and the n states after them."""
        fields = proposals[["parent", "token", "word", "starts_oov"]].tolist()
        lm_symbols = [self._lm_symbols(beam, *proposal) for proposal in fields]
        states = [self._states[state] for state in beam.nodes["lm_state"][proposals["parent"]]]
        total = np.zeros(len(proposals))
        for position in range(max(map(len, lm_symbols), default=0)):
            asked = [row for row, row_symbols in enumerate(lm_symbols) if len(row_symbols) > position]
            log_probs, next_states = yield (
                [states[row] for row in asked],
                [lm_symbols[row][position] for row in asked],
            )
            total[asked] += log_probs
            for row, state in zip(asked, next_states, strict=True):
                states[row] = state
        return total, states

    def _lm_symbols(self, beam: Beam, parent: int, token: int, word: int, starts_oov: int) -> list[str]:
        """The words or characters that the model scores for a proposal."""
        if self._words is not None:
            words = []
            if word >= 0:
                words.append(self._words[word])
            elif word == OOV_WORD and beam.nodes[parent]["tree_node"] != OUT_OF_TREE:
                words.append(UNK)
            return words + [UNK] * starts_oov
        if token == END_OF_TEXT:
            return []
        spelling = self._spellings[token]
        has_space = self._begins_word[token] and (parent != EMPTY_PREFIX or not spelling)
        return [" ", *spelling] if has_space else spelling
