"""Charts: points where their values are, and ticks that are round."""

from asr.report.charts import Chart, learning_curves


def chart(x: tuple[float, float], y: tuple[float, float]) -> Chart:
    return Chart("t", "x", "y", {"line": [(x[0], y[0]), (x[1], y[1])]}, x, y)


def test_points_and_ticks() -> None:
    """A vertical axis upside down, a tick beside its value, labels such as 0.30000000000000004."""
    found = chart((0, 10), (0, 1))
    left, top, right, bottom = found.frame
    assert found.paths == [("line", [(left, bottom), (right, top)])]
    assert [label for _, label in found.x_ticks] == ["0", "2", "4", "6", "8", "10"]
    assert [label for _, label in found.y_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert found.x_ticks[-1][0] == right
    assert [label for _, label in chart((0, 1), (0, 3e-4)).y_ticks][-1] == "0.0003"


def test_learning_curves() -> None:
    """A chart of one point, of a value that was not finite, or of what the run has not measured."""
    rows = [
        {"event": "epoch", "update": 10 * n, "train_loss": 3 / n, "dev_loss": 2 / n, "dev_wer": None}
        for n in (1, 2, 3)
    ]
    (loss,) = learning_curves(rows)
    assert list(loss.lines) == ["training", "dev"]
    assert loss.lines["dev"] == [(10, 2), (20, 1), (30, 2 / 3)]
    assert learning_curves(rows[:1]) == []
    assert learning_curves([{"event": "updates", "update": 1}]) == []
    many = [{"event": "updates", "update": n, "learning_rate": 0.1} for n in range(5000)]
    assert len(learning_curves(many)[0].lines["learning rate"]) <= 400
