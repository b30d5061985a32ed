"""Downloads from a server that misbehaves, on this machine's own loopback."""

import errno
import hashlib
import io
import logging
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from asr import progress
from asr.corpora import download
from asr.corpora.download import Archive, fetch, fetch_all
from asr.corpora.unpack import unpack
from asr.errors import DownloadError
from asr.files import locked
from asr.progress import size_text


def _tar(**members: bytes) -> bytes:
    """A tar.gz of these files; keyword "a__b" is the path a/b."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# Long enough to break off in the middle: these bytes do not compress.
_SOUND = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(3000))
_CORPUS = _tar(corpus__part__a=_SOUND, corpus__LICENSE=b"free")


class _Request(NamedTuple):
    path: str
    range: str | None


class _Server(ThreadingHTTPServer):
    """Serves `content`; `cut` ends each reply after so many bytes, once for each entry."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = _CORPUS
        self.cut: list[int] = []
        self.ranges = True
        self.tell_length = True
        self.requests: list[_Request] = []

    def url(self, name: str = "corpus.tar.gz") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.requests.append(_Request(self.path, wanted))
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        content = b"<html>sorry</html>" if self.path.startswith("/other") else server.content
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.tell_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = server.cut.pop(0) if server.cut else len(content)
        self.wfile.write(content[start : start + end])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """A server in a thread; no pauses, and no proxy between it and the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _archive(server: _Server, **changes: Any) -> Archive:
    fields: dict[str, Any] = {
        "name": "corpus.tar.gz",
        "unpacks_to": "corpus/part",
        "url": server.url(),
        "licence": "CC0",
        "sha256": hashlib.sha256(_CORPUS).hexdigest(),
        "size_bytes": len(_CORPUS),
    }
    return Archive(**(fields | changes))


def test_fetch_then_nothing_more_to_fetch(
    server: _Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards a whole download, the log before the first byte, and a second call, which requests nothing."""
    with caplog.at_level(logging.INFO, logger="asr"):
        folder = fetch(_archive(server), tmp_path / "data")
    assert folder == tmp_path / "data" / "corpus" / "part"
    assert (folder / "a").read_bytes() == _SOUND
    assert (tmp_path / "data" / "corpus" / "LICENSE").read_bytes() == b"free"
    first = caplog.messages[0]
    for words in ("corpus.tar.gz", size_text(len(_CORPUS)), "licence CC0", server.url()):
        assert words in first
    assert "corpus.tar.gz: sha256 verified" in caplog.messages
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["corpus"]  # no archive, no litter
    assert fetch(_archive(server), tmp_path / "data") == folder
    assert len(server.requests) == 1


def test_broken_connection_is_taken_up_where_it_ended(server: _Server, tmp_path: Path) -> None:
    """Guards the resumption within a call, twice, without a byte asked for twice."""
    server.cut = [30_000, 20_000]
    assert (fetch(_archive(server), tmp_path) / "a").read_bytes() == _SOUND
    assert [request.range for request in server.requests] == [None, "bytes=30000-", "bytes=50000-"]


def test_next_call_goes_on_from_what_a_former_one_kept(server: _Server, tmp_path: Path) -> None:
    """Guards the partial file of a call that gave up: a 30 GB archive must not start over."""
    server.cut = [30_000, 0]
    with pytest.raises(
        DownloadError,
        match=r"The 30 kB that were downloaded are kept for the next try",
    ):
        fetch(_archive(server), tmp_path)
    assert (tmp_path / "corpus.tar.gz.part").stat().st_size == 30_000
    server.requests.clear()
    assert (fetch(_archive(server), tmp_path) / "a").read_bytes() == _SOUND
    assert [request.range for request in server.requests] == ["bytes=30000-"]


def test_complete_part_is_not_asked_for_again(server: _Server, tmp_path: Path) -> None:
    """Guards a program killed between the last byte and the verification (a Range there gets HTTP 416)."""
    (tmp_path / "corpus.tar.gz.part").write_bytes(_CORPUS)
    fetch(_archive(server), tmp_path)
    assert server.requests == []


def test_server_that_cannot_resume(server: _Server, tmp_path: Path) -> None:
    """Guards against appending a whole file to half of one."""
    server.ranges = False
    (tmp_path / "corpus.tar.gz.part").write_bytes(_CORPUS[:20_000])
    assert (fetch(_archive(server), tmp_path) / "a").read_bytes() == _SOUND


@pytest.mark.parametrize("size_bytes", [0, len(_CORPUS)])
def test_part_that_is_longer_than_the_file(server: _Server, tmp_path: Path, size_bytes: int) -> None:
    """Guards a part of something else: the server answers 416 forever, and each call would fail."""
    (tmp_path / "corpus.tar.gz.part").write_bytes(bytes(2 * len(_CORPUS)))
    assert (fetch(_archive(server, size_bytes=size_bytes), tmp_path) / "a").read_bytes() == _SOUND


def test_wrong_checksum(server: _Server, tmp_path: Path) -> None:
    """Guards the message (expected and got) and that the next call starts from the first byte."""
    wrong = "0" * 64
    good = hashlib.sha256(_CORPUS).hexdigest()
    with pytest.raises(DownloadError, match=f"wrong sha256 checksum: expected {wrong}, got {good}"):
        fetch(_archive(server, sha256=wrong), tmp_path)
    assert list(tmp_path.iterdir()) == []
    fetch(_archive(server), tmp_path)
    assert [request.range for request in server.requests] == [None, None]


def test_md5_is_checked_where_there_is_no_sha256(server: _Server, tmp_path: Path) -> None:
    """Guards OpenSLR 31, for which only MD5 sums are published."""
    with pytest.raises(DownloadError, match="wrong md5 checksum: expected 00, got "):
        fetch(_archive(server, sha256="", md5="00"), tmp_path)
    fetch(_archive(server, sha256="", md5=hashlib.md5(_CORPUS, usedforsecurity=False).hexdigest()), tmp_path)


def test_archive_that_lies_there_is_verified(server: _Server, tmp_path: Path) -> None:
    """Guards a file that was put there by hand: used when right, deleted when wrong, never trusted."""
    (tmp_path / "corpus.tar.gz").write_bytes(_CORPUS[:-1] + b"x")
    with pytest.raises(DownloadError, match=r"corpus\.tar\.gz: wrong sha256 .* It was deleted"):
        fetch(_archive(server), tmp_path)
    (tmp_path / "corpus.tar.gz").write_bytes(_CORPUS)
    goal = fetch(_archive(server), tmp_path)
    assert (goal / "a").read_bytes() == _SOUND
    assert server.requests == []


def test_mirror_serves_when_the_first_address_fails(
    server: _Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards the mirrors, after a 404 and after a page of another size, and that the log names both."""
    archive = _archive(server, url=server.url("missing"), mirrors=(server.url("other"), server.url()))
    assert (fetch(archive, tmp_path) / "a").read_bytes() == _SOUND
    assert [request.path for request in server.requests] == ["/missing", "/other", "/corpus.tar.gz"]
    assert "HTTP 404" in caplog.text
    assert f"the server offers 18 bytes, expected {len(_CORPUS)}" in caplog.text


def test_all_addresses_fail(server: _Server, tmp_path: Path) -> None:
    """Guards the last message: each address with its reason, and what to do."""
    archive = _archive(server, url=server.url("missing1"), mirrors=("http://127.0.0.1:9/x", "nonsense"))
    with pytest.raises(DownloadError) as caught:
        fetch(archive, tmp_path)
    message = str(caught.value)
    assert "missing1: HTTP 404" in message
    assert "http://127.0.0.1:9/x: " in message
    assert "nonsense: unknown url type" in message
    assert message.endswith("a copy of your own and name it as --data.root.")


def test_unknown_size_and_checksum_are_said(
    server: _Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a check that is skipped silently; GitHub's archives have no length either."""
    server.tell_length = False
    fetch(_archive(server, sha256="", size_bytes=0), tmp_path / "a")
    assert "no published checksum is known, so neither content nor size can be checked" in caplog.text
    fetch(_archive(server, sha256=""), tmp_path / "b")
    assert "no published checksum is known, so only its size is checked" in caplog.text


@pytest.mark.parametrize("name", ["../x", "corpus/part/../../../x", "/x", "corpus\\..\\x"])
def test_unsafe_path_is_refused(server: _Server, tmp_path: Path, name: str) -> None:
    """Guards against an archive that writes outside its folder (CVE-2007-4559)."""
    content = _tar(**{"corpus__part__a": b"1", name.replace("/", "__"): b"2"})
    server.content = content
    archive = _archive(server, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    with pytest.raises(DownloadError, match="unsafe path in the archive"):
        fetch(archive, tmp_path / "data")
    assert [p.name for p in tmp_path.rglob("*")] == ["data", "corpus.tar.gz"]  # nothing was unpacked


def test_link_is_refused(server: _Server, tmp_path: Path) -> None:
    """Guards against a link out of the folder through which the next member is written."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        link = tarfile.TarInfo("corpus/part")
        link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
        tar.addfile(link)
    server.content = buffer.getvalue()
    with pytest.raises(DownloadError, match="'corpus/part' is a link or a device"):
        fetch(_archive(server, sha256="", size_bytes=0), tmp_path)


@pytest.mark.parametrize("damage", [_CORPUS[:50_000], _CORPUS[:-6] + b"xxxxxx", b"<html>sorry</html>"])
def test_damaged_archive(server: _Server, tmp_path: Path, damage: bytes) -> None:
    """Guards an archive without a checksum: cut off, with a wrong CRC, or no archive at all."""
    server.content = damage
    with pytest.raises(DownloadError, match=r"the archive is damaged: .* It was deleted"):
        fetch(_archive(server, sha256="", size_bytes=0), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_archive_of_something_else(server: _Server, tmp_path: Path) -> None:
    """Guards against calling a corpus complete that is not there."""
    with pytest.raises(DownloadError, match="holds no folder corpus/other"):
        fetch(_archive(server, unpacks_to="corpus/other"), tmp_path)


def test_archive_without_a_folder_of_its_own(server: _Server, tmp_path: Path) -> None:
    """Members that lie in no folder get one, instead of being strewn over the data folder."""
    server.content = _tar(**{".__yes__a.wav": _SOUND, "README": b"free"})
    digest = hashlib.sha256(server.content).hexdigest()
    size = len(server.content)
    goal = fetch(_archive(server, unpacks_to="words", flat=True, sha256=digest, size_bytes=size), tmp_path)
    assert goal == tmp_path / "words"
    assert (goal / "yes" / "a.wav").read_bytes() == _SOUND
    assert (goal / "README").read_bytes() == b"free"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["words"]


def test_folder_of_the_user_is_not_touched(server: _Server, tmp_path: Path) -> None:
    """Guards files that this program did not make against being taken for the corpus, or overwritten."""
    (tmp_path / "corpus" / "part").mkdir(parents=True)
    with pytest.raises(DownloadError, match=r"the folder exists.*Name it as --data\.root"):
        fetch(_archive(server), tmp_path)
    assert server.requests == []


def test_disk_that_is_too_small_is_found_before_the_first_byte(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards against finding out after hours."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(_CORPUS)))
    with pytest.raises(DownloadError, match=r"96 kB are free, but corpus\.tar\.gz needs 193 kB"):
        fetch(_archive(server), tmp_path)
    assert server.requests == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full of Linux")
def test_disk_full_in_the_middle(server: _Server, tmp_path: Path) -> None:
    """Guards one clear message instead of a traceback, no try at the mirrors, and the part that stays."""
    part = tmp_path / "corpus.tar.gz.part"
    part.symlink_to("/dev/full")
    with pytest.raises(DownloadError, match=r"the disk is full\..*What was downloaded is kept: make room"):
        fetch(_archive(server, mirrors=(server.url(),)), tmp_path)
    assert part.is_symlink()
    assert len(server.requests) == 1


def test_folder_that_cannot_be_written(server: _Server, tmp_path: Path) -> None:
    """Guards a data folder whose name is taken by a file."""
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"data: (File exists|Not a directory)\. Expected a folder"):
        fetch(_archive(server), tmp_path / "data")


def test_progress_is_transient(
    server: _Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the console: lines that are to be overwritten must say so, all others must stay."""
    monkeypatch.setattr(progress, "_REPORT_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, logger="asr"):
        fetch(_archive(server), tmp_path)
    passing = [r.getMessage() for r in caplog.records if getattr(r, "transient", False)]
    staying = [r.getMessage() for r in caplog.records if not getattr(r, "transient", False)]
    assert any(" (100 %), " in line and line.startswith("corpus.tar.gz: 96 kB of 96 kB") for line in passing)
    assert [line.split()[0] for line in staying] == ["Downloading", "corpus.tar.gz:", "corpus.tar.gz:"]


def test_two_at_once_fetch_once(server: _Server, tmp_path: Path) -> None:
    """Guards the ranks of torchrun, which all want the corpus: they would write into one file together."""
    archive = _archive(server)
    with ThreadPoolExecutor(4) as pool:
        goals = list(pool.map(lambda _: fetch(archive, tmp_path), range(4)))
    assert goals == [tmp_path / archive.unpacks_to] * 4
    assert (goals[0] / ".completed").is_file()
    assert len(server.requests) == 1


def test_waiting_for_another_process_is_logged(
    server: _Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against a rank that waits for hours without a word, and one that does not wait."""
    archive = _archive(server)
    with caplog.at_level(logging.INFO, logger="asr"), ThreadPoolExecutor(1) as pool:
        with locked(download._lock(archive, tmp_path)):
            result = pool.submit(fetch, archive, tmp_path)
            while "corpus.tar.gz: another process downloads it; waiting" not in caplog.messages:
                assert not result.done()
            assert server.requests == []
        result.result()
    assert len(server.requests) == 1


def _zip(members: dict[str, bytes], link: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def _deb(data: bytes, name: str = "data.tar.gz") -> bytes:
    """A Debian package: an archive of ar with a member of an odd size before the data."""
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": b"odd", name: data}
    members = b""
    for key, content in parts.items():
        header = f"{key:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        members += header + content + b"\n" * (len(content) % 2)
    return b"!<arch>\n" + members


def test_zip_and_debian_package(tmp_path: Path) -> None:
    """Archives of other kinds, whose members are in place and whose bytes are the same."""
    (tmp_path / "a.zip").write_bytes(_zip({"corpus/part/a": _SOUND, "corpus/empty/": b""}))
    unpack(tmp_path / "a.zip", tmp_path / "zip")
    assert (tmp_path / "zip/corpus/part/a").read_bytes() == _SOUND
    assert (tmp_path / "zip/corpus/empty").is_dir()
    (tmp_path / "a.deb").write_bytes(_deb(_CORPUS))
    unpack(tmp_path / "a.deb", tmp_path / "deb")
    assert (tmp_path / "deb/corpus/part/a").read_bytes() == _SOUND


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", _zip({"../x": b""}), r"unsafe path in the archive: '\.\./x'"),
        ("a.zip", _zip({"/x": b""}), r"unsafe path in the archive: '/x'"),
        ("a.zip", _zip({}, link="x"), "'x' is a link or a device"),
        ("a.zip", _zip({"x": _SOUND})[:-30], r"the archive is damaged: .* It was deleted"),
        (
            "a.zip",
            _zip({"x": _SOUND}).replace(_SOUND[:8], b"8 others", 1),
            "the archive is damaged: Bad CRC-32",
        ),
        ("a.deb", _deb(_tar(**{"..__x": b""})), r"unsafe path in the archive: '\.\./x'"),
        ("a.deb", _deb(_CORPUS)[:-3000], "the archive is damaged: the file ends within data.tar"),
        ("a.deb", _deb(b"", "other"), "the archive is damaged: no data.tar in it"),
        ("a.deb", _deb(b"", "data.tar.zst"), r"compressed with zstd.*dpkg-deb -x"),
    ],
)
def test_bad_zip_and_debian_package(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    """An archive that writes outside of its folder, that makes links, or that is half there."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DownloadError, match=message):
        unpack(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "x").exists()


def test_offline(server: _Server, tmp_path: Path) -> None:
    """A cluster without a network: what to put where is named, and it is used and kept once it is there."""
    archive = _archive(server, folder="below")
    with pytest.raises(DownloadError) as caught:
        fetch(archive, tmp_path, offline=True)
    message = str(caught.value)
    target = tmp_path / "below" / "corpus.tar.gz"
    for words in (str(target), server.url(), "licence CC0", f"sha256 {archive.sha256}", "96 kB", "--offline"):
        assert words in message
    assert not target.parent.exists()
    target.parent.mkdir()
    target.write_bytes(_CORPUS[:-9])  # it is still being copied
    with pytest.raises(DownloadError, match=r"it has \d+ bytes, expected \d+\. .* Put it there\."):
        fetch(archive, tmp_path, offline=True)
    with pytest.raises(DownloadError, match=r"the archive is damaged: .*\. Put a whole one there\."):
        fetch(_archive(server, folder="below", sha256="", size_bytes=0), tmp_path, offline=True)
    target.write_bytes(_CORPUS)
    folder = fetch(archive, tmp_path, offline=True)
    assert folder == tmp_path / "below" / "corpus" / "part"
    assert (folder / "a").read_bytes() == _SOUND
    assert target.is_file()  # it is the user's
    assert server.requests == []
    assert fetch(archive, tmp_path, offline=True) == folder


def test_all_that_is_missing_offline(server: _Server, tmp_path: Path) -> None:
    """A cluster without a network, where each try names one more file to fetch."""
    names = ("a.tar.gz", "b.tar.gz", "c.tar.gz", "d.tar.gz")
    archives = [_archive(server, name=name, unpacks_to=name[0]) for name in names]
    (tmp_path / "b.tar.gz").write_bytes(_CORPUS)
    with pytest.raises(
        DownloadError, match=r"a\.tar\.gz: does not .* Missing, too: c\.tar\.gz, d\.tar\.gz\.$"
    ):
        fetch_all(archives, tmp_path, offline=True)
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar.gz"]


def test_file_that_is_kept_as_it_is(server: _Server, tmp_path: Path) -> None:
    """A list of transcripts beside the archives: neither unpacked nor fetched twice."""
    archive = _archive(server, unpacks_to="")
    assert fetch(archive, tmp_path) == tmp_path / "corpus.tar.gz"
    assert fetch(archive, tmp_path).read_bytes() == _CORPUS
    assert len(server.requests) == 1


def test_all_archives_have_to_fit(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full after the third of seven archives, a day later."""
    parts = [_archive(server, name=f"{n}.tar.gz", folder=str(n)) for n in range(3)]
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 * len(_CORPUS) + 9))
        with pytest.raises(DownloadError, match=r"193 kB are free, but 3 archives need 289 kB"):
            fetch_all(parts, tmp_path)
        assert server.requests == []
    with caplog.at_level(logging.INFO, logger="asr"):
        fetch_all(parts, tmp_path)
    assert caplog.messages[0] == "3 archives to download: 289 kB"
    assert [(tmp_path / str(n) / "corpus/part/a").read_bytes() for n in range(3)] == [_SOUND] * 3


def test_file_system_without_locks(
    server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A shared disk on which a download fails because it has no locks, or goes on without a word."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("asr.files.fcntl.flock", refuse)
    fetch(_archive(server), tmp_path)
    assert "the file system has no locks (No locks available): start one process alone" in caplog.text
