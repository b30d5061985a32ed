"""Untrusted archives (tar, zip, Debian packages), unpacked below one folder and nowhere else.

Each file is copied by hand instead of by `TarFile.extractall(filter="data")`: Python 3.11.2, which Debian 12
has, lacks that filter, and would unpack `../x` and links silently. Owners, modes and times are not
restored.
"""

import gzip
import io
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from asr.errors import DownloadError
from asr.progress import Progress

__all__ = ["unpack"]

_BLOCK = 1 << 18  # bytes
_AR, _AR_HEADER = b"!<arch>\n", 60  # a Debian package is an archive of ar: its signature, bytes of a header
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError,
)  # fmt: skip


def unpack(file: Path, folder: Path, *, keep: bool = False) -> None:
    """Write the files and folders of an archive below a folder.

    Args:
        file: a tar file, compressed or not, a zip file, or a Debian package, of which the data are unpacked
            and no script is run.
        folder: where its members go; made when missing. After an error it holds what was unpacked before.
        keep: do not delete it if it is damaged: it is the user's.

    Raises:
        DownloadError: the archive is damaged (it is deleted then, so that the next try fetches it afresh), or
            a member would be outside the folder, or is a link or a device.
        OSError: the disk refuses.
    """
    progress = Progress(f"{file.name}: unpacking", file.stat().st_size)
    try:
        with file.open("rb") as raw:
            start = raw.read(len(_AR))
            raw.seek(0)
            if start == _AR:
                _unpack_tar(_deb_data(raw, file), file, folder, progress)
            elif start.startswith(b"PK"):
                _unpack_zip(raw, file, folder, progress)
            else:
                _unpack_tar(raw, file, folder, progress)
    except _DAMAGE as error:
        remedy = "Put a whole one there"
        if not keep:
            file.unlink()
            remedy = "It was deleted. Run the same command again to fetch it"
        reason = str(error).partition(":")[0]  # further lines name each compression that was tried
        raise DownloadError(
            f"{file}: the archive is damaged: {reason}. Expected a whole tar or zip file. {remedy}."
        ) from error


def _unpack_tar(raw: IO[bytes], file: Path, folder: Path, progress: Progress) -> None:
    with tarfile.open(fileobj=raw, mode="r:*") as tar:
        for member in tar:
            progress.report_bytes(raw.tell())
            target = _target(member.name, file, folder)
            source = tar.extractfile(member) if member.isreg() else None
            if source is None and not member.isdir():
                raise _no_file(member.name, file)
            _write(source, target)
        while tar.fileobj.read(_BLOCK):
            pass  # what follows the last member: the checksum of gzip is verified only at the very end


def _unpack_zip(raw: IO[bytes], file: Path, folder: Path, progress: Progress) -> None:
    with zipfile.ZipFile(raw) as archive:
        for member in archive.infolist():
            progress.report_bytes(raw.tell())
            target = _target(member.filename, file, folder)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                _write(None, target)
            elif kind in (0, stat.S_IFREG):
                with archive.open(member) as source:
                    _write(source, target)
            else:
                raise _no_file(member.filename, file)


def _deb_data(raw: IO[bytes], file: Path) -> IO[bytes]:
    """The tar file of a Debian package that holds its files; see deb(5) and ar(5)."""
    raw.seek(len(_AR))
    while len(header := raw.read(_AR_HEADER)) == _AR_HEADER:
        name, size = header[:16].rstrip(b" /"), int(header[48:58])
        if name.startswith(b"data.tar"):
            if name.endswith(b".zst"):
                raise DownloadError(
                    f"{file}: its files are compressed with zstd. Expected a package of Debian. Unpack it "
                    f"with dpkg-deb -x, and name the folder as --data.root."
                )
            content = raw.read(size)
            if len(content) < size:
                raise EOFError("the file ends within data.tar")
            return io.BytesIO(content)
        raw.seek(size + size % 2, io.SEEK_CUR)
    raise EOFError("no data.tar in it")


def _target(name: str, file: Path, folder: Path) -> Path:
    """Where a member goes."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DownloadError(
            f"{file}: unsafe path in the archive: {name!r}. Expected paths that stay inside it. "
            "Nothing was unpacked. Remove the file, and do not trust where it came from."
        )
    return folder / path


def _no_file(name: str, file: Path) -> DownloadError:
    return DownloadError(
        f"{file}: {name!r} is a link or a device. Expected plain files and folders. "
        "Nothing was unpacked. Remove the file, and do not trust where it came from."
    )


def _write(source: IO[bytes] | None, target: Path) -> None:
    """Write a file, or make a folder where there is no source."""
    if source is None:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as file_out:
        shutil.copyfileobj(source, file_out, _BLOCK)
