"""A table and a figure of systems, each trained with one or more seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asr.errors import DataError
from asr.scoring.significance import Interval, bootstrap_interval
from asr.scoring.wer import ErrorCounts, Score

__all__ = ["System", "draw", "table"]


@dataclass(frozen=True)
class System:
    """One system's scores on one test set.

    Attributes:
        name: in tables and figures.
        scores: (seeds,) of the same utterances in the same order.
        columns: further columns of the table, by heading; the same headings for all systems.

    Raises:
        DataError: there is no score, or two of them are of other utterances or count other units.
    """

    name: str
    scores: Sequence[Score]
    columns: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = {tuple(row.id for row in score.utterances) for score in self.scores}
        if len(ids) != 1:
            raise DataError(
                f"{self.name}: {len(self.scores)} scores of {len(ids)} lists of utterances. Expected one or "
                f"more scores of the same utterances in the same order."
            )
        _rate_name(self.scores)

    @property
    def rates(self) -> list[float]:
        """WER of each seed, percent."""
        return [100 * score.words.rate for score in self.scores]

    @property
    def words(self) -> ErrorCounts:
        """Counts of all seeds together."""
        return sum((score.words for score in self.scores), ErrorCounts())

    def wer(self) -> tuple[float, Interval]:
        """WER over all seeds, percent, and the 95% interval of it.

        Speakers or utterances are drawn with all their seeds: the interval is for other test sets of this
        kind, not for other seeds.
        """
        rows = list(zip(*(score.utterances for score in self.scores), strict=True))
        interval = bootstrap_interval(
            [sum(row.words.errors for row in same) for same in rows],
            [sum(row.words.reference_length for row in same) for same in rows],
            [same[0].speaker for same in rows],
        )
        return 100 * self.words.rate, interval


def table(systems: Sequence[System]) -> str:
    """A Markdown table, a line a system: errors and words of all seeds together, their WER, each seed's.

    Where phones were counted, the heading is PER.

    Raises:
        DataError: words were counted for one system, and phones for another.
    """
    every = [score for system in systems for score in system.scores]
    rate, units = _rate_name(every), every[0].unit
    heads = ["system", f"%{rate}", "95% interval", f"errors / {units}", "each seed", *systems[0].columns]
    lines = [heads, ["---"] * len(heads)]
    for system in systems:
        (wer, interval), words = system.wer(), system.words
        over = f"{interval.low:.2f} to {interval.high:.2f}, over {interval.count} {interval.resampled}"
        rates = " ".join(f"{rate:.2f}" for rate in system.rates)
        fixed = [system.name, f"{wer:.2f}", over, f"{words.errors} / {words.reference_length}", rates]
        lines.append([*fixed, *system.columns.values()])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(systems: Sequence[System], path: Path) -> None:
    """Write a picture: each system's WER with its interval, and a dot for each seed.

    Args:
        systems: from left to right.
        path: of the picture; its ending names the format (png, svg, pdf).

    Raises:
        DataError: words were counted for one system, and phones for another.
    """
    from matplotlib.figure import Figure

    rate = _rate_name([score for system in systems for score in system.scores])
    figure = Figure(figsize=(2 + 0.9 * len(systems), 4), layout="constrained")
    axes = figure.subplots()
    for index, system in enumerate(systems):
        wer, interval = system.wer()
        label = "all seeds, 95% interval" if index == 0 else None
        axes.errorbar(
            index, wer, [[wer - interval.low], [interval.high - wer]],
            fmt="o", color="C0", capsize=4, label=label,
        )  # fmt: skip
        label = "each seed" if index == 0 else None
        axes.plot([index + 0.2] * len(system.rates), system.rates, ".", color="C1", label=label)
    axes.set_xticks(range(len(systems)), [system.name for system in systems])
    axes.set_ylabel(f"{rate}, %")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _rate_name(scores: Sequence[Score]) -> str:
    """The name of the scores' rate, such as WER; different ones cannot be compared."""
    names = sorted({score.rate_name for score in scores})
    if len(names) > 1:
        raise DataError(
            f"scores of different units ({' and '.join(names)}) cannot be compared. Expected one "
            f"of them. Compare them separately."
        )
    return names[0]
