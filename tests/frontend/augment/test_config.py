"""Augmentation: pure draws, bounds that hold, and nothing touched outside the masks."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.errors import SettingsError
from asr.frontend.augment.config import AugmentConfig, Masks, apply_masks, change_speed, draw, draw_masks

# ----------------------------------------------------------------------------------------------------------
# draws


def test_draw_is_pinned() -> None:
    """Guards against another hash, byte order or order of parts: old runs could not be repeated."""
    assert draw(1, 2, "spk-0001", "speed").bit_generator.random_raw(2).tolist() == [
        9503129339043595383,
        10244328969291115434,
    ]
    time, mel = draw_masks(300, 80, AugmentConfig(), draw(1, 2, "spk-0001", "masks"))
    assert time.tolist() == [[9, 5], [48, 12], [58, 4]]
    assert mel.tolist() == [[49, 9], [46, 15]]


def test_draw_depends_on_each_part_and_nothing_else() -> None:
    """Guards against global random state, and against parts that run into each other."""

    def numbers(*key: Any) -> tuple[int, ...]:
        return tuple(draw(*key).bit_generator.random_raw(3).tolist())

    first = numbers(1, 2, "a", "speed")
    np.random.seed(7)
    torch.manual_seed(7)
    numbers(5, 5, "b", "masks")
    assert numbers(1, 2, "a", "speed") == first
    keys = [
        (1, 2, "a", "speed"),
        (2, 2, "a", "speed"),
        (1, 3, "a", "speed"),
        (1, 2, "b", "speed"),
        (1, 2, "a", "masks"),
        (12, 2, "a", "speed"),
        (1, 22, "a", "speed"),
        (1, 2, "/a", "speed"),
        (1, 2, "speed", "a"),
        (-1, 2, "a", "speed"),
    ]
    assert len({numbers(*key) for key in keys}) == len(keys)


def test_utterances_are_independent() -> None:
    """Guards against neighbouring ids or epochs with alike draws: speeds are uniform over many."""
    speeds = [
        draw(1, epoch, f"u{number}", "speed").integers(3) for epoch in range(20) for number in range(100)
    ]
    counts = np.bincount(speeds, minlength=3)
    assert (abs(counts - 2000 / 3) < 4 * math.sqrt(2000 * 2 / 9)).all()  # four standard deviations


# ----------------------------------------------------------------------------------------------------------
# speed


@pytest.mark.parametrize("percent", [50, 90, 95, 100, 110, 200])
def test_speed_changes_length_and_pitch(percent: int) -> None:
    """Guards the direction: 1.1 is shorter and higher. The length is the ceiling, as the batch plan
    expects."""
    rate = 16_000
    for samples in (16_000, 12_345, 401):
        assert len(change_speed(torch.zeros(samples), percent / 100)) == -(-samples * 100 // percent)
    tone = torch.sin(2 * math.pi * 500 * torch.arange(rate) / rate)
    spectrum = torch.fft.rfft(change_speed(tone, percent / 100), n=rate).abs()
    assert int(spectrum.argmax()) == pytest.approx(500 * percent / 100, abs=1)


def test_speed_one_changes_nothing() -> None:
    """Guards against filtering what is not changed."""
    waveform = torch.randn(1000)
    assert torch.equal(change_speed(waveform, 1.0), waveform)


# ----------------------------------------------------------------------------------------------------------
# masks


@pytest.mark.parametrize("frames", [1, 2, 14, 15, 16, 49, 50, 100, 1234])
def test_masks_stay_within_bounds(frames: int) -> None:
    """Guards against masks past the end, which would make an utterance depend on its padding, and against
    more or wider masks than the settings say."""
    config = AugmentConfig(time_masks_per_s=3.0, time_mask_frames=15, mel_masks=2, mel_mask_bands=20)
    for number in range(200):
        time, mel = draw_masks(frames, 12, config, draw(0, 1, str(number), "masks"))
        assert time.shape == (round(3 * frames / 100), 2)
        assert mel.shape == (2, 2)
        for intervals, longest, size in ((time, 15, frames), (mel, 20, 12)):
            assert intervals.dtype == torch.int64
            assert (intervals >= 0).all()
            assert (intervals[:, 1] <= min(longest, size)).all()
            assert (intervals.sum(1) <= size).all()


def test_masks_are_uniform() -> None:
    """Guards the distribution: every width from 0 to the bound, and starts that reach both ends."""
    config = AugmentConfig(time_masks_per_s=1.0, time_mask_frames=9, mel_masks=3, mel_mask_bands=4)
    rng = np.random.default_rng(0)
    drawn = [draw_masks(1000, 10, config, rng) for _ in range(600)]
    time, mel = (torch.cat(intervals) for intervals in zip(*drawn, strict=True))
    widths = torch.bincount(time[:, 1], minlength=10)
    assert len(widths) == 10
    assert ((widths - 600.0).abs() < 4 * math.sqrt(6000 * 0.1 * 0.9)).all()
    assert float(time[:, 0].double().mean()) == pytest.approx((1000 - 4.5) / 2, abs=4 * 290 / math.sqrt(6000))
    for width in range(5):
        assert set(mel[mel[:, 1] == width, 0].tolist()) == set(range(10 - width + 1))


def test_no_masks_when_none_are_wanted() -> None:
    """Guards zeros in the settings: nothing is masked, and nothing fails."""
    off = AugmentConfig(time_masks_per_s=0.0, mel_masks=0)
    time, mel = draw_masks(300, 80, off, draw(1, 1, "a", "masks"))
    assert (time.shape, mel.shape) == ((0, 2), (0, 2))
    features = torch.randn(1, 300, 80)
    assert torch.equal(apply_masks(features, Masks(time.unsqueeze(0), mel.unsqueeze(0))), features)
    widthless = replace(AugmentConfig(), time_mask_frames=0, mel_mask_bands=0)
    time, mel = draw_masks(300, 80, widthless, draw(1, 1, "a", "masks"))
    assert torch.equal(apply_masks(features, Masks(time.unsqueeze(0), mel.unsqueeze(0))), features)


def test_only_masked_cells_are_touched() -> None:
    """Guards against rows and columns that are mixed up, widths off by one, and one row's mask on another."""
    features = torch.randn(2, 6, 5) + 10
    original = features.clone()
    masks = Masks(
        time=torch.tensor([[[1, 2], [5, 1]], [[0, 0], [3, 0]]]),
        mel=torch.tensor([[[0, 1], [0, 0]], [[3, 2], [1, 0]]]),
    )
    masked = apply_masks(features, masks)
    expected = original.clone()
    expected[0, 1:3] = 0
    expected[0, 5] = 0
    expected[0, :, 0] = 0
    expected[1, :, 3:5] = 0
    assert torch.equal(masked, expected)
    assert torch.equal(features, original)  # the caller's own features stay


def test_alone_equals_in_a_batch() -> None:
    """Guards against masks that depend on the batch: missing ones are padded with width 0."""
    config = AugmentConfig(time_masks_per_s=4.0)
    lengths = (40, 200, 90)
    features = [torch.randn(frames, 30) for frames in lengths]
    drawn = [draw_masks(frames, 30, config, draw(3, 2, str(frames), "masks")) for frames in lengths]

    def pad(parts: list[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

    together = apply_masks(
        pad(features), Masks(pad([time for time, _ in drawn]), pad([mel for _, mel in drawn]))
    )
    for row, (time, mel) in enumerate(drawn):
        alone = apply_masks(features[row].unsqueeze(0), Masks(time.unsqueeze(0), mel.unsqueeze(0)))[0]
        assert torch.equal(together[row, : lengths[row]], alone)
        assert (alone == 0).any()


# -------------------------------------------------------------------------------------------------------
# settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speeds": ()}, r"augment.speeds must be one or more factors in 0.5..2. Got \(\)"),
        ({"speeds": (1.0, 2.1)}, r"augment.speeds must be .* Got \(1.0, 2.1\)"),
        ({"speeds": (math.nan,)}, r"augment.speeds must be .* Got \(nan,\)"),
        ({"speeds": (1.005,)}, r"augment.speeds must be factors in whole percents, as 0.95. Got \(1.005,\)"),
        ({"time_masks_per_s": -1.0}, "augment.time-masks-per-s must not be negative. Got -1"),
        ({"time_masks_per_s": math.nan}, "augment.time-masks-per-s must not be negative. Got nan"),
        ({"time_mask_frames": -1}, "augment.time-mask-frames must not be negative. Got -1"),
        ({"mel_masks": -2}, "augment.mel-masks must not be negative. Got -2"),
        ({"mel_mask_bands": -3}, "augment.mel-mask-bands must not be negative. Got -3"),
        ({"masks_from_epoch": -4}, "augment.masks-from-epoch must not be negative. Got -4"),
        ({"room_share": 1.1}, "augment.room-share must be in 0..1. Got 1.1"),
        ({"noise_share": -0.1}, "augment.noise-share must be in 0..1. Got -0.1"),
        ({"gain_share": math.nan}, "augment.gain-share must be in 0..1. Got nan"),
        ({"room_rt60_s": (0.0, 1.0)}, "augment.room-rt60-s must be .* within 0.01..10 s, .* Got 0 1"),
        ({"room_direct_db": (5.0, 0.0)}, "augment.room-direct-db must be .*, the lower first. Got 5 0"),
        ({"noise_snr_db": (0.0, math.inf)}, "augment.noise-snr-db must be .* -30..100 dB, .* Got 0 inf"),
        ({"gain_db": (math.nan, 0.0)}, "augment.gain-db must be .* Got nan 0"),
        ({"mel_warp": (0.4, 1.0)}, "augment.mel-warp must be .* within 0.5..2, .* Got 0.4 1"),
        ({"noise_kinds": ()}, "augment.noise-kinds must be some of white pink brown speech. Got none"),
        ({"noise_kinds": ("white", "red")}, "augment.noise-kinds must be some of .* Got white red"),
        ({"noise_dir": Path("n")}, "augment.noise-dir is given, but augment.noise-share is 0, .*-share 0.5"),
        ({"room_dir": Path("r")}, "augment.room-dir is given, but augment.room-share is 0, so that nothing"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """Guards against settings that are rounded or ignored; the message names the key."""
    with pytest.raises(SettingsError, match=message):
        AugmentConfig(**settings)
