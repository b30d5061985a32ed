"""Checks on the bytes of an audio file that decoders do not make: is it complete, is it two files in one?"""

import struct
from functools import lru_cache
from pathlib import Path

__all__ = [
    "ends_early", "has_frame_count", "is_chained", "is_finished", "read_bytes",
    "second_wav", "size_and_mtime", "with_size",
]  # fmt: skip

# The start of a page's header: magic number, version, flags.
_OGG_FIRST_PAGE, _OGG_PAGE, _OGG_LAST_PAGE = b"OggS\x00\x02", b"OggS\x00\x00", 4
_FLAC_START = b"fLaC\x00\x00\x00\x22"  # magic number, and the header of the block that describes the stream
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"


def read_bytes(source: Path | bytes, size: int | None = None) -> bytes:
    """The first bytes of a file; all of them by default."""
    if isinstance(source, bytes):
        return source[:size]
    with source.open("rb") as file:
        return file.read(size)


def size_and_mtime(source: Path | bytes) -> tuple[int, int] | None:
    """Bytes of a file and when it was last changed, ns; None for bytes in memory, or where it has gone."""
    try:
        status = source.stat() if isinstance(source, Path) else None
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if status else None


def is_chained(source: Path | bytes) -> bool:
    """Whether an Ogg or FLAC file holds several streams, one recording after the other."""
    if isinstance(source, Path):
        return _file_is_chained(source, size_and_mtime(source))
    return _begins_twice(source)


@lru_cache(maxsize=4096)  # one scan for each state of a file, however many utterances it holds
def _file_is_chained(path: Path, size_and_mtime: tuple[int, int] | None) -> bool:
    return _begins_twice(read_bytes(path))


def _begins_twice(data: bytes) -> bool:
    # All of the file, since another stream may begin anywhere: 15 MB for an hour of speech in Opus, read and
    # searched much faster than decoded.
    if data.startswith(b"OggS"):
        return data.rfind(_OGG_FIRST_PAGE) > data.find(_OGG_PAGE)
    return data.rfind(_FLAC_START) > data.find(_FLAC_START)


def second_wav(source: Path | bytes) -> int:
    """The byte at which a second WAV file begins, where the first one ends; 0 where none does."""
    head = read_bytes(source, 8)
    if len(head) < 8 or not head.startswith(b"RIFF"):
        return 0
    size = int.from_bytes(head[4:], "little")
    end = 8 + size + size % 2
    if isinstance(source, bytes):
        return end if source[end : end + 4] == b"RIFF" else 0
    with source.open("rb") as file:
        file.seek(end)
        return end if file.read(4) == b"RIFF" else 0


def is_finished(source: Path | bytes) -> bool:
    """Whether an Ogg file ends with the page that ends its stream."""
    # All of the file, because what follows the last page may be of any length.
    data = read_bytes(source)
    flags = data[data.rfind(b"OggS") + 5 :][:1]
    return bool(flags and flags[0] & _OGG_LAST_PAGE)


def has_frame_count(source: Path | bytes) -> bool:
    """Whether the first frame of an MP3 file counts all frames (Xing, Info or VBRI)."""
    head = read_bytes(source, 2**20)
    if head[:3] == b"ID3":  # tags, with their size in four groups of seven bits
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        head = head[10 + size :]
    return any(mark in head[:1024] for mark in (b"Xing", b"Info", b"VBRI"))


def ends_early(source: Path | bytes) -> str:
    """How much shorter a WebM or Matroska file is than its header says; "" if it is not, or has no size."""
    head = read_bytes(source, 4096)
    start = head.find(_MATROSKA_SEGMENT) + len(_MATROSKA_SEGMENT)
    # The size's first byte tells by its leading zeros how many more it has; all ones mean an unknown size.
    length = 9 - head[start].bit_length() if start < len(head) and head[start] else 0
    size = int.from_bytes(head[start : start + length]) & ((1 << 7 * length) - 1)
    promised = start + length + size
    status = size_and_mtime(source)
    found = len(source) if isinstance(source, bytes) else status[0] if status else promised
    if not length or size == (1 << 7 * length) - 1 or promised <= found:
        return ""
    return f"the header promises {promised} bytes, the file has {found}"


def with_size(data: bytes) -> bytes:
    """Write the missing length into the header of an AU or AIFF file; other data comes back unchanged."""
    if data[:4] in (b".snd", b"dns."):
        return data[:8] + b"\xff\xff\xff\xff" + data[12:]  # to the end of the file
    start = data.find(b"SSND") + 4  # of the size of the samples' chunk
    if data[:4] != b"FORM" or start < 4:
        return data
    return data[:start] + struct.pack(">I", len(data) - start - 4) + data[start + 4 :]
