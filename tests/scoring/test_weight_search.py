"""The search for weights, on error surfaces whose lowest point is known."""

from dataclasses import replace
from pathlib import Path

import pytest

from asr.errors import SettingsError
from asr.model.decoding_weights import DecodingWeights
from asr.scoring.weight_search import Grid, Point, draw_surface, edges, search_weights


def bowl(weights: DecodingWeights) -> int:
    """Errors with one lowest point, at 0.8, 1.5, 0.3, 0.5 and 1."""
    distance = (
        (weights.lm_weight - 0.8) ** 2 + 0.2 * (weights.word_bonus - 1.5) ** 2
        + (weights.prior_weight - 0.3) ** 2 + (weights.blank_scale - 0.5) ** 2
        + (weights.acoustic_scale - 1.0) ** 2
    )  # fmt: skip
    return round(1000 * distance) + 100


def test_the_lowest_point_is_approached() -> None:
    """A search that keeps its starting point, forgets a weight, or whose refinements move away."""
    points = search_weights(bowl, Grid(), 1000)
    best = points[0]
    assert best.errors == min(point.errors for point in points)
    assert (best.weights.prior_weight, best.weights.blank_scale, best.weights.acoustic_scale) == (0.3, 0.5, 1)
    assert best.weights.lm_weight == pytest.approx(0.8, abs=0.15)
    assert best.weights.word_bonus == pytest.approx(1.5, abs=0.3)
    coarse = min(point.errors for point in points if point.phase == "grid")
    lines = min(point.errors for point in points if point.phase == "line")
    assert best.errors < lines < coarse
    assert len({point.weights for point in points}) == len(points)


def test_the_beam_that_will_be_used_decides() -> None:
    """Weights that win with a small beam, and would not with the large one."""
    asked: list[DecodingWeights] = []

    def small(weights: DecodingWeights) -> int:  # as if hearing mattered more than it does
        return bowl(replace(weights, blank_scale=weights.blank_scale + 0.5))

    def large(weights: DecodingWeights) -> int:
        asked.append(weights)
        return bowl(weights) // 2

    points = search_weights(small, Grid(), 1000, large)
    checks = [point for point in points if point.phase in ("check", "refine")]
    assert points[: len(checks)] == checks
    assert [point.phase for point in checks].count("check") == 5
    assert len(asked) == len(set(asked)) == len(checks)
    assert points[0].weights.blank_scale == pytest.approx(0.5, abs=0.15)
    assert min(points[len(checks) :], key=lambda point: point.errors).weights.blank_scale == 0.25
    within = search_weights(small, Grid(points=35), 1000, large)
    assert len(within) == 35


def test_a_pass_that_finds_nothing_halves_the_step() -> None:
    """Refinements that all try the same, or that go below what a weight may be."""
    grid = Grid(lm_weights=(0.0, 1.0), word_bonuses=(0.0,), prior_weights=(0.0,), blank_scales=(1.0,),
                acoustic_scales=(1.0,), unknown_penalties=(-5.0,), unknown_letter_penalties=(-1.5,),
                rescore_weights=(0.5,), attention_weights=(0.3,), refinements=3)  # fmt: skip
    points = search_weights(lambda weights: 10 + int(weights.lm_weight > 0), grid, 10)
    tried = [point.weights.lm_weight for point in points if point.phase == "refine"]
    assert sorted(tried) == [0.125, 0.25, 0.5]


def test_a_budget_of_points_ends_the_search_in_the_middle_of_the_grid() -> None:
    """A budget that is passed, or spent on the corners, where the best point hardly ever is."""
    points = search_weights(bowl, Grid(points=1), 1000)
    assert [(point.weights.lm_weight, point.weights.word_bonus) for point in points] == [(1.0, 0.0)]
    assert len(search_weights(bowl, Grid(points=7), 1000)) == 7
    assert len(search_weights(bowl, Grid(minutes=1e-9), 1000)) == 1  # never none


def test_equal_points_are_decided_by_their_order() -> None:
    """A choice among equals that depends on anything but the grid."""
    points = search_weights(lambda weights: 5, Grid(), 10)
    assert points[0].weights == DecodingWeights(lm_weight=1.0, word_bonus=0.0)


def test_edges_are_named_with_the_remedy() -> None:
    """An optimum outside the grid that looks like one inside."""
    grid = Grid(lm_weights=(0.5, 1.0, 2.0), word_bonuses=(0.0, 1.0), prior_weights=(0.0, 0.5))
    assert edges(DecodingWeights(lm_weight=1.0, word_bonus=0.5), grid) == []
    (largest,) = edges(DecodingWeights(lm_weight=2.25, word_bonus=0.5), grid)
    assert largest.startswith("the best lm-weight, 2.25, is the largest that was tried.")
    assert largest.endswith("Widen: --grid.lm-weights 0.5 1 2 3")
    smallest = edges(DecodingWeights(lm_weight=0.5, word_bonus=-0.5), grid)
    assert smallest[0].startswith("the best lm-weight, 0.5, is the smallest that was tried.")
    assert smallest[1].startswith("the best word-bonus, -0.5, is the smallest that was tried.")
    assert smallest[0].endswith("--grid.lm-weights 0.25 0.5 1 2")
    assert smallest[1].endswith("--grid.word-bonuses -1 0 1")
    (prior,) = edges(DecodingWeights(lm_weight=1.0, word_bonus=0.5, prior_weight=0.5), grid)
    assert "--grid.prior-weights 0 0.5 1" in prior


def test_a_grid_without_values_is_refused() -> None:
    """A search over nothing."""
    with pytest.raises(SettingsError, match=r"--grid.blank-scales is \(\)\. Expected at least one number"):
        Grid(blank_scales=())
    with pytest.raises(SettingsError, match=r"--grid.points must be at least 0\. Got -1"):
        Grid(points=-1)


def test_the_surface_is_drawn(tmp_path: Path) -> None:
    """A picture that fails where a cell was not tried, or with a single point."""
    points = [
        Point(DecodingWeights(lm_weight=x, word_bonus=y), 10, "grid") for x, y in ((0.5, 0), (1, 0), (1, 2))
    ]
    draw_surface(points, 100, tmp_path / "a.png", "three")
    draw_surface(points[:1], 100, tmp_path / "deep" / "b.png", "one")
    assert (tmp_path / "a.png").stat().st_size > 5000
    assert (tmp_path / "deep" / "b.png").is_file()
