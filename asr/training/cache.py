"""Log-mel features on disk, computed once, so that training never waits for audio.

A cache is one file of float32 frames and an index. Its folder is named by a digest of everything that the
features depend on, so changed settings or changed audio make another cache instead of using a stale one.
Several processes may ask for the same cache at once: one computes it, the others wait.
"""

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr.corpora.manifest import Utterance
from asr.errors import AudioError, DataError
from asr.frontend.audio import read_audio
from asr.frontend.augment import AS_RECORDED, Conditions, apply_conditions
from asr.frontend.features import FEATURES_VERSION, FeatureConfig, frame_count, log_mel

log = logging.getLogger("asr")

_FRAMES, _INDEX, _LOCK = "features.f32", "index.jsonl", "lock"


def read_waveform(utterance: Utterance, sample_rate: int, conditions: Conditions = AS_RECORDED) -> Tensor:
    """What training hears of an utterance: (samples,) float32 at sample_rate Hz, under the given conditions.

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


def read_features(
    utterance: Utterance, config: FeatureConfig, conditions: Conditions = AS_RECORDED
) -> Tensor:
    """An utterance's log-mel frames, computed from its audio: (frames, n_mels) float32.

    Raises:
        AudioError: the audio cannot be read or is too short.
    """
    waveform = read_waveform(utterance, config.sample_rate, conditions)
    try:
        return log_mel(waveform.unsqueeze(0), config)[0]
    except AudioError as error:  # too short; a waveform does not know its name
        raise AudioError(f"{utterance.audio_filepath}, utterance {utterance.id}: {error}") from error


class FeatureCache:
    """The features of some utterances at one speed; use `open_cache` to get one.

    Args:
        folder: holds `features.f32` and a complete `index.jsonl`.
        n_mels: values a frame.
    """

    def __init__(self, folder: Path, n_mels: int) -> None:
        self.folder, self.n_mels = folder, n_mels
        self.rows: dict[str, tuple[int, int]] = {}
        start = 0
        for utterance_id, frames in _Index(folder, n_mels).rows:
            self.rows[utterance_id] = (start, frames)
            start += frames
        self._frames = np.memmap(folder / _FRAMES, dtype=np.float32, mode="r", shape=(start, n_mels))

    def read(self, utterance_id: str) -> Tensor:
        """(frames, n_mels) float32, the caller's own copy."""
        start, frames = self.rows[utterance_id]
        return torch.from_numpy(np.array(self._frames[start : start + frames]))

    def __reduce__(self) -> tuple[Any, ...]:
        # Loader processes that are not forked open the file themselves; a memmap would be sent as gigabytes.
        return FeatureCache, (self.folder, self.n_mels)


def open_cache(
    root: Path, utterances: Sequence[Utterance], config: FeatureConfig, speed: float = 1.0
) -> FeatureCache:
    """Open the cache of these features, computing what is not in it; an interrupted computation goes on.

    Args:
        root: folder that holds caches.
        utterances: whose features; no two share an id.
        config: how they are computed; how they are normalised later does not matter.
        speed: factor of the speed perturbation.

    Raises:
        AudioError: an utterance's audio cannot be read.
        DataError: the disk is full or cannot be written.
    """
    settings = {key: value for key, value in asdict(config).items() if key != "normalize"}
    folder = root / _digest(utterances, settings, speed)
    # A complete cache is only read, so it may lie where others keep it.
    if len(_Index(folder, config.n_mels).rows) < len(utterances):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder, config, speed, len(utterances)):
                index = _Index(folder, config.n_mels)  # perhaps complete by now
                if len(index.rows) < len(utterances):
                    _announce(root, utterances[len(index.rows) :], config, speed)
                    text = json.dumps({**settings, "speed": speed}, indent=2) + "\n"
                    (folder / "settings.json").write_text(text, encoding="utf-8")
                    _fill(folder, index, utterances, config, speed)
        except OSError as error:
            raise DataError(
                f"{folder}: the feature cache cannot be written: {error.strerror or error}. Free some space, "
                f"choose another --batch.cache-dir, or use --batch.cache-dir None."
            ) from error
    return FeatureCache(folder, config.n_mels)


class _Index:
    """What is complete in a cache's folder: (id, frames) of each utterance, and where both files end."""

    def __init__(self, folder: Path, n_mels: int) -> None:
        self.rows: list[tuple[str, int]] = []
        self.index_bytes = self.frames_bytes = 0
        try:
            lines = (folder / _INDEX).read_bytes().split(b"\n")
            available = (folder / _FRAMES).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return
        for line in lines[:-1]:  # what follows the last newline was cut off while being written
            try:
                utterance_id, frames = json.loads(line)
                end = self.frames_bytes + frames * n_mels * 4
            except (ValueError, TypeError):
                return  # damaged, and with it everything behind
            if end > available:
                return
            self.rows.append((utterance_id, frames))
            self.index_bytes, self.frames_bytes = self.index_bytes + len(line) + 1, end


def _fill(
    folder: Path, done: _Index, utterances: Sequence[Utterance], config: FeatureConfig, speed: float
) -> None:
    # An index line is written after its frames have reached the disk. What is behind the complete part is cut
    # off.
    with (folder / _FRAMES).open("ab") as frames, (folder / _INDEX).open("ab") as index:
        frames.truncate(done.frames_bytes)
        index.truncate(done.index_bytes)
        lines: list[str] = []
        first = len(done.rows)
        began = saved = time.monotonic()
        for number, utterance in enumerate(utterances[first:], start=first + 1):
            features = read_features(utterance, config, Conditions(speed=speed))
            frames.write(features.numpy().tobytes())
            lines.append(json.dumps([utterance.id, len(features)]) + "\n")
            if number == len(utterances) or time.monotonic() > saved + 1:
                frames.flush()
                os.fsync(frames.fileno())
                index.write("".join(lines).encode())
                index.flush()
                lines, saved = [], time.monotonic()
                left = (saved - began) * (len(utterances) - number) / (number - first)
                _progress(speed, number, len(utterances), f", {left:.0f} s left")


@contextmanager
def _locked(folder: Path, config: FeatureConfig, speed: float, total: int) -> Iterator[None]:
    """Hold the folder's lock, which the system releases if this process dies."""
    with (folder / _LOCK).open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _progress(
                    speed, len(_Index(folder, config.n_mels).rows), total, " (computed by another process)"
                )
                time.sleep(0.2)
        yield


def _progress(speed: float, done: int, total: int, remark: str) -> None:
    log.info(
        "features at speed %g: %d of %d utterances%s", speed, done, total, remark, extra={"transient": True}
    )


def _digest(utterances: Sequence[Utterance], settings: dict[str, object], speed: float) -> str:
    digest = hashlib.blake2b(json.dumps([FEATURES_VERSION, settings, speed]).encode(), digest_size=8)
    stats: dict[Path, os.stat_result] = {}
    for utterance in utterances:
        path = utterance.audio_filepath
        if path not in stats:
            try:
                stats[path] = path.stat()
            except OSError as error:
                raise AudioError(f"{path}, utterance {utterance.id}: {error.strerror or error}.") from error
        stat = stats[path]
        part = [utterance.offset, utterance.duration, utterance.channel]
        row = [utterance.id, str(path), stat.st_size, stat.st_mtime_ns, *part]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _announce(root: Path, utterances: Sequence[Utterance], config: FeatureConfig, speed: float) -> None:
    seconds = sum(utterance.duration for utterance in utterances) / speed
    size = frame_count(round(seconds * config.sample_rate), config) * config.n_mels * 4
    log.info(
        "computing features at speed %g: %.2f h of audio, %.0f MB below %s",
        speed,
        seconds / 3600,
        size / 1e6,
        root,
    )
