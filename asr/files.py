"""Files: written whole or not at all, lines of text, digests of contents, locks between processes.

write_atomically, atomic_path    a crash or a full disk spares the older file
move_into_place                  the last step of both, for a file that was written piece by piece
read_lines                       text in UTF-8, or an error that names the line
file_digest, weights_digest      what is in a file, or in a network
locked                           of several processes one works and the others wait
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from asr.errors import DataError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "atomic_path", "file_digest", "locked", "move_into_place", "read_lines", "weights_digest",
    "write_atomically",
]  # fmt: skip


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which is renamed to `path` when the block ends without an error.

    Args:
        path: of the file, in an existing folder. An older file stays as it was until then, and after an
            error.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        move_into_place(temporary, path)
    finally:
        with suppress(OSError):  # after success there is none
            temporary.unlink()


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a complete file its name, once its content is on the disk.

    Args:
        temporary: the file, in the folder of `path`.
        path: its name from now on; an older file of that name is replaced.

    Raises:
        OSError: the file cannot be written or renamed.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a model, a checkpoint or the like; the file appears complete or not at all.

    Args:
        path: of the file; its folder is made when missing.
        write: writes to the path that it is given.

    Raises:
        ModelError: the file cannot be written; an older one is left as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            write(temporary)
    # torch reports a full disk as a RuntimeError, safetensors as a SafetensorError.
    except (OSError, RuntimeError, SafetensorError) as error:
        kept = " The file that was there before is unharmed." if os.path.exists(path) else ""
        raise ModelError(
            f"{path}: cannot be written: {error}.{kept} Free some space or choose another folder."
        ) from error


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without line ends and byte order mark; an empty file has none.

    A line ends at a line feed and nowhere else: `str.splitlines` would cut at U+2028 and others, too.

    Raises:
        DataError: the file does not exist, cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. A text file was expected.") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}. A text file was expected."
        ) from None
    if not content:
        return []
    texts = []
    lines = content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            texts.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} line {number}: byte 0x{line[error.start]:02x}, number {error.start + 1} of the line "
                "is not UTF-8. UTF-8 text was expected. Convert the file, for example with "
                "iconv -f LATIN1 -t UTF-8."
            ) from None
    return texts


def file_digest(path: Path | None) -> str:
    """SHA-256 of a file's content, hexadecimal; "" for no file.

    Raises:
        DataError: the file cannot be read.
    """
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Name another file.") from error


def weights_digest(weights: Mapping[str, "Tensor"]) -> str:
    """SHA-256 over names, shapes and bytes of tensors, in the order of their names."""
    import torch  # only here: files of text are written without it

    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock between processes, which the system releases if this process dies.

    Args:
        path: a file to lock; made when missing, never deleted.
        on_wait: called once if another process holds the lock.

    Raises:
        OSError: the file cannot be opened for writing.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
