"""Temporary arrays on disk, mapped into memory: training is not limited by the size of memory."""

import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

__all__ = ["DiskArrays"]


class DiskArrays:
    """Memory-mapped arrays; the disk space of one is free again when nothing refers to it.

    A context manager, which removes its folder at the end.

    Args:
        folder: where its folder is made; None: where the system keeps temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="asr-lm-", dir=folder))
        self._paths = 0
        self._mapped: WeakSet[mmap.mmap] = WeakSet()

    def __enter__(self) -> "DiskArrays":
        return self

    def __exit__(self, _: object, error: object, traceback: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk, whose error names no file
            error.filename = str(self._folder.parent)

    def new_path(self) -> Path:
        """A path in the folder that no other file has."""
        self._paths += 1
        return self._folder / str(self._paths)

    def zeros(self, size: int, dtype: type[np.generic]) -> NDArray[Any]:
        """(size,) zeros of this type.

        Raises:
            OSError: the disk has no room for them.
        """
        path, length = self.new_path(), size * np.dtype(dtype).itemsize
        with open(path, "wb") as file:
            if length and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, length)  # a page without room would end the process
            else:
                file.truncate(length)
        return self.load(path, dtype)

    def load(self, path: Path, dtype: type[np.generic]) -> NDArray[Any]:
        """(n,) the content of a file of the folder, writable; the file's name is removed."""
        if not path.stat().st_size:
            return np.zeros(0, dtype)
        with open(path, "r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        path.unlink()  # the mapping alone keeps the file's content
        self._mapped.add(mapped)
        return np.frombuffer(mapped, dtype)

    def release_memory(self) -> None:
        """Give the memory of all arrays back to the system; pages that are used again are read again."""
        for mapped in self._mapped:
            mapped.madvise(mmap.MADV_DONTNEED)
