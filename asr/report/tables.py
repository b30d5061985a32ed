"""The tables of the page: rows of an error rate with its interval, by speaker, length and field."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr.manifests.utterance import Utterance
from asr.scoring.breakdown import Part, Value, breakdown, length_ranges, ranges
from asr.scoring.wer import ErrorCounts, Score

__all__ = ["Table", "histogram", "percent", "rate_row", "tables"]

_MOST_ROWS = 200  # of a table; further speakers are counted


@dataclass(frozen=True)
class RateRow:
    """The score of a part, as it is written.

    Attributes:
        name: of the part.
        utterances: in it.
        units: words or phones of its references.
        rate: WER or PER, percent.
        interval: 95%, from and to; "" for a single utterance, of which no other sample can be drawn.
        bar: the rate as a share of the highest of the table, percent.
        substitutions: percent of the reference's units; likewise `deletions` and `insertions`.
        deletions: percent.
        insertions: percent.
        cer: percent; "" where characters are not counted.
    """

    name: str
    utterances: int
    units: int
    rate: str
    interval: str
    bar: float
    substitutions: str
    deletions: str
    insertions: str
    cer: str


@dataclass(frozen=True)
class Table:
    """A table of parts.

    Attributes:
        title: what the parts are.
        rows: of them.
        note: what is not in it; "" where everything is.
    """

    title: str
    rows: Sequence[RateRow]
    note: str = ""


def percent(rate: float) -> str:
    """A rate, 1 being 100%, with two decimals and without the sign; ∞ where a reference is empty."""
    return f"{100 * rate:.2f}" if math.isfinite(rate) else "∞"


def rate_row(name: str, score: Score, highest: float = 0.0) -> RateRow:
    """A row of a table.

    Args:
        name: of the part.
        score: of the part.
        highest: rate that fills a bar; 0 for none.
    """
    words, interval = score.words, score.interval()
    bar = 100 * min(score.wer / highest, 1.0) if highest and math.isfinite(score.wer) else 0.0
    substitutions, deletions, insertions = (
        _share(count, words) for count in (words.substitutions, words.deletions, words.insertions)
    )
    return RateRow(
        name=name,
        utterances=len(score.utterances),
        units=words.reference_length,
        rate=percent(score.wer),
        interval=_range(interval.low, interval.high) if len(score.utterances) > 1 else "",
        bar=round(bar, 1),
        substitutions=substitutions,
        deletions=deletions,
        insertions=insertions,
        cer=percent(score.cer) if score.unit == "words" else "",
    )


def _range(low: float, high: float) -> str:
    return f"{low:.1f}–{high:.1f}".replace("inf", "∞")


def tables(
    score: Score, utterances: Sequence[Utterance], fields: Sequence[Mapping[str, Value]]
) -> list[Table]:
    """Tables by speaker, by length and by each field of the manifest that divides the utterances.

    Args:
        score: of the utterances.
        utterances: in the same order.
        fields: further values of each, as `read_fields` gives them.
    """
    lengths, length_order = length_ranges({one.id: one.duration for one in utterances})
    found = [
        _table("Speaker", breakdown(score, {one.id: one.speaker for one in utterances})),
        _table("Length", breakdown(score, lengths, length_order)),
    ]
    for key in dict.fromkeys(key for row in fields for key in row):
        values = {one.id: row[key] for one, row in zip(utterances, fields, strict=True) if key in row}
        names, order = ranges(values)
        found.append(_table(key, breakdown(score, names, order)))
    return [table for table in found if len(table.rows) > 1]


def histogram(score: Score) -> list[tuple[str, int]]:
    """How many utterances have which error rate: a label (percent) and a count for each range."""
    borders = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
    names = ["0", "≤10", "≤20", "≤30", "≤50", "≤75", "≤100", ">100"]
    counts = [0] * len(names)
    for utterance in score.utterances:
        counts[sum(utterance.words.rate > border for border in borders)] += 1
    return list(zip(names, counts, strict=True))


def _table(title: str, parts: Sequence[Part]) -> Table:
    highest = max((part.score.wer for part in parts if math.isfinite(part.score.wer)), default=0.0)
    rows = [rate_row(part.name, part.score, highest) for part in parts[:_MOST_ROWS]]
    more = len(parts) - len(rows)
    return Table(title, rows, f"and {more} more, with lower error rates" if more else "")


def _share(count: int, words: ErrorCounts) -> str:
    return f"{100 * count / words.reference_length:.1f}" if words.reference_length else ""
