"""Prefix beam search: the most probable texts, summed over all their paths, with their fused scores.

`BeamDecoder` is the entry. It decodes a batch on several threads; `BeamDecoder.stream` takes an utterance in
blocks. Both run the same compiled search (`search.py`).
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.checks import check_lengths, check_normalised, check_shapes
from asr.decoding.config import BeamConfig
from asr.decoding.external import converse
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.kernel.fusion import EXTERNAL
from asr.decoding.kernel.search import search
from asr.decoding.kernel.tables import build_pruning
from asr.decoding.sources import Sources, build_sources
from asr.decoding.streaming import BeamStream
from asr.decoding.utterance import Plan, Utterance
from asr.device import usable_cores
from asr.errors import SettingsError
from asr.lm.interface import LanguageModel
from asr.text.lexicon import Lexicon
from asr.text.tokenizer import Tokenizer

__all__ = ["BeamDecoder"]

log = logging.getLogger("asr")

_dispatcher: Any = search  # the compiled function knows what has been compiled
_ANNOUNCE_S = 1.0  # a first call that takes longer is compiling


class BeamDecoder:
    """Log-probabilities in, the best hypotheses out.

    Args:
        tokenizer: the model's.
        config: how wide to search, and the weights.
        lm: fused into the search: an `NgramModel` in its compiled part, any other object with the three calls
            of `asr.lm.interface` from Python. Of words: these are the vocabulary, unless there is a lexicon.
        lexicon: the vocabulary, with its spellings in the tokenizer's symbols.
        hotwords: words and phrases that are expected, and the nats by which each is favoured.
        priors: (vocab,) float64 mean probabilities of the tokens, blank first; for `config.prior_weight`.

    Raises:
        SettingsError: the parts do not fit each other.
        DataError: the lexicon spells with symbols that the tokenizer lacks.
        ModelError: the priors do not fit.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: BeamConfig | None = None,
        *,
        lm: LanguageModel[Any] | None = None,
        lexicon: Lexicon | None = None,
        hotwords: Mapping[str, float] | None = None,
        priors: NDArray[np.float64] | None = None,
    ) -> None:
        config = config or BeamConfig()
        self._set(config, tokenizer, build_sources(tokenizer, lm, lexicon, hotwords or {}, config), priors)

    def _set(
        self, config: BeamConfig, tokenizer: Tokenizer, sources: Sources, priors: NDArray[np.float64] | None
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self._sources = sources
        self._priors = priors
        self._plan = Plan(
            tokenizer,
            config,
            sources,
            sources.tables(config, priors),
            build_pruning(config, tokenizer.vocab_size),
        )

    def with_config(self, config: BeamConfig, priors: NDArray[np.float64] | None = None) -> "BeamDecoder":
        """The same decoder with other weights; vocabulary and models are shared, not built again.

        Args:
            config: width and weights.
            priors: as of the class; None for those that it has.

        Raises:
            SettingsError: unknown words are allowed in one and forbidden in the other.
            ModelError: the priors do not fit.
        """
        if config.unknown_words != self.config.unknown_words:
            raise SettingsError("unknown-words cannot be changed. Make another decoder.")
        other = BeamDecoder.__new__(BeamDecoder)
        other._set(config, self.tokenizer, self._sources, self._priors if priors is None else priors)
        return other

    def decode(self, log_probs: Tensor, step_lengths: Tensor, step_s: float) -> list[list[Hypothesis]]:
        """The best texts of each utterance, best first.

        The first text is the one that the search finds best, however many are asked for; the others come from
        the prefixes at its end and from those that recombination has dropped (`lattice`). Each score is exact
        for its text: the logarithm of the sum over all paths of its best tokens, plus the fused scores. Which
        texts are found is not exact: the beam, `recombine` and the choice among dropped prefixes approximate.
        A text that would score above the first one, which only these errors can cause, has the first's score.

        The steps of tokens and the times of words are those of the best single path of the tokens. A token's
        confidence is its mean posterior over its run of steps, a word's the mean over its tokens, as in
        greedy decoding.

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
        with _announced():
            if self._sources.lm is not None and self._sources.lm_kind == EXTERNAL:
                return self._decode_together(rows, step_s, self._sources.lm)
            threads = min(self.config.threads or usable_cores(), len(rows))
            if threads <= 1:
                return [self._decode(row, number, step_s) for number, row in enumerate(rows)]
            with ThreadPoolExecutor(threads) as pool:
                return list(
                    pool.map(lambda row, number: self._decode(row, number, step_s), rows, range(len(rows)))
                )

    def stream(self, step_s: float) -> BeamStream:
        """A search that takes one utterance in blocks and tells on the way what it has understood.

        Args:
            step_s: seconds an encoder step.
        """
        return BeamStream(self._plan, step_s)

    def _decode(self, log_probs: NDArray[np.float64], number: int, step_s: float) -> list[Hypothesis]:
        utterance = self._utterance(number)
        utterance.take(log_probs)
        return utterance.finish(log_probs, step_s)

    def _decode_together(
        self, rows: list[NDArray[np.float64]], step_s: float, lm: LanguageModel[Any]
    ) -> list[list[Hypothesis]]:
        """All utterances step by step, so that the language model is asked for all of them at once.

        In one thread: nobody knows whether the model can be asked from several.
        """
        utterances = [self._utterance(number) for number in range(len(rows))]
        pairs = list(zip(utterances, rows, strict=True))
        converse(lm, [utterance.steps(row) for utterance, row in pairs])
        return [utterance.finish(row, step_s) for utterance, row in pairs]

    def _utterance(self, number: int) -> Utterance:
        return Utterance(self._plan, f"utterance {number} of the batch")


def _compiled() -> bool:
    return bool(_dispatcher.signatures)


def _missed() -> bool:
    """Whether the search was not found on disk, so that it is, or was, compiled by this process."""
    return bool(sum(_dispatcher.stats.cache_misses.values()))


@contextmanager
def _announced() -> Iterator[None]:
    """Say, once a process, that the kernels are being compiled, if they are, and how long it took."""
    if _compiled():
        yield
        return
    began = time.monotonic()
    ended = threading.Event()

    def announce() -> None:
        while not ended.wait(_ANNOUNCE_S):
            if _missed():
                log.info("compiling the decoder; the result is kept for the next start")
                return

    threading.Thread(target=announce, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
    if _missed():
        log.info("the decoder was compiled in %.0f s", time.monotonic() - began)
