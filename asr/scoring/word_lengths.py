"""Pronunciations that are wrong by the length of their words: what a fixed summary vector cannot hold."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

__all__ = ["draw_lengths", "length_table", "wrong_by_length"]

_SHORTEST, _LONGEST = 3, 13  # letters; shorter and longer words are counted with these

Counts = Mapping[str, Mapping[int, tuple[int, int]]]
"""Of each system and number of letters: words that are wrong, and words."""


def wrong_by_length(results: Path) -> Counts:
    """Count the words of a file of `asr lexicon score --results`."""
    counts: dict[str, dict[int, tuple[int, int]]] = {}
    for line in results.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        length = min(max(len(row["word"]), _SHORTEST), _LONGEST)
        for system, given in row["given"].items():
            wrong, words = counts.setdefault(system, {}).get(length, (0, 0))
            counts[system][length] = (wrong + (given not in row["right"]), words + 1)
    return counts


def length_table(counts: Counts) -> str:
    """Percent of the words that are wrong: a line for each system, a column for each number of letters."""
    lengths = _lengths(counts)
    lines = [f"{'% wrong by letters':<40}" + "".join(f"{length:>7}" for length in lengths)]
    for system, by_length in counts.items():
        shares = [by_length.get(length) for length in lengths]
        cells = "".join(f"{100 * share[0] / share[1]:7.1f}" if share else f"{'':>7}" for share in shares)
        lines.append(f"{system:<40}{cells}")
    return "\n".join(lines)


def draw_lengths(counts: Counts, path: Path, title: str) -> None:
    """Write the picture: a line with its 95% interval (Wilson) for each system.

    Args:
        counts: of `wrong_by_length`.
        path: of the picture; its ending names the format.
        title: of the picture.
    """
    from matplotlib.figure import Figure  # slow to load

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for system, by_length in counts.items():
        lengths = sorted(by_length)
        wrong, words = (np.array([by_length[length][part] for length in lengths]) for part in (0, 1))
        (line,) = axes.plot(lengths, 100 * wrong / words, marker="o", markersize=4, label=system)
        low, high = _wilson(wrong, words)
        axes.fill_between(lengths, 100 * low, 100 * high, color=line.get_color(), alpha=0.12, linewidth=0)
    ticks = _lengths(counts)
    ends = {_SHORTEST: f"≤ {_SHORTEST}", _LONGEST: f"≥ {_LONGEST}"}
    axes.set_xticks(ticks, [ends.get(length, str(length)) for length in ticks])
    axes.set_xlabel("letters in the word")
    axes.set_ylabel("words wrong, %")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=110)


def _lengths(counts: Counts) -> Sequence[int]:
    return sorted({length for by_length in counts.values() for length in by_length})


def _wilson(wrong: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95% interval of shares.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z, share = 1.96, wrong / words
    middle = share + z**2 / (2 * words)
    half = z * np.sqrt(share * (1 - share) / words + z**2 / (4 * words**2))
    scale = 1 + z**2 / words
    return (middle - half) / scale, (middle + half) / scale
