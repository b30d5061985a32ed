import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr.batching import cache, digests
from asr.batching.cache import FeatureCache, open_cache, read_waveform
from asr.errors import AudioError, DataError, TrainingError
from asr.frontend.augment import Conditions
from asr.frontend.features import FeatureConfig, log_mel
from asr.manifests.utterance import Utterance
from tests.conftest import no_space
from tests.training.conftest import FEATURES, write_tones

# On a machine with one core, torch warns that more loader processes are slow.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

SPEEDS = (0.9, 1.0, 1.1)
COMPUTE = cache._compute


def folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def stored(root: Path) -> tuple[bytes, bytes]:
    (folder,) = folders(root)
    return (folder / "index.jsonl").read_bytes(), (folder / "features.f32").read_bytes()


def assert_complete(
    opened: FeatureCache, utterances: Sequence[Utterance], speeds: Sequence[float] = (1.0,)
) -> None:
    for number, utterance in enumerate(utterances):
        for speed in speeds:
            waveform = read_waveform(utterance, FEATURES.sample_rate, Conditions(speed=speed))
            expected = log_mel(waveform.unsqueeze(0), FEATURES)[0]
            assert np.array_equal(opened.view(number, speed), expected.numpy()), utterance.id


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the utterances that are computed from now on in this process."""
    ids: list[str] = []

    def compute(utterance: Utterance, *arguments: Any) -> list[torch.Tensor]:
        ids.append(utterance.id)
        return COMPUTE(utterance, *arguments)

    monkeypatch.setattr(cache, "_compute", compute)
    return ids


def test_same_features_to_the_bit(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the stored frames against the computed ones, at once and when opened again."""
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)
    assert len(folders(tmp_path)) == 1


def test_opened_again_computes_nothing(
    tones: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the point of a cache, also in a folder that may only be read: no lock, and no audio is read."""
    open_cache(tmp_path, tones, FEATURES)
    for module, name in ((cache, "_compute"), (cache, "locked"), (digests, "_locked"), (digests, "_digest")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("not only read"))
    open_cache(tmp_path, tones, FEATURES)


def moved(utterances: Sequence[Utterance], folder: Path) -> list[Utterance]:
    """The same utterances with copies of their files, whose times differ."""
    folder.mkdir()
    copies = []
    for utterance in utterances:
        path = folder / f"copy-{utterance.audio_filepath.name}"
        shutil.copyfile(utterance.audio_filepath, path)
        os.utime(path, (1, 1))
        copies.append(replace(utterance, audio_filepath=path))
    return copies


def test_copied_to_another_machine(tones: list[Utterance], tmp_path: Path, computed: list[str]) -> None:
    """Guards hours of work against paths and times: only content counts, whatever the names."""
    open_cache(tmp_path / "here", tones, FEATURES, SPEEDS)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    copies = moved(tones, tmp_path / "audio")
    computed.clear()
    assert_complete(open_cache(tmp_path / "there", copies, FEATURES, SPEEDS), tones, SPEEDS)
    assert computed == []
    shutil.copyfile(copies[3].audio_filepath, copies[5].audio_filepath)
    changed = replace(copies[5], duration=copies[3].duration / 2)
    opened = open_cache(tmp_path / "there", [*copies[:5], changed, *copies[6:]], FEATURES, SPEEDS)
    assert computed == [changed.id]
    assert_complete(opened, [*copies[:5], changed], SPEEDS)


def test_another_utterance_is_one_more(tones: list[Utterance], tmp_path: Path, computed: list[str]) -> None:
    """Guards a manifest that grows, and manifests and speeds that overlap: what is there stays."""
    open_cache(tmp_path, tones[2:], FEATURES, (1.0,))
    computed.clear()
    assert_complete(open_cache(tmp_path, tones, FEATURES, (1.0,)), tones)
    assert computed == [utterance.id for utterance in tones[:2]]
    computed.clear()
    open_cache(tmp_path, [replace(tones[0], id="alias"), *tones[4:]], FEATURES, (1.0,))
    assert computed == []
    assert_complete(open_cache(tmp_path, tones[:3], FEATURES, SPEEDS), tones[:3], SPEEDS)
    assert computed == [utterance.id for utterance in tones[:3]]
    assert len(folders(tmp_path)) == 1


def test_digests_cannot_be_kept(tones: list[Utterance], tmp_path: Path, computed: list[str]) -> None:
    """Guards a cache on a disk that may only be read, without the digests of this machine's files."""
    open_cache(tmp_path / "cache", tones, FEATURES)
    (tmp_path / "cache" / "audio-digests.jsonl").unlink()
    (tmp_path / "cache" / "audio-digests.lock").unlink()
    (tmp_path / "cache" / "audio-digests.lock").mkdir()  # tests may run as root, who may write everywhere
    computed.clear()
    assert_complete(open_cache(tmp_path / "cache", tones, FEATURES), tones)
    assert computed == []
    assert not (tmp_path / "cache" / "audio-digests.jsonl").exists()


def test_torn_digests(tones: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a record of digests that a crash has cut: its whole lines count, new ones are not glued on."""
    first = digests.audio_digests(tmp_path, tones)
    record = tmp_path / "audio-digests.jsonl"
    record.write_bytes(record.read_bytes()[:-20] + b"\n[1, 2]")
    assert digests.audio_digests(tmp_path, tones) == first
    monkeypatch.setattr(digests, "_digest", lambda _: pytest.fail("read again"))
    assert digests.audio_digests(tmp_path, tones) == first


def test_processes_change_no_byte(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the order of entries, and sums that round otherwise with more threads, against processes."""
    for workers in (1, 2, 3):
        opened = open_cache(tmp_path / str(workers), tones, FEATURES, SPEEDS, workers)
        assert_complete(opened, tones, SPEEDS)
    assert stored(tmp_path / "1") == stored(tmp_path / "2") == stored(tmp_path / "3")
    assert not multiprocessing.active_children()


def test_processes_by_default(
    tones: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards both ends: hours of audio use every core, and seconds of it wait for no process to start."""
    caplog.set_level(logging.INFO, "asr")
    monkeypatch.setattr(cache, "usable_cores", lambda: 2)
    open_cache(tmp_path / "few", tones, FEATURES)
    assert "processes: 1" in caplog.text
    monkeypatch.setattr(cache, "_ALONE_S", 1.0)
    monkeypatch.setattr(cache, "_GROUP_S", 1.0)
    open_cache(tmp_path / "many", tones, FEATURES)
    assert "processes: 2" in caplog.text
    assert "s of audio a second" in caplog.text


def test_killed_process(tones: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards kill -9 of a process that computes: one line, and what was computed before stays."""
    victim = tones[8].id

    def compute(utterance: Utterance, *arguments: Any) -> list[torch.Tensor]:
        if utterance.id == victim and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return COMPUTE(utterance, *arguments)

    monkeypatch.setattr(cache, "_GROUP_S", 0.0)  # each utterance alone
    with monkeypatch.context() as killing:
        killing.setattr(cache, "_compute", compute)
        with pytest.raises(TrainingError, match=r"was killed.*kept\. Lower --batch\.cache-workers"):
            open_cache(tmp_path, tones, FEATURES, workers=2)
    assert not multiprocessing.active_children()
    before = stored(tmp_path)[0]
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)
    assert stored(tmp_path)[0].startswith(before)


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"n_mels": 10}, True),
        ({"shift_ms": 12.5}, True),
        ({"window_ms": 20.0}, True),
        ({"log_floor": 1e-6}, True),
        ({"normalize": "global"}, False),
        ({"prior_frames": 50.0}, False),
    ],
)
def test_changed_settings(
    change: dict[str, Any], another: bool, tones: list[Utterance], tmp_path: Path
) -> None:
    """Guards against stale features, and against computing all again for what is done later anyway."""
    open_cache(tmp_path, tones[:2], FEATURES)
    changed: FeatureConfig = replace(FEATURES, **change)
    opened = open_cache(tmp_path, tones[:2], changed)
    assert len(folders(tmp_path)) == (2 if another else 1)
    assert opened.view(0).shape[1] == changed.n_mels


def test_another_speed(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards against hearing one speed's features as another's."""
    plain = open_cache(tmp_path, tones[:2], FEATURES)
    fast = open_cache(tmp_path, tones[:2], FEATURES, (1.1,))
    assert len(fast.view(0, 1.1)) < len(plain.view(0))


def test_changed_audio(tmp_path: Path) -> None:
    """Guards against the features of a recording that was replaced since."""
    utterances = write_tones(tmp_path / "audio", ["ab", "cd"])
    old = open_cache(tmp_path / "cache", utterances, FEATURES).view(0)
    os.replace(utterances[1].audio_filepath, utterances[0].audio_filepath)
    write_tones(tmp_path / "more", ["cd", "cd"])[1].audio_filepath.rename(utterances[1].audio_filepath)
    new = open_cache(tmp_path / "cache", utterances, FEATURES).view(0)
    assert not np.array_equal(old, new)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, AudioError])
def test_interrupted_goes_on(
    workers: int, stop: type[BaseException], tones: list[Utterance], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Guards hours of work against Ctrl-C and a bad file: what is complete stays, the rest is computed, and
    the result is the same bytes."""
    open_cache(tmp_path / "whole", tones, FEATURES, SPEEDS)
    monkeypatch.setattr(cache, "_GROUP_S", 0.0)  # each utterance alone
    written = 0
    dumps = json.dumps

    def compute(utterance: Utterance, *arguments: Any) -> list[torch.Tensor]:
        if utterance.id == tones[6].id:
            raise AudioError("bad")
        return COMPUTE(utterance, *arguments)

    def interrupt(row: Any) -> str:  # Ctrl-C arrives in the main process
        nonlocal written
        written += isinstance(row, list) and len(row) == 3 and isinstance(row[1], float)
        if written == 3 * 6 + 1:
            raise KeyboardInterrupt
        return dumps(row)

    with monkeypatch.context() as stopping:
        if stop is AudioError:
            stopping.setattr(cache, "_compute", compute)
        else:
            names = cache._names(tones, digests.audio_digests(tmp_path / "parts", tones))
            stopping.setattr(cache, "_names", lambda *_: names)
            stopping.setattr(cache.json, "dumps", lambda row, **_: interrupt(row))
        with pytest.raises(stop):
            open_cache(tmp_path / "parts", tones, FEATURES, SPEEDS, workers)
    assert not multiprocessing.active_children()
    whole = stored(tmp_path / "whole")
    assert stored(tmp_path / "parts")[0] == b"".join(whole[0].splitlines(keepends=True)[: 3 * 6])
    assert_complete(open_cache(tmp_path / "parts", tones, FEATURES, SPEEDS), tones, SPEEDS)
    assert stored(tmp_path / "parts") == whole


@pytest.mark.parametrize("damage", ["torn line", "torn frames", "lost frames", "garbage line", "no frames"])
def test_what_a_crash_leaves(damage: str, tones: list[Utterance], tmp_path: Path) -> None:
    """Guards against an index that promises frames which are not there, and against lines glued to a torn
    one."""
    open_cache(tmp_path, tones, FEATURES)
    (folder,) = folders(tmp_path)
    index, frames = folder / "index.jsonl", folder / "features.f32"
    whole = index.read_bytes(), frames.read_bytes()
    lines = whole[0].splitlines(keepends=True)
    if damage == "torn line":
        index.write_bytes(b"".join(lines[:5]) + lines[5][:4])
    elif damage == "torn frames":
        index.write_bytes(b"".join(lines[:5]))
        frames.write_bytes(whole[1][:-1001])
    elif damage == "lost frames":
        frames.write_bytes(whole[1][: len(whole[1]) // 2])
    elif damage == "garbage line":
        index.write_bytes(b"".join(lines[:5]) + b"\0\0\0\n" + b"".join(lines[6:]))
    else:
        frames.unlink()
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)
    assert (index.read_bytes(), frames.read_bytes()) == whole


def test_full_disk(tones: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the message for a full disk, and that freeing space is enough to go on."""

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(
            DataError, match=r"cannot be written: No space left on device\. .*--batch.cache-dir None"
        ):
            open_cache(tmp_path, tones, FEATURES)
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)


def test_folder_that_cannot_be_made(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards a cache folder whose path is a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written: Not a directory"):
        open_cache(tmp_path / "file" / "cache", tones, FEATURES)


def test_bad_audio_is_named(tmp_path: Path) -> None:
    """Guards against 'a recording is too short' without saying which, and against a traceback for a lost
    file."""
    utterances = write_tones(tmp_path / "audio", ["ab", "cd"])
    click = replace(utterances[1], id="click", duration=0.02)
    with pytest.raises(AudioError, match=r"u01\.wav, utterance click: a recording of 0\.020 s is shorter"):
        open_cache(tmp_path / "cache", [utterances[0], click], FEATURES)
    utterances[0].audio_filepath.unlink()
    with pytest.raises(AudioError, match=r"u00\.wav, utterance u00: No such file"):
        open_cache(tmp_path / "cache", utterances, FEATURES)


def test_pickled_for_loader_processes(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards against sending gigabytes to every loader process that is not forked."""
    opened = open_cache(tmp_path, tones, FEATURES)
    data = pickle.dumps(opened)
    assert len(data) < 1000 + 100 * len(tones)
    assert_complete(pickle.loads(data), tones)


def _open(root: Path, utterances: list[Utterance], start: Any, computed: Any) -> None:
    torch.set_num_threads(1)  # as in a loader process: GNU OpenMP's threads do not survive a fork

    def compute(utterance: Utterance, *arguments: Any) -> list[torch.Tensor]:
        computed.put(utterance.id)
        return COMPUTE(utterance, *arguments)

    cache._compute = compute
    start.wait()
    open_cache(root, utterances, FEATURES)


def test_two_processes_at_once(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards torchrun's processes against writing into one file together: one computes, the other waits."""
    context = multiprocessing.get_context("fork")
    start, computed = context.Barrier(2), context.Queue()
    others = [
        context.Process(target=_open, args=(tmp_path, tones, start, computed), daemon=True) for _ in range(2)
    ]
    for other in others:
        other.start()
    names = [computed.get(timeout=60) for _ in tones]
    for other in others:
        other.join(timeout=60)
    assert [other.exitcode for other in others] == [0, 0]
    assert computed.empty()
    assert names == [utterance.id for utterance in tones]
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)
    assert stored(tmp_path)[0].count(b"\n") == len(tones)
