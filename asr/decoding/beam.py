"""Prefix beam search: the most probable texts, summed over all their paths, with their fused scores.

`BeamDecoder` is the entry. It decodes a batch on several threads; `BeamDecoder.stream` takes an utterance in
blocks. Both run the same compiled search (`search.py`).
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.alignment import align_tokens
from asr.decoding.arena import NODE, compact, new_beam, spell
from asr.decoding.checks import check_lengths, check_normalised, check_shapes
from asr.decoding.config import BeamConfig
from asr.decoding.hypothesis import Hypothesis, Word
from asr.decoding.search import finish, search
from asr.decoding.tables import build_pruning, build_tables
from asr.errors import ModelError
from asr.text.tokenizer import Tokenizer

__all__ = ["BeamDecoder"]

log = logging.getLogger("asr")

_CAPACITY = 1 << 12  # nodes of an arena at first
_ANNOUNCE_S = 1.0  # a first call that takes longer is compiling


class BeamDecoder:
    """Log-probabilities in, the best hypotheses out.

    Args:
        tokenizer: the model's.
        config: how wide to search, and the weights.
        priors: (vocab,) float64 mean probabilities of the tokens, blank first; for `config.prior_weight`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: BeamConfig | None = None,
        *,
        priors: NDArray[np.float64] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config or BeamConfig()
        self._pruning = build_pruning(self.config, tokenizer.vocab_size)
        self._tables = build_tables(tokenizer, self.config, priors)

    def decode(self, log_probs: Tensor, step_lengths: Tensor, step_s: float) -> list[list[Hypothesis]]:
        """The best texts of each utterance, best first.

        The score of a text is the logarithm of the sum over all paths of its best tokens, plus the fused
        scores. The steps of tokens and the times of words are those of the best single path of the tokens. A
        token's confidence is its mean posterior over its run of steps, a word's the mean over its tokens, as
        in greedy decoding.

        Args:
            log_probs: (batch, steps, vocab) float, natural logs, normalised, on any device.
            step_lengths: (batch,) int64, valid steps of each utterance, on any device.
            step_s: seconds an encoder step.

        Returns:
            (batch,) lists of one to nbest hypotheses, in the order of the batch.

        Raises:
            ModelError: the shapes do not fit each other or the tokenizer, a length lies outside 0..steps, an
                utterance holds NaN or rows that are not normalised, or nothing has a probability above 0.
        """
        check_shapes(log_probs, step_lengths, self.tokenizer)
        lengths: list[int] = step_lengths.tolist()
        check_lengths(lengths, log_probs.shape[1])
        check_normalised(log_probs, step_lengths)
        host = log_probs.detach().cpu().double().numpy()
        rows = [host[row, :length] for row, length in enumerate(lengths)]
        threads = min(self.config.threads or usable_cores(), len(rows))
        with _announced():
            if threads <= 1:
                return [self._decode(row, number, step_s) for number, row in enumerate(rows)]
            with ThreadPoolExecutor(threads) as pool:
                return list(
                    pool.map(lambda row, number: self._decode(row, number, step_s), rows, range(len(rows)))
                )

    def _decode(self, log_probs: NDArray[np.float64], number: int, step_s: float) -> list[Hypothesis]:
        run = Search(self, f"utterance {number} of the batch")
        run.take(log_probs)
        return run.finish(log_probs, step_s)


class Search:
    """One utterance's search, between two steps."""

    def __init__(self, decoder: BeamDecoder, name: str) -> None:
        self._decoder = decoder
        self._name = name
        self.beam = new_beam(decoder.config.beam_size, _CAPACITY)

    def take(self, log_probs: NDArray[np.float64]) -> None:
        """Go on by some steps.

        Args:
            log_probs: (steps, vocab) float64.

        Raises:
            ModelError: nothing has a probability above 0.
        """
        decoder = self._decoder
        step, full = 0, -1
        while True:
            step = search(log_probs, step, self.beam, decoder._pruning, decoder._tables)
            if step == len(log_probs):
                return
            if step < 0:
                raise ModelError(
                    f"{self._name}, step {-1 - step}: no text has a probability above 0. Check that the "
                    "model's output has no -inf where it should not; a larger --beam-size may help."
                )
            self._make_room(again=step == full)
            full = step

    def _make_room(self, again: bool) -> None:
        """Drop the nodes that the beam does not need; double the arena if that frees less than half.

        Args:
            again: whether the step at hand has found too little room before.
        """
        beam = self.beam
        capacity = len(beam.nodes)
        nodes = np.zeros(capacity, dtype=NODE)
        compact(beam, nodes)
        if again or beam.sizes[0] > capacity // 2:
            longer = np.zeros(2 * capacity, dtype=NODE)
            longer[:capacity] = nodes
            nodes = longer
        self.beam = beam._replace(nodes=nodes)

    def finish(self, log_probs: NDArray[np.float64], step_s: float) -> list[Hypothesis]:
        """The best texts, as if the utterance ended here.

        Args:
            log_probs: (steps, vocab) float64: all steps that were taken.
            step_s: seconds an encoder step.
        """
        decoder = self._decoder
        tables, tokenizer = decoder._tables, decoder.tokenizer
        node, _, score, fused, lm = finish(self.beam, tables)
        hypotheses: list[Hypothesis] = []
        seen: set[str] = set()
        adjusted: NDArray[np.float64] | None = None
        for place in np.argsort(-score, kind="stable"):
            tokens, _ = spell(self.beam.nodes, node[place])
            text = " ".join(tokenizer.decode(tokens.tolist()).split())
            if text in seen:
                continue
            seen.add(text)
            if adjusted is None:
                adjusted = tables.scale * log_probs + tables.bias
            spans = align_tokens(adjusted, tokens)
            hypotheses.append(
                Hypothesis(
                    text=text,
                    words=words_of(tokens, spans, log_probs, tokenizer, step_s),
                    tokens=tuple(tokens.tolist()),
                    steps=tuple(spans[:, 0].tolist()),
                    score=float(score[place]),
                    acoustic_score=float(score[place] - fused[place]),
                    lm_score=float(lm[place]),
                )
            )
            if len(hypotheses) == decoder.config.nbest:
                break
        return hypotheses


def words_of(
    tokens: NDArray[np.int32],
    spans: NDArray[np.int64],
    log_probs: NDArray[np.float64],
    tokenizer: Tokenizer,
    step_s: float,
) -> tuple[Word, ...]:
    """The words that tokens spell, with times and confidences; each token a word where tokens do not tell."""
    ids = tokens.tolist()
    found = tokenizer.words(ids)
    if found is None:
        found = [slice(position, position + 1) for position in range(len(ids))]
    confidences = [
        float(np.exp(log_probs[begin:end, token]).mean())
        for token, (begin, end) in zip(ids, spans, strict=True)
    ]
    return tuple(
        Word(
            text=tokenizer.decode(ids[word]),
            start_s=float(spans[word.start, 0] * step_s),
            end_s=float(spans[word.stop - 1, 1] * step_s),
            confidence=sum(confidences[word]) / (word.stop - word.start),
        )
        for word in found
    )


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _compiled() -> bool:
    return bool(search.signatures)


@contextmanager
def _announced() -> Iterator[None]:
    """Say, once a process, that the kernels are being compiled, if they are, and how long it took."""
    if _compiled():
        yield
        return
    began = time.monotonic()
    timer = threading.Timer(
        _ANNOUNCE_S,
        lambda: log.info("compiling the decoder: only the first call ever pays for it, about 15 s"),
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if sum(search.stats.cache_misses.values()):
        log.info("the decoder was compiled and is kept on disk (%.0f s)", time.monotonic() - began)
