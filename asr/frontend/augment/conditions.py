"""Under which conditions an utterance is heard in an epoch: drawn, then applied to its waveform.

`Augmenter` draws them, `hear` applies them. What was drawn is a plain record that says all, the seeds of
noise included, so that a waveform and its conditions give the same samples in any process.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.errors import DataError
from asr.frontend.audio import AUDIO_SUFFIXES, audio_files, audio_info
from asr.frontend.augment.config import AugmentConfig, change_speed, draw, draw_speeds
from asr.frontend.augment.draws import hash_ids
from asr.frontend.augment.noise import MadeNoise, Noise, RecordedNoise, add_noise
from asr.frontend.augment.reverb import MadeRoom, RecordedRoom, Room, reverberate

# A folder of no more noise is kept in memory (77 MB a process at 16 kHz): opus is slow to read.
_KEPT_S = 1200.0


@dataclass(frozen=True)
class Conditions:
    """How one utterance is heard; the defaults are those of the recording."""

    speed: float = 1.0
    room: Room | None = None
    noise: Noise | None = None
    snr_db: float = 0.0  # of the noise, if any
    gain_db: float = 0.0
    mel_warp: float = 1.0  # of the features, not of the waveform; see `warp`

    @property
    def only_speed(self) -> bool:
        """Whether the waveform is as recorded but for its speed, so that a cache has its features."""
        return self.room is None and self.noise is None and self.gain_db == 0

    def __str__(self) -> str:
        parts = [f"speed {self.speed:g}"]
        if self.room is not None:
            parts.append(str(self.room))
        if self.noise is not None:
            parts.append(f"{self.noise} at {self.snr_db:.1f} dB SNR")
        if self.gain_db:
            parts.append(f"gain {self.gain_db:+.1f} dB")
        if self.mel_warp != 1:
            parts.append(f"mel bands warped by {self.mel_warp:.3f}")
        return "; ".join(parts)


AS_RECORDED = Conditions()


class Augmenter:
    """Draws conditions as the settings say; each is a pure function of (seed, epoch, utterance id).

    Args:
        config: the settings.
        seed: of the draws.

    Raises:
        AudioError: a recording of noise cannot be read.
        DataError: a folder of noise or of impulse responses is missing, or holds no audio.
    """

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.rooms, noises = _recordings(config)
        self.noises = [(file, audio_info(file).duration_s) for file in noises]
        self.keep_noises = sum(duration_s for _, duration_s in self.noises) <= _KEPT_S

    def conditions(self, epoch: int, utterance_id: str, top_speed: float) -> Conditions:
        """All that is drawn for an utterance.

        Args:
            epoch: counted from 1.
            utterance_id: as the manifest has it.
            top_speed: faster ones are not drawn.
        """
        hashes = hash_ids([utterance_id])
        speeds = draw_speeds(self.config, np.array([top_speed]), hashes, self.seed, epoch)
        noise, snr_db = self._noise(epoch, utterance_id)
        return Conditions(
            speed=float(speeds[0]),
            room=self._room(epoch, utterance_id),
            noise=noise,
            snr_db=snr_db,
            gain_db=self._gain_db(epoch, utterance_id),
            mel_warp=self._mel_warp(epoch, utterance_id),
        )

    # One generator for each purpose: switching one on or off leaves the draws of the others as they are.

    def _chosen(
        self, share: float, epoch: int, utterance_id: str, purpose: str
    ) -> np.random.Generator | None:
        """The random numbers for a purpose, or None for an utterance that is not in its share."""
        if share == 0:  # without generators that draw nothing, `conditions` takes half the time
            return None
        rng = draw(self.seed, epoch, utterance_id, purpose)
        return rng if rng.random() < share else None

    def _room(self, epoch: int, utterance_id: str) -> Room | None:
        config = self.config
        rng = self._chosen(config.room_share, epoch, utterance_id, "room")
        if rng is None:
            return None
        if self.rooms:
            return RecordedRoom(self.rooms[rng.integers(len(self.rooms))])
        return MadeRoom(
            rt60_s=rng.uniform(*config.room_rt60_s),
            direct_db=rng.uniform(*config.room_direct_db),
            seed=int(rng.integers(2**63)),
        )

    def _noise(self, epoch: int, utterance_id: str) -> tuple[Noise | None, float]:
        config = self.config
        rng = self._chosen(config.noise_share, epoch, utterance_id, "noise")
        if rng is None:
            return None, 0.0
        snr_db = rng.uniform(*config.noise_snr_db)
        if self.noises:
            path, duration_s = self.noises[rng.integers(len(self.noises))]
            return RecordedNoise(path, duration_s, rng.random(), self.keep_noises), snr_db
        kind = config.noise_kinds[rng.integers(len(config.noise_kinds))]
        return MadeNoise(kind, seed=int(rng.integers(2**63))), snr_db

    def _gain_db(self, epoch: int, utterance_id: str) -> float:
        rng = self._chosen(self.config.gain_share, epoch, utterance_id, "gain")
        return 0.0 if rng is None else rng.uniform(*self.config.gain_db)

    def _mel_warp(self, epoch: int, utterance_id: str) -> float:
        low, high = self.config.mel_warp
        return low if low == high else draw(self.seed, epoch, utterance_id, "warp").uniform(low, high)


def hear(waveform: Tensor, sample_rate: int, conditions: Conditions) -> Tensor:
    """A waveform under conditions: speed, then the room, then noise, then volume.

    Args:
        waveform: (samples,) float32 at sample_rate Hz.
        sample_rate: Hz.
        conditions: how it is heard; mel_warp, which acts on features, is left to them.

    Returns:
        (ceil(samples / speed),) float32; noise or gain may make it exceed [-1, 1], which features do not
        mind.

    Raises:
        AudioError: a recording of noise or of a room cannot be read.
    """
    waveform = change_speed(waveform, conditions.speed)
    if conditions.only_speed:
        return waveform
    samples = waveform.numpy()
    if conditions.room is not None:
        samples = reverberate(samples, conditions.room.response(sample_rate))
    if conditions.noise is not None:
        samples = add_noise(samples, conditions.noise.samples(samples, sample_rate), conditions.snr_db)
    return torch.from_numpy(samples) * 10 ** (conditions.gain_db / 20)


def recordings_digest(config: AugmentConfig) -> str:
    """A digest of names and sizes of the recordings that are drawn from; two runs with one draw alike.

    Raises:
        DataError: as of `Augmenter`.
    """
    digest = hashlib.blake2b(digest_size=8)
    for files in _recordings(config):
        digest.update(b"\n")
        for file in files:
            digest.update(f"{file}\t{file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _recordings(config: AugmentConfig) -> tuple[list[Path], list[Path]]:
    """Impulse responses of rooms and recordings of noise; none where there is no folder, or no share."""
    rooms: list[Path] = []
    noises: list[Path] = []
    if config.room_share and config.room_dir is not None:
        rooms = _find(config.room_dir, "room-dir", "impulse responses of rooms")
    if config.noise_share and config.noise_dir is not None:
        noises = _find(config.noise_dir, "noise-dir", "recordings of noise")
    return rooms, noises


def _find(folder: Path, key: str, what: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            f"augment.{key} {folder}: no such folder. Expected {what}. Correct it, or leave it out: then "
            f"they are made from a model."
        )
    files = audio_files(folder)
    if not files:
        raise DataError(
            f"augment.{key} {folder}: no audio files in this folder. Expected {what} that end in "
            f"{', '.join(AUDIO_SUFFIXES)}. Correct it, or leave it out: then they are made from a model."
        )
    return files
