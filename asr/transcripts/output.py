"""A folder of transcripts: a file for each recording and format, written as soon as it is known."""

import errno
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from asr.errors import DataError, SettingsError
from asr.files import make_writable, write_text
from asr.transcripts.formats import FORMATS, Write
from asr.transcripts.record import RecordingTranscript

__all__ = ["FullDiskError", "TranscriptFolder"]

log = logging.getLogger("asr")

# Errors that the next file will meet, too.
_LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class FullDiskError(DataError):
    """No more transcripts can be written into the folder."""


class TranscriptFolder:
    """Writes transcripts into a folder, which is made when missing.

    Args:
        folder: where to write.
        formats: what writes each format, by its name.
        resumable: whether the command has --skip-existing, for a message.

    Raises:
        SettingsError: nothing can be written there.
    """

    def __init__(self, folder: Path, formats: Mapping[str, Write], *, resumable: bool = False) -> None:
        self.folder, self._formats, self._resumable = folder, formats, resumable
        try:
            make_writable(folder)
        except OSError as error:
            reason = "is a file" if isinstance(error, FileExistsError) else error.strerror
            raise SettingsError(
                f"--output-dir {folder}: cannot be written: {reason}. Choose another folder."
            ) from None

    def paths(self, name: str) -> dict[str, Path]:
        """The files of a transcript by their formats.

        Args:
            name: a path below the folder, without suffix.
        """
        return {kind: self.folder / f"{name}{FORMATS[kind].suffix}" for kind in self._formats}

    def has(self, name: str) -> bool:
        """Whether all files of a transcript exist; none is ever there in part."""
        return all(os.path.isfile(path) for path in self.paths(name).values())

    def remove_unfinished(self, names: Iterable[str]) -> None:
        """Remove what a killed process has left of these transcripts, which no other process writes now."""
        targets = {path for name in names for path in self.paths(name).values()}
        for folder in {path.parent for path in targets}:
            for part in folder.glob("*.part"):
                if part.with_suffix("").with_suffix("") in targets:  # after the name, the process and .part
                    part.unlink(missing_ok=True)

    def write(self, name: str, transcript: RecordingTranscript) -> None:
        """Write a transcript in each format.

        Raises:
            FullDiskError: the disk is full or cannot be written any more.
            DataError: this file cannot be written.
        """
        for kind, path in self.paths(name).items():
            content = self._formats[kind](transcript)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, content)
            except OSError as error:
                kept = " An older file of that name is unharmed." if os.path.isfile(path) else ""
                if error.errno in _LASTING:
                    again = "; the same command with --skip-existing does the rest"
                    raise FullDiskError(
                        f"{path}: cannot be written: {error.strerror}. The transcripts before it are "
                        f"complete. Free some space{again if self._resumable else ', and start again'}."
                    ) from error
                raise DataError(
                    f"{path}: cannot be written: {error.strerror}.{kept} Choose another folder."
                ) from error

    def attempt(self, name: str, transcript: RecordingTranscript) -> DataError | None:
        """Write a transcript; the error of one that cannot be written, where others may be.

        Raises:
            FullDiskError: no other can be written, either.
        """
        try:
            self.write(name, transcript)
        except FullDiskError:
            raise
        except DataError as error:
            return error
        return None

    def log_summary(self, total: int, skipped: int, failed: int) -> None:
        """Log how many transcripts of how many recordings were written.

        Args:
            total: recordings.
            skipped: of which there were transcripts already.
            failed: that have none.
        """
        others = [f"{failed} failed"] if failed else []
        others += [f"{skipped} were there already"] if skipped else []
        log.info(
            "%s: %s of %d recordings written%s", self.folder, ", ".join(self._formats),
            total - skipped - failed, f"; {', '.join(others)}" if others else "",
        )  # fmt: skip
