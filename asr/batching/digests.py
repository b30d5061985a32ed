"""What audio files contain, as digests: a cache that is keyed by them can be copied to another machine.

Reading 16 hours of audio at every start would be slow, so digests are kept in a file beside the cache, each
under its file's path, size and times of change. That record is a hint and no result: on another machine,
where it fits no file, the files are read again and are found to be the same.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path

from asr.corpora.manifest import Utterance
from asr.device import usable_cores
from asr.errors import AudioError
from asr.files import locked

__all__ = ["audio_digests"]

log = logging.getLogger("asr")

_FILE, _LOCK = "audio-digests.jsonl", "audio-digests.lock"

_Stamp = tuple[str, int, int, int]  # path, bytes, and when content and entry were last changed, ns


def audio_digests(folder: Path, utterances: Sequence[Utterance]) -> dict[Path, str]:
    """The digest of every audio file of some utterances, computed where it is not known yet.

    Of several processes that ask at once, one reads the files and the others wait.

    Args:
        folder: where digests are kept. If it cannot be written, they are computed each time.
        utterances: whose files.

    Returns:
        By the path that the utterances have, a hexadecimal digest.

    Raises:
        AudioError: a file cannot be read.
    """
    owners = {utterance.audio_filepath: utterance for utterance in reversed(utterances)}
    stamps = {path: _stamp(path, owner) for path, owner in owners.items()}
    known = _read(folder)
    if not known.keys() >= set(stamps.values()):
        with _locked(folder) as writable:
            known = _read(folder)  # perhaps complete by now
            missing = {path: stamp for path, stamp in stamps.items() if stamp not in known}
            known |= _compute(missing, owners, folder if writable else None)
    return {path: known[stamp] for path, stamp in stamps.items()}


def _stamp(path: Path, owner: Utterance) -> _Stamp:
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, owner, error) from error
    return os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(folder: Path) -> dict[_Stamp, str]:
    """What is known; lines that a crash has torn are passed over."""
    known: dict[_Stamp, str] = {}
    try:
        lines = (folder / _FILE).read_bytes().split(b"\n")
    except OSError:
        return known
    for line in lines:
        try:
            path, size, changed_ns, moved_ns, digest = json.loads(line)
            known[path, size, changed_ns, moved_ns] = digest
        except (ValueError, TypeError):
            continue
    return known


def _compute(
    missing: dict[Path, _Stamp], owners: dict[Path, Utterance], folder: Path | None
) -> dict[_Stamp, str]:
    """Read files with as many threads as there are cores; what is done is kept, also after Ctrl-C."""
    found: dict[_Stamp, str] = {}
    began = told = time.monotonic()
    pool = ThreadPoolExecutor(usable_cores())  # hashing and reading release the interpreter's lock
    try:
        waiting = {pool.submit(_digest, path): path for path in missing}
        for future in as_completed(waiting):
            path = waiting[future]
            try:
                found[missing[path]] = future.result()
            except OSError as error:
                raise _unreadable(path, owners[path], error) from error
            if time.monotonic() > told + 1:
                told = time.monotonic()
                left = (told - began) * (len(missing) - len(found)) / len(found)
                log.info(
                    "digests of audio: %d of %d files, %.0f s left", len(found), len(missing), left,
                    extra={"transient": True},
                )  # fmt: skip
    finally:
        pool.shutdown(cancel_futures=True)
        if folder is not None and found:
            lines = [json.dumps([*stamp, digest]) for stamp, digest in found.items()]
            # The newline before them: a line that a crash has torn spoils none of these.
            with (folder / _FILE).open("ab") as file:
                file.write(("\n" + "\n".join(lines) + "\n").encode())
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _unreadable(path: Path, owner: Utterance, error: OSError) -> AudioError:
    return AudioError(f"{path}, utterance {owner.id}: {error.strerror or error}.")


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold the record's lock; False where the folder cannot be written, so that there is none."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / _LOCK))
            writable = True
        except OSError:
            writable = False
        yield writable
