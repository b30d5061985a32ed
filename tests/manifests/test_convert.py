"""Manifests for other toolkits: what comes back from them is what was given, and lhotse reads its own."""

import errno
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from asr.corpora.folder.reading import read_folder
from asr.errors import DataError
from asr.manifests.convert import Target, convert
from asr.manifests.manifest import read_manifest, write_manifest
from asr.manifests.utterance import Utterance
from tests.corpora.look_alikes import long_and_short


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    """Whole recordings, and parts of one."""
    long, short = long_and_short(tmp_path / "audio")
    return [
        Utterance(id="z", audio_filepath=short, duration=0.5, text='say "no", ок', speaker="ben"),
        Utterance(id="a 1", audio_filepath=long, duration=1.0, text="one", speaker="anna", offset=0.5),
        Utterance(id="a2", audio_filepath=long, duration=1.25, text="two", speaker="anna", offset=1.5),
    ]


@pytest.mark.parametrize("target", ["kaldi", "nemo", "csv"])
def test_there_and_back(target: Target, utterances: list[Utterance], tmp_path: Path) -> None:
    """Offsets, speakers or quotes that are lost on the way."""
    convert(utterances, target, tmp_path / "out")
    reading = read_folder(tmp_path / "out", {})
    found = [one for part in reading.splits.values() for one in part]
    wanted = utterances
    if target == "kaldi":
        names = {"z": "ben-z", "a 1": "anna-a_1", "a2": "anna-a2"}
        wanted = [replace(one, id=names[one.id]) for one in utterances]
    assert {one.id: one for one in found} == {one.id: one for one in wanted}


def test_kaldi_is_sorted(utterances: list[Utterance], tmp_path: Path) -> None:
    """Folders that Kaldi's validate_data_dir.sh refuses."""
    convert(utterances, "kaldi", tmp_path / "out")
    assert (tmp_path / "out/utt2spk").read_text() == "anna-a2 anna\nanna-a_1 anna\nben-z ben\n"
    assert (tmp_path / "out/spk2utt").read_text() == "anna anna-a2 anna-a_1\nben ben-z\n"
    for name in ("text", "segments", "wav.scp"):
        lines = (tmp_path / "out" / name).read_bytes().splitlines()
        assert lines == sorted(lines)
    spaces = tmp_path / "with spaces.wav"
    with pytest.raises(DataError, match="the path has spaces"):
        convert([replace(utterances[0], audio_filepath=spaces)], "kaldi", tmp_path / "out")


def test_lhotse(utterances: list[Utterance], tmp_path: Path) -> None:
    """Segments that lead to no recording, a length that is not the file's."""
    convert(utterances, "lhotse", tmp_path)
    recordings, supervisions = (
        [
            json.loads(line)
            for line in gzip.decompress((tmp_path / f"{name}.jsonl.gz").read_bytes()).splitlines()
        ]
        for name in ("recordings", "supervisions")
    )
    known = {row["id"]: row for row in recordings}
    assert [known[row["recording_id"]]["num_samples"] for row in supervisions] == [8000, 48000, 48000]
    assert [(row["start"], row["duration"], row["speaker"]) for row in supervisions] == [
        (0.0, 0.5, "ben"), (0.5, 1.0, "anna"), (1.5, 1.25, "anna"),
    ]  # fmt: skip
    assert {row["sampling_rate"] for row in recordings} == {16_000}


@pytest.mark.parametrize("target", ["kaldi", "nemo", "lhotse"])
def test_parts_of_tar_files(target: Target, utterances: list[Utterance], tmp_path: Path) -> None:
    """A path that only this project understands, in a list for another toolkit."""
    member = tmp_path / "0.tar:512:9924"
    with pytest.raises(DataError, match=r"utterance z: its recording is a part of 0\.tar"):
        convert([replace(utterances[0], audio_filepath=member)], target, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_manifest(tmp_path / "manifest.jsonl", [replace(utterances[0], audio_filepath=member)])
    with pytest.raises(DataError, match="a part of a tar file: the manifest can be used as it is"):
        read_folder(tmp_path, {})


def test_all_files_or_none(
    utterances: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of Kaldi with new segments and an old wav.scp, after the disk became full."""
    convert(utterances[:1], "kaldi", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name.startswith("wav.scp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="out: cannot be written: No space left on device"):
        convert(utterances, "kaldi", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_command(
    run: Callable[..., tuple[int, str, str]], utterances: list[Utterance], tmp_path: Path
) -> None:
    """The manifest itself as the file that is written."""
    write_manifest(tmp_path / "manifest.jsonl", utterances)
    status, out, _ = run(
        "corpus", "convert", tmp_path / "manifest.jsonl", "--to", "csv", "-o", tmp_path / "x"
    )
    assert status == 0
    assert out == f"3 utterances: {tmp_path / 'x' / 'manifest.csv'}\n"
    status, _, err = run("corpus", "convert", tmp_path / "manifest.jsonl", "--to", "nemo", "-o", tmp_path)
    assert status == 2
    assert "manifest.jsonl would be overwritten" in err
    assert read_manifest(tmp_path / "manifest.jsonl") == utterances
