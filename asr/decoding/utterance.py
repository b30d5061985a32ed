"""One utterance's search: the compiled steps, the room they need, and the texts they end in."""

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decoding.alignment import align_tokens
from asr.decoding.arena import NODE, compact, new_beam, spell
from asr.decoding.closing import close, say_ends, settle
from asr.decoding.config import BeamConfig
from asr.decoding.external import Conversation, converse
from asr.decoding.fusion import COLUMNS, PARENT, WORD, Tables
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.search import Pending, Pruning, new_scratch, search
from asr.decoding.sources import Sources
from asr.decoding.texts import name_words, time_words
from asr.errors import ModelError
from asr.text.tokenizer import Tokenizer

__all__ = ["Plan", "Utterance"]

log = logging.getLogger("asr")

_CAPACITY = 1 << 12  # nodes of an arena at first
_PENDING = 1 << 12  # prefixes that a language model outside is asked for at once, at most


class Plan(NamedTuple):
    """What all utterances of a decoder share."""

    tokenizer: Tokenizer
    config: BeamConfig
    sources: Sources
    tables: Tables
    pruning: Pruning


class Utterance:
    """A search that stands between two steps.

    Args:
        plan: of the decoder.
        name: what messages call it.
    """

    def __init__(self, plan: Plan, name: str) -> None:
        self._plan = plan
        self._name = name
        self._external = plan.sources.external()
        self._pending = Pending(
            np.empty((_PENDING if self._external else 0, COLUMNS), np.int32), np.zeros(1, np.int64)
        )
        self._scratch = new_scratch(
            plan.config.beam_size, plan.tokenizer.vocab_size, plan.tables.most_proposals
        )
        self.beam = new_beam(
            plan.config.beam_size, _CAPACITY, plan.sources.start_state, float(plan.tables.ahead[0])
        )

    def take(self, log_probs: NDArray[np.float64]) -> None:
        """Go on by some steps; see `steps`."""
        talk, lm = self.steps(log_probs), self._plan.sources.lm
        if lm is None:
            next(talk, None)  # it has nobody to ask, so this is all of it
        else:
            converse(lm, [talk])

    def steps(self, log_probs: NDArray[np.float64]) -> Conversation[None]:
        """Go on by some steps, in conversation with a language model outside, if there is one.

        Args:
            log_probs: (steps, vocab) float64.

        Raises:
            ModelError: nothing has a probability above 0.
        """
        plan = self._plan
        step, full = 0, -1
        while True:
            step = search(
                log_probs,
                step,
                self.beam,
                plan.pruning,
                plan.tables,
                plan.sources.ngrams,
                self._pending,
                self._scratch,
            )
            if step == len(log_probs):
                return
            if step < 0:
                raise ModelError(
                    f"{self._name}, step {-1 - step}: no text has a probability above 0. Check that the "
                    "model's output has no -inf where it should not; a larger --beam-size may help."
                )
            waiting = int(self._pending.waiting[0])
            if self._external and waiting:
                self._pending.waiting[0] = 0
                while self.beam.sizes[0] + waiting > len(self.beam.nodes):
                    self._grow()
                yield from self._external.make(self.beam, self._pending.rows[:waiting], plan.tables)
            else:
                self._make_room(again=step == full)
                full = step

    def _make_room(self, again: bool) -> None:
        """Drop the nodes that the beam does not need; double the arena if that frees less than half.

        Args:
            again: whether the step at hand has found too little room before.
        """
        nodes = np.zeros(len(self.beam.nodes), dtype=NODE)
        compact(self.beam, nodes)
        self.beam = self.beam._replace(nodes=nodes)
        if again or self.beam.sizes[0] > len(nodes) // 2:
            self._grow()
        if self._external:
            self._external.keep(self.beam)

    def _grow(self) -> None:
        longer = np.zeros(2 * len(self.beam.nodes), dtype=NODE)
        longer[: len(self.beam.nodes)] = self.beam.nodes
        self.beam = self.beam._replace(nodes=longer)

    def finish(self, log_probs: NDArray[np.float64], step_s: float) -> list[Hypothesis]:
        """The best texts, as if the utterance ended here.

        Args:
            log_probs: (steps, vocab) float64: all steps that were taken.
            step_s: seconds an encoder step.
        """
        tokenizer, config, sources, tables, _ = self._plan
        rows = close(self.beam, tables)
        if self._external:
            said = self._external.say_ends(self.beam, rows)
        else:
            said = say_ends(self.beam.nodes, rows, tables, sources.ngrams, sources.end_id)
        score, fused, lm = settle(self.beam, rows, said, tables)
        adjusted = tables.scale * log_probs + tables.bias
        hypotheses: list[Hypothesis] = []
        seen: set[str] = set()
        for place in np.argsort(-score, kind="stable"):
            tokens, words = spell(self.beam.nodes, rows[place, PARENT])
            ids = tokens.tolist()
            named = name_words(ids, [*words.tolist(), int(rows[place, WORD])], tokenizer, sources.vocabulary)
            text = " ".join(name for name, _ in named)
            if text in seen:
                continue
            seen.add(text)
            spans = align_tokens(adjusted, tokens)
            hypotheses.append(
                Hypothesis(
                    text=text,
                    words=time_words(named, ids, spans, log_probs, step_s),
                    tokens=tuple(ids),
                    steps=tuple(spans[:, 0].tolist()),
                    score=float(score[place]),
                    acoustic_score=float(score[place] - fused[place]),
                    lm_score=float(lm[place]),
                )
            )
            if len(hypotheses) == config.nbest:
                break
        return hypotheses
