"""Prefix beam search of a batch, with a fused language model, lexicon, hot words.

`BeamDecoder` is the entry. It decodes a batch in threads; `BeamDecoder.stream` takes an utterance in
blocks. Both run the same compiled search (`kernel/steps.py`).
"""

import copy
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

from asr.decoding.beam_search import BeamSearch
from asr.decoding.checks import check_lengths, check_normalised, check_shapes
from asr.decoding.config import BeamConfig
from asr.decoding.fusion.lm_queries import answer_queries
from asr.decoding.fusion.prepared import prepare_resources
from asr.decoding.fusion.setup import build_setup
from asr.decoding.hypothesis import Hypothesis
from asr.decoding.kernel.proposals import PYTHON_LM
from asr.decoding.kernel.steps import advance_beam
from asr.decoding.streaming import BeamStream
from asr.device import usable_cores
from asr.errors import SettingsError
from asr.lm.interface import LanguageModel
from asr.text.lexicon import Lexicon
from asr.text.tokenizer import Tokenizer

__all__ = ["BeamDecoder"]

log = logging.getLogger("asr")

_dispatcher: Any = advance_beam  # numba's, which has a record of what was compiled
_ANNOUNCE_S = 1.0  # a first call that takes longer is compiling


class BeamDecoder:
    """Log-probabilities in, the best hypotheses out.

    Args:
        tokenizer: the model's.
        config: how wide to search, the weights and the priors.
        lm: fused into the search: an `NgramModel` in its compiled part, any other `LanguageModel` from
            Python. The words of a model of words are the vocabulary, unless there is a lexicon.
        lexicon: the vocabulary, with its spellings in the tokenizer's symbols.
        hotwords: words and phrases that are expected, and the nats by which each is favoured.

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
    ) -> None:
        self.config = config or BeamConfig()
        prepared = prepare_resources(tokenizer, lm, lexicon, hotwords or {}, self.config)
        self._setup = build_setup(tokenizer, self.config, prepared)

    def with_config(self, config: BeamConfig) -> "BeamDecoder":
        """The same decoder with other weights; vocabulary and models are shared.

        Raises:
            SettingsError: `unknown_words` differs.
            ModelError: the priors do not fit.
        """
        if config.unknown_words != self.config.unknown_words:
            raise SettingsError("--beam.unknown-words cannot be changed in a decoder. Make another one.")
        other = copy.copy(self)
        other.config = config
        other._setup = build_setup(self._setup.tokenizer, config, self._setup.prepared)
        return other

    def decode(self, log_probs: Tensor, step_lengths: Tensor, step_s: float) -> list[list[Hypothesis]]:
        """See `Decoder`.

        The first text does not depend on nbest; the others come from the prefixes at the search's end and
        from those that recombination has dropped (`lattice`). Each score is exact for its text: the logarithm
        of the sum over all paths of its best tokens, plus the fused scores. Which texts are found is not
        exact: the beam, `recombine` and the choice among dropped prefixes approximate. A text that would
        score above the first one, which only these errors can cause, gets the first's score.

        The steps of tokens and the times of words are those of the best single path of the tokens. A word's
        confidence is that of greedy decoding: the mean over its tokens of their mean posteriors over their
        runs of steps. In the first text of a search with a language model of words, it is the geometric mean
        of that and of the word's posterior in the search's lattice (`confidence`).

        Raises:
            ModelError: the shapes do not fit each other or the tokenizer, a length lies outside 0..steps, an
                utterance holds NaN or rows that are not normalised, or nothing has a probability above 0.
        """
        check_shapes(log_probs, step_lengths, self._setup.tokenizer)
        lengths: list[int] = step_lengths.tolist()
        check_lengths(lengths, log_probs.shape[1])
        check_normalised(log_probs, step_lengths)
        host = log_probs.detach().cpu().double().numpy()
        utterances = [host[index, :length] for index, length in enumerate(lengths)]
        with _announced():
            prepared = self._setup.prepared
            if prepared.lm is not None and prepared.lm_kind == PYTHON_LM:
                return self._decode_together(utterances, step_s, prepared.lm)
            threads = min(self.config.threads or usable_cores(), len(utterances))
            if threads <= 1:
                return [self._decode(rows, index, step_s) for index, rows in enumerate(utterances)]
            with ThreadPoolExecutor(threads) as pool:
                return list(
                    pool.map(
                        lambda index: self._decode(utterances[index], index, step_s), range(len(utterances))
                    )
                )

    def stream(self, step_s: float) -> BeamStream:
        """See `Decoder`."""
        return BeamStream(self._setup, step_s)

    def _decode(self, log_probs: NDArray[np.float64], index: int, step_s: float) -> list[Hypothesis]:
        """The best texts of one utterance.

        Args:
            log_probs: (steps, vocab) float64 nats.
            index: of the utterance in the batch.
            step_s: seconds an encoder step.
        """
        search = self._search(index)
        search.advance(log_probs)
        return search.finish(log_probs, step_s)

    def _decode_together(
        self, utterances: list[NDArray[np.float64]], step_s: float, lm: LanguageModel[Any]
    ) -> list[list[Hypothesis]]:
        """All utterances step by step, so that the language model scores for all of them at once.

        In one thread, since a language model may not be thread-safe.

        Args:
            utterances: (steps, vocab) float64 nats of each.
            step_s: seconds an encoder step.
            lm: called from Python.
        """
        searches = [self._search(index) for index in range(len(utterances))]
        pairs = list(zip(searches, utterances, strict=True))
        answer_queries(lm, [search.steps(log_probs) for search, log_probs in pairs])
        return [search.finish(log_probs, step_s) for search, log_probs in pairs]

    def _search(self, index: int) -> BeamSearch:
        return BeamSearch(self._setup, f"utterance {index} of the batch")


def _compiled() -> bool:
    """Whether the search is ready: compiled, or loaded from disk."""
    return bool(_dispatcher.signatures)


def _missed() -> bool:
    """Whether the search was not on disk, so that this process compiles it, or has compiled it."""
    return bool(sum(_dispatcher.stats.cache_misses.values()))


@contextmanager
def _announced() -> Iterator[None]:
    """Log, once a process, that the search is being compiled, if it is, and how long it took."""
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
