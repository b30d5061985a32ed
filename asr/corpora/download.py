"""Public archives: downloaded once, resumed after an interruption, verified and unpacked safely.

`fetch` logs what it is about to download (name, size, licence, address) before the first byte, resumes an
interrupted download, tries the mirrors, compares size and checksum, unpacks next to the target and moves the
result into place in one step with a `.completed` file in it. A folder with that file is not fetched again.
"""

import contextlib
import errno
import hashlib
import http.client
import logging
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.corpora.unpack import unpack
from asr.errors import DownloadError
from asr.files import locked, move_into_place
from asr.progress import Progress, size_text

__all__ = ["Archive", "fetch", "fetch_all", "openslr"]

log = logging.getLogger("asr")

_USER_AGENT = "asr-corpora/1 (Python urllib)"
_TIMEOUT_S = 30.0  # without a byte
_PAUSE_S = 2.0  # before a broken connection is resumed
_BLOCK = 1 << 18  # bytes read, hashed or written at a time
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_OPENSLR = ("www.openslr.org", "openslr.trmal.net", "openslr.elda.org", "openslr.magicdatatech.com")
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A published tar or zip file: its addresses, size, checksum and licence."""

    name: str  # the file's name, such as "dev-clean.tar.gz"
    unpacks_to: str  # the folder in it that is used, such as "LibriSpeech/dev-clean"; "": kept as it is
    url: str
    licence: str
    mirrors: tuple[str, ...] = ()  # tried in this order when `url` fails
    sha256: str = ""  # hexadecimal; "" where none is published
    md5: str = ""  # hexadecimal; verified only where there is no sha256
    size_bytes: int = 0  # 0 when unknown
    flat: bool = False  # its members are in no folder: `unpacks_to` is made for them
    folder: str = ""  # below the data folder: where it is downloaded and unpacked

    @property
    def checksum(self) -> tuple[str, str]:
        """(algorithm, hexadecimal digest); ("", "") when none is known."""
        if self.sha256:
            return "sha256", self.sha256.lower()
        return ("md5", self.md5.lower()) if self.md5 else ("", "")


def openslr(number: int, name: str, unpacks_to: str, licence: str, **facts: Any) -> Archive:
    """An archive of openslr.org, with its mirrors.

    Args:
        number: of the resource there.
        name: of the file.
        unpacks_to: as for `Archive`, likewise the others.
        licence: of what is in it.
        **facts: checksum and size.
    """
    url, *mirrors = (f"https://{host}/resources/{number}/{name}" for host in _OPENSLR)
    return Archive(
        name=name, unpacks_to=unpacks_to, url=url, mirrors=tuple(mirrors), licence=licence, **facts
    )


class _SourceError(Exception):
    """One address failed; the next may work."""


def fetch(archive: Archive, folder: Path, *, offline: bool = False) -> Path:
    """Download and unpack an archive, unless that has been done already.

    Of several processes, on any computer that sees the folder, one does and the others wait.

    Args:
        archive: what to fetch.
        folder: where the archive is downloaded and unpacked; made when missing.
        offline: do not download: use an archive that somebody has put there.

    Returns:
        The unpacked folder, `folder / archive.folder / archive.unpacks_to`, which holds a file `.completed`;
        or the file, if it is kept as it is.

    Raises:
        DownloadError: every address failed, the checksum or size is wrong (the file is deleted, so that the
            next try starts over), the disk is full (what was downloaded is kept for the next try), the
            archive is damaged or holds an unsafe path, the target is a folder that `fetch` did not make, or
            nothing is there and nothing may be downloaded.
    """
    data_folder, folder = Path(folder), Path(folder) / archive.folder
    destination = folder / (archive.unpacks_to or archive.name)
    if _is_complete(archive, destination):
        return destination
    with _disk(archive, folder):
        if offline and _is_absent(archive, data_folder):
            raise _not_there([archive], data_folder)
        folder.mkdir(parents=True, exist_ok=True)
        # torchrun starts several processes that all need the corpus: one downloads it, the others wait.
        with _locked(archive, folder):
            if not _is_complete(archive, destination):
                _fetch(archive, folder, destination, offline)
    return destination


def fetch_all(archives: Sequence[Archive], folder: Path, *, offline: bool = False) -> None:
    """Fetch several archives, once it is clear that the disk holds all of them.

    Args:
        archives: what to fetch.
        folder: as for `fetch`.
        offline: as for `fetch`.

    Raises:
        DownloadError: as for `fetch`, or the disk is too small for all of them.
    """
    pending = [
        one
        for one in archives
        if not _is_complete(one, Path(folder) / one.folder / (one.unpacks_to or one.name))
    ]
    if offline and (absent := [one for one in pending if _is_absent(one, Path(folder))]):
        raise _not_there(absent, Path(folder))
    total = sum(one.size_bytes for one in pending)
    if len(pending) > 1 and total and not offline:
        log.info("%d archives to download: %s", len(pending), size_text(total))
        with _disk(pending[0], folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
        if total > free:
            raise DownloadError(
                f"{folder}: {size_text(free)} are free, but {len(pending)} archives need {size_text(total)}. "
                "Make room, choose another folder, or choose parts of the corpus."
            )
    for archive in archives:
        fetch(archive, folder, offline=offline)


def _is_complete(archive: Archive, destination: Path) -> bool:
    return (destination / ".completed").is_file() if archive.unpacks_to else destination.is_file()


def _is_absent(archive: Archive, folder: Path) -> bool:
    """Whether neither the archive nor what is in it is in the data folder."""
    inside = folder / archive.folder
    return (
        not (inside / archive.name).is_file() and not (inside / (archive.unpacks_to or archive.name)).exists()
    )


def _not_there(archives: Sequence[Archive], folder: Path) -> DownloadError:
    """What an offline computer lacks: the first archive with all that is known of it, the others by name."""
    archive, *others = archives
    more = f" Missing, too: {', '.join(one.name for one in others)}." if others else ""
    algorithm, digest = archive.checksum
    checked = f", {algorithm} {digest}" if algorithm else ", no checksum is published"
    facts = f"{_announced(archive)}{checked}; licence {archive.licence}"
    return DownloadError(
        f"{folder / archive.folder / archive.name}: does not exist, and --offline downloads nothing. "
        f"Expected the file of {archive.url} ({facts}). Put it there and run the same command again, or "
        f"unpack it elsewhere and name its folder as --data.root.{more}"
    )


@contextlib.contextmanager
def _locked(archive: Archive, folder: Path) -> Iterator[None]:
    """Hold the lock of an archive, beside it: other computers of a cluster see it there."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(_lock(archive, folder), lambda: _log_waiting(archive), remove=True))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            log.warning(
                "%s: the file system has no locks (%s): start one process alone until it is unpacked.",
                folder,
                error.strerror,
            )
        yield


def _lock(archive: Archive, folder: Path) -> Path:
    return folder / f".{archive.name}.lock"


def _log_waiting(archive: Archive) -> None:
    log.info("%s: another process downloads it; waiting", archive.name)


def _fetch(archive: Archive, folder: Path, destination: Path, offline: bool) -> None:
    if destination.exists():
        raise DownloadError(
            f"{destination}: the folder exists, but this program has not completed it (no .completed in it). "
            "Name it as --data.root to use it as it is, or remove it to download it again."
        )
    target = folder / archive.name
    downloaded = not target.is_file()
    if downloaded:
        _announce(archive, folder)
        _download(archive, target)
    elif fault := _fault(archive, target):
        if offline:  # it may still be being copied
            raise DownloadError(f"{target}: {fault}. Expected the file of {archive.url}. Put it there.")
        target.unlink()
        raise DownloadError(f"{target}: {fault}. It was deleted. Run the same command again to fetch it.")
    if archive.unpacks_to:
        _unpack(archive, target, destination, keep=offline)
        if downloaded:  # what somebody has put there is theirs
            target.unlink()


@contextlib.contextmanager
def _disk(archive: Archive, folder: Path) -> Iterator[None]:
    """Turn an error of the disk into a DownloadError that names the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DownloadError(
                f"{folder}: the disk is full. {archive.name} takes {_announced(archive)}, and as much "
                "again to unpack. What was downloaded is kept: make room and run the same command again, "
                "or choose another folder."
            ) from error
        raise DownloadError(
            f"{error.filename or folder}: {error.strerror or error}. Expected a folder that can be written. "
            "Choose another one."
        ) from error


def _announce(archive: Archive, folder: Path) -> None:
    """Log what is about to be downloaded, and fail at once where the disk is too small."""
    algorithm, _ = archive.checksum
    log.info(
        "Downloading %s: %s, licence %s, from %s, into %s",
        archive.name,
        _announced(archive),
        archive.licence,
        archive.url,
        folder,
    )
    if not algorithm:
        log.warning(
            "%s: no published checksum is known, so %s.",
            archive.name,
            "only its size is checked" if archive.size_bytes else "neither content nor size can be checked",
        )
    part = folder / (archive.name + ".part")
    there = part.stat().st_size if part.is_file() else 0
    # Compressed speech unpacks to about its own size.
    needed = (2 if archive.unpacks_to else 1) * archive.size_bytes - there
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{folder}: {size_text(free)} are free, but {archive.name} needs {size_text(needed)} to be "
            "downloaded and unpacked. Make room, or choose another folder."
        )


def _download(archive: Archive, target: Path) -> None:
    """Fill `target` from the first address that delivers the right file."""
    part = target.with_name(target.name + ".part")
    failures: list[str] = []
    for url in (archive.url, *archive.mirrors):
        try:
            _download_from(url, archive, part)
            fault = _fault(archive, part)
            if not fault:
                move_into_place(part, target)
                return
            part.unlink()
            failures.append(f"{url}: {fault}; the file was deleted")
        except _SourceError as error:
            failures.append(f"{url}: {error}")
        log.warning("Download failed: %s", failures[-1])
    there = part.stat().st_size if part.is_file() else 0
    kept = f" The {size_text(there)} that were downloaded are kept for the next try." if there else ""
    raise DownloadError(
        f"{archive.name} could not be downloaded: {'; '.join(failures)}.{kept} "
        "Run the same command again later, or unpack a copy of your own and name it as --data.root."
    )


def _download_from(url: str, archive: Archive, part: Path) -> None:
    """Append to `part` until it is complete; resume a broken connection as long as more bytes arrive."""
    furthest = part.stat().st_size if part.is_file() else 0
    while True:
        try:
            _transfer(url, archive, part)
            return
        except _SourceError as error:
            size = part.stat().st_size if part.is_file() else 0
            if size <= furthest:
                raise
            furthest = size
            log.warning("%s: %s. Resuming at %s.", archive.name, error, size_text(size))
            time.sleep(_PAUSE_S)


def _transfer(url: str, archive: Archive, part: Path) -> None:
    """One connection: append what the server sends after the end of `part`.

    Raises:
        _SourceError: the server refuses, offers another size, or stops before the end.
    """
    start = part.stat().st_size if part.is_file() else 0
    if archive.size_bytes and start == archive.size_bytes:
        return  # it was interrupted between the last byte and the verification
    if archive.size_bytes and start > archive.size_bytes:
        part.unlink()
        start = 0
    headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        reply = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # there is nothing after `start`: the part is of another file
            part.unlink()
            return _transfer(url, archive, part)
        raise _SourceError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _SourceError(str(getattr(error, "reason", error)) or type(error).__name__) from error
    with reply:
        resumed = reply.status == 206 and str(reply.headers["Content-Range"]).startswith(f"bytes {start}-")
        if start and not resumed:
            log.info("%s: the server cannot resume; starting from the first byte.", archive.name)
            start = 0
        length = reply.headers["Content-Length"] or ""
        total = start + int(length) if length.isdecimal() else archive.size_bytes
        if archive.size_bytes and total != archive.size_bytes:
            raise _SourceError(f"the server offers {total} bytes, expected {archive.size_bytes}")
        _append(reply, part, start, total, archive.name)


def _append(reply: http.client.HTTPResponse, part: Path, start: int, total: int, name: str) -> None:
    """Write the body of a reply after the first `start` bytes of `part`."""
    progress = Progress(name, total, start)
    done = start
    # Unbuffered: what was received is on the disk, whatever ends this program.
    with part.open("ab" if start else "wb", buffering=0) as file:
        while True:
            try:
                block = reply.read(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _SourceError(f"the connection broke after {done} bytes: {error}") from error
            if not block:
                break
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]
            done += len(block)
            progress.report_bytes(done)
    if total and done != total:
        raise _SourceError(f"the connection ended after {done} of {total} bytes")


def _fault(archive: Archive, file: Path) -> str:
    """What is wrong with a downloaded file, or ""."""
    size = file.stat().st_size
    if archive.size_bytes and size != archive.size_bytes:
        return f"it has {size} bytes, expected {archive.size_bytes}"
    algorithm, expected = archive.checksum
    if not algorithm:
        return ""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    progress = Progress(f"{archive.name}: verifying", size)
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            progress.report_bytes(stream.tell())
    if digest.hexdigest() != expected:
        return f"wrong {algorithm} checksum: expected {expected}, got {digest.hexdigest()}"
    log.info("%s: %s verified", archive.name, algorithm)
    return ""


def _unpack(archive: Archive, file: Path, destination: Path, *, keep: bool) -> None:
    """Unpack next to the destination, then move into place: a destination that exists is complete."""
    folder = file.parent
    staging = folder / f".{archive.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)  # left by a killed run
    try:
        unpacked = staging / archive.unpacks_to
        unpack(file, unpacked if archive.flat else staging, keep=keep)
        if not unpacked.is_dir():
            raise DownloadError(
                f"{file}: holds no folder {archive.unpacks_to}. Expected the archive of {archive.url}. "
                "Remove the file and run the same command again."
            )
        algorithm, digest = archive.checksum
        (unpacked / ".completed").write_text(f"{archive.url}\n{algorithm} {digest}\n", encoding="utf-8")
        destination.parent.mkdir(parents=True, exist_ok=True)
        unpacked.replace(destination)
        # The files next to that folder: a README, the licence, the list of speakers.
        for other in sorted(path for path in staging.rglob("*") if path.is_file()):
            target = folder / other.relative_to(staging)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                other.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    log.info("%s: unpacked to %s", archive.name, destination)


def _announced(archive: Archive) -> str:
    return size_text(archive.size_bytes) if archive.size_bytes else "an unknown size"
