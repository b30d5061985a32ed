import json
import multiprocessing
import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from asr.corpora.manifest import Utterance
from asr.errors import AudioError, DataError
from asr.frontend.features import FeatureConfig
from asr.training import cache
from asr.training.cache import FeatureCache, open_cache, read_features
from tests.training.conftest import FEATURES, write_tones


def folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def assert_complete(opened: FeatureCache, utterances: Sequence[Utterance]) -> None:
    for utterance in utterances:
        assert torch.equal(opened.read(utterance.id), read_features(utterance, FEATURES)), utterance.id


def test_same_features_to_the_bit(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards the stored frames against the computed ones, at once and when opened again."""
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)
    assert len(folders(tmp_path)) == 1


def test_opened_again_computes_nothing(
    tones: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the point of a cache, also in a folder that may only be read."""
    open_cache(tmp_path, tones, FEATURES)
    monkeypatch.setattr(cache, "read_features", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(cache, "_locked", lambda *_: pytest.fail("wrote a lock"))
    open_cache(tmp_path, tones, FEATURES)


@pytest.mark.parametrize(
    ("change", "another"),
    [
        ({"n_mels": 10}, True),
        ({"shift_ms": 12.5}, True),
        ({"window_ms": 20.0}, True),
        ({"log_floor": 1e-6}, True),
        ({"normalize": "global"}, False),
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
    assert opened.read("u00").shape[1] == changed.n_mels


def test_another_speed(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards against hearing one speed's features as another's."""
    plain = open_cache(tmp_path, tones[:2], FEATURES)
    fast = open_cache(tmp_path, tones[:2], FEATURES, speed=1.1)
    assert len(fast.read("u00")) < len(plain.read("u00"))


def test_changed_audio(tmp_path: Path) -> None:
    """Guards against the features of a recording that was replaced since."""
    utterances = write_tones(tmp_path / "audio", ["ab", "cd"])
    old = open_cache(tmp_path / "cache", utterances, FEATURES).read("u00")
    os.replace(utterances[1].audio_filepath, utterances[0].audio_filepath)
    write_tones(tmp_path / "more", ["cd", "cd"])[1].audio_filepath.rename(utterances[1].audio_filepath)
    new = open_cache(tmp_path / "cache", utterances, FEATURES).read("u00")
    assert not torch.equal(old, new)


def test_interrupted_goes_on(tones: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards hours of work: what is complete stays, the rest is computed, and the result is the same
    bytes."""
    open_cache(tmp_path / "whole", tones, FEATURES)
    computed: list[str] = []

    def read(utterance: Utterance, config: FeatureConfig, speed: float) -> torch.Tensor:
        computed.append(utterance.id)
        if len(computed) == 7:
            raise KeyboardInterrupt
        return read_features(utterance, config, speed)

    monkeypatch.setattr(cache, "read_features", read)
    ticks = iter(range(0, 10_000, 2))  # every utterance is written at once
    monkeypatch.setattr(cache.time, "monotonic", lambda: next(ticks))
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path / "parts", tones, FEATURES)
    assert_complete(open_cache(tmp_path / "parts", tones, FEATURES), tones)
    assert computed[:7] == [utterance.id for utterance in tones[:7]]
    assert computed[7:] == [utterance.id for utterance in tones[6:]]
    for name in ("features.f32", "index.jsonl"):
        (whole,), (parts,) = folders(tmp_path / "whole"), folders(tmp_path / "parts")
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


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

    def fsync(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fsync)
        with pytest.raises(
            DataError, match=r"cannot be written: No space left on device\. .*--batch.cache-dir None"
        ):
            open_cache(tmp_path, tones, FEATURES)
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)


def test_folder_that_cannot_be_made(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards a cache folder whose place is taken by a file."""
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
    assert len(data) < 1000
    assert_complete(pickle.loads(data), tones)


def _compute(root: Path, utterances: list[Utterance], start: Any, computed: Any) -> None:
    original = read_features
    torch.set_num_threads(1)  # as in a loader process: GNU OpenMP's threads do not survive a fork

    def read(utterance: Utterance, config: FeatureConfig, speed: float) -> torch.Tensor:
        computed.put(utterance.id)
        return original(utterance, config, speed)

    cache.read_features = read
    start.wait()
    open_cache(root, utterances, FEATURES)


def test_two_processes_at_once(tones: list[Utterance], tmp_path: Path) -> None:
    """Guards torchrun's processes against writing into one file together: one computes, the other waits."""
    context = multiprocessing.get_context("fork")
    start, computed = context.Barrier(2), context.Queue()
    others = [
        context.Process(target=_compute, args=(tmp_path, tones, start, computed), daemon=True)
        for _ in range(2)
    ]
    for other in others:
        other.start()
    names = [computed.get(timeout=60) for _ in tones]
    for other in others:
        other.join(timeout=60)
    assert [other.exitcode for other in others] == [0, 0]
    assert computed.empty()
    assert sorted(names) == [utterance.id for utterance in tones]
    (folder,) = folders(tmp_path)
    rows = [json.loads(line)[0] for line in (folder / "index.jsonl").read_text().splitlines()]
    assert rows == [utterance.id for utterance in tones]
    assert_complete(open_cache(tmp_path, tones, FEATURES), tones)
