"""Tar files of recordings: what webdataset would read, and what comes back through the manifest."""

import io
import json
import tarfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from asr.errors import AudioError, DataError
from asr.frontend.audio import read_audio
from asr.manifests import tar_files
from asr.manifests.manifest import read_manifest
from asr.manifests.tar_files import write_tar_files
from asr.manifests.utterance import Utterance
from tests.corpora.look_alikes import long_and_short, sound


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Whole recordings, and parts of one, of which one has a channel of its own."""
    long, short = long_and_short(tmp_path / "audio")
    return [
        Utterance(id="z.1", audio_filepath=short, duration=0.5, text="ναι", speaker="ben"),
        Utterance(id="a/1", audio_filepath=long, duration=1.0, text="one", speaker="anna", offset=0.5),
        Utterance(id="a2", audio_filepath=long, duration=1.25, text="two", offset=1.5, channel=0),
        Utterance(id="a3", audio_filepath=long, duration=3.0, text="all"),
    ]


def samples_of(path: Path) -> dict[str, dict[str, bytes]]:
    """The files of each sample by their endings, grouped as webdataset groups them: up to the first dot."""
    samples: dict[str, dict[str, bytes]] = defaultdict(dict)
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            key, _, ending = member.name.partition(".")
            samples[key][ending] = file.read()
    return samples


def test_there_and_back(utterances: list[Utterance], tmp_path: Path) -> None:
    """Guards audio, transcript and speaker of each utterance, by the manifest and as webdataset reads."""
    manifest = write_tar_files(utterances, tmp_path / "tars", tar_s=2.0)
    assert sorted(path.name for path in (tmp_path / "tars").iterdir()) == [
        "000000.tar", "000001.tar", "000002.tar", "manifest.jsonl",
    ]  # fmt: skip
    found = {one.id: one for one in read_manifest(manifest)}
    samples = {
        key: files for path in (tmp_path / "tars").glob("*.tar") for key, files in samples_of(path).items()
    }
    assert found.keys() == {one.id for one in utterances}
    for one in utterances:
        back = found[one.id]
        assert (back.text, back.speaker, back.duration, back.offset) == (
            one.text,
            one.speaker,
            one.duration,
            0,
        )
        wanted = read_audio(one.audio_filepath, 16_000, offset_s=one.offset, duration_s=one.duration)
        assert torch.allclose(read_audio(back.audio_filepath, 16_000), wanted, atol=1e-4)
        sample = samples[one.id.replace(".", "_").replace("/", "_")]
        assert sample["txt"].decode() == one.text
        assert json.loads(sample["json"])["id"] == one.id
        (audio,) = (data for ending, data in sample.items() if ending in ("wav", "flac"))
        assert len(soundfile.read(io.BytesIO(audio))[0]) == len(wanted)
    assert samples["z_1"]["flac"] == utterances[0].audio_filepath.read_bytes()  # whole ones are copied
    assert samples["a3"]["wav"] == utterances[3].audio_filepath.read_bytes()


def test_interrupted_start_goes_on(
    utterances: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards days of copying against a full disk: complete tar files stay, and are the same in the end."""
    whole = write_tar_files(utterances, tmp_path / "whole", tar_s=2.0)
    recording, left = tar_files._recording, 3

    def fails(utterance: Utterance) -> tuple[bytes, str, float]:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return recording(utterance)

    monkeypatch.setattr(tar_files, "_recording", fails)
    with pytest.raises(DataError, match="No space left"):
        write_tar_files(utterances, tmp_path / "tars", tar_s=2.0)
    kept = sorted((tmp_path / "tars").iterdir())
    assert kept
    assert all(path.suffix == ".tar" for path in kept)
    dates = [path.stat().st_mtime_ns for path in kept]
    left = 100
    manifest = write_tar_files(utterances, tmp_path / "tars", tar_s=2.0)
    assert [path.stat().st_mtime_ns for path in kept] == dates
    assert left == 100 - 4 + sum(len(samples_of(path)) for path in kept)
    assert manifest.read_bytes() == whole.read_bytes()
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "tars" / path.name).read_bytes() == path.read_bytes()
    sound(utterances[0].audio_filepath, 0.6)  # recorded again: what is finished is not taken for a part
    write_tar_files(utterances, tmp_path / "tars", tar_s=2.0)
    samples = [samples_of(path) for path in (tmp_path / "tars").glob("*.tar")]
    (again,) = (files["z_1"]["flac"] for files in samples if "z_1" in files)
    assert again == utterances[0].audio_filepath.read_bytes()


def test_what_cannot_be_written(utterances: list[Utterance], tmp_path: Path) -> None:
    """Guards samples that would be taken for one, and recordings that are in tar files already."""
    clash = [utterances[0], replace(utterances[0], id="z/1")]
    with pytest.raises(DataError, match="two utterances have the same id but for dots and slashes"):
        write_tar_files(clash, tmp_path / "clash")
    packed = read_manifest(write_tar_files(utterances, tmp_path / "tars"))
    with pytest.raises(AudioError, match=r"utterance .*: .*000000\.tar.* is in a tar file already"):
        write_tar_files(packed, tmp_path / "again")
