"""Bootstrap intervals against plain bootstraps and a distribution known by hand."""

import random
import statistics

import numpy as np
import pytest

from asr.errors import DataError
from asr.scoring import significance
from asr.scoring.significance import (
    Interval,
    bootstrap_interval,
    error_segments,
    matched_pairs,
    paired_bootstrap,
)


def ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def corpus(utterances: int, seed: int = 7) -> tuple[list[int], list[int]]:
    """Errors and lengths of random utterances."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 6, size=utterances)
    return generator.binomial(lengths, 0.3).tolist(), lengths.tolist()


def test_utterances_by_plain_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the drawing by kinds of utterances: it must be the plain bootstrap, utterance by utterance."""
    errors, lengths = map(np.array, corpus(80))
    drawn = np.random.default_rng(1).integers(0, 80, size=(20000, 80))
    rates = 100 * errors[drawn].sum(axis=1) / lengths[drawn].sum(axis=1)
    monkeypatch.setattr(significance, "_RESAMPLES", 20000)
    interval = bootstrap_interval(errors.tolist(), lengths.tolist())
    assert ends(interval) == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])), abs=0.3)
    assert (interval.resampled, interval.count, interval.note) == ("utterances", 80, "")
    assert interval.low < 100 * errors.sum() / lengths.sum() < interval.high


def test_speakers_by_plain_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the drawing of speakers, who speak more or less and are better or worse to recognise."""
    generator = np.random.default_rng(3)
    speaker = generator.choice(12, size=400, p=np.arange(1, 13) / 78)
    lengths = generator.integers(1, 10, size=400)
    errors = generator.binomial(lengths, np.linspace(0.05, 0.6, 12)[speaker])
    rates = []
    for _ in range(5000):
        drawn = np.concatenate([np.flatnonzero(speaker == one) for one in generator.integers(0, 12, size=12)])
        rates.append(100 * errors[drawn].sum() / lengths[drawn].sum())
    names = [f"speaker {number}" for number in speaker]
    monkeypatch.setattr(significance, "_RESAMPLES", 5000)
    interval = bootstrap_interval(errors.tolist(), lengths.tolist(), names)
    assert ends(interval) == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])), abs=1)
    assert (interval.resampled, interval.count, interval.note) == ("speakers", 12, "")
    narrow = bootstrap_interval(errors.tolist(), lengths.tolist())
    assert interval.high - interval.low > 2 * (narrow.high - narrow.low)


def test_speakers_by_hand() -> None:
    """Five speakers of whom one is never understood: that one is drawn k times of five with binomial
    probability, so the rate is k / 5, and 0 to 3 times are the central 95%."""
    names = [f"s{number % 5}" for number in range(500)]
    errors = [2 * (name == "s0") for name in names]
    interval = bootstrap_interval(errors, [2] * 500, names)
    assert ends(interval) == (0, 60)
    assert str(interval) == "0.00 to 60.00 (bootstrap over speakers: 5)"


@pytest.mark.parametrize(
    ("speakers", "text"),
    [
        (None, "utterances: 6)"),
        ([""] * 6, "utterances: 6)"),
        (list("aabbcd"), "utterances: 6; 4 speakers are too few to resample)"),
        (["a"] * 6, "utterances: 6; 1 speaker is too few to resample)"),
        (["a", "b", "c", "d", "e", ""], "utterances: 6; some have no speaker)"),
        (list("abcdee"), "speakers: 5)"),
    ],
)
def test_what_is_resampled(speakers: list[str] | None, text: str) -> None:
    """Guards the rule: speakers where all are known and there are five or more; else the reason is given."""
    assert str(bootstrap_interval([0, 1, 0, 1, 0, 1], [2] * 6, speakers)).endswith(f"(bootstrap over {text}")


def test_the_same_in_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against an interval that changes between runs or with the size of the parts it is drawn in."""
    errors, lengths = corpus(40)
    interval = bootstrap_interval(errors, lengths)
    assert interval == bootstrap_interval(errors, lengths)
    assert interval.low < 100 * sum(errors) / sum(lengths) < interval.high
    monkeypatch.setattr(significance, "_DRAWN_AT_ONCE", 50)
    assert interval == bootstrap_interval(errors, lengths)


def test_one_utterance_is_a_point() -> None:
    """Guards the degenerate case: one utterance has no spread."""
    assert ends(bootstrap_interval([1], [2])) == (50.0, 50.0)


def test_wrong_input() -> None:
    """Guards against intervals of nothing."""
    with pytest.raises(DataError, match="no utterance to draw from"):
        bootstrap_interval([], [])


def test_segments_end_after_two_right_words() -> None:
    """Errors that depend on each other in two segments, or a segment without any error; by hand, as sclite's
    sc_stats cuts them."""
    assert error_segments("CSCCSC", "CCCCCC") == [(1, 0), (1, 0)]
    assert error_segments("CSCSCC", "CCCCCC") == [(2, 0)]
    assert error_segments("CSCCCC", "CCCCSC") == [(1, 0), (0, 1)]
    assert error_segments("CCCC", "CCCC") == []
    assert error_segments("CCCCI", "CCCC") == [(1, 0)]
    assert error_segments("SCICC", "SCCC") == [(2, 1)]
    assert error_segments("DDD", "SCC") == [(3, 1)]
    assert error_segments("II", "") == [(2, 0)]


def test_matched_pairs_by_hand() -> None:
    """A deviation over n, a test of one side; no segments, or all alike, divide by zero."""
    found = matched_pairs([1, 1, 0, 2, -1, 1])
    mean, deviation = 4 / 6, statistics.stdev([1, 1, 0, 2, -1, 1])
    assert found.z == pytest.approx(mean / (deviation / 6**0.5))
    assert found.p == pytest.approx(2 * statistics.NormalDist().cdf(-found.z))
    assert matched_pairs([]).p == 1.0
    assert matched_pairs([0, 0]).p == 1.0
    assert matched_pairs([1, 1, 1]).p == 0.25  # three coins on the same side
    assert matched_pairs([-2]).p == 1.0


def test_paired_bootstrap_draws_both_systems_together() -> None:
    """Systems drawn apart: the interval of two that always differ by one error would not be a point."""
    errors = [random.Random(0).randint(0, 9) for _ in range(50)]
    found = paired_bootstrap(errors, [count + 1 for count in errors], [10] * 50)
    assert found.interval.low == pytest.approx(10.0)
    assert found.interval.high == pytest.approx(10.0)
    assert found.fewer == 0.0
    assert paired_bootstrap(errors, errors, [10] * 50).fewer == 0.5
    speakers = [f"s{number % 5}" for number in range(50)]
    assert paired_bootstrap(errors, errors, [10] * 50, speakers).interval.resampled == "speakers"
