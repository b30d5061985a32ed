"""Whether confidences are what they say: of the words with confidence 0.8, are 80% right?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.decoding.hypothesis import Hypothesis
from asr.scoring.wer import Score

__all__ = ["Calibration", "ConfidenceBin", "calibrate"]

_LEAST = 1e-6  # the logarithm of a confidence of 0 that is wrong would be infinite
_BINS = 10  # ranges of confidence


@dataclass(frozen=True)
class ConfidenceBin:
    """The words whose confidences are in one range.

    Attributes:
        low: lower end of the range, included.
        high: upper end; included in the last bin.
        words: in it.
        confidence: mean of them; 0 where there is none.
        right: share of them that is right; 0 where there is none.
    """

    low: float
    high: float
    words: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """How far confidences and reality agree.

    Attributes:
        bins: of equal width, from 0 to 1.
        words: recognised, in all bins.
        right: share of the words that is right.
        ece: expected calibration error: mean distance of confidence and share of right words, 0 is best.
        nce: normalised cross entropy: 1 is perfect, 0 is knowing no more than the share of right words, below
            0 is worse than that; None where all words are right, or all wrong.
        left_out: utterances whose words do not correspond to those that were compared, because the text rules
            joined or split some.
    """

    bins: tuple[ConfidenceBin, ...]
    words: int
    right: float
    ece: float
    nce: float | None
    left_out: int


def calibrate(score: Score, hypotheses: Mapping[str, Hypothesis]) -> Calibration | None:
    """Compare the confidences of words with whether they are right; None where there is no word.

    Args:
        score: of the hypotheses' texts.
        hypotheses: by the utterance's id.

    Source: ECE: Guo et al. 2017, "On calibration of modern neural networks", equation 3. NCE: NIST's
        normalised cross entropy of confidences, which sclite reports.
    """
    confidences: list[float] = []
    right: list[bool] = []
    left_out = 0
    for utterance in score.utterances:
        marks = [operation == "C" for operation in utterance.operations if operation != "D"]
        words = hypotheses[utterance.id].words if utterance.id in hypotheses else ()
        if len(words) != len(marks):
            left_out += 1
            continue
        confidences += [word.confidence for word in words]
        right += marks
    if not confidences:
        return None
    return _calibration(np.clip(confidences, 0.0, 1.0), np.array(right), left_out)


def _calibration(confidences: NDArray[np.float64], right: NDArray[np.bool_], left_out: int) -> Calibration:
    index = np.minimum((confidences * _BINS).astype(int), _BINS - 1)
    found = []
    for number in range(_BINS):
        inside = index == number
        count = int(inside.sum())
        mean, share = (
            (float(confidences[inside].mean()), float(right[inside].mean())) if count else (0.0, 0.0)
        )
        found.append(ConfidenceBin(number / _BINS, (number + 1) / _BINS, count, mean, share))
    total = len(confidences)
    ece = sum(part.words * abs(part.confidence - part.right) for part in found) / total
    return Calibration(tuple(found), total, float(right.mean()), ece, _nce(confidences, right), left_out)


def _nce(confidences: Sequence[float] | NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    share = float(right.mean())
    if share in (0.0, 1.0):
        return None
    clipped = np.clip(confidences, _LEAST, 1 - _LEAST)
    best = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    entropy = -np.where(right, np.log2(clipped), np.log2(1 - clipped)).mean()
    return float(1 - entropy / best)
