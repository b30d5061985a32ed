"""Log-mel features on disk, computed once, so that training never waits for audio.

A cache is one file of float32 frames and an index. Its folder is named by a digest of everything that the
features depend on, so changed settings or changed audio make another cache instead of using a stale one.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.corpora.manifest import Utterance
from asr.errors import DataError
from asr.frontend.audio import read_audio
from asr.frontend.augment import change_speed
from asr.frontend.features import FeatureConfig, frame_count, log_mel

log = logging.getLogger("asr")


def read_features(utterance: Utterance, config: FeatureConfig, speed: float = 1.0) -> Tensor:
    """An utterance's log-mel frames, computed from its audio: (frames, n_mels) float32.

    Raises:
        AudioError: the audio cannot be read or is too short.
    """
    waveform = read_audio(
        utterance.audio_filepath, config.sample_rate, offset_s=utterance.offset, duration_s=utterance.duration
    )
    return log_mel(change_speed(waveform, speed, config.sample_rate).unsqueeze(0), config)[0]


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
        for utterance_id, frames in _read_index(folder):
            self.rows[utterance_id] = (start, frames)
            start += frames
        self._frames = np.memmap(folder / _FRAMES, dtype=np.float32, mode="r", shape=(start, n_mels))

    def read(self, utterance_id: str) -> Tensor:
        """(frames, n_mels) float32, the caller's own copy."""
        start, frames = self.rows[utterance_id]
        return torch.from_numpy(np.array(self._frames[start : start + frames]))


def open_cache(
    root: Path, utterances: Sequence[Utterance], config: FeatureConfig, speed: float = 1.0
) -> FeatureCache:
    """Open the cache of these features, computing what is not in it; an interrupted computation goes on.

    Args:
        root: folder that holds caches.
        utterances: whose features.
        config: how they are computed; how they are normalised later does not matter.
        speed: factor of the speed perturbation.

    Raises:
        AudioError: an utterance's audio cannot be read.
        DataError: the disk is full or cannot be written.
    """
    settings = {key: value for key, value in asdict(config).items() if key != "normalize"}
    folder = root / _digest(utterances, settings, speed)
    known = _read_index(folder)
    if len(known) < len(utterances):
        _announce(root, utterances, config, speed)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "settings.json").write_text(json.dumps({**settings, "speed": speed}, indent=2) + "\n")
            _fill(folder, known, utterances, config, speed)
        except OSError as error:
            raise DataError(
                f"{folder}: the feature cache cannot be written: {error}. Free some space, choose another "
                f"--batch.cache-dir, or use --batch.cache-dir None."
            ) from error
    return FeatureCache(folder, config.n_mels)


_FRAMES, _INDEX = "features.f32", "index.jsonl"


def _fill(
    folder: Path, known: list[tuple[str, int]], utterances: Sequence[Utterance], config: FeatureConfig, speed: float
) -> None:
    # An index line is written after its frames have reached the file; frames without one are cut off again.
    with (folder / _FRAMES).open("ab") as frames, (folder / _INDEX).open("ab") as index:
        frames.truncate(sum(count for _, count in known) * config.n_mels * 4)
        lines: list[str] = []
        began = saved = time.monotonic()
        for done, utterance in enumerate(utterances[len(known) :], start=len(known) + 1):
            features = read_features(utterance, config, speed)
            frames.write(features.numpy().tobytes())
            lines.append(json.dumps([utterance.id, len(features)]) + "\n")
            if done == len(utterances) or time.monotonic() > saved + 1:
                frames.flush()
                os.fsync(frames.fileno())
                index.write("".join(lines).encode())
                index.flush()
                lines, saved = [], time.monotonic()
                left = (saved - began) * (len(utterances) - done) / (done - len(known))
                log.info(
                    "features at speed %g: %d of %d utterances, %.0f s left", speed, done, len(utterances), left,
                    extra={"transient": True},
                )  # fmt: skip


def _read_index(folder: Path) -> list[tuple[str, int]]:
    try:
        lines = (folder / _INDEX).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    # What follows the last newline was cut off while being written.
    return [(utterance_id, frames) for utterance_id, frames in map(json.loads, lines[:-1])]


def _digest(utterances: Sequence[Utterance], settings: dict[str, object], speed: float) -> str:
    digest = hashlib.blake2b(json.dumps([settings, speed]).encode(), digest_size=8)
    stats: dict[Path, os.stat_result] = {}
    for utterance in utterances:
        path = utterance.audio_filepath
        stat = stats.setdefault(path, path.stat())
        row = [utterance.id, str(path), stat.st_size, stat.st_mtime_ns, utterance.offset, utterance.duration]
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def _announce(root: Path, utterances: Sequence[Utterance], config: FeatureConfig, speed: float) -> None:
    seconds = sum(utterance.duration for utterance in utterances) / speed
    size = frame_count(round(seconds * config.sample_rate), config) * config.n_mels * 4
    log.info("computing features at speed %g: %.2f h of audio, %.0f MB below %s", speed, seconds / 3600, size / 1e6, root)
