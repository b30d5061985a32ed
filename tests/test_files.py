"""Files: whole or not at all, digests by content, one process at a time."""

import gzip
import json
import multiprocessing
import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.errors import DataError, ModelError
from asr.files import (
    atomic_path,
    encoding_of,
    file_digest,
    json_line,
    locked,
    make_writable,
    not_utf8,
    read_lines,
    weights_digest,
    write_atomically,
    write_text,
)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_interrupted_writing(error: type[BaseException], tmp_path: Path) -> None:
    """Guards Ctrl-C while saving: it is passed on, the old file stays, and no half file is left."""

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write failed")])
def test_errors_name_the_file(error: Exception, tmp_path: Path) -> None:
    """Guards against a traceback of torch's: both of its kinds of a full disk are one message."""

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    path = tmp_path / "new folder" / "a"
    with pytest.raises(
        ModelError, match=f"a: cannot be written: .*{error.args[-1]}. Free some space"
    ) as caught:
        write_atomically(path, write)
    assert "unharmed" not in str(caught.value)
    path.write_text("old")
    with pytest.raises(ModelError, match="The file that was there before is unharmed"):
        write_atomically(path, write)
    assert list(path.parent.iterdir()) == [path]


def test_the_name_appears_last(tmp_path: Path) -> None:
    """Guards readers: until the block ends they see the old file, whole."""
    path = tmp_path / "a"
    path.write_text("old")
    with atomic_path(path) as temporary, temporary.open("w") as file:
        file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_file_digest(tmp_path: Path) -> None:
    """Guards a key by content: `sha256sum` gives the same, a path does not count, no file is ""."""
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(None) == ""
    with pytest.raises(DataError, match="b: cannot be read: No such file"):
        file_digest(tmp_path / "b")


def test_weights_digest_in_any_order() -> None:
    """Guards against a key that depends on the order of modules; names, shapes and types count."""
    weights = {"a": torch.arange(4.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    same = weights_digest(weights)
    assert weights_digest(dict(reversed(weights.items()))) == same
    for other in ({"a": torch.arange(4.0).view(2, 2)}, {"b": torch.ones(2)}, {"c": torch.ones(1)}):
        assert weights_digest({**weights, **other}) != same


def _hold(path: Path, release: Path) -> None:
    with locked(path):
        path.with_suffix(".held").touch()
        while not release.exists():
            time.sleep(0.01)
        path.with_suffix(".held").unlink()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """Guards a cache that two processes fill: the second waits, says so once, and goes on; a killed
    process holds nothing."""
    path, release, waited = tmp_path / "lock", tmp_path / "release", []

    def wait() -> None:
        waited.append(1)
        release.touch()

    for killed in (False, True):
        other = multiprocessing.get_context("fork").Process(target=_hold, args=(path, release))
        other.start()
        while not path.with_suffix(".held").exists():
            time.sleep(0.01)
        if killed:
            assert other.pid is not None
            os.kill(other.pid, 9)
            other.join()
            path.with_suffix(".held").unlink()
        with locked(path, wait):
            assert not path.with_suffix(".held").exists()
        other.join()
        release.unlink(missing_ok=True)
    assert waited == [1]


def test_lines_of_text(tmp_path: Path) -> None:
    """Lines cut where only Python sees an end, or that keep a carriage return or a byte order mark."""
    path = tmp_path / "a.txt"
    for content, lines in (
        (b"\xef\xbb\xbfa b\r\n\nc\xe2\x80\xa8d\x0ce", ["a b", "", "c\u2028d\x0ce"]),
        (b"a\n", ["a"]),
        (b"\n", [""]),
        (b"", []),
    ):
        path.write_bytes(content)
        assert read_lines(path) == lines
    path.write_bytes(b"a\nb\xe4\n")
    with pytest.raises(DataError, match=r"a\.txt line 2: byte 0xe4, number 2 of the line is not UTF-8"):
        read_lines(path)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_lines(tmp_path)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("äb".encode("utf-16"), "UTF-16"),
        ("ab\n".encode("utf-16-le"), "UTF-16LE"),
        ("ab\n".encode("utf-16-be"), "UTF-16BE"),
        ("ab\n".encode("utf-32"), "UTF-32"),
    ],
)
def test_wide_encodings_are_named(content: bytes, name: str, tmp_path: Path) -> None:
    """Text of Windows that is read as letters with zeros between them, or called Latin-1."""
    path = tmp_path / "it's a.txt"
    path.write_bytes(content)
    assert encoding_of(content) == name
    with pytest.raises(DataError) as caught:
        read_lines(path)
    message = str(caught.value)
    assert f"a.txt is {name}. Expected UTF-8 text. Convert it: iconv -f {name} -t UTF-8 " in message
    assert shlex.quote(str(path)) in message


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (gzip.compress(b"a b"), "compressed with gzip. Expected UTF-8 text. Decompress it: gunzip "),
        (b"PK\x03\x04\x14\0\x06", "a zip archive or a document of an office program"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0", "a sound file"),
    ],
    ids=["gzip", "zip", "pdf", "wav"],  # gzip's bytes hold the time: without, names differ by process
)
def test_what_is_no_text(content: bytes, name: str, tmp_path: Path) -> None:
    """A document or a compressed file that is called UTF-16, with a command that makes nonsense of it."""
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"a.txt is {name}"):
        read_lines(path)


def test_code_pages_are_shown() -> None:
    """A remedy that is wrong for half of the world: the reader sees which code page is his."""
    assert encoding_of(b"plain \xfctext") == ""
    remedy = not_utf8("слово".encode("cp1251"), 0)
    assert "'слово' in WINDOWS-1251" in remedy
    assert "iconv -f NAME -t UTF-8" in remedy


def test_lock_that_leaves_nothing(tmp_path: Path) -> None:
    """Locks that remain in a shared folder; two processes that hold locks on two files of one name."""
    path = tmp_path / "lock"
    holders: list[int] = []

    def hold(number: int) -> None:
        with locked(path, remove=True):
            holders.append(number)
            time.sleep(0.005)
            assert holders[-1] == number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, range(40)))
    assert sorted(holders) == list(range(40))
    assert not path.exists()


def test_a_lock_that_is_deleted_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process deletes the file between the lock and a look at its name: no error, but another try."""
    path = tmp_path / "lock"
    left = [2]

    def stat(self: Path, **options: Any) -> os.stat_result:
        if self == path and left[0]:
            left[0] -= 1
            self.unlink(missing_ok=True)
        return os.stat(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    with locked(path):
        assert left == [0]
        assert path.is_file()


@pytest.mark.parametrize("has_name", [True, False])
def test_a_full_disk_names_the_file(has_name: bool, tmp_path: Path) -> None:
    """An error without a file, as of a full disk, or with the temporary one, which is deleted."""
    path = tmp_path / "a"
    with pytest.raises(OSError, match="No space") as caught, atomic_path(path) as temporary:
        raise OSError(28, "No space left on device", *([str(temporary)] if has_name else []))
    assert caught.value.filename == str(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards hours of work: a folder that exists and takes no file is found before them."""
    make_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []

    def read_only(dir: Path) -> None:
        raise OSError(30, "Read-only file system", str(dir / "tmp1234"))

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(OSError, match="Read-only") as caught:
        make_writable(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_text_with_half_a_character(tmp_path: Path) -> None:
    """Guards names of files that are not UTF-8: an error after an hour, or a file cut in the middle."""
    path = tmp_path / "a.jsonl"
    write_text(path, map(json_line, [{"id": "ä\udce4"}, {"id": "b"}]))
    assert path.read_text("utf-8") == '{"id": "ä\\udce4"}\n{"id": "b"}\n'
    assert [json.loads(line)["id"] for line in read_lines(path)] == ["ä\udce4", "b"]
    write_text(path, "text\n")
    assert [*tmp_path.iterdir()] == [path]


def test_text_for_a_pipe(tmp_path: Path) -> None:
    """Guards --results /dev/stdout and the like: a rename would put a file in the place of the pipe."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(path, ["a\n", "b\n"])
        assert os.read(reader, 100) == b"a\nb\n"
    finally:
        os.close(reader)
    assert path.is_fifo()
