"""Checks of settings: what is allowed at both ends of a range, and the message."""

import math
from typing import Any

import pytest

from asr.errors import SettingsError, check_choice, check_number, first_few


@pytest.mark.parametrize(
    ("value", "bounds", "expected"),
    [
        (0, {"least": 1}, "at least 1. Got 0."),
        (0.0, {"above": 0}, "above 0. Got 0."),
        (math.nan, {"least": 0}, "at least 0. Got nan."),
        (math.nan, {"above": 0, "below": math.inf}, "above 0. Got nan."),
        (math.inf, {"least": 0, "below": math.inf}, "at least 0. Got inf."),
        (9, {"least": 1, "most": 8}, "in 1..8. Got 9."),
        (1.0, {"least": 0, "below": 1}, "in [0, 1). Got 1."),
        (0.0, {"above": 0, "most": 1}, "in (0, 1]. Got 0."),
        (999, {"least": 1000, "unit": "Hz"}, "at least 1000 Hz. Got 999."),
        (1234567, {"least": 0, "most": 1}, "in 0..1. Got 1234567."),
    ],
)
def test_numbers_out_of_range(value: float, bounds: dict[str, Any], expected: str) -> None:
    """Guards the ends of each kind of range, NaN and infinity, and what the user is told."""
    with pytest.raises(SettingsError) as caught:
        check_number("--option", value, **bounds)
    assert str(caught.value) == f"--option must be {expected}"


def test_numbers_in_range() -> None:
    """Guards the ends that belong to a range, and a setting that is not given."""
    check_number("--option", None, least=1)
    check_number("--option", 1, least=1, most=8)
    check_number("--option", 8, least=1, most=8)
    check_number("--option", math.inf, above=0)
    check_number("--option", 1, above=0, most=1)


def test_choices() -> None:
    """Guards the names that a message lists."""
    check_choice("--option", "b", ("a", "b"))
    with pytest.raises(SettingsError, match=r"^--option must be one of a, b\. Got 'c'\.$"):
        check_choice("--option", "c", {"a": 1, "b": 2})


def test_first_few() -> None:
    """Guards the count of what a message does not name."""
    assert first_few([], most=2) == ""
    assert first_few(["a", "b"], most=2) == "a, b"
    assert first_few(["a", "b", "c"], most=2) == "a, b and 1 more"
    assert first_few(["a", "b"], most=2, separator="; ", total=1002) == "a; b; and 1,000 more"
