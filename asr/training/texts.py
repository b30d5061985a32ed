"""Texts that a recurrent language model learns from."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from asr.errors import DataError
from asr.lm.text_files import read_blocks
from asr.text.normalize import normalize

__all__ = ["HELD_OUT_EVERY", "read_text", "text_digest"]

HELD_OUT_EVERY = 100  # lines: without a dev text, one of this many is held out


def read_text(paths: Sequence[Path], normalizer: str = "verbatim") -> list[str]:
    """The lines of text files that are not empty, normalised.

    Raises:
        DataError: a file cannot be read, or there is no text at all.
        SettingsError: the normalizer is unknown.
    """
    lines: list[str] = []
    for block, _, _ in read_blocks(paths):
        lines += [text for line in block.decode().split("\n") if (text := normalize(line, normalizer))]
    if not lines:
        raise DataError(
            f"no text in {', '.join(map(str, paths))}. Lines with at least one character were expected."
        )
    return lines


def text_digest(*texts: Sequence[str]) -> str:
    """A digest of texts: whether a run goes on with the same ones."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(b"\n\n")
        for line in text:
            digest.update(f"{line}\n".encode())
    return digest.hexdigest()
