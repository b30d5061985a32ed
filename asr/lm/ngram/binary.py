"""The binary file of an n-gram model: a header, the words, and the arrays of `packed` as in memory.

    8 bytes      b"asrNGRAM"
    8 bytes      version, and length of the header; little endian
    header       JSON: unit, counts, bytes of the words, shapes of the arrays, checksum of words and arrays
    4 bytes      checksum of everything before it
    words        UTF-8, a line feed after each
    arrays       each from a multiple of 64 bytes on

Arrays are mapped into memory, not read: processes that use the same model share it. The whole file is
checked first (checksum, and that no walk leaves the arrays), because a decoder that follows damaged arrays
would crash.
"""

import contextlib
import json
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from asr.errors import ModelError
from asr.files import atomic_path
from asr.lm.interface import Unit
from asr.lm.ngram.packed import PackedNgrams, fits, is_sound

__all__ = ["is_binary", "read", "write"]

_MAGIC = b"asrNGRAM"
_VERSION = 2
_START = struct.Struct("<II")  # version, length of the header
_CHECKSUM = struct.Struct("<I")
_ALIGNMENT = 64
_BLOCK = 1 << 20
_LONGEST_HEADER = 1 << 16
_TYPES = ("<u8", "<i8", "<f4", "<i8")  # of the arrays of `PackedNgrams`


def is_binary(path: Path) -> bool:
    """Whether the file begins as a binary model does; False too if there is no such file."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC
    return False


def write(
    path: Path, ngrams: PackedNgrams, words: tuple[str, ...], counts: tuple[int, ...], unit: Unit
) -> None:
    """Write a model; the file appears complete or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    text = "".join(f"{word}\n" for word in words).encode()
    arrays = [np.ascontiguousarray(array, dtype) for array, dtype in zip(ngrams, _TYPES, strict=True)]
    checksum = 0
    for part in _parts(text, arrays):
        checksum = zlib.crc32(part, checksum)
    header = json.dumps(
        {
            "unit": unit,
            "counts": counts,
            "text": len(text),
            "shapes": [array.shape for array in arrays],
            "checksum": checksum,
        }
    ).encode()
    header += b" " * (-(len(_MAGIC) + _START.size + len(header) + _CHECKSUM.size) % _ALIGNMENT)
    start = _MAGIC + _START.pack(_VERSION, len(header)) + header
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(start + _CHECKSUM.pack(zlib.crc32(start)))
        file.writelines(_parts(text, arrays))


def read(path: Path) -> tuple[PackedNgrams, tuple[str, ...], tuple[int, ...], Unit]:
    """Map a model into memory.

    Returns:
        The n-grams, the word of each id, the number of n-grams of each order, and the unit.

    Raises:
        ModelError: the file is damaged, cut short, or of another version.
    """

    def fail(what: str) -> NoReturn:
        raise ModelError(
            f"{path} {what}. A language model made by `asr lm train` or `asr lm convert` was expected. "
            "Make it again."
        )

    size = path.stat().st_size
    start = len(_MAGIC) + _START.size
    with open(path, "rb") as file:
        first = file.read(start)
        if len(first) < start:
            fail(f"is cut short: {size} bytes")
        version, length = _START.unpack(first[len(_MAGIC) :])
        if version != _VERSION:
            raise ModelError(
                f"{path} has the format {version}, but this version of asr reads the format {_VERSION}. "
                "Make the file again from its text (`asr lm train`) or its ARPA file (`asr lm convert`)."
            )
        if length > _LONGEST_HEADER:
            fail("is damaged: the length of its header is wrong")
        header, checksum = file.read(length), file.read(_CHECKSUM.size)
        if len(checksum) < _CHECKSUM.size:
            fail(f"is cut short: {size} bytes")
        if _CHECKSUM.unpack(checksum)[0] != zlib.crc32(first + header):
            fail("is damaged: the checksum of its header is wrong")
    record = json.loads(header)
    # Private ("c"), so that the arrays are writable: for read-only ones numba would compile everything again.
    memory = np.memmap(path, np.uint8, "c").view(np.ndarray)[start + length + _CHECKSUM.size :]
    text, offset = memory[: record["text"]].tobytes(), record["text"]
    arrays: list[NDArray[Any]] = []
    for shape, dtype in zip(record["shapes"], _TYPES, strict=True):
        offset += -offset % _ALIGNMENT
        end = offset + math.prod(shape) * np.dtype(dtype).itemsize
        if end <= len(memory):
            arrays.append(memory[offset:end].view(dtype).reshape(shape))
        offset = end
    if offset != len(memory):
        expected = size + offset - len(memory)
        fail(f"has {size:,} bytes where {expected:,} were expected: it was not copied completely")
    if zlib.crc32(memory.data) != record["checksum"]:
        fail("is damaged: its checksum is wrong")
    words, counts = tuple(text.decode().split("\n")[:-1]), tuple(record["counts"])
    ngrams = PackedNgrams(*arrays)
    if len(words) != counts[0] or not fits(ngrams, counts) or not is_sound(ngrams):
        fail("is damaged: its n-grams do not fit together")
    return ngrams, words, counts, record["unit"]


def _parts(text: bytes, arrays: list[NDArray[Any]]) -> Iterator[bytes]:
    """The words and arrays as bytes, a block at a time."""
    yield text
    offset = len(text)
    for array in arrays:
        yield b"\0" * (-offset % _ALIGNMENT)
        flat = array.reshape(-1)
        for first in range(0, len(flat), _BLOCK):
            yield flat[first : first + _BLOCK].tobytes()
        offset += -offset % _ALIGNMENT + array.nbytes
