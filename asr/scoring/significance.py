"""How sure an error rate, or the difference of two, is: bootstrap intervals and the matched pairs test.

Errors of one speaker are correlated, so a corpus of few speakers carries less information than its number of
utterances suggests. Where speakers are known, they are resampled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError

__all__ = [
    "FEWEST_SPEAKERS", "Interval", "MatchedPairs", "PairedInterval", "bootstrap_interval", "error_segments",
    "matched_pairs", "paired_bootstrap",
]  # fmt: skip

Resampled = Literal["speakers", "utterances"]

FEWEST_SPEAKERS = 5
"""With fewer speakers utterances are resampled; a bootstrap over fewer does not describe other speakers."""

_LEVEL = 0.95
_RESAMPLES, _PAIRED_RESAMPLES = 1000, 10_000

# Numbers drawn at once by the bootstrap: 8 bytes each.
_DRAWN_AT_ONCE = 4_000_000

_RIGHT_BETWEEN = 2  # words that both systems have right, between two segments of the matched pairs test


@dataclass(frozen=True)
class Interval:
    """A confidence interval of an error rate.

    Attributes:
        low: lower end, percent.
        high: upper end, percent.
        level: share of the resampled rates inside the interval, 0 to 1.
        resampled: what was drawn with replacement.
        count: number of them in the corpus.
        note: why speakers were not resampled although some are named, or "".
    """

    low: float
    high: float
    level: float
    resampled: Resampled
    count: int
    note: str = ""

    def __str__(self) -> str:
        """`4.21 to 7.90 (bootstrap over speakers: 32)`."""
        note = f"; {self.note}" if self.note else ""
        return f"{self.low:.2f} to {self.high:.2f} (bootstrap over {self.resampled}: {self.count}{note})"


def bootstrap_interval(
    errors: Sequence[int],
    lengths: Sequence[int],
    speakers: Sequence[str] | None = None,
) -> Interval:
    """95% percentile bootstrap interval of an error rate; it is the same in every call.

    Speakers are drawn with replacement, each with all its utterances, where every utterance has a speaker and
    there are at least `FEWEST_SPEAKERS`. Otherwise utterances are drawn, and with few speakers the true
    uncertainty is larger than the interval. With one utterance the interval is a point.

    Args:
        errors: (utterances,) errors of each.
        lengths: (utterances,) reference units of each.
        speakers: (utterances,) names, "" where unknown; None: all are unknown.

    Raises:
        DataError: there is no utterance.

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
        ICASSP 2004; of speakers, Liu and Peng, "Statistical testing on ASR performance via blockwise
        bootstrap", Interspeech 2020.
    """
    counts, resampled, note = _units([errors, lengths], speakers)
    rates = _rates(*_resampled_sums(counts, _RESAMPLES).T)
    low, high = _ends(rates)
    return Interval(low, high, _LEVEL, resampled, len(counts), note)


@dataclass(frozen=True)
class PairedInterval:
    """How far the error rates of two systems on the same utterances differ.

    Attributes:
        interval: of the second's rate minus the first's, in points.
        fewer: share of the resamples in which the second makes fewer errors; ties count half.
    """

    interval: Interval
    fewer: float


def paired_bootstrap(
    first: Sequence[int],
    second: Sequence[int],
    lengths: Sequence[int],
    speakers: Sequence[str] | None = None,
) -> PairedInterval:
    """95% percentile bootstrap interval of the difference of two error rates, drawn together.

    Args:
        first: (utterances,) errors of one system.
        second: (utterances,) errors of the other one.
        lengths: (utterances,) reference units of each.
        speakers: as for `bootstrap_interval`.

    Raises:
        DataError: there is no utterance.

    Source: Bisani and Ney 2004, as above, section 4.
    """
    counts, resampled, note = _units([first, second, lengths], speakers)
    errors, others, size = _resampled_sums(counts, _PAIRED_RESAMPLES).T
    change = (others - errors) / np.maximum(size, 1)
    low, high = _ends(change)
    fewer = float(np.mean(others < errors) + 0.5 * np.mean(others == errors))
    return PairedInterval(Interval(low, high, _LEVEL, resampled, len(counts), note), fewer)


@dataclass(frozen=True)
class MatchedPairs:
    """The matched pairs test of two systems.

    Attributes:
        segments: parts of sentences in which at least one system has an error.
        mean: errors of the second minus those of the first, a segment.
        z: the mean over its standard error.
        p: probability of a mean this far from 0, on either side, if the systems are equally good.
    """

    segments: int
    mean: float
    z: float
    p: float


def matched_pairs(differences: Sequence[int]) -> MatchedPairs:
    """The matched pairs sentence segment word error test (MAPSSWE).

    Args:
        differences: (segments,) errors of the second system minus those of the first, of `error_segments`.

    Source: Gillick and Cox 1989, "Some statistical issues in the comparison of speech recognition
        algorithms"; sclite's sc_stats (mtchprs.c): the test is two-sided.
    """
    count = len(differences)
    if count == 0:
        return MatchedPairs(0, 0.0, 0.0, 1.0)
    values = np.array(differences, dtype=np.float64)
    mean = float(values.mean())
    deviation = float(values.std(ddof=1)) if count > 1 else 0.0
    if deviation == 0.0:  # all segments alike: the sign test, which needs no deviation
        return MatchedPairs(
            count, mean, math.copysign(math.inf, mean) if mean else 0.0, 0.5 ** (count - 1) if mean else 1.0
        )
    z = mean / (deviation / math.sqrt(count))
    return MatchedPairs(count, mean, z, math.erfc(abs(z) / math.sqrt(2)))


def error_segments(first: str, second: str) -> list[tuple[int, int]]:
    """The errors of two systems in each segment of a sentence that has any.

    A segment ends where both have two words right in succession, so that errors of different segments do not
    depend on each other.

    Args:
        first: alignment of one system with the reference, a letter a column, as `UtteranceScore` has it.
        second: of the other one, with the same reference.

    Source: sclite's sc_stats, with two correct words between segments.
    """
    segments: list[tuple[int, int]] = []
    errors, right = [0, 0], 0
    for columns in zip(_by_word(first), _by_word(second), strict=True):
        inserted = [before for before, _ in columns]
        wrong = [0 if word == "C" else 1 for _, word in columns]
        if any(inserted):
            right = 0
            errors = [count + more for count, more in zip(errors, inserted, strict=True)]
        right = 0 if any(wrong) else right + 1
        errors = [count + more for count, more in zip(errors, wrong, strict=True)]
        if right == _RIGHT_BETWEEN and any(errors):
            segments.append((errors[0], errors[1]))
            errors = [0, 0]
    return [*segments, (errors[0], errors[1])] if any(errors) else segments


def _by_word(operations: str) -> list[tuple[int, str]]:
    """Of each word of the reference the insertions before it and its operation; the end counts as a C."""
    found, inserted = [], 0
    for operation in operations:
        if operation == "I":
            inserted += 1
        else:
            found.append((inserted, operation))
            inserted = 0
    return [*found, (inserted, "C")]


def _units(
    counts: Sequence[Sequence[int]], speakers: Sequence[str] | None
) -> tuple[NDArray[np.int64], Resampled, str]:
    """What is drawn: (units, counts) of speakers or utterances, which of the two, and why not speakers."""
    if not len(counts[0]):
        raise DataError("there is no utterance to draw from. At least one was expected.")
    rows = np.array(counts, dtype=np.int64).T
    names = set(speakers or ()) - {""}
    if speakers is not None and "" not in speakers and len(names) >= FEWEST_SPEAKERS:
        return _sums(rows, speakers), "speakers", ""
    if not names:
        return rows, "utterances", ""
    few = "1 speaker is" if len(names) == 1 else f"{len(names)} speakers are"
    note = "some have no speaker" if "" in (speakers or ()) else f"{few} too few to resample"
    return rows, "utterances", note


def _sums(counts: NDArray[np.int64], speakers: Sequence[str]) -> NDArray[np.int64]:
    """(utterances, counts) -> (speakers, counts), added up for each speaker."""
    names, index = np.unique(np.array(speakers), return_inverse=True)
    sums = np.zeros((len(names), counts.shape[1]), dtype=np.int64)
    np.add.at(sums, index, counts)
    return sums


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the interval, in percent."""
    tail = (1.0 - _LEVEL) / 2.0
    # Always one of the drawn values: interpolating between infinite ones would give NaN.
    low, high = 100 * np.quantile(values, [tail, 1.0 - tail], method="inverted_cdf")
    return float(low), float(high)


def _rates(errors: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    empty = np.where(errors > 0, np.inf, 0.0)
    return np.where(lengths > 0, errors / np.maximum(lengths, 1), empty)


def _resampled_sums(counts: NDArray[np.int64], resamples: int) -> NDArray[np.int64]:
    """(units, counts) -> (resamples, counts): sums of as many units drawn with replacement."""
    # Rows with the same counts are interchangeable, so drawing n rows is drawing from the few distinct
    # rows: exactly the same distribution, at a cost that hardly grows with the corpus.
    kinds, frequency = np.unique(counts, axis=0, return_counts=True)
    generator = np.random.default_rng(0)
    sums = np.empty((resamples, counts.shape[1]), dtype=np.int64)
    at_once = max(1, _DRAWN_AT_ONCE // len(kinds))
    for begin in range(0, resamples, at_once):
        size = min(at_once, resamples - begin)
        repeats = generator.multinomial(len(counts), frequency / len(counts), size=size)  # (size, kinds)
        sums[begin : begin + size] = repeats @ kinds
    return sums
