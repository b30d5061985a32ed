"""The user's cache folder, and arrays that take long to make, kept there for the next start.

The folder is $ASR_CACHE_DIR, else `asr` in $XDG_CACHE_HOME or ~/.cache; `asr.compiled` uses it, too.
A file of arrays is named by a digest of all that they are made of, code included, so that none is ever out of
date. The least recently used files are removed when there are many. Where nothing can be written, arrays are
made again at each start.
"""

import hashlib
import logging
import os
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.files import atomic_path

__all__ = ["cache_folder", "cached_arrays", "content_digest"]

log = logging.getLogger("asr")

_MAX_FILES = 12  # that are kept, of about 6 MB each for 100,000 words

Arrays = dict[str, NDArray[Any]]


def cached_arrays(key: str, make: Callable[[], Arrays]) -> Arrays:
    """Arrays from the user's cache folder; or made, and kept there.

    Args:
        key: a digest of what they are made of, see `content_digest`.
        make: makes the arrays.
    """
    folder = cache_folder()
    if folder is None:
        return make()
    path = folder / f"{key}.npz"
    with suppress(OSError, EOFError, ValueError, zipfile.BadZipFile), path.open("rb") as file:
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)  # each has a checksum
        os.utime(path)  # the least recently used files are removed
        return arrays
    arrays = make()
    try:
        _write(path, arrays)
    except OSError as error:
        log.debug("%s: not kept for the next start: %s", path, error)
    return arrays


def cache_folder() -> Path | None:
    """The user's cache folder, existing or not; None for a user without a home."""
    if chosen := os.environ.get("ASR_CACHE_DIR"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr"
    except RuntimeError:
        return None


def content_digest(parts: Iterable[str]) -> str:
    """A digest of texts, among which the digest of the code that makes the arrays should be."""
    digest = hashlib.sha256()
    for data in (part.encode() for part in parts):
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def _write(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    newest_first = sorted(path.parent.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in newest_first[_MAX_FILES:]:
        old.unlink(missing_ok=True)
