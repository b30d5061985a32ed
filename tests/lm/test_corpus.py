"""Text in: what is a word, what is a line, and what is said about files that are not text."""

import gzip
import io
import lzma
import sys
from pathlib import Path

import numpy as np
import pytest

from asr.errors import DataError
from asr.lm.corpus import Symbols, read_blocks


def encode(text: str, unit: str = "word", block: int | None = None) -> tuple[list[str], Symbols]:
    symbols = Symbols(unit)  # type: ignore[arg-type]
    lines = text.encode().splitlines(keepends=True)
    blocks = lines if block else [b"".join(lines)]
    ids = np.concatenate([symbols.encode(part) for part in blocks])
    names = symbols.names()
    return [names[number] for number in ids], symbols


def test_words_are_what_white_space_parts() -> None:
    """Tabs, runs of spaces, carriage returns and form feeds that become part of words."""
    found, symbols = encode(" the\tcat \r\n\n  \nthe\x0c\u00e9t\u00e9 d'\u00e9t\u00e9\n")
    assert found == ["<s>", "the", "cat", "</s>", "<s>", "the", "\u00e9t\u00e9", "d'\u00e9t\u00e9", "</s>"]
    assert (symbols.sentences, symbols.empty_lines) == (2, 2)


def test_characters_keep_one_space() -> None:
    """Spaces at a line's ends, or two in a row, that a decoder never writes."""
    found, symbols = encode("  ab  \u00e9\t\n\n", "character")
    assert found == ["<s>", "a", "b", " ", "\u00e9", "</s>"]
    assert (symbols.sentences, symbols.empty_lines) == (1, 1)
    assert " " in encode("ab\n", "character")[1].names()


def test_many_words_keep_their_ids() -> None:
    """The hash table grows while ids are given: 30,000 words, twice, in blocks of a line."""
    words = [f"w{i * 7919 % 30000}" for i in range(60000)]
    found, symbols = encode("".join(f"{word}\n" for word in words), block=1)
    assert found[1::3] == words
    assert len(symbols) == 3 + 30000


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_packed_text_is_unpacked(tmp_path: Path, pack: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files known by their names only, and lines that are cut where blocks end."""
    monkeypatch.setattr("asr.lm.corpus._BLOCK", 5)
    path = tmp_path / "text"
    path.write_bytes(pack(b"\xef\xbb\xbfone two three\nfour\n\nfive"))
    blocks = list(read_blocks([path]))
    assert b"".join(block for block, _, _ in blocks) == b"one two three\nfour\n\nfive\n"
    assert [number for _, _, number in blocks] == sorted({number for _, _, number in blocks})


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is the standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"a b\n"))))
    assert [block for block, _, _ in read_blocks([Path("-")])] == [b"a b\n"]


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    """Each message has file and line."""
    latin, cut = tmp_path / "latin.txt", tmp_path / "cut.gz"
    latin.write_bytes(b"one\ntwo\n\xe9t\xe9\n")
    cut.write_bytes(gzip.compress(b"one two\n" * 9999)[:-20])
    for path, message in (
        (latin, r"latin.txt line 3: the byte 0xe9 is not UTF-8"),
        (cut, r"cut.gz is damaged: "),
        (tmp_path / "none", r"none does not exist"),
        (tmp_path, r"cannot be read: Is a directory"),
    ):
        with pytest.raises(DataError, match=message):
            list(read_blocks([path]))


@pytest.mark.parametrize("text", ["the cat\n", "the cat"])
def test_a_byte_order_mark_is_no_letter(tmp_path: Path, text: str) -> None:
    """A mark that survives in a file without a line feed, and makes its first word another one."""
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    [(block, _, _)] = read_blocks([tmp_path / "text.txt"])
    assert block == b"the cat\n"
