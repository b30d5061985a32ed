"""Features of a stream: those of the whole waveform, whatever the blocks."""

import pytest
import torch
from torch import Tensor

from asr.frontend.feature_stream import LogMelStream, StreamNormalizer
from asr.frontend.features import (
    RUNNING_FRAMES,
    FeatureConfig,
    FeatureNormalizer,
    log_mel,
    normalize_running,
    normalize_utterance,
)


def blocks(x: Tensor, seed: int) -> list[Tensor]:
    """Cut at random, empty blocks included."""
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.randint(0, len(x) + 1, (9,), generator=generator).sort().values.tolist()
    return [x[a:b] for a, b in zip([0, *cuts], [*cuts, len(x)], strict=True)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("samples", [400, 1599, 1600, 16_007])
@pytest.mark.parametrize("rate", [8000, 16_000])
def test_frames_of_blocks_are_those_of_the_whole(samples: int, rate: int) -> None:
    """Guards the framing: a frame too few or too many, or one over samples of the wrong place."""
    config = FeatureConfig(sample_rate=rate, n_mels=20)
    waveform = 0.1 * noise(samples)
    stream = LogMelStream(config)
    found = torch.cat([*(stream.accept(block) for block in blocks(waveform, samples)), stream.finish()])
    torch.testing.assert_close(found, log_mel(waveform[None], config)[0], rtol=0, atol=1e-5)


def test_a_stream_without_samples_has_no_frames() -> None:
    """Guards the end of an utterance that has none."""
    assert LogMelStream(FeatureConfig()).finish().shape == (0, 80)


def test_running_statistics_are_of_the_last_frames_and_the_training_set() -> None:
    """Guards the window, the prior and what is before the first frame, against a loop over the definition."""
    frames = RUNNING_FRAMES + 90
    features = 3 * noise(frames, 2).double() - 7
    mean, std = torch.tensor([-6.0, -8.0]).double(), torch.tensor([2.0, 3.0]).double()
    found = normalize_running(features[None], mean, std)[0]
    for frame in (0, 1, 77, RUNNING_FRAMES - 1, RUNNING_FRAMES, frames - 1):
        window = features[max(0, frame + 1 - RUNNING_FRAMES) : frame + 1]
        total = 200 + len(window)
        running = (200 * mean + window.sum(0)) / total
        second = (200 * (std.square() + mean.square()) + window.square().sum(0)) / total
        expected = (features[frame] - running) / (second - running.square() + 1e-5).sqrt()
        torch.testing.assert_close(found[frame], expected)


def test_silence_leaves_a_variance() -> None:
    """Guards speech after a long silence, which would be divided by almost nothing."""
    config = FeatureConfig(n_mels=1, normalize="running")
    normalizer = FeatureNormalizer(config)
    normalizer.set_statistics(torch.tensor([-8.0]), torch.tensor([3.0]))
    features = torch.full((1, 2000, 1), -18.4)
    features[0, -1] = -5.0
    assert normalizer(features, torch.tensor([2000])).abs().max() < 6


@pytest.mark.parametrize("kind", ["running", "global", "none"])
def test_normalisation_of_blocks_is_that_of_the_whole(kind: str) -> None:
    """Guards the history between blocks, bit for bit, and that the next utterance begins without it."""
    config = FeatureConfig(n_mels=3, normalize=kind)  # type: ignore[arg-type]
    normalizer = FeatureNormalizer(config)
    normalizer.set_statistics(torch.tensor([-6.0, -7.0, -8.0]), torch.tensor([2.0, 3.0, 1.0]))
    features = 3 * noise(1300, 3) - 7
    whole = normalizer(features[None], torch.tensor([1300]))[0]
    stream = StreamNormalizer(normalizer)
    for _ in range(2):
        found = [stream.normalize(stream.accept(block), 0) for block in blocks(features, 5)]
        assert torch.equal(torch.cat(found), whole)
        stream.end_utterance()


def test_whole_utterances_are_normalised_by_what_came_so_far() -> None:
    """Guards models that were trained on whole utterances: each frame counts once, however often it comes."""
    stream = StreamNormalizer(FeatureNormalizer(FeatureConfig(n_mels=3)))
    features = 3 * noise(500, 3) - 7
    for first, end in ((0, 200), (100, 300), (250, 280), (150, 500)):
        found = stream.normalize(stream.accept(features[first:end]), first)
    expected = normalize_utterance(features[None], torch.tensor([500]))[0]
    torch.testing.assert_close(found, expected[150:], rtol=1e-4, atol=1e-4)


def test_statistics_of_a_stream_fade() -> None:
    """Guards a stream of hours against the levels of its first minute."""
    stream = StreamNormalizer(FeatureNormalizer(FeatureConfig(n_mels=1)))
    for level in (-20.0, *[-5.0] * 60):
        stream.normalize(noise(1000, 1) + level, 0)
        stream.end_utterance()
    assert stream.normalize(torch.tensor([[-5.0]]), 0).abs() < 0.5
