"""A recording inside a tar file, named FILE.tar:OFFSET:SIZE: a range of bytes, read without unpacking.

Millions of small files are slow to list and to open; a tar file is one file, and a recording in it is one
read. When a tar file is opened, the system is asked to read all of it ahead, in the order of the disk. So if
a few files are read at a time (`--batch.open-tars`), their recordings are in memory when they are needed.

Source: fairseq names recordings in its uncompressed zip files likewise (get_features_or_waveform).
"""

import os
import re
from functools import lru_cache
from pathlib import Path

from asr.errors import AudioError

__all__ = ["audio_file", "is_member", "read_member", "tar_of"]

_MEMBER = re.compile(r"(.+\.tar):(\d+):(\d+)", re.DOTALL)
_OPEN = 64  # tar files that a process keeps open
_READ_AHEAD = 1 << 17  # bytes; systems cut a request for more than they read ahead at once


def is_member(path: Path) -> bool:
    """Whether a path names a recording inside a tar file."""
    return bool(tar_of(path.name))


def audio_file(path: Path) -> Path:
    """The file on the disk that holds a recording: the tar file, or the path itself."""
    tar = tar_of(path.name)
    return path.with_name(tar) if tar else path


def tar_of(path: str) -> str:
    """The path of the tar file that holds a recording; "" where none does."""
    found = _MEMBER.fullmatch(path) if ".tar:" in path else None
    return "" if found is None else found[1]


def read_member(path: Path) -> bytes:
    """The bytes of a recording inside a tar file.

    Args:
        path: FILE.tar:OFFSET:SIZE.

    Raises:
        AudioError: the tar file ends before the recording does.
        OSError: the tar file cannot be read.
    """
    found = _MEMBER.fullmatch(path.name)
    if found is None:
        raise ValueError(f"{path} is not FILE.tar:OFFSET:SIZE")
    tar = path.with_name(found[1])
    offset, size = int(found[2]), int(found[3])
    status = tar.stat()
    open_tar = _open(tar, status.st_size, status.st_mtime_ns)  # held: another thread's call may close it
    data = os.pread(open_tar.descriptor, size, offset)
    if len(data) < size or not size:
        raise AudioError(
            f"{path}: the tar file has {status.st_size} bytes. Expected a recording of {size} bytes at byte "
            f"{offset}. The file was cut short, or the manifest is of another one: copy both again."
        )
    return data


class _Tar:
    """An open tar file, closed when nothing refers to it any more."""

    def __init__(self, path: Path, size: int) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        if hasattr(os, "posix_fadvise"):  # macOS has none
            for start in range(0, size, _READ_AHEAD):
                os.posix_fadvise(self.descriptor, start, _READ_AHEAD, os.POSIX_FADV_WILLNEED)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):  # else it could not be opened
            os.close(self.descriptor)


@lru_cache(maxsize=_OPEN)
def _open(path: Path, size: int, changed_ns: int) -> _Tar:
    """The open file; one that was replaced has another size or date."""
    return _Tar(path, size)
