"""Several systems beside each other, each trained with several seeds: one table, one figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asr.errors import DataError
from asr.scoring.wer import ErrorCounts, Score, bootstrap_interval

__all__ = ["System", "draw", "table"]


@dataclass(frozen=True)
class System:
    """One system's scores on one test set.

    Attributes:
        name: what tables and figures call it.
        scores: (seeds,) of the same utterances in the same order.
        columns: what else the table tells of it, by heading; the same headings for all systems.

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

    def wer(self) -> tuple[float, float, float]:
        """WER over all seeds and the 95% interval of it, percent.

        The interval is the bootstrap over utterances, of which each is drawn with all its seeds: it says what
        another test set of this kind might give, not what other seeds would.
        """
        nothing = ErrorCounts(0, 0, 0, 0)
        utterances = zip(*(score.utterances for score in self.scores), strict=True)
        counts = [sum((row.words for row in same), nothing) for same in utterances]
        low, high = bootstrap_interval(counts)
        return 100 * sum(counts, nothing).rate, 100 * low, 100 * high


def table(systems: Sequence[System]) -> str:
    """A Markdown table, a line a system: errors and words of all seeds together, their WER, each seed's.

    Where phones were counted, the heading says so.

    Raises:
        DataError: words were counted for one system, and phones for another.
    """
    every = [score for system in systems for score in system.scores]
    rate, units = _rate_name(every), every[0].unit
    heads = ["system", f"%{rate}", "95% interval", f"errors / {units}", "each seed", *systems[0].columns]
    lines = [heads, ["---"] * len(heads)]
    for system in systems:
        wer, low, high = system.wer()
        errors = sum(score.words.errors for score in system.scores)
        words = sum(score.words.reference_length for score in system.scores)
        rates = " ".join(f"{rate:.2f}" for rate in system.rates)
        fixed = [system.name, f"{wer:.2f}", f"{low:.2f} to {high:.2f}", f"{errors} / {words}", rates]
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
    for place, system in enumerate(systems):
        wer, low, high = system.wer()
        label = "all seeds, 95% interval" if place == 0 else None
        axes.errorbar(
            place, wer, [[wer - low], [high - wer]], fmt="o", color="C0", capsize=4, label=label
        )  # fmt: skip
        label = "each seed" if place == 0 else None
        axes.plot([place + 0.2] * len(system.rates), system.rates, ".", color="C1", label=label)
    axes.set_xticks(range(len(systems)), [system.name for system in systems])
    axes.set_ylabel(f"{rate}, %")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _rate_name(scores: Sequence[Score]) -> str:
    """What the scores' rate is called; a rate of words says nothing beside one of phones."""
    names = sorted({score.rate_name for score in scores})
    if len(names) > 1:
        raise DataError(
            f"scores of words and of phones ({' and '.join(names)}) cannot stand beside each other. Expected "
            f"one of the two. Compare them apart."
        )
    return names[0]
