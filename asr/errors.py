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
"""

from collections.abc import Sequence

__all__ = [
    "AsrError",
    "AudioError",
    "DataError",
    "DownloadError",
    "Interrupted",
    "ModelError",
    "SettingsError",
    "TrainingError",
    "first_few",
    "option_name",
    "plural",
]


def option_name(*fields: str) -> str:
    """A setting as the user types it, for messages: ("beam", "beam_threshold") -> "--beam.beam-threshold"."""
    return "--" + ".".join(fields).replace("_", "-")


def first_few(names: Sequence[str], most: int) -> str:
    """Names for a message: the first of them, and dots for further ones."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


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
