"""Text files in, blocks of lines out: one sentence a line, in UTF-8, plain or compressed.

gzip, xz and bzip2 are recognised by their first bytes; `-` is the standard input. Of a manifest (JSON Lines
with `text`) the transcripts are the lines. Only a block of text is in memory.
"""

import bz2
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast

from asr.errors import DataError
from asr.files import check_text, not_utf8

__all__ = ["COMPRESSION_ERRORS", "decompressed", "read_blocks"]

_BLOCK = 1 << 22
COMPRESSION_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


def _open(path: Path) -> AbstractContextManager[io.BufferedReader]:
    if str(path) == "-":
        return nullcontext(cast(io.BufferedReader, sys.stdin.buffer))
    return open(path, "rb")


def decompressed(raw: io.BufferedReader) -> io.BufferedReader | gzip.GzipFile | lzma.LZMAFile | bz2.BZ2File:
    """A file's content, decompressed if its first bytes are those of gzip, xz or bzip2."""
    magic = raw.peek(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(raw)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    return raw


def read_blocks(
    paths: Iterable[Path], progress: Callable[[Path, int], None] | None = None
) -> Iterator[tuple[bytes, Path, int]]:
    """Blocks of whole lines of text files, checked to be UTF-8; of manifests, of their transcripts.

    Args:
        paths: the files; `-` is the standard input.
        progress: called with the file and the bytes of it that have been read (compressed bytes, if it is).

    Yields:
        Some lines, the last with its line feed; the file; the number of the first line.

    Raises:
        DataError: a file cannot be read, is damaged or not UTF-8, or a line of a manifest has no text.
    """
    for path in paths:
        number, rest, manifest = 1, b"", False
        try:
            with _open(path) as raw:
                file = decompressed(raw)
                while block := file.read(_BLOCK):
                    if progress is not None:
                        progress(path, raw.tell() if raw.seekable() else 0)
                    lines, feed, tail = block.rpartition(b"\n")
                    if not feed:
                        rest += block
                        continue
                    lines, rest = rest + lines + feed, tail
                    if number == 1:
                        lines = lines.removeprefix(b"\xef\xbb\xbf")
                        manifest = _is_manifest(lines)
                    yield _checked(lines, path, number, manifest), path, number
                    number += lines.count(b"\n")
            if number == 1:
                rest = rest.removeprefix(b"\xef\xbb\xbf")
                manifest = _is_manifest(rest)
            if rest:
                yield _checked(rest + b"\n", path, number, manifest), path, number
        except FileNotFoundError:
            raise DataError(
                f"{path} does not exist. A text file, one sentence a line, was expected."
            ) from None
        except COMPRESSION_ERRORS as error:
            raise DataError(f"{path} is damaged: {error}. Copy or make the file again.") from None
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror or error}. A text file was expected."
            ) from None


def _is_manifest(lines: bytes) -> bool:
    """Whether the first line is an object of JSON with a text, which nobody writes as a sentence."""
    try:
        row = json.loads(lines.split(b"\n", 1)[0])
    except ValueError:
        return False
    return isinstance(row, dict) and "text" in row


def _transcripts(lines: bytes, path: Path, number: int) -> bytes:
    texts = []
    for line in lines.splitlines():
        try:
            text = json.loads(line)["text"] if line.strip() else ""
            texts.append(" ".join(text.split()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{path} line {number + len(texts)}: no JSON object with a text, as the first line is. A "
                "manifest, or a text of one sentence a line, was expected."
            ) from None
    return "".join(f"{text}\n" for text in texts).encode()


def _checked(lines: bytes, path: Path, number: int, manifest: bool) -> bytes:
    if number == 1 and lines.lstrip().startswith(b"\\data\\"):
        raise DataError(
            f"{path} is a language model in ARPA format. Text, one sentence a line, was expected."
        )
    if number == 1:
        check_text(lines, path)
    try:
        lines.decode("utf-8")
    except UnicodeDecodeError as error:
        number += lines.count(b"\n", 0, error.start)
        raise DataError(
            f"{path} line {number}: the byte 0x{lines[error.start]:02x} is not UTF-8. UTF-8 was "
            f"expected. {not_utf8(lines, error.start, str(path))}"
        ) from None
    return _transcripts(lines, path, number) if manifest else lines
