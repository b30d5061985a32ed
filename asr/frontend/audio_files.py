"""Which audio files a user means: names, folders and patterns."""

import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from asr.errors import AudioError, SettingsError, first_few
from asr.frontend.recordings import STANDARD_INPUT

log = logging.getLogger("asr")

# What a folder is searched for; a file that is named itself may have any ending.
AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf"),
    *(".m4a", ".mp4", ".mov", ".aac", ".webm", ".mkv", ".mka", ".wma", ".amr", ".3gp", ".sph", ".g722"),
)


def audio_files(folder: Path) -> list[Path]:
    """The audio files in a folder and the folders below it, by their suffix, sorted."""
    inside = folder.rglob("*")
    return sorted(file for file in inside if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file())


def find_audio(names: Sequence[str]) -> list[Path]:
    """Find the audio files that files, globs and folders name, in this order, sorted within a glob or folder.

    What a folder holds besides is logged.

    Raises:
        AudioError: a folder or glob holds no audio files.
        SettingsError: there is no name.
    """
    if not names:
        raise SettingsError(
            "no file to transcribe. Expected audio files, folders, globs in quotes, or - for standard input."
        )
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path == STANDARD_INPUT:
            matches = [path]
        elif path.is_dir():
            matches = _files_of_folder(path)
        elif not path.exists() and glob.has_magic(name):
            matches = [Path(file) for file in sorted(glob.glob(name, recursive=True)) if Path(file).is_file()]
            if not matches:
                raise AudioError(f"{name}: no file matches this pattern. Correct it.")
        else:
            matches = [path]  # a missing file gets its message when it is read
        found += matches
    return found


def _files_of_folder(folder: Path) -> list[Path]:
    try:
        os.listdir(folder)  # rglob finds nothing, without a word, where it may not look
    except OSError as error:
        raise AudioError(f"{folder}: the folder cannot be read: {error.strerror}.") from None
    found = audio_files(folder)
    if not found:
        raise AudioError(
            f"{folder}: no audio files in this folder. Expected some that end in "
            f"{', '.join(AUDIO_SUFFIXES)}; a file with another ending has to be named itself."
        )
    others = sorted({file for file in folder.rglob("*") if file.is_file()} - set(found))
    if others:
        names = first_few([str(file.relative_to(folder)) for file in others])
        log.info("%s: left out, no audio files by their endings: %s", folder, names)
    return found
