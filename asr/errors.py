"""Every error that this package raises on purpose.

    Exception
      AsrError               anything that the user can do something about
        AudioError           a sound file that cannot be read, or holds no usable sound
        DataError            a manifest, transcript or corpus folder that is not as it should be
        SettingsError        a setting that is unknown, out of range, or at odds with another one
        ModelError           a saved model that is missing, damaged, or of another format
        TrainingError        a training run that cannot start or continue
        Interrupted          a training run that was requested to stop, and has saved
        DownloadError        a corpus that could not be fetched, verified or unpacked

Each message states *what is wrong: the value, where. What was expected. What to do.* `cli.py` catches
AsrError once, prints that message as one line and exits with its `exit_status`; anything else that escapes
is a bug of this package and keeps its traceback.

What messages are made of is here, too: `option_name`, `first_few`, `plural`; and `check_number` and
`check_choice`, which settings call for each option that has a range.
"""

import math
from collections.abc import Iterable, Sequence

__all__ = [
    "FEW",
    "AsrError",
    "AudioError",
    "DataError",
    "DownloadError",
    "Interrupted",
    "ModelError",
    "SettingsError",
    "TrainingError",
    "check_choice",
    "check_number",
    "first_few",
    "option_name",
    "plural",
]


def option_name(*fields: str) -> str:
    """A setting as the user types it, for messages: ("beam", "beam_threshold") -> "--beam.beam-threshold"."""
    return "--" + ".".join(fields).replace("_", "-")


FEW = 5  # names in a message, usually


def first_few(
    names: Sequence[str], *, most: int = FEW, separator: str = ", ", total: int | None = None
) -> str:
    """Names for a message: the first of them, and how many more there are.

    Args:
        names: all of them, or, where they take long to make, the first.
        most: names that the message has.
        separator: between two.
        total: how many there are; None: as many as given.
    """
    left = (len(names) if total is None else total) - most
    more = f"{separator.strip(' ,')} and {left:,} more" if left > 0 else ""
    return separator.join(names[:most]) + more


def plural(count: int, noun: str, ending: str = "s") -> str:
    """A number with its noun, for messages: 1 error, 1,234 errors."""
    return f"{count:,} {noun}{ending * (count != 1)}"


class AsrError(Exception):
    """Anything that the user can do something about; the parent of all the others."""

    exit_status = 2  # of a command that ends with this error


class AudioError(AsrError):
    """A sound file that cannot be read, or that holds no usable sound."""


class DataError(AsrError):
    """A manifest, a transcript or a corpus folder that is not as it should be."""


class SettingsError(AsrError):
    """A setting that is unknown, out of range, or at odds with another one."""


class ModelError(AsrError):
    """A saved model that is missing, damaged, or written in another format."""


class TrainingError(AsrError):
    """A training run that cannot start or continue."""


class Interrupted(AsrError):  # noqa: N818 (an outcome, not a fault)
    """A training run that was requested to stop, and has saved its state."""

    exit_status = 130  # 128 + SIGINT, as shells expect


class DownloadError(AsrError):
    """A public corpus that could not be fetched, verified or unpacked."""


def check_number(
    option: str,
    value: float | None,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    unit: str = "",
) -> None:
    """Refuse a setting that is out of range.

    Args:
        option: as the user types it.
        value: of the setting; None, "not given", is in every range.
        least: the lowest value, itself allowed.
        above: the lowest value, itself not allowed; one of these two is given.
        most: the highest value, itself allowed.
        below: the highest value, itself not allowed.
        unit: of the value, for the message.

    Raises:
        SettingsError: it is out of range, or not a number.
    """
    if value is None:
        return
    lowest = least if least is not None else above
    highest = most if most is not None else below
    if lowest is None:
        raise ValueError(f"{option}: no lower end of its range")
    inside = value >= lowest if least is not None else value > lowest  # both are false for NaN
    if inside and (highest is None or (value <= highest if most is not None else value < highest)):
        return
    if highest is None or math.isinf(highest):
        expected = f"at least {lowest:g}" if least is not None else f"above {lowest:g}"
    elif least is not None and most is not None:
        expected = f"in {lowest:g}..{highest:g}"
    else:
        opening, closing = "(" if least is None else "[", ")" if most is None else "]"
        expected = f"in {opening}{lowest:g}, {highest:g}{closing}"
    got = f"{value}" if isinstance(value, int) else f"{value:g}"
    raise SettingsError(f"{option} must be {expected}{unit and ' '}{unit}. Got {got}.")


def check_choice(option: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a setting that is none of the names that it may have.

    Args:
        option: as the user types it.
        value: of the setting.
        choices: the names: those of a `Literal` by `typing.get_args`.

    Raises:
        SettingsError: it is none of them.
    """
    names = tuple(choices)
    if value not in names:
        raise SettingsError(f"{option} must be one of {', '.join(names)}. Got {value!r}.")
