"""Streaming: blocks of log-probabilities in, partial results out.

Stable words do not change any more; the end of the text may. All prefixes of the beam have to agree on them,
which they do soon where `BeamConfig.recombine` applies, and late in a wide beam without it. Stable words are
spelled once, so that a block costs the same after hours. The final result is that of decoding the whole
utterance at once.
"""

from dataclasses import astuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.beam_search import BeamSearch, name_words
from asr.decoding.checks import check_best, check_normalised, check_shapes
from asr.decoding.fusion.setup import SearchSetup
from asr.decoding.fusion.vocabulary import spelling_alphabet
from asr.decoding.greedy import BestPaths, hypotheses_of
from asr.decoding.hypothesis import Hypothesis, NamedSpans, name_tokens
from asr.decoding.interface import Partial
from asr.decoding.kernel.arena import EMPTY_PREFIX, N_PREFIXES, NONE, shared_prefix, spell
from asr.text.scripts import join_words
from asr.text.tokenizer import BLANK, Tokenizer

__all__ = ["BeamStream", "GreedyStream"]


class BeamStream:
    """A beam search that takes an utterance in blocks; `BeamDecoder.stream` makes one.

    Args:
        setup: of the decoder.
        step_s: seconds an encoder step.
    """

    def __init__(self, setup: SearchSetup, step_s: float) -> None:
        self._setup = setup
        self._step_s = step_s
        self._search = BeamSearch(setup, "the stream")
        self._blocks: list[NDArray[np.floating]] = []
        self._stable = ""  # the words up to the search's anchor, which are not spelled again

    def accept(self, log_probs: Tensor) -> Partial:
        """Take the next steps; the cost does not depend on how many were taken before.

        Args:
            log_probs: (steps, vocab) float, natural logs, normalised, on any device.

        Raises:
            ModelError: as `BeamDecoder.decode`; the stream is then as before the block.
        """
        block = _checked(log_probs, self._setup.tokenizer)
        self._search.advance(block.double().numpy())
        self._blocks.append(block.numpy())
        beam = self._search.beam
        best = int(np.argmax((beam.blank_prob + beam.nonblank_prob)[: beam.sizes[N_PREFIXES]]))
        _, _, named = self._read(int(beam.node[best]))
        shared_node = shared_prefix(beam)
        tokens, words, shared = self._read(shared_node)
        separated = self._setup.prepared.alphabet.separated
        partial = _partial(named, shared, len(tokens), separated)
        partial = Partial(*(join_words(filter(None, (self._stable, text))) for text in astuple(partial)))
        self._move_anchor(shared_node, tokens, words)
        return partial

    def finish(self) -> list[Hypothesis]:
        """The best texts of the utterance, best first, as `BeamDecoder.decode` finds them."""
        blocks = self._blocks or [np.zeros((0, self._setup.tokenizer.vocab_size))]
        return self._search.finish(np.concatenate(blocks).astype(np.float64), self._step_s)

    def _read(self, node: int) -> tuple[list[int], list[int], NamedSpans]:
        """The tokens of a prefix after the anchor, the words that they completed, and the words."""
        anchor = self._search.anchor
        tokens, completed = spell(self._search.beam.nodes, node, anchor)
        ids: list[int] = tokens.tolist()
        words: list[int] = completed.tolist()
        if words and anchor != EMPTY_PREFIX and self._setup.prepared.alphabet.separated:
            words[0] = NONE  # it completed the word before the anchor
        return ids, words, self._named(ids, [*words, NONE])

    def _named(self, ids: list[int], words: list[int]) -> NamedSpans:
        return name_words(ids, words, self._setup.tokenizer, self._setup.prepared.vocabulary)

    def _move_anchor(self, node: int, tokens: list[int], words: list[int]) -> None:
        """Move the anchor to the last end of a word in a prefix that all of the beam begin with.

        Args:
            node: of the prefix.
            tokens: its ids after the anchor.
            words: that these tokens completed, see `spell`.
        """
        alphabet = self._setup.prepared.alphabet
        nodes, vocabulary = self._search.beam.nodes, self._setup.prepared.vocabulary
        if alphabet.separated:  # before the last token that begins a word
            begins = [index for index, token in enumerate(tokens) if alphabet.begins_word[token]]
            kept = begins[-1] if begins else 0
            ends = int(spell(nodes, node, self._search.anchor)[1][kept]) if kept else NONE
        elif vocabulary is not None and vocabulary.named:  # after the last token that ended one
            kept = max((index + 1 for index, word in enumerate(words) if word != NONE), default=0)
            ends = NONE
        else:
            kept, ends = len(tokens), NONE
        if kept == 0:
            return
        named = self._named(tokens[:kept], [*words[:kept], ends])
        self._stable = join_words(filter(None, (self._stable, *(name for name, _ in named))))
        for _ in range(len(tokens) - kept):
            node = int(nodes[node]["parent"])
        self._search.anchor = node


class GreedyStream:
    """Greedy decoding that takes an utterance in blocks; `GreedyDecoder.decode` for the whole of it.

    Args:
        tokenizer: the model's.
        step_s: seconds an encoder step.
    """

    def __init__(self, tokenizer: Tokenizer, step_s: float) -> None:
        self._tokenizer = tokenizer
        self._step_s = step_s
        self._separated = spelling_alphabet(tokenizer).separated
        self._ids: list[NDArray[np.int64]] = []
        self._best: list[NDArray[np.float64]] = []
        self._tokens: list[int] = []

    def accept(self, log_probs: Tensor) -> Partial:
        """Take the next steps; a token that was written is not taken back.

        Args:
            log_probs: (steps, vocab) float, natural logs, on any device.

        Raises:
            ModelError: as `GreedyDecoder.decode`; the stream is then as before the block.
        """
        paths = BestPaths.begin(log_probs[None], torch.tensor([len(log_probs)]), self._tokenizer)
        [block], [best], _ = paths.unpack()
        check_best(best[None], paths.classes, paths.tolerance, block=True)
        before = int(self._ids[-1][-1]) if self._ids else BLANK
        if len(block):
            begins = np.diff(block, prepend=before) != 0
            self._tokens += block[begins & (block != BLANK)].tolist()
            self._ids.append(block)
            self._best.append(best)
        named = name_tokens(self._tokens, self._tokenizer)
        return _partial(named, named, len(self._tokens), self._separated)

    def finish(self) -> list[Hypothesis]:
        """The text of the utterance, as `GreedyDecoder` finds it."""
        ids = np.concatenate([*self._ids, np.zeros(0, np.int64)])[None]
        best = np.concatenate([*self._best, np.zeros(0)])[None]
        return hypotheses_of(ids, best, np.array([ids.shape[1]]), self._tokenizer, self._step_s)


def _partial(best: NamedSpans, shared: NamedSpans, tokens: int, separated: bool) -> Partial:
    """The partial result of the best prefix and of the part that all prefixes share.

    Args:
        best: the words of the best prefix.
        shared: the words of the shared part.
        tokens: how many tokens are shared.
        separated: whether tokens show where words end, so that the last of these words may continue.
    """
    complete = [name for name, span in shared if not separated or span.stop < tokens]
    return Partial(join_words(complete), join_words(name for name, _ in best))


def _checked(log_probs: Tensor, tokenizer: Tokenizer) -> Tensor:
    """(steps, vocab) log-probabilities of a block, checked, on the CPU in float32 or float64."""
    batch, lengths = log_probs[None], torch.tensor([len(log_probs)])
    check_shapes(batch, lengths, tokenizer)
    check_normalised(batch, lengths, block=True)
    return log_probs.detach().cpu().to(torch.promote_types(log_probs.dtype, torch.float32))
