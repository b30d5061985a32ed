"""The settings of augmentation: what may be drawn for an utterance, and for how many of them."""

import math
from dataclasses import dataclass
from pathlib import Path

from asr.errors import SettingsError, check_number, option_name
from asr.frontend.augment.noise import NOISE_KINDS, NoiseKind


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training data is augmented; every draw depends on seed, epoch and utterance."""

    speeds: tuple[float, ...] = (0.9, 1.0, 1.1)  # one is drawn an utterance and epoch; 1.0 alone for none
    time_masks_per_s: float = 1.0  # SpecAugment: masks along time for every 100 frames (1 s at a 10 ms shift)
    time_mask_frames: int = 15  # longest such mask, in frames
    mel_masks: int = 2  # SpecAugment: masks along the mel bands
    mel_mask_bands: int = 20  # widest such mask, in bands
    masks_from_epoch: int = 2  # epochs before it are unmasked, which shortens CTC's blank plateau
    room_share: float = 0.0  # share of the utterances that get reverberation, 0 to 1
    room_dir: Path | None = None  # folder of recorded impulse responses, one per file; None: synthetic rooms
    room_rt60_s: tuple[float, float] = (0.15, 0.8)  # synthetic rooms: range of the time to decay by 60 dB, s
    room_direct_db: tuple[float, float] = (0.0, 15.0)  # synthetic rooms: range of direct sound over echo, dB
    noise_share: float = 0.0  # share of the utterances that get noise, 0 to 1
    noise_dir: Path | None = None  # folder of recorded noise, with subfolders; None: synthetic noise
    noise_kinds: tuple[NoiseKind, ...] = NOISE_KINDS  # synthetic; speech: with the utterance's spectrum
    noise_snr_db: tuple[float, float] = (5.0, 25.0)  # range of the SNR, in dB over the whole utterance
    # Share of the utterances that are made louder or quieter, 0 to 1. With features.normalize utterance, this
    # changes nothing except where the quietest cells meet features.log-floor.
    gain_share: float = 0.0
    gain_db: tuple[float, float] = (-18.0, 6.0)  # range of the change of volume, dB
    # Share of the utterances that get silence (room tone or quiet noise) before and after speech, or lose
    # some of what they have, 0 to 1.
    silence_share: float = 0.0
    silence_s: tuple[float, float] = (-0.2, 0.5)  # range of what is added at each end, s; below 0 is trimmed
    # share that sounds as over a telephone: 300 to 3400 Hz, 8 kHz, mu-law, 0 to 1
    telephone_share: float = 0.0
    codec_share: float = 0.0  # share that is coded as Opus, 0 to 1
    codec_kbits: tuple[float, float] = (8.0, 24.0)  # range of Opus' bit rate, kbit/s
    # Range of the factor that warps the frequencies of the mel bands (vocal tract length perturbation);
    # 0.88 1.12 is usual, 1 1 is none.
    mel_warp: tuple[float, float] = (1.0, 1.0)
    # Weight of a loss that makes two views of an utterance agree, under other masks and with other units
    # dropped; 0.2 is usual. It helps where there is little speech, and takes twice the time. 0: one view.
    consistency_weight: float = 0.0

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise SettingsError(f"--augment.speeds must be one or more factors in 0.5..2. Got {self.speeds}.")
        if any(abs(100 * speed - round(100 * speed)) > 1e-6 for speed in self.speeds):
            raise SettingsError(
                f"--augment.speeds must be factors in whole percents, as 0.95. Got {self.speeds}."
            )
        masks = ("time_masks_per_s", "time_mask_frames", "mel_masks", "mel_mask_bands", "masks_from_epoch")
        for name in masks:
            check_number(option_name("augment", name), getattr(self, name), least=0, below=math.inf)
        for name in _SHARES:
            check_number(option_name("augment", name), getattr(self, name), least=0, most=1)
        check_number("--augment.consistency-weight", self.consistency_weight, least=0, below=math.inf)
        for name, (lowest, highest, unit) in _RANGES.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise SettingsError(
                    f"{option_name('augment', name)} must be two numbers within "
                    f"{lowest:g}..{highest:g}{unit}, the lower first. Got {low:g} {high:g}."
                )
        for topic in ("room", "noise"):
            if getattr(self, f"{topic}_dir") is not None and not getattr(self, f"{topic}_share"):
                raise SettingsError(
                    f"--augment.{topic}-dir is given, but --augment.{topic}-share is 0, so that nothing in "
                    f"it is used. Set the share too, such as --augment.{topic}-share 0.5, or leave both out."
                )
        if not self.noise_kinds or not set(self.noise_kinds) <= set(NOISE_KINDS):
            got = " ".join(self.noise_kinds) or "none"
            raise SettingsError(f"--augment.noise-kinds must be some of {' '.join(NOISE_KINDS)}. Got {got}.")

    @property
    def changes_waveform(self) -> bool:
        """Whether more than the speed may change, so that a cache lacks features of some utterances."""
        return any(getattr(self, name) > 0 for name in _SHARES)


_SHARES = ("room_share", "noise_share", "gain_share", "silence_share", "telephone_share", "codec_share")

# Of both ends of a drawn range: the lowest and highest value that make sense, and the unit.
_RANGES = {
    "room_rt60_s": (0.01, 10.0, " s"), "room_direct_db": (-30.0, 60.0, " dB"),
    "noise_snr_db": (-30.0, 100.0, " dB"), "gain_db": (-60.0, 60.0, " dB"), "mel_warp": (0.5, 2.0, ""),
    "silence_s": (-5.0, 5.0, " s"), "codec_kbits": (6.0, 256.0, " kbit/s"),
}  # fmt: skip


# Under which a model is scored, to see how it does outside of a quiet room: as recorded, and four others.
CONDITIONS = {
    "as recorded": None,
    "telephone": AugmentConfig(speeds=(1.0,), telephone_share=1),
    "noise at 10 dB": AugmentConfig(speeds=(1.0,), noise_share=1, noise_snr_db=(10, 10)),
    "Opus at 12 kbit/s": AugmentConfig(speeds=(1.0,), codec_share=1, codec_kbits=(12, 12)),
    "0.5 s of silence": AugmentConfig(speeds=(1.0,), silence_share=1, silence_s=(0.5, 0.5)),
}
