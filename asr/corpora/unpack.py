"""Untrusted tar files, unpacked below one folder and nowhere else.

Each file is copied by hand instead of by `TarFile.extractall(filter="data")`: Python 3.11.2, which Debian 12
has, lacks that filter, and would unpack `../x` and links silently. Owners, modes and times are not
restored.
"""

import gzip
import lzma
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from asr.corpora.progress import TransferProgress
from asr.errors import DownloadError

__all__ = ["unpack"]

_BLOCK = 1 << 18  # bytes


def unpack(file: Path, folder: Path) -> None:
    """Write the files and folders of a tar file, compressed or not, below a folder.

    Args:
        file: the archive.
        folder: where its members go; made when missing. After an error it holds what was unpacked before.

    Raises:
        DownloadError: the archive is damaged (it is deleted then, so that the next try fetches it afresh), or
            a member would be outside the folder, or is a link or a device.
        OSError: the disk refuses.
    """
    progress = TransferProgress(f"{file.name}: unpacking", 0, file.stat().st_size)
    try:
        with file.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
            for member in tar:
                progress.report(raw.tell())
                _write_member(tar, member, file, folder)
            while tar.fileobj.read(_BLOCK):
                pass  # what follows the last member: the checksum of gzip is verified only at the very end
    except (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        file.unlink()
        reason = str(error).partition(":")[0]  # further lines name each compression that was tried
        raise DownloadError(
            f"{file}: the archive is damaged: {reason}. Expected a whole tar file. It was deleted. "
            "Run the same command again to fetch it."
        ) from error


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path, folder: Path) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise DownloadError(
            f"{file}: unsafe path in the archive: {member.name!r}. Expected paths that stay inside it. "
            "Nothing was unpacked. Remove the file, and do not trust where it came from."
        )
    target = folder / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    source = tar.extractfile(member) if member.isreg() else None
    if source is None:
        raise DownloadError(
            f"{file}: {member.name!r} is a link or a device. Expected plain files and folders. "
            "Nothing was unpacked. Remove the file, and do not trust where it came from."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as file_out:
        shutil.copyfileobj(source, file_out, _BLOCK)
