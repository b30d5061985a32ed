"""Greedy (best path) CTC decoding of a batch.

The device finds the best id of every step and masks the padding. One transfer brings ids, log-probabilities
and lengths to the host. There the runs of equal ids of the whole batch are found at once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.checks import check_best, check_lengths, check_shapes, tolerance_of
from asr.decoding.hypothesis import Hypothesis, name_tokens, time_words
from asr.decoding.interface import DecoderStream
from asr.text.scripts import join_words
from asr.text.tokenizer import BLANK, Tokenizer

__all__ = ["BestPaths", "GreedyDecoder", "hypotheses_of"]

_PADDING = -1  # instead of an id, so that a run never reaches into the padding


@dataclass(frozen=True)
class _Runs:
    """The emitted runs of a batch, in order of utterance and step.

    Attributes: all (runs,): row in the batch, token id, first step, first step after the run, mean posterior.
    """

    row: NDArray[np.int64]
    token: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    confidence: NDArray[np.float64]


class GreedyDecoder:
    """The text along the most probable id of each step: repeats are merged unless a blank is between them.

    One hypothesis an utterance. Leading, trailing and doubled spaces make no empty words: `text` is the words
    joined by single spaces, while `tokens` and `steps` keep every emitted space. Where tokens are phones,
    each is a word. A token's confidence is its mean posterior over its run of steps; a word's confidence is
    the mean over its tokens; the score is the sum of the best log-probability of every step, blanks included.

    Args:
        tokenizer: the model's; vocab must be its vocab_size.

    Source: Graves et al., "Connectionist Temporal Classification", ICML 2006, section 3.2, best path
        decoding.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def decode(
        self, log_probs: Tensor, step_lengths: Tensor, step_s: float, encoded: Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """See `Decoder`. An utterance of zero steps gives an empty hypothesis with score 0.

        Raises:
            ModelError: the shapes do not fit each other or the tokenizer, a length lies outside 0..steps, or
                an utterance holds NaN or steps whose best cannot be a probability's logarithm.
        """
        paths = BestPaths.begin(log_probs, step_lengths, self._tokenizer)
        return [[found] for found in paths.hypotheses(self._tokenizer, step_s)]

    def stream(self, step_s: float) -> DecoderStream:
        """See `Decoder`."""
        from asr.decoding.streaming import GreedyStream  # takes a second to import

        return GreedyStream(self._tokenizer, step_s)


@dataclass(frozen=True)
class BestPaths:
    """The best paths of a batch: `GreedyDecoder.decode` in two steps.

    Between `begin` and `hypotheses` the caller may copy `packed` to the host while the device computes.

    Attributes:
        packed: (batch, 2 * steps + 1) best ids, their log-probabilities, lengths; see `unpack`.
        classes: number of tokens, blank included.
        tolerance: nats by which the log-probabilities may miss a distribution.
    """

    packed: Tensor
    classes: int
    tolerance: float

    @staticmethod
    def begin(log_probs: Tensor, step_lengths: Tensor, tokenizer: Tokenizer) -> "BestPaths":
        """Find the best paths, on the device.

        Args:
            log_probs: (batch, steps, vocab) float, natural logs, on any device.
            step_lengths: (batch,) int64, valid steps of each utterance, on any device.
            tokenizer: the model's.

        Raises:
            ModelError: the shapes do not fit each other or the tokenizer.
        """
        check_shapes(log_probs, step_lengths, tokenizer)
        return BestPaths(_pack(log_probs, step_lengths), log_probs.shape[2], tolerance_of(log_probs))

    def unpack(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """The paths, brought to the host in one transfer.

        Returns:
            Best ids, -1 in the padding, and their log-probabilities, 0 in the padding and NaN where a valid
            step holds one, both (batch, steps); lengths (batch,).
        """
        host, steps = self.packed.cpu().numpy(), self.packed.shape[1] // 2
        return (
            host[:, :steps].astype(np.int64),
            host[:, steps : 2 * steps].astype(np.float64),
            host[:, 2 * steps].astype(np.int64),
        )

    def hypotheses(self, tokenizer: Tokenizer, step_s: float) -> list[Hypothesis]:
        """The texts, as `GreedyDecoder` gives them.

        Raises:
            ModelError: a length lies outside 0..steps, or the values are not log-probabilities.
        """
        if len(self.packed) == 0:
            return []
        ids, best, lengths = self.unpack()
        check_lengths(lengths.tolist(), ids.shape[1])
        check_best(best, self.classes, self.tolerance)
        return hypotheses_of(ids, best, lengths, tokenizer, step_s)


def hypotheses_of(
    ids: NDArray[np.int64],
    best: NDArray[np.float64],
    lengths: NDArray[np.int64],
    tokenizer: Tokenizer,
    step_s: float,
) -> list[Hypothesis]:
    """The hypotheses along best paths.

    Args:
        ids: (batch, steps) best id of each step, -1 in the padding.
        best: (batch, steps) its log-probability.
        lengths: (batch,) valid steps.
        tokenizer: the model's.
        step_s: seconds an encoder step.
    """
    batch = len(ids)
    runs = _find_runs(ids, best)
    bounds = np.searchsorted(runs.row, np.arange(batch + 1)).tolist()
    tokens, starts, ends = runs.token.tolist(), runs.start.tolist(), runs.end.tolist()
    confidences = runs.confidence.tolist()
    hypotheses = []
    for row in range(batch):
        utterance = slice(bounds[row], bounds[row + 1])
        words = time_words(
            name_tokens(tokens[utterance], tokenizer),
            starts[utterance],
            ends[utterance],
            confidences[utterance],
            step_s,
        )
        hypotheses.append(
            Hypothesis(
                text=join_words([word.text for word in words]),
                words=words,
                tokens=tuple(tokens[utterance]),
                steps=tuple(starts[utterance]),
                # summed without the padding, which could change the rounding
                score=(score := float(best[row, : lengths[row]].sum())),
                acoustic_score=score,
            )
        )
    return hypotheses


def _pack(log_probs: Tensor, step_lengths: Tensor) -> Tensor:
    """(batch, 2 * steps + 1) on the device: best ids, their log-probabilities, and lengths, in one tensor."""
    steps = log_probs.shape[1]
    best, ids = log_probs.detach().max(dim=2)
    lengths = step_lengths.to(best.device)
    padding = torch.arange(steps, device=best.device) >= lengths[:, None]
    ids = ids.masked_fill(padding, _PADDING)
    # Half precision becomes float32 for the transfer; float32 holds every integer up to 2**24 exactly, more
    # than any id or step count.
    kind = torch.promote_types(best.dtype, torch.float32)
    best = best.to(kind).masked_fill(padding, 0.0)
    return torch.cat([ids.to(kind), best, lengths[:, None].to(kind)], dim=1)


def _find_runs(ids: NDArray[np.int64], best: NDArray[np.float64]) -> _Runs:
    """Every run of one id that is neither blank nor padding.

    Args:
        ids: (batch, steps) int64 best id of each step, -1 in the padding.
        best: (batch, steps) float64 its log-probability.
    """
    steps = ids.shape[1]
    first = np.ones(ids.shape, dtype=np.bool_)  # no run continues from the row before
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    begin = np.flatnonzero(first)
    if begin.size == 0:  # no steps at all
        none = np.zeros(0, dtype=np.int64)
        return _Runs(none, none, none, none, none.astype(np.float64))
    length = np.diff(begin, append=ids.size)
    confidence = np.add.reduceat(np.exp(best).ravel(), begin) / length
    token = ids.ravel()[begin]
    emitted = (token != BLANK) & (token != _PADDING)
    begin, length = begin[emitted], length[emitted]
    start = begin % steps
    return _Runs(begin // steps, token[emitted], start, start + length, confidence[emitted])
