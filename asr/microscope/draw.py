"""Draws what the gradient microscope measured, from the rows of diagnostics.jsonl.

matplotlib takes seconds to load: it is imported when there is something to draw.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from asr.microscope.measure import HORIZON_SHARE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]  # one line of diagnostics.jsonl
Layer = dict[str, Any]  # one direction of one layer in a row

_FLOOR, _CEILING = 1e-9, 1e3  # of what is left of a gradient; colours end there


def gradient_lines(rows: Sequence[Row]) -> "Figure":
    """The newest measurement: |dL/dh| at every lag, and what is left of the state's gradient."""
    figure = _figure(12, 4.8)
    absolute, left = figure.subplots(1, 2)
    layers = rows[-1]["layers"]
    for layer in layers:
        absolute.plot(_positive(layer["h"]), **_style(layer, layers))
        left.plot(_positive(layer["left"]), **_style(layer, layers))
    _label(
        absolute, "Gradient of the hidden state, |dL/dh|", "lag back from the loss (steps)", "nats per token"
    )
    _label(left, "What is left of the carried state's gradient", "steps through time (from lag 1)", "share")
    left.axhline(HORIZON_SHARE, color="grey", linewidth=0.8)
    left.annotate(
        f"{HORIZON_SHARE:.0%}: the horizon", (1, HORIZON_SHARE), xycoords=("axes fraction", "data"),
        color="grey", ha="right", va="bottom", fontsize=8,
    )  # fmt: skip
    for axes in (absolute, left):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, high * 1e-16), high)
    _legend(figure, absolute)
    figure.suptitle(f"Gradients through time at update {rows[-1]['update']}")
    return figure


def gradient_heat(rows: Sequence[Row]) -> "Figure":
    """What is left at every lag, over the whole training: one map a layer and direction."""
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.ticker import FuncFormatter

    positions = _positions(rows)
    numbers = sorted({number for number, _ in positions})
    directions = list(dict.fromkeys(direction for _, direction in positions))
    across, down = len(directions), len(numbers)
    figure = _figure(5.5 * across + 1, 1.6 + 1.7 * down)
    grid = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    norm = TwoSlopeNorm(0, math.log10(_FLOOR), math.log10(_CEILING))
    lags = max(len(layer["left"]) for row in rows for layer in row["layers"])
    edges = _edges([row["update"] for row in rows])
    mesh: Any = None
    for axes, position in zip(grid.flat, itertools.product(numbers, directions), strict=True):
        if position not in positions:  # such as the backwards half of a decoder
            axes.axis("off")
            continue
        values = []
        for row in rows:
            left: list[float | None] = next(
                (layer["left"] for layer in row["layers"] if _position(layer) == position), []
            )
            shown = [math.log10(min(max(value or 0.0, _FLOOR), _CEILING)) for value in left]
            values.append(shown + [math.nan] * (lags - len(shown)))
        mesh = axes.pcolormesh(
            [lag - 0.5 for lag in range(lags + 1)], edges, values, norm=norm, cmap="RdBu_r"
        )
        axes.set_title(f"layer {position[0]} {position[1]}", fontsize=9)
        axes.set_facecolor("lightgrey")
    for axes in grid[-1]:
        axes.set_xlabel("steps through time (from lag 1)")
    for axes in grid[:, 0]:
        axes.set_ylabel("update")
    ten = FuncFormatter(lambda value, _: f"$10^{{{value:.0f}}}$")
    bar = figure.colorbar(mesh, ax=grid.ravel().tolist(), format=ten, ticks=range(-9, 4, 3), extend="both")
    bar.set_label("share left (white: as much as at first)")
    figure.suptitle("What is left of the gradient through time, over training (grey: shorter utterances)")
    return figure


def gates(rows: Sequence[Row]) -> "Figure":
    """Saturation in the newest measurement, and memory and gradient horizon over training."""
    layers = rows[-1]["layers"]
    # a decoder may have another cell, with other gates
    names = dict.fromkeys(gate for layer in layers for gate in layer["saturation"])
    columns = [(gate, end) for gate in names for end in ("low", "high")]
    figure = _figure(14, 1.8 + max(3.0, 0.45 * len(layers)))
    share, memory, horizon = figure.subplots(1, 3, width_ratios=[1.4, 1, 1])
    values = [
        [layer["saturation"].get(gate, {}).get(end, math.nan) for gate, end in columns] for layer in layers
    ]
    image = share.imshow(values, vmin=0, vmax=1, cmap="magma_r", aspect="auto")
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            text, colour = "" if math.isnan(value) else f"{value:.0%}", "white" if value > 0.5 else "black"
            share.text(x, y, text, ha="center", va="center", fontsize=7, color=colour)
    share.set_xticks(range(len(columns)), [f"{gate}\n{end}" for gate, end in columns], fontsize=7)
    share.set_yticks(range(len(layers)), [_name(layer) for layer in layers], fontsize=8)
    share.set_title(f"Saturated share of each gate, update {rows[-1]['update']}", fontsize=10)
    figure.colorbar(image, ax=share, label="share of values at that end", pad=0.02)
    _over_training(memory, rows, lambda layer: layer["memory"][1] if layer["memory"] else math.nan)
    _label(memory, "Memory of the median unit, 1/(1 - f)", "update", "steps")
    if all(layer["memory"] is None for layer in layers):
        memory.text(0.5, 0.5, "this cell has no gate\nthat keeps a memory", ha="center", va="center",
                    transform=memory.transAxes, color="grey")  # fmt: skip
        memory.set_xticks([])
        memory.set_yticks([])
    _over_training(horizon, rows, lambda layer: layer["horizon"])
    _label(horizon, f"Gradient horizon (falls to {HORIZON_SHARE:.0%})", "update", "steps")
    for axes in (memory, horizon):
        if axes.has_data() and axes.get_ylim()[1] > 30:
            axes.set_yscale("log")
    _legend(figure, horizon)
    return figure


def weights(rows: Sequence[Row]) -> "Figure":
    """Spectral radius by gate, size of the updates, and clip rate, over training."""
    layers = rows[-1]["layers"]
    names = list(dict.fromkeys(gate for layer in layers for gate in layer["spectral_radius"]))
    across = max(len(names), 2)
    figure = _figure(max(3.4 * across, 10), 7)
    halves = figure.add_gridspec(2, 1)
    grid = halves[0].subgridspec(1, len(names))
    first: Any = None
    for column, name in enumerate(names):
        axes = figure.add_subplot(grid[column], sharey=first)
        first = first or axes
        _over_training(axes, rows, partial(_radius, name))
        _label(axes, f"Spectral radius: {name}", "update", "largest |eigenvalue|" if column == 0 else "")
        axes.axhline(1, color="grey", linewidth=0.8)
    grid = halves[1].subgridspec(1, 2)
    ratio, clip = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    updates = [row["update"] for row in rows]
    for name in rows[-1]["update_ratio"]:
        recurrent = "weight_hh" in name
        ratio.plot(
            updates, _positive([row["update_ratio"].get(name) for row in rows]), marker=".", linewidth=0.9,
            color="tab:red" if recurrent else "tab:blue" if "weight_ih" in name else "silver",
            zorder=2 + recurrent,
        )  # fmt: skip
    _label(ratio, "Size of an update: |change| / |weights|", "update", "one line a matrix")
    ratio.set_yscale("log")
    for colour, text in (("tab:red", "recurrent"), ("tab:blue", "input"), ("silver", "other")):
        ratio.plot([], [], color=colour, label=text)
    ratio.legend(fontsize=8)
    clip.plot(
        updates, [math.nan if row["clip_rate"] is None else row["clip_rate"] for row in rows], marker="."
    )
    _label(clip, "Clip rate since the measurement before", "update", "share of updates")
    clip.set_ylim(-0.03, 1.03)
    _legend(figure, first)
    return figure


# By file name: the caption on the page, and what draws it.
PICTURES: dict[str, tuple[str, Callable[[Sequence[Row]], "Figure"]]] = {
    "gradient_lines": (
        "How far back a loss reaches. Left: the norm of dL/dh at every lag, for the part of the loss that "
        "enters at one step. Right: the share of the carried state's gradient that is left; a straight line "
        "downwards vanishes, upwards explodes.", gradient_lines,
    ),
    "gradient_heat": (
        "The right-hand curves over the whole training: blue vanishes, red explodes. A row ends where the "
        "utterances of that batch are too short to go further back.", gradient_heat,
    ),
    "gates": (
        "Gates at their limits (sigmoid below 0.05 or above 0.95, tanh above 0.95 in size) pass on almost "
        "no gradient, except that a forget gate near 1 is what remembers.", gates,
    ),
    "weights": (
        "The recurrent weights of each gate, how much one update changes them, and how often the gradient "
        "was clipped.", weights,
    ),
}  # fmt: skip


def _figure(width: float, height: float) -> "Figure":
    # Not through pyplot, which would keep every figure and ask for a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _position(layer: Layer) -> tuple[int, str]:
    return layer["layer"], layer["direction"]


def _name(layer: Layer) -> str:
    return f"layer {layer['layer']} {layer['direction']}"


def _positions(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """From the input up, forwards before backwards."""
    positions = {_position(layer) for row in rows for layer in row["layers"]}
    return sorted(positions, key=lambda position: (position[0], position[1] != "forwards"))


def _style(layer: Layer, layers: Sequence[Layer]) -> dict[str, Any]:
    from matplotlib import colormaps

    depth = max(other["layer"] for other in layers)
    return {
        "color": colormaps["viridis"](0.9 * (layer["layer"] - 1) / max(depth - 1, 1)),
        "linestyle": "--" if layer["direction"] == "backwards" else "-",
        "linewidth": 1.4,
        "label": _name(layer),
    }


def _over_training(axes: "Axes", rows: Sequence[Row], value: Callable[[Layer], float | None]) -> None:
    for position in _positions(rows):
        seen = [
            (row["update"], layer) for row in rows for layer in row["layers"] if _position(layer) == position
        ]
        heights = [math.nan if (height := value(layer)) is None else height for _, layer in seen]
        axes.plot(
            [update for update, _ in seen], heights, marker=".", **_style(seen[-1][1], rows[-1]["layers"])
        )


def _radius(gate: str, layer: Layer) -> float | None:
    radius: float | None = layer["spectral_radius"].get(gate)
    return radius


def _label(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)


def _legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8)


def _positive(values: Sequence[float | None]) -> list[float]:
    """For a logarithmic axis: what has become exactly 0 is not drawn."""
    return [value if value else math.nan for value in values]


def _edges(updates: Sequence[int]) -> list[float]:
    """The borders between the rows of a heat map, so that each update is inside its row."""
    middles = [(left + right) / 2 for left, right in pairwise(updates)]
    half = (updates[-1] - middles[-1]) if middles else max(updates[0] / 2, 0.5)
    return [updates[0] - half if not middles else 2 * updates[0] - middles[0], *middles, updates[-1] + half]
