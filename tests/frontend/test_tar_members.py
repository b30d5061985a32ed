"""Recordings in tar files: the same samples as from a file, and damage that is named."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.batching.digests import audio_digests
from asr.errors import AudioError
from asr.frontend import tar_members
from asr.frontend.audio import audio_info, read_audio
from asr.frontend.tar_members import audio_file, is_member, read_member, tar_of
from asr.manifests.utterance import Utterance


def pack(tar: Path, *files: Path) -> list[Path]:
    """A tar file of these; where each is in it."""
    with tarfile.open(tar, "w") as archive:
        for file in files:
            archive.add(file, file.name)
    with tarfile.open(tar) as archive:
        return [tar.with_name(f"{tar.name}:{one.offset_data}:{one.size}") for one in archive]


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_same_samples_as_the_file(name: str, tmp_path: Path) -> None:
    """Guards each decoder, FFmpeg's among them, and parts of a recording."""
    samples = 0.1 * np.random.default_rng(0).standard_normal(12_000)
    soundfile.write(tmp_path / name, samples, 16_000)
    soundfile.write(tmp_path / "b.wav", -samples, 8000)
    member, other = pack(tmp_path / "x.tar", tmp_path / name, tmp_path / "b.wav")
    part = {"offset_s": 0.1, "duration_s": 0.3}
    assert torch.equal(read_audio(member, 16_000), read_audio(tmp_path / name, 16_000))
    assert torch.equal(read_audio(member, 8000, **part), read_audio(tmp_path / name, 8000, **part))
    assert audio_info(other).sample_rate == 8000
    utterances = [
        Utterance(id=path.name, audio_filepath=path, duration=0.7, text="")
        for path in (member, tmp_path / name)
    ]
    digests = audio_digests(tmp_path / "cache", utterances)
    assert digests[member] == digests[tmp_path / name]  # the same features, cached once


def test_names(tmp_path: Path) -> None:
    """Guards files that are called almost so."""
    assert (tar_of("a/b.tar:0:10"), tar_of("a.tar"), tar_of("a.tar:x:1"), tar_of("b.tar:1:2.wav")) == (
        "a/b.tar", "", "", "",
    )  # fmt: skip
    assert audio_file(tmp_path / "b.tar:0:10") == tmp_path / "b.tar"
    assert audio_file(tmp_path / "b.wav") == tmp_path / "b.wav"
    assert not is_member(tmp_path / "b.tar:0" / "c.wav")


def test_damage_is_named(tmp_path: Path) -> None:
    """Guards a tar file that was cut short, does not exist, or was replaced while it was open."""
    (tmp_path / "a.txt").write_bytes(b"0123456789")
    (member,) = pack(tmp_path / "x.tar", tmp_path / "a.txt")
    assert read_member(member) == b"0123456789"
    os.replace(tmp_path / "a.txt", tmp_path / "b.txt")
    (tmp_path / "b.txt").write_bytes(b"abcdefghij")
    os.unlink(tmp_path / "x.tar")
    pack(tmp_path / "x.tar", tmp_path / "b.txt")
    assert read_member(member) == b"abcdefghij"
    with pytest.raises(AudioError, match=r"Invalid data|not a readable audio file"):
        read_audio(member, 16_000)
    with (tmp_path / "x.tar").open("rb+") as file:
        file.truncate(515)
    with pytest.raises(AudioError, match=r"x\.tar:\d+:10: the tar file has 515 bytes\. Expected a recording"):
        read_audio(member, 16_000)
    with pytest.raises(AudioError, match=r"y\.tar:0:10: cannot be read: No such file"):
        read_audio(tmp_path / "y.tar:0:10", 16_000)


def test_tar_file_stays_open_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards two threads that open a tar file at once: of two objects one is kept, the other closed early."""
    (tmp_path / "a.txt").write_bytes(b"0123456789")
    (member,) = pack(tmp_path / "x.tar", tmp_path / "a.txt")
    monkeypatch.setattr(tar_members, "_open", lambda path, size, changed_ns: tar_members._Tar(path, size))
    assert read_member(member) == b"0123456789"
