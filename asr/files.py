"""Files: written whole or not at all, lines of text, digests of contents, locks between processes.

write_text, json_line            text, and JSON Lines
write_atomically, atomic_path    a crash or a full disk spares the older file
make_writable                    a folder, before the work whose results it gets
move_into_place                  the last step of both, for a file that was written piece by piece
read_lines, check_text           text in UTF-8, or an error that says what it is and what to do
packed_format                    what is compressed, an archive, or a pointer to the file
file_digest, weights_digest      what is in a file, or in a network
locked                           of several processes one works and the others wait
"""

import codecs
import fcntl
import hashlib
import json
import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from safetensors import SafetensorError

from asr.errors import DataError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "atomic_path", "check_text", "encoding_of", "file_digest", "json_line", "locked", "make_writable",
    "move_into_place", "not_utf8", "packed_format", "read_lines", "text_lines", "weights_digest",
    "write_atomically", "write_text",
]  # fmt: skip


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which is renamed to `path` when the block ends without an error.

    Args:
        path: of the file, in an existing folder. An older file stays as it was until then, and after an
            error.

    Raises:
        OSError: the file cannot be written; it names `path`.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        move_into_place(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a full disk has no name, others that of the temporary
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # after success there is none
            temporary.unlink()


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write text in UTF-8; the file appears complete or not at all.

    A pipe or a terminal is written to directly: a rename would replace it. Half a surrogate pair, which JSON
    and names of files may hold but UTF-8 cannot, is written as its escape, which JSON reads again.

    Args:
        path: of the file, in an existing folder.
        text: or its parts, one after the other; lines end in a line feed.

    Raises:
        OSError: the file cannot be written; it names `path`.
    """
    direct = path.exists() and not path.is_file()
    with (
        nullcontext(path) if direct else atomic_path(path) as target,
        target.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.writelines([text] if isinstance(text, str) else text)


def json_line(row: Any) -> str:
    """A line of JSON Lines, with letters of all scripts as they are."""
    return json.dumps(row, ensure_ascii=False) + "\n"


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


def make_writable(folder: Path) -> None:
    """Make a folder, and try whether files can be made in it: permissions alone do not tell.

    Raises:
        OSError: nothing can be written there; it names the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = str(folder)
        raise


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
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
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{path}: cannot be written: {reason}.{kept} Free some space or choose another folder."
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
    return text_lines(content, path)


def text_lines(content: bytes, path: Path) -> list[str]:
    """The lines of a UTF-8 file, as `read_lines` has them.

    Args:
        content: of the file, or what was packed in it.
        path: of the file, for messages.

    Raises:
        DataError: it is not UTF-8.
    """
    if not content:
        return []
    check_text(content, path)
    texts = []
    lines = content.removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            texts.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} line {number}: byte 0x{line[error.start]:02x}, number {error.start + 1} of the line "
                f"is not UTF-8. UTF-8 text was expected. {not_utf8(line, error.start, str(path))}"
            ) from None
    return texts


# What a file begins with, what it then is, and what to do; {} is the file, quoted for a shell. Whatever was
# expected, these have to be unpacked or fetched first.
_PACKED: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "compressed with gzip", "Decompress it: gunzip {}."),
    (b"\xfd7zXZ", "compressed with xz", "Decompress it: unxz {}."),
    (b"BZh", "compressed with bzip2", "Decompress it: bunzip2 {}."),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "Decompress it: unzstd {}."),
    (b"PK\x03\x04", "a zip archive", "Unpack it: unzip {}."),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS and not the file itself",
        "Fetch it: git lfs pull --include {}.",
    ),
)
# Where text was expected, these, too.
_DOCUMENTS = (
    (
        b"PK\x03\x04",
        "a zip archive or a document of an office program",
        "Unpack it, or save it as plain text: {}.",
    ),
    (b"\xd0\xcf\x11\xe0", "a document of an office program", "Save it as plain text: {}."),
    (b"{\\rtf", "a document in RTF", "Save it as plain text: {}."),
    (b"%PDF", "a PDF document", "Write its text into a file: pdftotext {}."),
    (b"ARROW1", "an Arrow file", "Give the text that it was made from, not {}."),
    (b"RIFF", "a sound file", "Give its transcript, not {}."),
)


def packed_format(head: bytes, path: Path, expected: str) -> str:
    """What a file is that has to be unpacked or fetched first, for a message; "" where it is none.

    Args:
        head: its first bytes, 32 or more.
        path: of the file.
        expected: what it should be, such as "an audio file".
    """
    return _format_of(head, path, expected, _PACKED)


def check_text(content: bytes, path: Path) -> None:
    """Refuse what is no text in UTF-8 by its first bytes, or by zeros between its letters.

    Args:
        content: of the file, or of its start.
        path: of the file.

    Raises:
        DataError: says what it is, and what to do.
    """
    if found := _format_of(content, path, "UTF-8 text", _DOCUMENTS + _PACKED):
        raise DataError(found)
    if name := encoding_of(content):  # letters of ASCII in UTF-16 are UTF-8, too, with zeros between them
        raise DataError(f"{path} is {name}. Expected UTF-8 text. {not_utf8(content, 0, str(path))}")


def _format_of(head: bytes, path: Path, expected: str, formats: Sequence[tuple[bytes, str, str]]) -> str:
    for start, name, remedy in formats:
        if head.startswith(start):
            return f"{path} is {name}. Expected {expected}. {remedy.format(shlex.quote(str(path)))}"
    return ""


def encoding_of(content: bytes) -> str:
    """The encoding that text seems to have that is no UTF-8, as iconv names it.

    A byte order mark, or zero bytes between letters, tell UTF-16 and UTF-32. What has neither is a code page
    of one byte a letter, and only a reader knows which.
    """
    marks = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16",
             codecs.BOM_UTF16_BE: "UTF-16"}  # fmt: skip
    for mark, name in marks.items():
        if content.startswith(mark):
            return name
    start = content[:4000]
    if start.count(0) > len(start) // 8:
        return "UTF-16LE" if start[1::2].count(0) > start[::2].count(0) else "UTF-16BE"
    return ""


def not_utf8(content: bytes, position: int, path: str = "FILE") -> str:
    """What to do about a file that is not UTF-8, for a message.

    Args:
        content: of the file, or of its start.
        position: of the first byte that is wrong, in `content`.
        path: of the file.
    """
    convert = f"Convert it: iconv -f {{}} -t UTF-8 {shlex.quote(path)} > NEW."
    if name := encoding_of(content):
        return convert.format(name)
    near = content[max(position - 12, 0) : position + 12]
    guesses = []
    for name in ("WINDOWS-1252", "WINDOWS-1250", "WINDOWS-1251"):
        with suppress(UnicodeDecodeError):
            guesses.append(f"{' '.join(near.decode(name).split())!r} in {name}")
    return f"It reads {', '.join(guesses)}. {convert.format('NAME')}"


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
def locked(path: Path, on_wait: Callable[[], None] | None = None, *, remove: bool = False) -> Iterator[None]:
    """Hold a lock between processes, which the system releases if this process dies.

    Args:
        path: a file to lock; made when missing.
        on_wait: called once if another process holds the lock.
        remove: delete the file at the end.

    Raises:
        OSError: the file cannot be opened for writing, or the file system has no locks.
    """
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None:
                    on_wait()
                    on_wait = None
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it may have deleted it: the next process would lock another file of that name.
            if not _is_named(file, path):
                continue
            try:
                yield
            finally:
                if remove:
                    with suppress(OSError):
                        path.unlink()
            return


def _is_named(file: IO[Any], path: Path) -> bool:
    """Whether an open file still has this name; another process may delete it at any moment."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
