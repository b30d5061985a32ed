"""Digests of audio files: a cache that is keyed by them can be copied to another machine.

Reading 16 hours of audio at every start would be slow, so digests are stored in a file in the cache's folder,
keyed by path, size and times of change. That file is a hint and not a result: on another machine, where it
matches no audio file, the digests are computed again, and are the same.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path

from asr.device import usable_cores
from asr.errors import AudioError
from asr.files import locked
from asr.frontend.tar_members import audio_file, is_member, read_member
from asr.manifests.utterance import Utterance
from asr.progress import Progress

__all__ = ["audio_digests"]

_FILE, _LOCK = "audio-digests.jsonl", "audio-digests.lock"

_Stamp = tuple[str, int, int, int]  # path, bytes, and when content and entry were last changed, ns


def audio_digests(folder: Path, utterances: Sequence[Utterance]) -> dict[Path, str]:
    """The digest of every audio file of some utterances; computed if it is not stored yet.

    Processes that call this at the same time take turns: the first one reads the files.

    Args:
        folder: where digests are stored. If it cannot be written, they are computed each time.
        utterances: whose files.

    Returns:
        A hexadecimal digest for each path of the utterances.

    Raises:
        AudioError: a file cannot be read.
    """
    utterance_of = {utterance.audio_filepath: utterance for utterance in reversed(utterances)}
    stamps = {path: _stamp(path, utterance) for path, utterance in utterance_of.items()}
    stored = _read(folder)
    if not stored.keys() >= set(stamps.values()):
        with _locked(folder) as writable:
            stored = _read(folder)  # another process may have completed it
            missing = {path: stamp for path, stamp in stamps.items() if stamp not in stored}
            stored |= _compute(missing, utterance_of, folder if writable else None)
    return {path: stored[stamp] for path, stamp in stamps.items()}


def _stamp(path: Path, utterance: Utterance) -> _Stamp:
    try:
        stat = audio_file(path).stat()
    except OSError as error:
        raise _unreadable(path, utterance, error) from error
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(folder: Path) -> dict[_Stamp, str]:
    """The stored digests; lines that a crash cut off are skipped."""
    stored: dict[_Stamp, str] = {}
    try:
        lines = (folder / _FILE).read_bytes().split(b"\n")
    except OSError:
        return stored
    for line in lines:
        try:
            path, size, changed_ns, moved_ns, digest = json.loads(line)
            stored[path, size, changed_ns, moved_ns] = digest
        except (ValueError, TypeError):
            continue
    return stored


def _compute(
    missing: dict[Path, _Stamp], utterance_of: dict[Path, Utterance], folder: Path | None
) -> dict[_Stamp, str]:
    """Read files with a thread for each core; what is computed is stored, also after Ctrl-C."""
    found: dict[_Stamp, str] = {}
    progress = Progress("digests of audio", len(missing))
    pool = ThreadPoolExecutor(usable_cores())  # hashing and reading release the interpreter's lock
    try:
        waiting = {pool.submit(_digest, path): path for path in missing}
        for future in as_completed(waiting):
            path = waiting[future]
            try:
                found[missing[path]] = future.result()
            except OSError as error:
                raise _unreadable(path, utterance_of[path], error) from error
            progress.report(len(found), f"{len(found)} of {len(missing)} files")
    finally:
        pool.shutdown(cancel_futures=True)
        if folder is not None and found:
            lines = [json.dumps([*stamp, digest]) for stamp, digest in found.items()]
            # The newline before them ends a line that a crash may have cut off.
            with (folder / _FILE).open("ab") as file:
                file.write(("\n" + "\n".join(lines) + "\n").encode())
    return found


def _digest(path: Path) -> str:
    if is_member(path):
        return hashlib.blake2b(read_member(path), digest_size=16).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _unreadable(path: Path, utterance: Utterance, error: OSError) -> AudioError:
    return AudioError(f"{path}, utterance {utterance.id}: {error.strerror or error}.")


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the lock of the stored digests; False if the folder cannot be written."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / _LOCK))
            writable = True
        except OSError:
            writable = False
        yield writable
