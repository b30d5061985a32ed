"""How long recordings are: measured once, in parallel, and kept with each file's size and date.

The user's cache folder holds one file for each folder of recordings. A recording whose size or date has
changed is measured again. A length is that of the header where it has one; one that is wrong is found when
the audio is decoded.
"""

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from asr.errors import AudioError
from asr.files import json_line, locked, write_text
from asr.frontend.audio import audio_info
from asr.progress import Progress
from asr.user_cache import cache_folder, content_digest

__all__ = ["durations", "measure"]

log = logging.getLogger("asr")

_READERS = 8  # threads that read headers: the wait is for the disk, and libsndfile releases the GIL

_Stamp = tuple[int, int]  # bytes, and nanoseconds of the last change


def durations(paths: Sequence[Path], name: str) -> list[float]:
    """Seconds of each recording.

    Args:
        paths: of the recordings.
        name: of what is measured, for the log.

    Raises:
        AudioError: a recording cannot be read; the message is that of the first.
    """
    found = measure(paths, name)
    for duration in found:
        if isinstance(duration, AudioError):
            raise duration
    return [duration for duration in found if not isinstance(duration, AudioError)]


def measure(paths: Sequence[Path], name: str) -> list[float | AudioError]:
    """Seconds of each recording, or why it cannot be read.

    Of several processes that want the same folder, one measures and the others wait.

    Args:
        paths: of the recordings.
        name: of what is measured, for the log.
    """
    if not paths:
        return []
    absolute = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute])
    with ExitStack() as stack:
        cache = _cache_file(folder)
        if cache is not None:
            try:
                cache.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(cache.with_suffix(".lock"), remove=True))
            except OSError as error:
                log.debug("%s: lengths are not kept for the next start: %s", cache, error)
                cache = None
        cached = _read(cache)
        found, stamps = _measure(absolute, folder, cached, name)
        if cache is not None and stamps:
            with suppress(OSError):
                _write(cache, cached, stamps)
    return found


def _measure(
    paths: Sequence[str], folder: str, cached: dict[str, tuple[_Stamp, float]], name: str
) -> tuple[list[float | AudioError], dict[str, tuple[_Stamp, float]]]:
    """(seconds or error of each file, what is new for the cache)."""

    def one(path: str) -> tuple[_Stamp | None, float | AudioError]:
        try:
            status = os.stat(path)
            stamp = (status.st_size, status.st_mtime_ns)
            old = cached.get(os.path.relpath(path, folder))
            if old is not None and old[0] == stamp:
                return None, old[1]
            return stamp, audio_info(Path(path)).duration_s
        except AudioError as error:
            return None, error
        except OSError as error:
            return None, AudioError(f"{path}: cannot be read: {error.strerror}. Expected an audio file.")

    found: list[float | AudioError] = []
    new: dict[str, tuple[_Stamp, float]] = {}
    progress = Progress(f"{name}: headers", len(paths))
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        for path, (stamp, duration) in zip(paths, pool.map(one, paths), strict=True):
            found.append(duration)
            if stamp is not None and not isinstance(duration, AudioError):
                new[os.path.relpath(path, folder)] = (stamp, duration)
            progress.report(len(found), f"{len(found)} of {len(paths)} files")
    return found, new


def _cache_file(folder: str) -> Path | None:
    cache = cache_folder()
    return None if cache is None else cache / "durations" / f"{content_digest([ascii(folder)])}.jsonl"


def _read(cache: Path | None) -> dict[str, tuple[_Stamp, float]]:
    """Path below the folder -> (stamp, seconds); nothing where the file does not exist or is damaged."""
    cached: dict[str, tuple[_Stamp, float]] = {}
    if cache is not None:
        with suppress(OSError, ValueError, TypeError), cache.open(encoding="utf-8") as lines:
            for line in lines:
                path, size, date, seconds = json.loads(line)
                cached[path] = ((size, date), seconds)
    return cached


def _write(
    cache: Path, cached: dict[str, tuple[_Stamp, float]], new: dict[str, tuple[_Stamp, float]]
) -> None:
    rows = ([path, size, date, seconds] for path, ((size, date), seconds) in {**cached, **new}.items())
    write_text(cache, map(json_line, rows))
