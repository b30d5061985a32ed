"""Text files in: packed or plain, and one clear line about files that are not text."""

import gzip
import io
import json
import lzma
import sys
from pathlib import Path

import pytest

from asr.errors import DataError
from asr.lm.text_files import read_blocks


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_packed_text_is_unpacked(tmp_path: Path, pack: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files known by their names only, and lines that are cut where blocks end."""
    monkeypatch.setattr("asr.lm.text_files._BLOCK", 5)
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
    (tmp_path / "lm.arpa").write_text("\n\\data\\\nngram 1=3\n")
    cut.write_bytes(gzip.compress(b"one two\n" * 9999)[:-20])
    for path, message in (
        (latin, r"latin.txt line 3: the byte 0xe9 is not UTF-8"),
        (cut, r"cut.gz is damaged: "),
        (tmp_path / "lm.arpa", "is a language model in ARPA format. Text, "),
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


def test_transcripts_of_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A language model of the names of JSON's fields: `asr lm train train.jsonl`."""
    path = tmp_path / "train.jsonl"
    rows = [{"audio_filepath": "a.wav", "text": f"señor {number}\n o"} for number in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr("asr.lm.text_files._BLOCK", 100)
    found = [(block, number) for block, _, number in read_blocks([path])]
    assert b"".join(block for block, _ in found).decode() == "".join(f"señor {n} o\n" for n in range(30))
    assert [number for _, number in found] == sorted({number for _, number in found})
    assert len(found) > 1
    path.write_text(json.dumps(rows[0]))
    assert [block for block, _, _ in read_blocks([path])] == ["señor 0 o\n".encode()]
    path.write_text(json.dumps(rows[0]) + '\n{"audio_filepath": "b.wav"}\n')
    with pytest.raises(DataError, match=r"train.jsonl line 2: no JSON object with a text"):
        list(read_blocks([path]))
