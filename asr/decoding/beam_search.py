"""The beam search of one utterance: its compiled steps, the memory they need, and the texts it ends with."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asr.decoding.alignment import align_tokens
from asr.decoding.confidence import LatticePosteriors, with_posteriors
from asr.decoding.fusion.lm_queries import LmQueries, answer_queries
from asr.decoding.fusion.setup import SearchSetup
from asr.decoding.fusion.vocabulary import SearchVocabulary
from asr.decoding.hypothesis import Hypothesis, NamedSpans, Word, name_tokens, time_words
from asr.decoding.kernel.arena import (
    EMPTY_PREFIX,
    N_NODES,
    NODE,
    NONE,
    OOV_WORD,
    compact,
    new_beam,
    new_merges,
)
from asr.decoding.kernel.prefixes import propose_ends, score_final_prefixes
from asr.decoding.kernel.proposals import PROPOSAL
from asr.decoding.kernel.recombination import new_buffers
from asr.decoding.kernel.steps import DONE, NO_TEXT, PENDING, Pending, advance_beam
from asr.decoding.lattice import FinalPrefixes, Lattice, paths
from asr.errors import ModelError
from asr.lm.ngram.trie import UNK
from asr.text.scripts import join_words
from asr.text.tokenizer import Tokenizer

__all__ = ["BeamSearch", "name_words"]

_CAPACITY = 1 << 15  # nodes of an arena at first (2 MB): with 1 << 12, making room took a sixth of the time
_MERGES = 1 << 15  # merges that there is room for at first
_SPARE = 10  # texts whose scores are computed besides those that are wanted
_MAX_PENDING = 1 << 12  # prefixes that a language model in Python scores at once, at most


class BeamSearch:
    """The search of one utterance, between two of its steps.

    Args:
        setup: of the decoder.
        name: of the utterance in messages.

    Attributes:
        beam: the prefixes and their probabilities.
        merges: the prefixes that recombination has dropped.
        anchor: node of a prefix that all prefixes of the beam begin with; a stream moves it.
    """

    def __init__(self, setup: SearchSetup, name: str) -> None:
        self._setup = setup
        self._name = name
        self._python_lm = setup.prepared.python_lm_states()
        self._pending = Pending(
            np.empty(_MAX_PENDING if self._python_lm else 0, PROPOSAL), np.zeros(1, np.int64)
        )
        self._buffers = new_buffers(
            setup.config.width.beam_size, setup.tokenizer.vocab_size, setup.tables.max_proposals
        )
        self.anchor = EMPTY_PREFIX
        # Alternatives are needed for a list of hypotheses and for the posteriors of words.
        self._has_word_lm = setup.prepared.unigram_log_probs is not None
        recorded = self._has_word_lm or setup.config.nbest > 1
        self.merges = new_merges(_MERGES + len(self._buffers.node) if recorded else 0)
        self.beam = new_beam(
            setup.config.width.beam_size,
            _CAPACITY,
            setup.prepared.start_state,
            float(setup.tables.look_ahead[0]),
        )

    def advance(self, log_probs: NDArray[np.float64]) -> None:
        """Take the next steps.

        Args:
            log_probs: (steps, vocab) float64 nats.

        Raises:
            ModelError: nothing has a probability above 0.
        """
        queries, lm = self.steps(log_probs), self._setup.prepared.lm
        if lm is None:
            next(queries, None)  # without queries, this takes all steps
        else:
            answer_queries(lm, [queries])

    def steps(self, log_probs: NDArray[np.float64]) -> LmQueries[None]:
        """Take the next steps, yielding the queries to a language model in Python, if there is one.

        Args:
            log_probs: (steps, vocab) float64 nats.

        Raises:
            ModelError: nothing has a probability above 0.
        """
        setup = self._setup
        step, full = 0, -1  # full: the last step that found too little room
        while True:
            status, step = advance_beam(
                log_probs,
                step,
                self.beam,
                self.merges,
                setup.pruning,
                setup.tables,
                setup.prepared.ngrams,
                self._pending,
                self._buffers,
            )
            if status == DONE:
                return
            if status == NO_TEXT:
                raise ModelError(
                    f"{self._name}, step {step}: no text has a probability above 0. Check that the "
                    "model's output has no -inf where it should not; a larger --beam.beam-size may help."
                )
            if status == PENDING and self._python_lm:
                count = int(self._pending.size[0])
                self._pending.size[0] = 0
                while self.beam.sizes[N_NODES] + count > len(self.beam.nodes):
                    self._double_arena()
                yield from self._python_lm.add_prefixes(
                    self.beam, self._pending.proposals[:count], setup.tables
                )
            else:
                self._make_room(again=step == full)
                full = step

    def final_prefixes(self) -> FinalPrefixes:
        """How the prefixes of the beam end, as if the utterance ended here, with the search's scores."""
        prepared, tables = self._setup.prepared, self._setup.tables
        proposals = propose_ends(self.beam, tables)
        count = len(proposals)
        lm_log_prob = (
            self._python_lm.end_log_probs(self.beam, proposals) if self._python_lm else np.zeros(count)
        )
        final = FinalPrefixes(
            proposals["parent"], proposals["word"], np.empty(count), np.empty(count), lm_log_prob
        )
        score_final_prefixes(
            self.beam, proposals, tables, prepared.ngrams, prepared.end_id,
            final.score, final.fused_score, final.lm_log_prob,
        )  # fmt: skip
        return final

    def finish(self, log_probs: NDArray[np.float64], step_s: float) -> list[Hypothesis]:
        """The best texts, as if the utterance ended here.

        Args:
            log_probs: (steps, vocab) float64 nats: all steps that were taken.
            step_s: seconds an encoder step.

        Returns:
            One to nbest hypotheses of different texts, best first.
        """
        setup = self._setup
        adjusted = setup.tables.scale * log_probs + setup.tables.bias
        found: dict[str, Hypothesis] = {}
        limit = math.inf  # the score of the first
        nbest = setup.config.nbest
        wanted = nbest if nbest == 1 else nbest + _SPARE  # chosen by estimates, then ranked by scores
        spelled: set[tuple[int, ...]] = set()  # different merges can lead to the same tokens
        lattice = Lattice(self.beam.nodes[: self.beam.sizes[N_NODES]], self.merges, self.final_prefixes())
        posteriors = LatticePosteriors(lattice) if self._has_word_lm else None
        for path in paths(lattice):
            if (key := (*path.tokens, *path.words)) in spelled:
                continue
            spelled.add(key)
            named = name_words(path.tokens, path.words, setup.tokenizer, setup.prepared.vocabulary)
            if path.words[-1] == OOV_WORD and setup.config.unknown_words == "forbid":
                named = named[:-1]  # all prefixes end within a word: the words before it remain
            text = join_words(name for name, _ in named)
            if text in found:
                continue
            spans, acoustic = align_tokens(adjusted, np.array(path.tokens, np.int32))
            if acoustic == -math.inf and found:
                continue  # an exchanged beginning can have more tokens than fit into few steps
            # The search's first choice stays the best, so that it does not depend on nbest; a text that would
            # score above it is a search error.
            score = min(acoustic + path.fused_score, limit)
            limit = limit if found else score
            words = _time_words(named, path.tokens, spans, log_probs, step_s)
            if posteriors and not found:
                words = with_posteriors(words, posteriors.of(path)[: len(words)])
            found[text] = Hypothesis(
                text=text,
                words=words,
                tokens=tuple(path.tokens),
                steps=tuple(spans[:, 0].tolist()),
                score=score,
                acoustic_score=score - path.fused_score,
                lm_log_prob=path.lm_log_prob,
            )
            if len(found) == wanted:
                break
        return sorted(found.values(), key=lambda hypothesis: -hypothesis.score)[:nbest]

    def _make_room(self, again: bool) -> None:
        """Drop nodes and merges that are not needed; double the arrays that are still more than half full.

        Args:
            again: whether the same step had too little room before.
        """
        nodes = np.zeros(len(self.beam.nodes), dtype=NODE)
        new_index = np.full(self.beam.sizes[N_NODES], NONE, np.int32)
        compact(self.beam, self.merges, nodes, new_index)
        self.anchor = int(new_index[self.anchor])
        self.beam = self.beam._replace(nodes=nodes)
        if again or self.beam.sizes[N_NODES] > len(nodes) // 2:
            self._double_arena()
        capacity, count = len(self.merges.log_ratio), int(self.merges.size[0])
        if count + len(self._buffers.node) > capacity // 2 and capacity:
            longer = new_merges(2 * capacity)
            for name in ("kept", "dropped", "log_ratio"):
                getattr(longer, name)[:count] = getattr(self.merges, name)[:count]
            self.merges = longer._replace(size=self.merges.size)
        if self._python_lm:
            self._python_lm.compact(self.beam)

    def _double_arena(self) -> None:
        longer = np.zeros(2 * len(self.beam.nodes), dtype=NODE)
        longer[: len(self.beam.nodes)] = self.beam.nodes
        self.beam = self.beam._replace(nodes=longer)


def name_words(
    tokens: Sequence[int], words: Sequence[int], tokenizer: Tokenizer, vocabulary: SearchVocabulary | None
) -> NamedSpans:
    """The words of a prefix.

    Without a vocabulary that names words, a word is what its tokens write; where these write nothing
    (phones), each token is a word. With one, and tokens that do not show where words end, a word ends where
    the search has completed it.

    Args:
        tokens: (tokens,) ids.
        words: (tokens + 1,) the word that each token completed (an id, OOV_WORD or NONE), then the one that
            the end completed.
        tokenizer: the model's.
        vocabulary: of the search.
    """
    if vocabulary is None:
        return name_tokens(tokens, tokenizer)
    if not vocabulary.named:
        return [(tokenizer.decode(tokens[span]), span) for span in tokenizer.words(tokens) or ()]
    spans = tokenizer.words(tokens) if vocabulary.separated else None
    if spans is not None:
        completed = [word for word in words if word != NONE]
        completed += [NONE] * (len(spans) - len(completed))  # the last word is not complete yet
        return [
            (vocabulary.words[word] if word >= 0 else tokenizer.decode(tokens[span]), span)
            for word, span in zip(completed, spans, strict=True)
        ]
    named = []
    begin = 0
    for index, word in enumerate(words):
        if word != NONE:
            end = min(index + 1, len(tokens))
            unknown = UNK if tokenizer.pieces is None else tokenizer.decode(tokens[begin:end])
            named.append((vocabulary.words[word] if word >= 0 else unknown, slice(begin, end)))
            begin = end
    return named


def _time_words(
    named: NamedSpans,
    tokens: Sequence[int],
    spans: NDArray[np.int64],
    log_probs: NDArray[np.float64],
    step_s: float,
) -> tuple[Word, ...]:
    """Words with the times of their tokens' runs and the mean posteriors in these.

    Args:
        named: the words.
        tokens: (tokens,) ids.
        spans: (tokens, 2) int64: first step of each run, and the first after it.
        log_probs: (steps, vocab) float64 nats.
        step_s: seconds an encoder step.
    """
    if not named:
        return ()
    lengths = spans[:, 1] - spans[:, 0]
    begins = np.cumsum(lengths) - lengths  # of each run, when the runs are concatenated
    steps = np.repeat(spans[:, 0] - begins, lengths) + np.arange(lengths.sum())
    probs = np.exp(log_probs[steps, np.repeat(tokens, lengths)])
    confidences: list[float] = (np.add.reduceat(probs, begins) / lengths).tolist()
    return time_words(named, spans[:, 0].tolist(), spans[:, 1].tolist(), confidences, step_s)
