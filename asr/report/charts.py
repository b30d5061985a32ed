"""Line charts as geometry, which a template draws as SVG in the colours of its page."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Chart", "learning_curves", "reliability_chart"]

_WIDTH, _HEIGHT = 420, 230  # with labels, in the units of the SVG: readable on a phone, too
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 38
_MOST_POINTS = 400  # of a line; of more, every nth is drawn

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Lines over one axis.

    Attributes:
        title: above it.
        x_label: what is on the horizontal axis.
        y_label: what is on the vertical axis.
        lines: (x, y) of each line, by its name; not empty.
        x_range: of the axis.
        y_range: of the axis.
        bars: (from, to, height as a share of the chart) behind the lines.
        diagonal: whether x = y is drawn.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Points]
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    bars: Sequence[tuple[float, float, float]] = ()
    diagonal: bool = False

    @property
    def x_ticks(self) -> list[tuple[float, str]]:
        """Position and label of each tick of the horizontal axis."""
        return [(round(self._x(value), 1), label) for value, label in _ticks(*self.x_range)]

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Position and label of each tick of the vertical axis."""
        return [(round(self._y(value), 1), label) for value, label in _ticks(*self.y_range)]

    @property
    def paths(self) -> list[tuple[str, list[tuple[float, float]]]]:
        """The name of each line and its points in the SVG."""
        return [
            (name, [(round(self._x(x), 1), round(self._y(y), 1)) for x, y in points])
            for name, points in self.lines.items()
        ]

    @property
    def rectangles(self) -> list[tuple[float, float, float, float]]:
        """x, y, width and height of each bar in the SVG."""
        found = []
        for low, high, share in self.bars:
            left, height = self._x(low) + 1, share * (_HEIGHT - _TOP - _BOTTOM)
            width = self._x(high) - left - 1
            found.append(
                (round(left, 1), round(_HEIGHT - _BOTTOM - height, 1), round(width, 1), round(height, 1))
            )
        return found

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the SVG."""
        return _WIDTH, _HEIGHT

    @property
    def frame(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the plotting area."""
        return _LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def _x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """About five round values from low to high, and how they are written."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]
    return [(value, f"{value:.10g}" if abs(value) < 1e5 else f"{value:.0e}") for value in values]


def reliability_chart(bins: Sequence[Any]) -> Chart:
    """Share of right words over confidence; the bars show how many words each range has.

    Args:
        bins: of a `Calibration`.
    """
    most = max(one.words for one in bins)
    return Chart(
        "Reliability", "confidence", "share of words that is right",
        {"right": [(one.confidence, one.right) for one in bins if one.words]},
        (0.0, 1.0), (0.0, 1.0), [(one.low, one.high, one.words / most) for one in bins], diagonal=True,
    )  # fmt: skip


def learning_curves(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Losses, error rates, learning rate and gradient norm over the updates of a training.

    Args:
        rows: of metrics.jsonl.
    """
    validations = [row for row in rows if row.get("event") in ("epoch", "validation")]
    updates = [row for row in rows if row.get("event") == "updates"]
    charts = [
        _curves("Loss", "nats a token", validations, {"train_loss": "training", "dev_loss": "dev"}),
        _curves(
            "Error rates on dev", "%", validations,
            {"dev_wer": "WER", "dev_lm_wer": "WER with language model", "dev_per": "PER", "dev_cer": "CER"},
        ),
        _curves("Learning rate", "", updates, {"learning_rate": "learning rate"}),
        _curves("Norm of the gradient", "before clipping", updates, {"gradient_norm": "norm"}),
    ]  # fmt: skip
    return [chart for chart in charts if chart is not None]


def _curves(
    title: str, y_label: str, rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> Chart | None:
    lines = {name: _points(rows, key) for key, name in names.items()}
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    if not lines:
        return None
    xs, ys = zip(*itertools.chain(*lines.values()), strict=True)
    top = max(ys)
    if max(xs) == min(xs):
        return None
    return Chart(
        title, "update", y_label, lines, (min(0.0, min(xs)), max(xs)), (min(0.0, min(ys)), 1.05 * top or 1.0)
    )


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> Points:
    points = [(float(row["update"]), float(row[key])) for row in rows if row.get(key) is not None]
    return points[:: max(1, math.ceil(len(points) / _MOST_POINTS))]
