"""The binary form of an n-gram model: a header, the words, and the arrays as they lie in memory.

    8 bytes      b"asrNGRAM"
    header       version, unit, order, sizes, checksums, and a checksum of itself; little endian
    words        UTF-8, a line feed after each
    arrays       word, log_prob, suffix, backoff, begin; each from a multiple of 64 bytes on

Arrays are mapped into memory, not read: processes that use the same model share it. The whole file is
checked first (checksum, and that no walk leaves the arrays), because a decoder that follows damaged arrays
would crash.
"""

import contextlib
import os
import struct
import zlib
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from asr.errors import ModelError
from asr.lm.interface import Unit
from asr.lm.trie import NgramArrays, NgramParts, is_sound

__all__ = ["is_binary", "read", "write"]

_MAGIC = b"asrNGRAM"
_VERSION = 1
_UNITS: tuple[Unit, ...] = ("word", "character")
_MAX_ORDER = 16
# version, unit, order, bytes of the words, count of each order, checksum of what follows the header
_HEADER = struct.Struct(f"<IIIQ{_MAX_ORDER}QI")
_CHECKSUM = struct.Struct("<I")
_ALIGNMENT = 64
_BLOCK = 1 << 20


def is_binary(path: Path) -> bool:
    """Whether the file begins as a binary model does; False too if there is no such file."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
    return False


def write(path: Path, parts: NgramParts) -> None:
    """Write a model; the file appears under its name when it is complete.

    Raises:
        OSError: the file cannot be written.
    """
    arrays, words, counts, unit = parts
    text = "".join(f"{word}\n" for word in words).encode()
    layout = _layout(counts, len(text))
    scratch = Path(f"{path}.part{os.getpid()}")
    try:
        with open(scratch, "wb") as file:
            file.write(b"\0" * (len(_MAGIC) + _HEADER.size + _CHECKSUM.size))
            checksum = _put(file, text, 0)
            for (offset, _, dtype), array in zip(layout, arrays, strict=True):
                checksum = _put(file, b"\0" * (offset - file.tell()), checksum)
                step = _BLOCK // 4
                for first in range(0, len(array), step):
                    block = np.ascontiguousarray(array[first : first + step], dtype)
                    checksum = _put(file, block.tobytes(), checksum)
            padded = [*counts, *[0] * (_MAX_ORDER - len(counts))]
            header = _HEADER.pack(_VERSION, _UNITS.index(unit), len(counts), len(text), *padded, checksum)
            file.seek(0)
            file.write(_MAGIC + header + _CHECKSUM.pack(zlib.crc32(header)))
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def read(path: Path) -> NgramParts:
    """Map a model into memory.

    Raises:
        ModelError: the file is damaged, cut short, or of a later version.
    """

    def fail(what: str) -> NoReturn:
        raise ModelError(
            f"{path} {what}. A language model made by `asr lm train` was expected. Make it again."
        )

    with open(path, "rb") as file:
        start = file.read(len(_MAGIC) + _HEADER.size + _CHECKSUM.size)
        header, own = start[len(_MAGIC) : -_CHECKSUM.size], start[-_CHECKSUM.size :]
        if len(header) < _HEADER.size:
            fail(f"is cut short: {len(start)} bytes")
        version, unit, order, n_text, *counts, checksum = _HEADER.unpack(header)
        if version != _VERSION:
            raise ModelError(
                f"{path} has the format {version}, but this version of asr reads the format {_VERSION}. "
                "Make the file again, or use the asr that made it."
            )
        if _CHECKSUM.unpack(own)[0] != zlib.crc32(header):
            fail("is damaged: the checksum of its header is wrong")
        counts = counts[:order]
        layout = _layout(tuple(counts), n_text)
        wanted = layout[-1][0] + 4 * layout[-1][1]
        found = os.fstat(file.fileno()).st_size
        if found != wanted:
            fail(f"has {found:,} bytes, but its header says {wanted:,}: it was not copied to its end")
        text = file.read(n_text)
        actual = zlib.crc32(text)
        while block := file.read(_BLOCK):
            actual = zlib.crc32(block, actual)
    if actual != checksum:
        fail("is damaged: its checksum is wrong")
    # Mode "c" (changes stay private): compiled code has one form for writable arrays, another for the rest.
    words = tuple(text.decode().split("\n")[:-1])
    arrays = NgramArrays(
        *(
            np.memmap(path, dtype, "c", offset, (size,)) if size else np.zeros(0, dtype)
            for offset, size, dtype in layout
        )
    )
    if len(words) != counts[0] or not is_sound(arrays, len(words)):
        fail("is damaged: its n-grams do not fit together")
    return NgramParts(arrays, words, tuple(counts), _UNITS[unit])


def _put(file: IO[bytes], data: bytes, checksum: int) -> int:
    file.write(data)
    return zlib.crc32(data, checksum)


def _layout(counts: tuple[int, ...], n_text: int) -> list[tuple[int, int, np.dtype[np.generic]]]:
    """Where each array of `NgramArrays` stands: offset in bytes, length, type."""
    nodes, inner = 1 + sum(counts), 1 + sum(counts[:-1])
    sizes = (("<i4", nodes), ("<f4", nodes), ("<i4", nodes), ("<f4", inner), ("<i4", inner + 1))
    offset = len(_MAGIC) + _HEADER.size + _CHECKSUM.size + n_text
    layout = []
    for dtype, size in sizes:
        offset = -(-offset // _ALIGNMENT) * _ALIGNMENT
        layout.append((offset, size, np.dtype(dtype)))
        offset += 4 * size
    return layout
