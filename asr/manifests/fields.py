"""The fields of a manifest's line: read, and checked for type and range.

Each function takes the object of a line and its place, for messages. A field that is wrong is a DataError.
"""

import json
import math
from typing import Any, Literal, cast, get_args

from asr.errors import DataError
from asr.files import not_utf8

__all__ = [
    "EXAMPLE", "Channels", "load_row", "read_channel", "read_channels", "read_duration", "read_name",
    "read_offset", "read_text",
]  # fmt: skip

Channels = Literal["mix", "first", "separate"]
"""What is read of a recording with several channels: their mean, the first one, or each for itself."""

EXAMPLE = '{"id": "a1", "audio_filepath": "a1.wav", "duration": 2.1, "text": "hello"}'


def load_row(line: bytes, where: str) -> tuple[dict[str, Any], str]:
    """The object of a line, and the path of its audio as it is written there."""
    try:
        row = json.loads(line.decode("utf-8-sig").rstrip())
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 (byte {error.start + 1}). {not_utf8(line, error.start)}"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: broken JSON: {error.msg} at column {error.colno}. "
            f"Expected one JSON object per line, such as {EXAMPLE}."
        ) from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: the line holds {_kind(row)}. Expected one JSON object, such as {EXAMPLE}.")
    audio = read_text(row, "audio_filepath", where)
    if not audio:
        raise DataError(f"{where}: audio_filepath is empty. Expected the path of an audio file.")
    return row, audio


def read_duration(row: dict[str, Any], where: str) -> float:
    """Seconds above 0."""
    duration = _seconds(row, "duration", where)
    if duration <= 0.0:
        raise DataError(
            f"{where}: duration is {duration:g}. Expected seconds above 0. Correct the line or remove it."
        )
    return duration


def read_offset(row: dict[str, Any], where: str) -> float:
    """Seconds from the start of the file; 0 where there is none."""
    offset = _seconds(row, "offset", where) if row.get("offset") is not None else 0.0
    if offset < 0.0:
        raise DataError(f"{where}: offset is {offset:g}. Expected seconds from the file's start, 0 or more.")
    return offset


def _require(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise DataError(
            f"{where}: the key {key!r} is missing. Expected audio_filepath, duration and text in each line; "
            f"found {', '.join(row) or 'no key'}."
        )
    return row[key]


def read_text(row: dict[str, Any], key: str, where: str) -> str:
    """The text of a key that has to be there."""
    value = _require(row, key, where)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key} is {_kind(value)}: {value!r:.60}. Expected text in quotes.")
    return value


def _seconds(row: dict[str, Any], key: str, where: str) -> float:
    value = _require(row, key, where)
    # bool is a kind of int in Python, and json reads NaN and Infinity: neither is a duration.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{where}: {key} is {_kind(value)}: {value!r:.60}. Expected a number of seconds.")
    if not math.isfinite(value):
        raise DataError(f"{where}: {key} is {value}. Expected a finite number of seconds.")
    return float(value)


def read_channel(row: dict[str, Any], where: str) -> int | None:
    """The channel, from 0; None for the mean of all."""
    value = row.get("channel")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DataError(
            f"{where}: channel is {value!r:.60}. Expected a whole number, 0 for the first channel. "
            "Correct it, or leave it out to read the mean of all channels."
        )
    return value


def read_channels(row: dict[str, Any], where: str) -> Channels | None:
    """What is read of several channels; None where it is not said."""
    value = row.get("channels")
    if value is None:
        return None
    if value not in get_args(Channels):
        raise DataError(
            f"{where}: channels is {value!r:.60}. Expected {', '.join(get_args(Channels))}. Correct it, or "
            "leave it out."
        )
    return cast(Channels, value)


def read_name(row: dict[str, Any], key: str, where: str) -> str:
    """A name or a whole number, as text; "" where there is none."""
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{where}: {key} is {_kind(value)}: {value!r:.60}. Expected text in quotes.")


def _kind(value: object) -> str:
    """The JSON name of a value's type, for messages."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
