"""Settings of augmentation: wrong ones are refused, and the message names the key."""

import math
from pathlib import Path
from typing import Any

import pytest

from asr.errors import SettingsError
from asr.frontend.augment import AugmentConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speeds": ()}, r"--augment.speeds must be one or more factors in 0.5..2. Got \(\)"),
        ({"speeds": (1.0, 2.1)}, r"--augment.speeds must be .* Got \(1.0, 2.1\)"),
        ({"speeds": (math.nan,)}, r"--augment.speeds must be .* Got \(nan,\)"),
        ({"speeds": (1.005,)}, r"--augment.speeds must be factors in whole percents, as 0.95. Got"),
        ({"time_masks_per_s": -1.0}, "--augment.time-masks-per-s must be at least 0. Got -1"),
        ({"time_masks_per_s": math.nan}, "--augment.time-masks-per-s must be at least 0. Got nan"),
        ({"time_mask_frames": -1}, "--augment.time-mask-frames must be at least 0. Got -1"),
        ({"mel_masks": -2}, "--augment.mel-masks must be at least 0. Got -2"),
        ({"mel_mask_bands": -3}, "--augment.mel-mask-bands must be at least 0. Got -3"),
        ({"masks_from_epoch": -4}, "--augment.masks-from-epoch must be at least 0. Got -4"),
        ({"room_share": 1.1}, "--augment.room-share must be in 0..1. Got 1.1"),
        ({"noise_share": -0.1}, "--augment.noise-share must be in 0..1. Got -0.1"),
        ({"gain_share": math.nan}, "--augment.gain-share must be in 0..1. Got nan"),
        ({"room_rt60_s": (0.0, 1.0)}, "--augment.room-rt60-s must be .* within 0.01..10 s, .* Got 0 1"),
        ({"room_direct_db": (5.0, 0.0)}, "--augment.room-direct-db must be .*, the lower first. Got 5 0"),
        ({"noise_snr_db": (0.0, math.inf)}, "--augment.noise-snr-db must be .* -30..100 dB, .* Got 0 inf"),
        ({"gain_db": (math.nan, 0.0)}, "--augment.gain-db must be .* Got nan 0"),
        ({"mel_warp": (0.4, 1.0)}, "--augment.mel-warp must be .* within 0.5..2, .* Got 0.4 1"),
        ({"silence_share": 2.0}, "--augment.silence-share must be in 0..1. Got 2"),
        ({"telephone_share": -1.0}, "--augment.telephone-share must be in 0..1. Got -1"),
        ({"codec_share": 1.5}, "--augment.codec-share must be in 0..1. Got 1.5"),
        ({"silence_s": (0.5, -0.2)}, "--augment.silence-s must be .* -5..5 s, the lower first. Got 0.5 -0.2"),
        ({"codec_kbits": (1.0, 12.0)}, "--augment.codec-kbits must be .* 6..256 kbit/s, .* Got 1 12"),
        ({"noise_kinds": ()}, "--augment.noise-kinds must be some of white pink brown speech. Got none"),
        ({"noise_kinds": ("white", "red")}, "--augment.noise-kinds must be some of .* Got white red"),
        ({"noise_dir": Path("n")}, "--augment.noise-dir is given, but --augment.noise-share is 0, "),
        ({"room_dir": Path("r")}, "--augment.room-dir is given, .* nothing in it .*--augment.room-share 0.5"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """Guards against settings that are rounded or ignored; the message names the key."""
    with pytest.raises(SettingsError, match=message):
        AugmentConfig(**settings)
