"""The weights with the fewest errors: a grid, then one weight at a time, then smaller steps.

A small beam decodes fast, but the weights that serve it best are not those that serve a large one best. So
the small beam only narrows the search: the best few points are decoded with the beam that will be used, and
so is every step from there.

Nothing is drawn at random: the same errors give the same weights. Points are tried one after another, so that
the search can end after any of them.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from asr.errors import SettingsError, check_number, option_name
from asr.model.decoding_weights import WEIGHT_LIMITS, DecodingWeights
from asr.progress import Progress, clock

__all__ = ["Grid", "Point", "draw_surface", "edges", "search_weights"]

log = logging.getLogger("asr")

_LISTS = {
    "lm_weight": "lm_weights", "word_bonus": "word_bonuses", "prior_weight": "prior_weights",
    "blank_scale": "blank_scales", "acoustic_scale": "acoustic_scales",
    "unknown_penalty": "unknown_penalties", "unknown_letter_penalty": "unknown_letter_penalties",
    "rescore_weight": "rescore_weights", "attention_weight": "attention_weights",
}  # fmt: skip
"""The field of Grid that has the values of each weight."""

_LINES = tuple(name for name in _LISTS if name not in ("lm_weight", "word_bonus"))  # tried one by one

_FINALISTS = 5  # points of the small beam that are decoded with the large one


@dataclass(frozen=True)
class Grid:
    """Which weights are tried."""

    lm_weights: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)  # each with each word bonus
    word_bonuses: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)  # nats, each with each lm weight
    prior_weights: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9)  # factors on the label prior
    blank_scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)  # factors on the blank's probability
    acoustic_scales: tuple[float, ...] = (0.5, 0.7, 1.0, 1.4)  # factors on the model's log-probabilities
    unknown_penalties: tuple[float, ...] = (-10.0, -5.0, -2.5)  # nats for a word outside the vocabulary
    unknown_letter_penalties: tuple[float, ...] = (-3.0, -1.5, -0.75)  # nats for each letter of such a word
    # shares of the language model that rescores; tried last, the others fixed
    rescore_weights: tuple[float, ...] = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
    # shares of the attention decoder, where it rescores; tried last, likewise
    attention_weights: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
    # passes over all weights around the best point, by half the grid's step at first; one that finds nothing
    # better halves it
    refinements: int = 2
    minutes: float = 0.0  # the search ends after this time; 0: when all points are tried
    points: int = 0  # the search ends after this number; 0: when all are tried

    def __post_init__(self) -> None:
        for weight, name in _LISTS.items():
            values, option = getattr(self, name), option_name("grid", name)
            if not values or len(set(values)) < len(values):
                raise SettingsError(f"{option} is {values}. Expected at least one number, each once.")
            for value in values:
                check_number(option, value, **WEIGHT_LIMITS[weight])
        for name in ("refinements", "minutes", "points"):
            check_number(option_name("grid", name), getattr(self, name), least=0)

    def values(self, name: str) -> tuple[float, ...]:
        """The values of a weight in ascending order."""
        return tuple(sorted(getattr(self, _LISTS[name])))

    def holding(self, weights: Mapping[str, float]) -> "Grid":
        """The grid in which these weights keep their values."""
        fixed: dict[str, Any] = {_LISTS[name]: (value,) for name, value in weights.items()}
        return replace(self, **fixed)


@dataclass(frozen=True)
class Point:
    """Weights that were tried.

    Attributes:
        weights: the point.
        errors: that they make.
        phase: "grid" or "line"; "check" and "refine" are with the beam that will be used.
    """

    weights: DecodingWeights
    errors: int
    phase: str


def search_weights(
    errors: Callable[[DecodingWeights], int],
    grid: Grid,
    words: int,
    check: Callable[[DecodingWeights], int] | None = None,
) -> list[Point]:
    """Try points until the grid or the budget is at its end; progress is logged.

    Args:
        errors: of a point, by a fast decoder; called once for each.
        grid: which points. A weight with a single value keeps it.
        words: in the references, for the log.
        check: of a point, by the decoder that will be used; None where that is the fast one.

    Returns:
        The points that were tried, at least one, the best first; those that were checked come first.
        Among equals the one that was tried first.
    """
    tried: dict[DecodingWeights, Point] = {}
    checked = tried if check is None else {}
    planned = _planned(grid, check is not None)
    progress = Progress("points", min(planned, grid.points or planned))

    def ended() -> bool:
        spent = progress.elapsed_s / 60 > grid.minutes > 0
        return bool(tried) and (spent or 0 < grid.points <= count())

    def count() -> int:
        return len(tried) + (len(checked) if checked is not tried else 0)

    def attempt(weights: DecodingWeights, phase: str) -> None:
        last = phase in ("check", "refine")
        found = checked if last else tried
        if weights in found or ended():
            return
        made = check(weights) if last and check else errors(weights)
        found[weights] = Point(weights, made, phase)
        best = _best(found)
        left_s = progress.left_s(count())
        log.info(
            "point %d of about %d: %.2f%% with %s; best %.2f%%, %s left",
            count(), progress.total, 100 * made / max(words, 1), weights, 100 * best.errors / max(words, 1),
            clock(min(left_s, 60 * grid.minutes or left_s)),
            extra={"transient": True},
        )  # fmt: skip

    for weights in _coarse(grid):
        attempt(weights, "grid")
    for name in _LINES:
        base = _best(tried).weights
        for value in grid.values(name):
            attempt(replace(base, **{name: value}), "line")
    if check is not None:
        for point in _ranked(tried)[:_FINALISTS]:
            attempt(point.weights, "check")
    fraction = 0.5
    for _ in range(grid.refinements if checked else 0):
        before = _best(checked)
        for name in _LISTS:
            for weights in _around(_best(checked).weights, name, grid, fraction):
                attempt(weights, "refine")
        if _best(checked) is before:
            fraction /= 2
    return _ranked(tried) if check is None else [*_ranked(checked), *_ranked(tried)]


def edges(best: DecodingWeights, grid: Grid) -> list[str]:
    """Messages about the best weights that are on an edge of the grid, each with the remedy."""
    found = []
    for name, option in _LISTS.items():
        values, value = grid.values(name), getattr(best, name)
        if len(values) == 1:
            continue
        message = f"the best {name.replace('_', '-')}, {value:g}, is the {{}} that was tried. Widen: "
        message += f"--grid.{option.replace('_', '-')} "
        step = values[1] - values[0]
        if value == 0 and name not in ("word_bonus", "unknown_penalty"):
            continue  # the smallest possible value
        if value >= values[-1]:
            more = (*values, values[-1] / 2 if values[-1] < 0 else 2 * values[-1] - values[-2])
            found.append(message.format("largest") + " ".join(f"{v:g}" for v in more))
        elif value <= values[0]:
            signed = name in ("word_bonus", "unknown_penalty", "unknown_letter_penalty")
            less = values[0] - step if signed else values[0] / 2
            found.append(message.format("smallest") + " ".join(f"{v:g}" for v in (less, *values)))
    return found


def draw_surface(points: list[Point], words: int, path: Path, title: str) -> None:
    """Write a heat map: error rate by LM weight and word bonus, the best of grid and lines in each cell.

    A ring marks the best point of all, which may be between the cells.

    Args:
        points: what was tried, the best first.
        words: in the references.
        path: of the picture; its ending names the format.
        title: of the picture.
    """
    from matplotlib.figure import Figure

    cells: dict[tuple[float, float], float] = {}
    for point in points:
        if point.phase not in ("grid", "line"):  # another beam, other errors
            continue
        cell = point.weights.lm_weight, point.weights.word_bonus
        cells[cell] = min(cells.get(cell, float("inf")), 100 * point.errors / max(words, 1))
    xs = sorted({x for x, _ in cells})
    ys = sorted({y for _, y in cells})
    table = [[cells.get((x, y), float("nan")) for x in xs] for y in ys]
    figure = Figure(figsize=(2.5 + 0.75 * len(xs), 2 + 0.5 * len(ys)), layout="constrained")
    axes = figure.subplots()
    # Colours are for good points; a far too large bonus would otherwise take them all.
    low = min(cells.values())
    image = axes.imshow(table, origin="lower", aspect="auto", cmap="viridis_r", vmin=low, vmax=1.3 * low + 1)
    for (x, y), percent in cells.items():
        weight = "bold" if percent == low else "normal"
        axes.text(
            xs.index(x), ys.index(y), f"{percent:.1f}", ha="center", va="center", fontsize=8,
            color="black" if percent < 1.15 * low else "white", fontweight=weight,
        )  # fmt: skip
    axes.set_xticks(range(len(xs)), [f"{x:g}" for x in xs])
    axes.set_yticks(range(len(ys)), [f"{y:g}" for y in ys])
    best = points[0].weights
    x, y = np.interp(best.lm_weight, xs, range(len(xs))), np.interp(best.word_bonus, ys, range(len(ys)))
    axes.plot(x, y, "o", fillstyle="none", color="red", markersize=26)
    axes.set_xlabel("lm-weight")
    axes.set_ylabel("word-bonus (nats)")
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, label="errors, %")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _ranked(tried: dict[DecodingWeights, Point]) -> list[Point]:
    return sorted(tried.values(), key=lambda point: point.errors)  # equals stay in their order


def _best(tried: dict[DecodingWeights, Point]) -> Point:
    return min(tried.values(), key=lambda point: point.errors)  # the first of equals


def _planned(grid: Grid, checks: bool) -> int:
    """How many points there are at most."""
    lines = sum(len(grid.values(name)) - 1 for name in _LINES)
    coarse = len(grid.lm_weights) * len(grid.word_bonuses)
    free = sum(len(grid.values(name)) > 1 for name in _LISTS)
    finalists = min(_FINALISTS, coarse + lines) if checks else 0
    return coarse + lines + finalists + grid.refinements * 2 * free


def _middle(values: tuple[float, ...], neutral: float) -> float:
    """The value of a weight until it is tried: the neutral one, if that is among its values."""
    return neutral if neutral in values else values[len(values) // 2]


def _coarse(grid: Grid) -> list[DecodingWeights]:
    """The grid, from its middle outwards, so that a small budget sees the likely part."""
    neutral = DecodingWeights()
    base = replace(neutral, **{name: _middle(grid.values(name), getattr(neutral, name)) for name in _LINES})
    xs, ys = grid.values("lm_weight"), grid.values("word_bonus")
    cells = sorted(
        ((i, j) for i in range(len(xs)) for j in range(len(ys))),
        key=lambda cell: (abs(cell[0] - (len(xs) - 1) / 2) + abs(cell[1] - (len(ys) - 1) / 2), cell),
    )
    return [replace(base, lm_weight=xs[i], word_bonus=ys[j]) for i, j in cells]


def _around(best: DecodingWeights, name: str, grid: Grid, fraction: float) -> list[DecodingWeights]:
    """The neighbours of a point along one weight, at a fraction of the grid's step there."""
    values, value = grid.values(name), getattr(best, name)
    if len(values) == 1:
        return []
    below = [values[n + 1] - values[n] for n in range(len(values) - 1) if values[n + 1] >= value]
    above = [values[n + 1] - values[n] for n in range(len(values) - 1) if values[n] >= value]
    widest = values[-1] - values[-2]
    neighbours = []
    for step in (-(below[0] if below else widest), above[0] if above else widest):
        moved = round(value + fraction * step, 6)
        with suppress(SettingsError):  # it would be out of range
            neighbours.append(replace(best, **{name: moved}))
    return neighbours
