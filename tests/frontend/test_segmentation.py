"""Long recordings cut at pauses, else into windows that overlap: no sample of speech is lost."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.errors import SettingsError
from asr.frontend.segmentation import SegmentationConfig, Segmenter, SpeechSegment, speech_regions
from asr.frontend.voice_activity import FRAME_S, open_vad

RATE = 8000
CONFIG = SegmentationConfig(max_segment_s=10.0)


class Loud:
    """A detector that takes every frame with a sample above 0.01 for speech."""

    def __init__(self) -> None:
        self.rest = torch.zeros(0)

    def accept(self, waveform: Tensor) -> Tensor:
        samples = torch.cat([self.rest, waveform])
        size = round(FRAME_S * RATE)
        frames = samples[: len(samples) // size * size].view(-1, size)
        self.rest = samples[frames.numel() :]
        return (frames.abs().amax(1) > 0.01).float() if len(frames) else torch.zeros(0)

    def finish(self) -> Tensor:
        return (self.rest.abs().amax() > 0.01).float()[None] if len(self.rest) else torch.zeros(0)


def bursts(*seconds: float) -> Tensor:
    """(samples,) speech-like bursts and pauses by turns, the first a pause; no two samples are equal."""
    parts = []
    for number, length in enumerate(seconds):
        samples = round(length * RATE)
        parts.append((0.1 if number % 2 else 1e-4) * (1 + torch.rand(samples)))
    return torch.cat(parts)


def cut(waveform: Tensor, config: SegmentationConfig = CONFIG, block_s: float = 3.0) -> list[SpeechSegment]:
    segmenter = Segmenter(config, Loud(), RATE)
    segments = [
        segment
        for block in torch.split(waveform, round(block_s * RATE))
        for segment in segmenter.accept(block)
    ]
    return [*segments, *segmenter.finish()]


def spans(segments: Sequence[SpeechSegment]) -> list[tuple[float, float]]:
    return [(segment.start_s, segment.start_s + len(segment.waveform) / RATE) for segment in segments]


def check(waveform: Tensor, segments: Sequence[SpeechSegment], longest_s: float = 10.0) -> None:
    """Every sample of speech is in a segment, in its place; segments are in order, overlap as they say."""
    covered = torch.zeros(len(waveform), dtype=torch.int64)
    for segment in segments:
        start = round(segment.start_s * RATE)
        assert torch.equal(segment.waveform, waveform[start : start + len(segment.waveform)])
        assert len(segment.waveform) <= longest_s * RATE
        covered[start : start + len(segment.waveform)] += 1
    assert covered[waveform > 0.01].min() >= 1
    for (segment, (_, end)), (start, _) in zip(
        zip(segments, spans(segments), strict=True), spans(segments)[1:], strict=False
    ):
        assert (
            end - start == pytest.approx(segment.overlap_s, abs=1e-9) if segment.overlap_s else end <= start
        )


def test_pieces_end_in_pauses() -> None:
    """A word that is cut though there is a pause."""
    waveform = bursts(0.5, 3, 0.4, 3, 0.6, 2, 0.4, 4, 0.5, 4, 0.5)
    segments = cut(waveform)
    check(waveform, segments)
    assert not any(segment.overlap_s for segment in segments)
    # Of the pauses in the second half of ten seconds, the longest: after 6.9 s, not after 9.5 s.
    expected = [(0.2, 7.2), (7.2, 14.2), (14.2, 18.7)]
    np.testing.assert_allclose(spans(segments), expected, atol=0.1)


def test_long_pauses_are_left_out() -> None:
    """Minutes of silence that are computed, and in which a model may find words."""
    waveform = bursts(20, 2, 30, 2, 25, 0.03, 20)  # the last one is a click
    segments = cut(waveform)
    check(waveform[: 80 * RATE - RATE], segments)
    assert len(segments) == 2
    assert sum(len(segment.waveform) for segment in segments) < 5.5 * RATE
    assert spans(segments)[0] == pytest.approx((20 - 0.3, 22 + 0.3), abs=0.05)
    assert cut(bursts(120)) == []


def test_speech_without_a_pause_is_cut_into_windows_that_overlap() -> None:
    """Words that are lost or cut in two where nobody breathes."""
    torch.manual_seed(0)
    waveform = bursts(0.5, 47.3, 0.5)
    quiet = round(8.2 * RATE)
    waveform[quiet : quiet + 1600] = 0.02  # still speech for the detector
    segments = cut(waveform)
    check(waveform, segments)
    assert all(segment.overlap_s >= 2 for segment in segments[:-1])
    assert not segments[-1].overlap_s
    middle = spans(segments)[0][1] - segments[0].overlap_s / 2
    assert middle == pytest.approx(
        8.3, abs=0.1
    )  # both windows have a second before and after the quiet place


def test_pieces_do_not_depend_on_blocks() -> None:
    """Text that changes with the codec, which decides how much is decoded at a time."""
    torch.manual_seed(1)
    random = np.random.default_rng(0)
    lengths = itertools.chain.from_iterable(
        zip(random.uniform(0.05, 3, 40), random.gamma(1, 6, 40), strict=True)
    )
    waveform = bursts(*map(float, lengths))
    expected = cut(waveform, block_s=1000.0)
    check(waveform, expected)
    assert any(segment.overlap_s for segment in expected)
    for block_s in (0.1, 1.0, 7.3, 30.0):
        segments = cut(waveform, block_s=block_s)
        assert spans(segments) == spans(expected)
        assert [segment.overlap_s for segment in segments] == [segment.overlap_s for segment in expected]


def test_without_a_detector_windows_cover_everything() -> None:
    """Quiet parts that are dropped though all was asked for."""
    waveform = bursts(20, 5, 20)
    segmenter = Segmenter(CONFIG, open_vad("none", RATE), RATE)
    segments = [*segmenter.accept(waveform), *segmenter.finish()]
    check(waveform, segments)
    assert spans(segments)[0][0] == 0
    assert spans(segments)[-1][1] == 45
    assert all(segment.overlap_s for segment in segments[:-1])


def test_only_a_piece_is_in_memory() -> None:
    """A recording that is gathered while it is cut."""
    segmenter = Segmenter(CONFIG, Loud(), RATE)
    most = 0
    for _ in range(200):
        for segment in segmenter.accept(bursts(1.0, 20.0)):
            assert segment.waveform.untyped_storage().nbytes() <= 4 * 10.1 * RATE
        most = max(most, segmenter._samples.untyped_storage().nbytes())
    assert most <= 4 * 32 * RATE


def test_regions() -> None:
    """Clicks that are speech; words that end where the detector hesitates; pauses inside words."""
    probs = np.array([0, 1, 1, 0] + 10 * [0] + 5 * [1] + 3 * [0.4] + 2 * [0] + 6 * [1] + 20 * [0], np.float32)
    assert speech_regions(probs) == [(14, 30)]
    assert speech_regions(np.ones(5, np.float32)) == [(0, 5)]
    assert speech_regions(np.zeros(0, np.float32)) == []


def test_settings() -> None:
    """A length at which every word would be cut."""
    with pytest.raises(SettingsError, match=r"max-segment-s must be at least 5 seconds. Got 1\."):
        SegmentationConfig(max_segment_s=1.0)
