"""Decoding while somebody still speaks: blocks of log-probabilities in, what is understood so far out.

What is stable will not change whatever comes; the end of the text may. All prefixes of the beam have to
agree, which they do soon where `BeamConfig.recombine` applies, and late in a wide beam where it does not.
Words that are certain are spelled once, so that a block costs the same after hours.
Finishing gives what decoding the whole utterance at once gives.
"""

from dataclasses import astuple, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.checks import check_best, check_normalised, check_shapes, tolerance_of
from asr.decoding.greedy import best_path, hypotheses_of
from asr.decoding.hypothesis import Hypothesis, Named, name_tokens
from asr.decoding.kernel.arena import NONE, ROOT, shared_prefix, spell
from asr.decoding.texts import name_words
from asr.decoding.utterance import Plan, Utterance
from asr.decoding.vocabulary import letters_of
from asr.text.tokenizer import BLANK, Tokenizer

__all__ = ["BeamStream", "GreedyStream", "Partial"]


@dataclass(frozen=True)
class Partial:
    """What is understood of an utterance that goes on.

    Attributes:
        stable: the words that will not change: complete, and the same in everything that the decoder still
            holds possible.
        text: the best text so far; it begins with the stable words.
    """

    stable: str
    text: str


class BeamStream:
    """A beam search that takes an utterance in blocks; see `BeamDecoder.stream`."""

    def __init__(self, plan: Plan, step_s: float) -> None:
        self._plan = plan
        self._step_s = step_s
        self._utterance = Utterance(plan, "the stream")
        self._blocks: list[NDArray[np.floating]] = []
        self._settled = ""  # the words up to the utterance's anchor, which are not spelled again

    def accept(self, log_probs: Tensor) -> Partial:
        """Take the next steps; the cost does not depend on what was accepted before.

        Args:
            log_probs: (steps, vocab) float, natural logs, normalised, on any device.

        Raises:
            ModelError: as `BeamDecoder.decode`; the stream stands as before the block.
        """
        block = _checked(log_probs, self._plan.tokenizer)
        self._utterance.take(block.double().numpy())
        self._blocks.append(block.numpy())
        beam = self._utterance.beam
        best = int(np.argmax((beam.blank + beam.token)[: beam.sizes[1]]))
        _, _, named = self._read(int(beam.node[best]))
        certain = shared_prefix(beam)
        tokens, words, shared = self._read(certain)
        separated = self._plan.sources.letters.separated
        partial = _partial(named, shared, len(tokens), separated)
        partial = Partial(*(" ".join(filter(None, (self._settled, text))) for text in astuple(partial)))
        self._settle(certain, tokens, words)
        return partial

    def finish(self) -> list[Hypothesis]:
        """The best texts of all that was accepted, best first: those of `BeamDecoder.decode`."""
        blocks = self._blocks or [np.zeros((0, self._plan.tokenizer.vocab_size))]
        return self._utterance.finish(np.concatenate(blocks).astype(np.float64), self._step_s)

    def _read(self, node: int) -> tuple[list[int], list[int], Named]:
        """The tokens of a prefix after the anchor, the words that they completed, and the words."""
        anchor = self._utterance.anchor
        tokens, completed = spell(self._utterance.beam.nodes, node, anchor)
        ids: list[int] = tokens.tolist()
        words: list[int] = completed.tolist()
        if words and anchor != ROOT and self._plan.sources.letters.separated:
            words[0] = NONE  # it completed the word before the anchor
        return ids, words, self._named(ids, [*words, NONE])

    def _named(self, ids: list[int], words: list[int]) -> Named:
        return name_words(ids, words, self._plan.tokenizer, self._plan.sources.vocabulary)

    def _settle(self, certain: int, tokens: list[int], words: list[int]) -> None:
        """Move the anchor to the last end of a word in a prefix that is certain."""
        letters = self._plan.sources.letters
        nodes, vocabulary = self._utterance.beam.nodes, self._plan.sources.vocabulary
        if letters.separated:  # before the last token that begins a word
            starts = [index for index, token in enumerate(tokens) if letters.begins[token]]
            kept = starts[-1] if starts else 0
            ends = int(spell(nodes, certain, self._utterance.anchor)[1][kept]) if kept else NONE
        elif vocabulary is not None and vocabulary.named:  # after the last token that ended one
            kept = max((index + 1 for index, word in enumerate(words) if word != NONE), default=0)
            ends = NONE
        else:
            kept, ends = len(tokens), NONE
        if kept == 0:
            return
        named = self._named(tokens[:kept], [*words[:kept], ends])
        self._settled = " ".join(filter(None, (self._settled, *(name for name, _ in named))))
        for _ in range(len(tokens) - kept):
            certain = int(nodes[certain]["parent"])
        self._utterance.anchor = certain


class GreedyStream:
    """Greedy decoding that takes an utterance in blocks; `greedy_decode` for the whole of it.

    Args:
        tokenizer: the model's.
        step_s: seconds an encoder step.
    """

    def __init__(self, tokenizer: Tokenizer, step_s: float) -> None:
        self._tokenizer = tokenizer
        self._step_s = step_s
        self._separated = letters_of(tokenizer).separated
        self._ids: list[NDArray[np.int64]] = []
        self._best: list[NDArray[np.float64]] = []
        self._tokens: list[int] = []

    def accept(self, log_probs: Tensor) -> Partial:
        """Take the next steps; a token that was written once stays.

        Args:
            log_probs: (steps, vocab) float, natural logs, on any device.

        Raises:
            ModelError: as `greedy_decode`; the stream stands as before.
        """
        check_shapes(log_probs[None], torch.zeros(1), self._tokenizer)
        [block], [best], _ = best_path(log_probs[None], torch.tensor([len(log_probs)]))
        check_best(best[None], log_probs.shape[1], tolerance_of(log_probs), block=True)
        before = int(self._ids[-1][-1]) if self._ids else BLANK
        if len(block):
            begins = np.diff(block, prepend=before) != 0
            self._tokens += block[begins & (block != BLANK)].tolist()
            self._ids.append(block)
            self._best.append(best)
        named = name_tokens(self._tokens, self._tokenizer)
        return _partial(named, named, len(self._tokens), self._separated)

    def finish(self) -> Hypothesis:
        """The text of all that was accepted: that of `greedy_decode`."""
        ids = np.concatenate([*self._ids, np.zeros(0, np.int64)])[None]
        best = np.concatenate([*self._best, np.zeros(0)])[None]
        [found] = hypotheses_of(ids, best, np.array([ids.shape[1]]), self._tokenizer, self._step_s)
        return found


def _partial(best: Named, shared: Named, tokens: int, separated: bool) -> Partial:
    """The best words, and those of the tokens that are certain.

    Args:
        best: all words so far.
        shared: those that the certain tokens write.
        tokens: how many are certain.
        separated: whether tokens say where words end, so that the last of these words may go on.
    """
    complete = [name for name, where in shared if not separated or where.stop < tokens]
    return Partial(" ".join(complete), " ".join(name for name, _ in best))


def _checked(log_probs: Tensor, tokenizer: Tokenizer) -> Tensor:
    """The block on the CPU, in float32 or float64."""
    batch, lengths = log_probs[None], torch.tensor([len(log_probs)])
    check_shapes(batch, lengths, tokenizer)
    check_normalised(batch, lengths, block=True)
    return log_probs.detach().cpu().to(torch.promote_types(log_probs.dtype, torch.float32))
