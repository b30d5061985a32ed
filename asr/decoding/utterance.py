"""One utterance's search: the compiled steps, the room they need, and the texts they end in."""

import logging
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.decoding.alignment import align_tokens
from asr.decoding.config import BeamConfig
from asr.decoding.external import Conversation, converse
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.kernel.arena import NODE, NONE, ROOT, compact, new_beam, new_merges
from asr.decoding.kernel.closing import close, score_ends
from asr.decoding.kernel.fusion import COLUMNS, PARENT, WORD, Tables
from asr.decoding.kernel.search import Pending, Pruning, new_scratch, search
from asr.decoding.lattice import Ends, paths
from asr.decoding.sources import Sources
from asr.decoding.texts import name_words, time_words
from asr.errors import ModelError
from asr.text.tokenizer import Tokenizer

__all__ = ["Plan", "Utterance"]

log = logging.getLogger("asr")

_CAPACITY = 1 << 12  # nodes of an arena at first
_MERGES = 1 << 12  # merges that there is room for at first, where several hypotheses are asked for
_SPARE = 2  # texts whose scores are computed for each one that is asked for
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
        self.anchor = ROOT  # a prefix that all of the beam begin with; a stream moves it
        # Alternatives are needed for a list of hypotheses only.
        self.merges = new_merges(_MERGES + len(self._scratch.node) if plan.config.nbest > 1 else 0)
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
                self.merges,
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
                    "model's output has no -inf where it should not; a larger --beam.beam-size may help."
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
        """Drop nodes and merges that are not needed; double the room that is still more than half full.

        Args:
            again: whether the step at hand has found too little room before.
        """
        nodes = np.zeros(len(self.beam.nodes), dtype=NODE)
        number = np.full(self.beam.sizes[0], NONE, np.int32)
        compact(self.beam, self.merges, nodes, number)
        self.anchor = int(number[self.anchor])
        self.beam = self.beam._replace(nodes=nodes)
        if again or self.beam.sizes[0] > len(nodes) // 2:
            self._grow()
        room, count = len(self.merges.ratio), int(self.merges.made[0])
        if count + len(self._scratch.node) > room // 2 and room:
            longer = new_merges(2 * room)
            for name in ("kept", "lost", "ratio"):
                getattr(longer, name)[:count] = getattr(self.merges, name)[:count]
            self.merges = longer._replace(made=self.merges.made)
        if self._external:
            self._external.keep(self.beam)

    def _grow(self) -> None:
        longer = np.zeros(2 * len(self.beam.nodes), dtype=NODE)
        longer[: len(self.beam.nodes)] = self.beam.nodes
        self.beam = self.beam._replace(nodes=longer)

    def ends(self) -> Ends:
        """How the prefixes of the beam end, as if the utterance ended here, with the search's scores."""
        sources, tables = self._plan.sources, self._plan.tables
        rows = close(self.beam, tables)
        said = self._external.say_ends(self.beam, rows) if self._external else np.zeros(len(rows))
        score, fused, lm = score_ends(self.beam, rows, said, tables, sources.ngrams, sources.end_id)
        return Ends(rows[:, PARENT], rows[:, WORD], score, fused, lm)

    def finish(self, log_probs: NDArray[np.float64], step_s: float) -> list[Hypothesis]:
        """The best texts, as if the utterance ended here.

        Args:
            log_probs: (steps, vocab) float64: all steps that were taken.
            step_s: seconds an encoder step.
        """
        plan = self._plan
        adjusted = plan.tables.scale * log_probs + plan.tables.bias
        found: dict[str, Hypothesis] = {}
        limit = math.inf  # the score of the first
        # estimates choose, and scores decide
        wanted = plan.config.nbest if plan.config.nbest == 1 else _SPARE * plan.config.nbest
        spelt: set[tuple[int, ...]] = set()  # different merges can lead to the same tokens
        for path in paths(self.beam.nodes[: self.beam.sizes[0]], self.merges, self.ends()):
            if (key := (*path.tokens, *path.words)) in spelt:
                continue
            spelt.add(key)
            named = name_words(path.tokens, path.words, plan.tokenizer, plan.sources.vocabulary)
            text = " ".join(name for name, _ in named)
            if text in found:
                continue
            spans, acoustic = align_tokens(adjusted, np.array(path.tokens, np.int32))
            # The search's choice stays the best, so that it does not depend on how many texts are asked for;
            # what would score above it is a search error.
            score = min(acoustic + path.fused, limit)
            limit = limit if found else score
            found[text] = Hypothesis(
                text=text,
                words=time_words(named, path.tokens, spans, log_probs, step_s),
                tokens=tuple(path.tokens),
                steps=tuple(spans[:, 0].tolist()),
                score=score,
                acoustic_score=score - path.fused,
                lm_score=path.lm,
            )
            if len(found) == wanted:
                break
        return sorted(found.values(), key=lambda one: -one.score)[: plan.config.nbest]
