"""Arrays on disk: what counting and smoothing work on, mapped into memory instead of held in it."""

import mmap
import shutil
import tempfile
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

__all__ = ["DiskArrays"]


class DiskArrays:
    """Arrays on disk, mapped and not held; their room on the disk is free again when nothing refers to them.

    Use it in a `with` statement, at whose end its folder is removed.

    Args:
        folder: where the scratch folder is made; None: where the system keeps temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="asr-lm-", dir=folder))
        self._made = 0
        self._mapped: WeakSet[mmap.mmap] = WeakSet()

    def __enter__(self) -> "DiskArrays":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_path(self) -> Path:
        """A new file name."""
        self._made += 1
        return self._folder / str(self._made)

    def zeros(self, size: int, dtype: type[np.generic]) -> NDArray[Any]:
        """(size,) zeros of this type."""
        path = self.new_path()
        with open(path, "wb") as file:
            file.truncate(size * np.dtype(dtype).itemsize)
        return self.load(path, dtype)

    def load(self, path: Path, dtype: type[np.generic]) -> NDArray[Any]:
        """What a file of this folder holds; writable. The file itself is gone."""
        if not path.stat().st_size:
            return np.zeros(0, dtype)
        with open(path, "r+b") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        path.unlink()  # the mapping keeps the file's content, and nothing else does
        self._mapped.add(mapped)
        return np.frombuffer(mapped, dtype)

    def release_memory(self) -> None:
        """Give the memory of all arrays back to the system; what is used again is mapped again."""
        for mapped in self._mapped:
            mapped.madvise(mmap.MADV_DONTNEED)
