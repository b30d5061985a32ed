"""Bootstrap confidence intervals of an error rate, over speakers or utterances.

Errors of one speaker are correlated, so a corpus of few speakers carries less information than its number of
utterances suggests. Where speakers are known, they are resampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError, SettingsError

__all__ = ["FEWEST_SPEAKERS", "Interval", "bootstrap_interval"]

Resampled = Literal["speakers", "utterances"]

FEWEST_SPEAKERS = 5
"""With fewer speakers utterances are resampled; a bootstrap over fewer does not describe other speakers."""

# Numbers drawn at once by the bootstrap: 8 bytes each.
_DRAWN_AT_ONCE = 4_000_000


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
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of an error rate.

    Speakers are drawn with replacement, each with all its utterances, where every utterance has a speaker and
    there are at least `FEWEST_SPEAKERS`. Otherwise utterances are drawn, and with few speakers the true
    uncertainty is larger than the interval. With one utterance the interval is a point.

    Args:
        errors: (utterances,) errors of each.
        lengths: (utterances,) reference units of each.
        speakers: (utterances,) names, "" where unknown; None: all are unknown.
        level: share of the resampled rates inside the interval, 0 < level < 1.
        resamples: how many corpora are drawn, at least 1.
        seed: of the random draws; the same seed gives the same interval.

    Raises:
        SettingsError: level or resamples is out of range.
        DataError: there is no utterance.

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
        ICASSP 2004; of speakers, Liu and Peng, "Statistical testing on ASR performance via blockwise
        bootstrap", Interspeech 2020.
    """
    if not 0.0 < level < 1.0:
        raise SettingsError(f"level must be between 0 and 1, both excluded. Got {level}.")
    if resamples < 1:
        raise SettingsError(f"resamples must be at least 1. Got {resamples}.")
    if not errors:
        raise DataError("there is no utterance to draw from. At least one was expected.")
    counts = np.array([errors, lengths], dtype=np.int64).T
    names = set(speakers or ()) - {""}
    note = ""
    if speakers is not None and "" not in speakers and len(names) >= FEWEST_SPEAKERS:
        resampled: Resampled = "speakers"
        counts = _sums(counts, speakers)
    else:
        resampled = "utterances"
        if names:
            few = "1 speaker is" if len(names) == 1 else f"{len(names)} speakers are"
            note = "some have no speaker" if "" in (speakers or ()) else f"{few} too few to resample"
    rates = _resampled_rates(counts, resamples, seed)
    tail = (1.0 - level) / 2.0
    # Always one of the drawn rates: interpolating between infinite ones would give NaN.
    low, high = 100 * np.quantile(rates, [tail, 1.0 - tail], method="inverted_cdf")
    return Interval(float(low), float(high), level, resampled, len(counts), note)


def _sums(counts: NDArray[np.int64], speakers: Sequence[str]) -> NDArray[np.int64]:
    """(utterances, 2) errors and lengths -> (speakers, 2), added up for each speaker."""
    names, index = np.unique(np.array(speakers), return_inverse=True)
    sums = np.zeros((len(names), 2), dtype=np.int64)
    np.add.at(sums, index, counts)
    return sums


def _resampled_rates(counts: NDArray[np.int64], resamples: int, seed: int) -> NDArray[np.float64]:
    """(rows, 2) errors and lengths -> (resamples,) rates, each of as many rows drawn with replacement."""
    # Rows with the same counts are interchangeable, so drawing n rows is drawing from the few distinct
    # rows: exactly the same distribution, at a cost that hardly grows with the corpus.
    kinds, frequency = np.unique(counts, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    rates = np.empty(resamples)
    at_once = max(1, _DRAWN_AT_ONCE // len(kinds))
    for begin in range(0, resamples, at_once):
        size = min(at_once, resamples - begin)
        repeats = generator.multinomial(len(counts), frequency / len(counts), size=size)  # (size, kinds)
        errors, lengths = (repeats @ kinds).T
        empty = np.where(errors > 0, np.inf, 0.0)
        rates[begin : begin + size] = np.where(lengths > 0, errors / np.maximum(lengths, 1), empty)
    return rates
