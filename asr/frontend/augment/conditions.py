"""The acoustic conditions of an utterance in an epoch: drawn, then applied to its waveform.

`Augmenter` draws them, `apply_conditions` applies them. What was drawn is a plain record, seeds of noise
included, so that a waveform and its conditions give the same samples in any process.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.errors import DataError
from asr.frontend.audio import audio_info
from asr.frontend.audio_files import AUDIO_SUFFIXES, audio_files
from asr.frontend.augment.codec import code
from asr.frontend.augment.config import AugmentConfig
from asr.frontend.augment.draws import generator, hash_ids
from asr.frontend.augment.noise import Noise, RecordedNoise, SyntheticNoise, add_noise
from asr.frontend.augment.reverb import RecordedRoom, Room, SyntheticRoom, reverberate
from asr.frontend.augment.silence import Silence, change_silence, draw_silence
from asr.frontend.augment.speed import change_speed, draw_speeds
from asr.frontend.augment.telephone import telephone

_ROOM_TONE_SHARE = 0.5  # of the utterances that get silence; the others get white noise
_SILENCE_DB = (-100.0, -60.0)  # range of the level of that noise, dB of full scale; the features see no lower

# Folders of at most this much noise are held in memory (77 MB a process at 16 kHz): opus is slow to read.
_IN_MEMORY_S = 1200.0


@dataclass(frozen=True)
class Conditions:
    """The conditions of one utterance; the defaults leave it as recorded."""

    speed: float = 1.0
    room: Room | None = None
    noise: Noise | None = None
    snr_db: float = 0.0  # of the noise, if any
    gain_db: float = 0.0
    mel_warp: float = 1.0  # of the features, not of the waveform
    silence: Silence | None = None
    telephone: bool = False
    codec_kbits: float = 0.0  # 0: not coded

    @property
    def only_speed(self) -> bool:
        """Whether the waveform is as recorded except for its speed, so that a cache has its features."""
        return self == replace(AS_RECORDED, speed=self.speed, snr_db=self.snr_db, mel_warp=self.mel_warp)

    @property
    def untrimmed(self) -> "Conditions":
        """The same conditions, with no silence taken away."""
        if self.silence is None:
            return self
        before_s, after_s = max(self.silence.before_s, 0.0), max(self.silence.after_s, 0.0)
        return replace(self, silence=replace(self.silence, before_s=before_s, after_s=after_s))

    def __str__(self) -> str:
        parts = [f"speed {self.speed:g}"]
        if self.silence is not None:
            parts.append(f"silence {self.silence}")
        if self.room is not None:
            parts.append(str(self.room))
        if self.noise is not None:
            parts.append(f"{self.noise} at {self.snr_db:.1f} dB SNR")
        if self.gain_db:
            parts.append(f"gain {self.gain_db:+.1f} dB")
        if self.telephone:
            parts.append("telephone")
        if self.codec_kbits:
            parts.append(f"Opus at {self.codec_kbits:.1f} kbit/s")
        if self.mel_warp != 1:
            parts.append(f"mel bands warped by {self.mel_warp:.3f}")
        return "; ".join(parts)


AS_RECORDED = Conditions()


class Augmenter:
    """Draws conditions; each is a pure function of (seed, epoch, utterance id).

    Args:
        config: the settings.
        seed: of the draws.

    Raises:
        AudioError: a recording of noise cannot be read.
        DataError: a folder of noise or of impulse responses does not exist, or holds no audio.
    """

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.rooms, noises = _recordings(config)
        self.noises = [(file, audio_info(file).duration_s) for file in noises]
        self.noise_in_memory = sum(duration_s for _, duration_s in self.noises) <= _IN_MEMORY_S

    def conditions(self, epoch: int, utterance_id: str, top_speed: float) -> Conditions:
        """Draw the conditions of an utterance.

        Args:
            epoch: counted from 1.
            utterance_id: as the manifest has it.
            top_speed: highest speed that may be drawn.
        """
        return self.batch_conditions(epoch, [utterance_id], [top_speed])[0]

    def batch_conditions(
        self, epoch: int, utterance_ids: Sequence[str], top_speeds: Sequence[float]
    ) -> list[Conditions]:
        """Draw the conditions of several utterances, each as if alone, in less time."""
        hashes = hash_ids(utterance_ids)
        config = self.config
        speeds = draw_speeds(config.speeds, np.array(top_speeds), hashes, self.seed, epoch)
        silences = draw_silence(config.silence_share, config.silence_s, hashes, self.seed, epoch)
        return [
            self._conditions(epoch, name, speed, ends)
            for name, speed, ends in zip(utterance_ids, speeds.tolist(), silences.tolist(), strict=True)
        ]

    def _conditions(self, epoch: int, utterance_id: str, speed: float, ends_s: list[float]) -> Conditions:
        noise, snr_db = self._noise(epoch, utterance_id)
        return Conditions(
            speed=speed,
            room=self._room(epoch, utterance_id),
            noise=noise,
            snr_db=snr_db,
            gain_db=self._gain_db(epoch, utterance_id),
            mel_warp=self._mel_warp(epoch, utterance_id),
            silence=self._silence(epoch, utterance_id, *ends_s),
            telephone=self._telephone(epoch, utterance_id),
            codec_kbits=self._codec_kbits(epoch, utterance_id),
        )

    # One generator for each purpose: switching one on or off leaves the draws of the others as they are.

    def _generator_if_drawn(
        self, share: float, epoch: int, utterance_id: str, purpose: str
    ) -> np.random.Generator | None:
        """The random numbers for a purpose, or None for an utterance that is not in its share."""
        if share == 0:  # creating no generator halves the time of `conditions`
            return None
        rng = generator(self.seed, epoch, utterance_id, purpose)
        return rng if rng.random() < share else None

    def _room(self, epoch: int, utterance_id: str) -> Room | None:
        config = self.config
        rng = self._generator_if_drawn(config.room_share, epoch, utterance_id, "room")
        if rng is None:
            return None
        if self.rooms:
            return RecordedRoom(self.rooms[rng.integers(len(self.rooms))])
        return SyntheticRoom(
            rt60_s=rng.uniform(*config.room_rt60_s),
            direct_db=rng.uniform(*config.room_direct_db),
            seed=int(rng.integers(2**63)),
        )

    def _noise(self, epoch: int, utterance_id: str) -> tuple[Noise | None, float]:
        config = self.config
        rng = self._generator_if_drawn(config.noise_share, epoch, utterance_id, "noise")
        if rng is None:
            return None, 0.0
        snr_db = rng.uniform(*config.noise_snr_db)
        if self.noises:
            path, duration_s = self.noises[rng.integers(len(self.noises))]
            return RecordedNoise(path, duration_s, rng.random(), self.noise_in_memory), snr_db
        kind = config.noise_kinds[rng.integers(len(config.noise_kinds))]
        return SyntheticNoise(kind, seed=int(rng.integers(2**63))), snr_db

    def _gain_db(self, epoch: int, utterance_id: str) -> float:
        rng = self._generator_if_drawn(self.config.gain_share, epoch, utterance_id, "gain")
        return 0.0 if rng is None else rng.uniform(*self.config.gain_db)

    def _silence(self, epoch: int, utterance_id: str, before_s: float, after_s: float) -> Silence | None:
        if before_s == after_s == 0:
            return None
        rng = generator(self.seed, epoch, utterance_id, "silence")
        room_tone = rng.random() < _ROOM_TONE_SHARE
        level_db = None if room_tone else rng.uniform(*_SILENCE_DB)
        return Silence(before_s, after_s, level_db, seed=int(rng.integers(2**63)))

    def _telephone(self, epoch: int, utterance_id: str) -> bool:
        share = self.config.telephone_share
        return self._generator_if_drawn(share, epoch, utterance_id, "telephone") is not None

    def _codec_kbits(self, epoch: int, utterance_id: str) -> float:
        rng = self._generator_if_drawn(self.config.codec_share, epoch, utterance_id, "codec")
        return 0.0 if rng is None else rng.uniform(*self.config.codec_kbits)

    def _mel_warp(self, epoch: int, utterance_id: str) -> float:
        low, high = self.config.mel_warp
        return low if low == high else generator(self.seed, epoch, utterance_id, "warp").uniform(low, high)


def apply_conditions(waveform: Tensor, sample_rate: int, conditions: Conditions) -> Tensor:
    """Change a waveform: speed, silence at its ends, room, noise, volume, telephone, codec, in this order.

    Args:
        waveform: (samples,) float32 at sample_rate Hz.
        sample_rate: Hz.
        conditions: what to apply; mel_warp is not applied here, since it changes features.

    Returns:
        (samples,) float32: ceil(samples / speed), and the silence; noise or gain may make it exceed [-1, 1],
        which the features allow.

    Raises:
        AudioError: a recording of noise or of a room cannot be read.
    """
    waveform = change_speed(waveform, conditions.speed)
    if conditions.only_speed:
        return waveform
    samples = waveform.numpy()
    if conditions.silence is not None:
        samples = change_silence(samples, sample_rate, conditions.silence)
    if conditions.room is not None:
        samples = reverberate(samples, conditions.room.response(sample_rate))
    if conditions.noise is not None:
        samples = add_noise(samples, conditions.noise.samples(samples, sample_rate), conditions.snr_db)
    waveform = torch.from_numpy(samples) * 10 ** (conditions.gain_db / 20)  # dB of amplitude
    if conditions.telephone:
        waveform = telephone(waveform, sample_rate)
    if conditions.codec_kbits:
        waveform = code(waveform, sample_rate, conditions.codec_kbits)
    return waveform


def recordings_digest(config: AugmentConfig) -> str:
    """A digest of names and sizes of the recordings that are drawn from; runs with the same one draw alike.

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
    """Impulse responses of rooms and recordings of noise; none without a folder or a share."""
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
            f"--augment.{key} {folder}: no such folder. Expected {what}. Correct it, or leave it "
            f"out to use synthetic ones."
        )
    files = audio_files(folder)
    if not files:
        raise DataError(
            f"--augment.{key} {folder}: no audio files in this folder. Expected {what} that end in "
            f"{', '.join(AUDIO_SUFFIXES)}. Correct it, or leave it out to use synthetic ones."
        )
    return files
