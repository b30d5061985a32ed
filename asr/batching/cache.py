"""The feature cache: log-mel features on disk, computed once and keyed by the content of the audio.

A store holds the features of one configuration in one file of float32 frames and an index. The key of an
entry is what its features depend on: the content of the audio, the utterance's offset and duration in it, and
the speed. A store that is copied to another machine is valid there; of a manifest that has grown, only the
new utterances are computed; manifests share entries. Processes that open a store at the same time take turns.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from asr.batching.digests import audio_digests
from asr.batching.loader import Loader
from asr.device import one_thread, usable_cores
from asr.errors import AudioError, DataError
from asr.files import locked
from asr.frontend.audio import read_audio
from asr.frontend.augment import AS_RECORDED, Conditions, apply_conditions
from asr.frontend.augment.speed import change_speed
from asr.frontend.features import FEATURES_VERSION, FeatureConfig, frame_count, log_mel
from asr.manifests.utterance import Utterance
from asr.progress import Progress

log = logging.getLogger("asr")

_NORMALISATION = ("normalize", "prior_frames")  # settings that act on what is cached, later

_FRAMES, _INDEX, _LOCK = "features.f32", "index.jsonl", "lock"

_GROUP_S = 10.0  # of audio in a group, whose features a process returns together (1 MB at three speeds)
_ALONE_S = 60.0  # of audio, all speeds together, up to which no other process is started

_Key = tuple[str, float]  # the utterance's entry name, and the speed


def read_waveform(utterance: Utterance, sample_rate: int, conditions: Conditions = AS_RECORDED) -> Tensor:
    """An utterance's waveform, augmented by conditions: (samples,) float32 at sample_rate Hz.

    Raises:
        AudioError: the audio, or the noise or room that the conditions name, cannot be read.
    """
    waveform = read_audio(
        utterance.audio_filepath,
        sample_rate,
        offset_s=utterance.offset,
        duration_s=utterance.duration,
        channel=utterance.channel,
    )
    return apply_conditions(waveform, sample_rate, conditions)


def _log_mel(waveform: Tensor, utterance: Utterance, config: FeatureConfig) -> Tensor:
    try:
        return log_mel(waveform.unsqueeze(0), config)[0]
    except AudioError as error:  # too short; the waveform's error has no name
        raise AudioError(f"{utterance.audio_filepath}, utterance {utterance.id}: {error}") from error


class FeatureCache:
    """The features of some utterances at some speeds; use `open_cache` to get one.

    Args:
        folder: holds the frames.
        n_mels: values per frame.
        spans: by speed, (utterances, 2) int64 of the first frame of each utterance and its count of frames.
    """

    def __init__(self, folder: Path, n_mels: int, spans: dict[float, NDArray[np.int64]]) -> None:
        self.folder, self.n_mels, self.spans = folder, n_mels, spans
        frames = max(int(of_speed.sum(axis=1).max(initial=0)) for of_speed in spans.values())
        self._frames = np.memmap(folder / _FRAMES, dtype=np.float32, mode="r", shape=(frames, n_mels))

    def view(self, number: int, speed: float = 1.0) -> NDArray[np.float32]:
        """(frames, n_mels) of an utterance, by its number among those of `open_cache`; on disk, read-only."""
        start, frames = self.spans[speed][number]
        view: NDArray[np.float32] = self._frames[start : start + frames]
        return view

    def __reduce__(self) -> tuple[Any, ...]:
        # Loader processes that are not forked open the file again; pickling a memmap would copy gigabytes.
        return FeatureCache, (self.folder, self.n_mels, self.spans)


def open_cache(
    root: Path,
    utterances: Sequence[Utterance],
    config: FeatureConfig,
    speeds: Sequence[float] = (1.0,),
    workers: int | None = None,
) -> FeatureCache:
    """Open the cache of these features; missing entries are computed, after an interruption only the rest.

    Args:
        root: folder that holds caches.
        utterances: whose features; no two share an id.
        config: how they are computed; the normalisation is not part of the key.
        speeds: factors of the speed perturbation.
        workers: processes that compute; None for as many as usable cores. The files do not depend on it.

    Raises:
        AudioError: an utterance's audio cannot be read.
        DataError: the disk is full or cannot be written.
        TrainingError: a process that computes was killed.
    """
    settings = {key: value for key, value in asdict(config).items() if key not in _NORMALISATION}
    digest = hashlib.blake2b(json.dumps([FEATURES_VERSION, settings]).encode(), digest_size=8)
    folder = root / digest.hexdigest()
    speeds = [float(speed) for speed in speeds]
    try:
        names = _names(utterances, audio_digests(root, utterances))
        index = _Index(folder, config.n_mels)
        # A complete store is only read, so it may be on a read-only file system.
        if _missing(index, utterances, names, speeds):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / _LOCK, _log_waiting):
                index = _Index(folder, config.n_mels)  # another process may have completed it
                missing = _missing(index, utterances, names, speeds)
                if missing:
                    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
                    _fill(folder, index, missing, names, config, workers)
                    index = _Index(folder, config.n_mels)
    except OSError as error:
        raise DataError(
            f"{folder}: the feature cache cannot be written: {error.strerror or error}. Free some space, "
            f"choose another --batch.cache-dir, or use --batch.cache-dir None."
        ) from error
    spans = {
        speed: np.array(
            [index.spans[names[utterance.id], speed] for utterance in utterances], dtype=np.int64
        ).reshape(-1, 2)
        for speed in speeds
    }
    return FeatureCache(folder, config.n_mels, spans)


class _Index:
    """The complete entries of a store: the span of frames of each, and where both files end.

    A line of the file is a JSON list of the entry's name, speed and count of frames.
    """

    def __init__(self, folder: Path, n_mels: int) -> None:
        self.spans: dict[_Key, tuple[int, int]] = {}  # first frame and count of frames
        self.index_bytes = self.frames = 0
        try:
            lines = (folder / _INDEX).read_bytes().split(b"\n")
            available = (folder / _FRAMES).stat().st_size // (4 * n_mels)
        except (FileNotFoundError, NotADirectoryError):
            return
        for line in lines[:-1]:  # what follows the last newline is incomplete
            try:
                name, speed, frames = json.loads(line)
                end = self.frames + int(frames)
            except (ValueError, TypeError):
                return  # damaged, and with it everything after
            if end > available:
                return
            self.spans[name, speed] = (self.frames, frames)
            self.index_bytes, self.frames = self.index_bytes + len(line) + 1, end


_Job = tuple[Utterance, tuple[float, ...]]  # an utterance, and the speeds at which it is not in the store


def _names(utterances: Sequence[Utterance], digests: dict[Path, str]) -> dict[str, str]:
    """The entry name of each utterance, by its id: a digest of the audio and the position in it."""
    names = {}
    for utterance in utterances:
        content = [digests[utterance.audio_filepath], utterance.offset, utterance.duration, utterance.channel]
        names[utterance.id] = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
    return names


def _missing(
    index: _Index, utterances: Sequence[Utterance], names: dict[str, str], speeds: Sequence[float]
) -> list[_Job]:
    """The entries to compute; the same audio under two ids only once."""
    jobs: list[_Job] = []
    seen = set(index.spans)
    for utterance in utterances:
        keys = [(names[utterance.id], speed) for speed in speeds]
        wanted = tuple(key[1] for key in keys if key not in seen)
        seen.update(keys)
        if wanted:
            jobs.append((utterance, wanted))
    return jobs


def _fill(
    folder: Path,
    done: _Index,
    jobs: Sequence[_Job],
    names: dict[str, str],
    config: FeatureConfig,
    workers: int | None,
) -> None:
    """Compute jobs in order and append them to a store; what is computed is kept, also after an error."""
    groups = _groups(jobs)
    seconds = sum(_seconds(job) for job in jobs)
    if workers is None:
        workers = 1 if seconds < _ALONE_S else usable_cores()
    workers = min(workers, len(groups))
    _announce(folder, jobs, config, workers)
    loader: Loader[_Computed] = Loader(
        _Groups(groups, config),
        0 if workers == 1 else workers,  # 0: in this process
        remedy="What is computed is kept. Lower --batch.cache-workers, and start again.",
    )
    with (folder / _FRAMES).open("ab") as frames, (folder / _INDEX).open("ab") as index:
        # Incomplete entries at the end are cut off.
        frames.truncate(done.frames * config.n_mels * 4)
        index.truncate(done.index_bytes)
        lines: list[str] = []

        def commit() -> None:
            # An index line is written after its frames have reached the disk.
            frames.flush()
            os.fsync(frames.fileno())
            index.write("".join(lines).encode())
            index.flush()
            lines.clear()

        finished, finished_s = 0, 0.0
        saved = time.monotonic()
        progress = Progress("features", seconds)
        try:
            for group, (counts, data, error) in zip(groups, loader.load(range(len(groups))), strict=True):
                frames.write(data)
                # With an error, there are fewer counts than jobs.
                entries = [(names[utterance.id], speed) for utterance, speeds in group for speed in speeds]
                for (name, speed), count in zip(entries, counts, strict=False):
                    lines.append(json.dumps([name, speed, count]) + "\n")
                if error is not None:
                    raise error
                finished, finished_s = finished + len(group), finished_s + sum(map(_seconds, group))
                if time.monotonic() > saved + 1:
                    commit()
                    saved = time.monotonic()
                progress.report(finished_s, f"{finished} of {len(jobs)} utterances")
        finally:
            loader.close()
            commit()
    elapsed = progress.elapsed_s
    log.info(
        "features: %d utterances in %.0f s, %.0f s of audio a second",
        len(jobs), elapsed, seconds / max(elapsed, 1e-3),
    )  # fmt: skip


_Computed = tuple[list[int], bytes, AudioError | None]  # frame counts, float32 values, an error


class _Groups(Dataset[_Computed]):
    """Computes the features of groups of jobs.

    They are returned as bytes, which go through a pipe: containers have little shared memory.
    """

    def __init__(self, groups: Sequence[Sequence[_Job]], config: FeatureConfig) -> None:
        self.groups, self.config = groups, config

    def __getitem__(self, number: int) -> _Computed:
        counts: list[int] = []
        parts: list[bytes] = []
        try:
            with one_thread():
                for utterance, speeds in self.groups[number]:
                    entries = _compute(utterance, speeds, self.config)  # all speeds or none
                    counts += map(len, entries)
                    parts += [features.numpy().tobytes() for features in entries]
        except AudioError as error:
            return counts, b"".join(parts), error
        return counts, b"".join(parts), None


def _compute(utterance: Utterance, speeds: Sequence[float], config: FeatureConfig) -> list[Tensor]:
    """(frames, n_mels) of each speed. The recording is decoded once: decoding takes longest."""
    waveform = read_waveform(utterance, config.sample_rate)
    return [_log_mel(change_speed(waveform, speed), utterance, config) for speed in speeds]


def _groups(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """Groups of consecutive jobs, so that returning short utterances costs no more than computing them."""
    groups: list[list[_Job]] = []
    room = 0.0
    for job in jobs:
        if room <= 0:
            groups.append([])
            room = _GROUP_S
        groups[-1].append(job)
        room -= job[0].duration
    return groups


def _seconds(job: _Job) -> float:
    """Seconds of audio to compute, all speeds together."""
    utterance, speeds = job
    return sum(utterance.duration / speed for speed in speeds)


def _log_waiting() -> None:
    log.info("features: waiting for another process that computes", extra={"transient": True})


def _announce(folder: Path, jobs: Sequence[_Job], config: FeatureConfig, workers: int) -> None:
    seconds = sum(map(_seconds, jobs))
    size = frame_count(round(seconds * config.sample_rate), config) * config.n_mels * 4
    log.info(
        "computing features of %d utterances (%.2f h over all speeds, %.0f MB in %s), processes: %d",
        len(jobs), seconds / 3600, size / 1e6, folder, workers,
    )  # fmt: skip
