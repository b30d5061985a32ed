"""SpecAugment: draws within their bounds, and nothing touched outside the masks."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.frontend.augment import AugmentConfig, Masks, apply_masks
from asr.frontend.augment.draws import generator
from asr.frontend.augment.specaugment import draw_masks
from asr.frontend.features import normalize_utterance


def test_masks_are_pinned() -> None:
    """Guards against other masks for the same settings: an old run could not be repeated."""
    time, mel = draw_masks(300, 80, AugmentConfig(), generator(1, 2, "spk-0001", "masks"))
    assert time.tolist() == [[9, 5], [48, 12], [58, 4]]
    assert mel.tolist() == [[49, 9], [46, 15]]


@pytest.mark.parametrize("frames", [1, 2, 14, 15, 16, 49, 50, 100, 1234])
def test_masks_stay_within_bounds(frames: int) -> None:
    """Guards against masks past the end, which would make an utterance depend on its padding, and against
    more or wider masks than the settings say."""
    config = AugmentConfig(time_masks_per_s=3.0, time_mask_frames=15, mel_masks=2, mel_mask_bands=20)
    for number in range(200):
        time, mel = draw_masks(frames, 12, config, generator(0, 1, str(number), "masks"))
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
    time, mel = draw_masks(300, 80, off, generator(1, 1, "a", "masks"))
    assert (time.shape, mel.shape) == ((0, 2), (0, 2))
    features = torch.randn(1, 300, 80)
    assert torch.equal(apply_masks(features, Masks(time.unsqueeze(0), mel.unsqueeze(0))), features)
    widthless = replace(AugmentConfig(), time_mask_frames=0, mel_mask_bands=0)
    time, mel = draw_masks(300, 80, widthless, generator(1, 1, "a", "masks"))
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


def test_mask_is_the_mean_of_the_utterance() -> None:
    """Guards features whose mean is not 0, such as plain log-mel energies, where 0 is almost the loudest
    value: masking them is masking normalised ones. Padding takes no part, and stays 0."""
    lengths = torch.tensor([40, 25])
    features = torch.randn(2, 40, 6) * torch.rand(6) - 10
    features[1, 25:] = 0
    masks = Masks(
        time=torch.tensor([[[3, 4]], [[20, 5]]]),
        mel=torch.tensor([[[1, 2]], [[5, 1]]]),
    )
    masked = apply_masks(features, masks, lengths)
    normalised = apply_masks(normalize_utterance(features, lengths), masks)
    for row, frames in enumerate(lengths.tolist()):
        own = features[row, :frames]
        scale = own.var(dim=0, unbiased=False).add(1e-5).sqrt()
        expected = normalised[row, :frames] * scale + own.mean(dim=0)
        torch.testing.assert_close(masked[row, :frames], expected)
    assert not masked[1, 25:].any()
    alone = apply_masks(features[1:, :25], Masks(masks.time[1:], masks.mel[1:]), lengths[1:])
    torch.testing.assert_close(masked[1, :25], alone[0])


def test_alone_equals_in_a_batch() -> None:
    """Guards against masks that depend on the batch: missing ones are padded with width 0."""
    config = AugmentConfig(time_masks_per_s=4.0)
    lengths = (40, 200, 90)
    features = [torch.randn(frames, 30) for frames in lengths]
    drawn = [draw_masks(frames, 30, config, generator(3, 2, str(frames), "masks")) for frames in lengths]

    def pad(parts: list[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)

    together = apply_masks(
        pad(features), Masks(pad([time for time, _ in drawn]), pad([mel for _, mel in drawn]))
    )
    for row, (time, mel) in enumerate(drawn):
        alone = apply_masks(features[row].unsqueeze(0), Masks(time.unsqueeze(0), mel.unsqueeze(0)))[0]
        assert torch.equal(together[row, : lengths[row]], alone)
        assert (alone == 0).any()
