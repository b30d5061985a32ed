"""Recordings of any length in blocks: the samples of the whole, and no more in memory than a block."""

import logging
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from asr.errors import AudioError
from asr.frontend import audio
from asr.frontend.audio import StreamResampler, audio_blocks, read_audio, resample
from asr.frontend.recordings import Block, open_recording

TOLERANCE = 1e-5  # of full scale; what the docstring promises


def noise(samples: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rates", [(8000, 16_000), (44_100, 16_000), (48_000, 16_000), (11_025, 8000)])
@pytest.mark.parametrize("size", [1, 997, 50_000])
def test_a_stream_is_resampled_like_the_whole(rates: tuple[int, int], size: int) -> None:
    """Seams between blocks; samples that stay in the filter; a length that differs."""
    waveform = noise(700 if size == 1 else 120_007)
    stream = StreamResampler(*rates)
    blocks = [stream.accept(block) for block in torch.split(waveform, size)]
    whole = resample(waveform, *rates)
    found = torch.cat([*blocks, stream.finish()])
    assert len(found) == len(whole)
    assert (found - whole).abs().max() <= TOLERANCE


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """75 s at 22,050 Hz with two channels."""
    path = tmp_path / "long.flac"
    soundfile.write(path, torch.stack([noise(75 * 22_050), noise(75 * 22_050, 1)], 1).numpy(), 22_050)
    return path


def test_blocks_are_the_whole_recording(long: Path) -> None:
    """A block that is lost or doubled; another mix than that of the whole."""
    blocks = list(audio_blocks(long, 16_000, whole_s=30.0))
    assert [round(len(block) / 16_000) for block in blocks] == [30, 30, 15, 0]
    assert (torch.cat(blocks) - read_audio(long, 16_000)).abs().max() <= TOLERANCE
    part = list(audio_blocks(long, 16_000, whole_s=10.0, offset_s=20.0, duration_s=40.0, channel=1))
    assert len(part) > 1
    expected = read_audio(long, 16_000, offset_s=20.0, duration_s=40.0, channel=1)
    assert (torch.cat(part) - expected).abs().max() <= TOLERANCE


def test_what_is_short_is_exactly_what_read_audio_returns(long: Path) -> None:
    """Short recordings whose text changes since long ones are read in blocks."""
    for whole_s in (75.0, 80.0):
        (block,) = audio_blocks(long, 16_000, whole_s=whole_s)
        assert torch.equal(block, read_audio(long, 16_000))
    assert len(list(audio_blocks(long, 16_000, whole_s=74.9))) > 1


def test_memory_does_not_grow(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of all blocks somewhere on the way."""
    alive: list[Any] = []
    most = 0

    class Watched:
        """A recording of 100 minutes whose blocks are counted while they are in use."""

        sample_rate, channels, samples = 22_050, 2, None

        def blocks(self, start: int, samples: int | None) -> Iterator[Block]:
            nonlocal most
            for number in range(200):
                block = np.zeros((30 * 2205, 2), np.float32) + number / 200
                alive.append(weakref.ref(block))
                most = max(most, sum(one() is not None for one in alive))
                yield block
                del block

        def __enter__(self) -> "Watched":
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(audio, "open_recording", lambda path, partial: Watched())
    samples = sum(len(block) for block in audio_blocks(long, 16_000, whole_s=5.0))
    assert samples == 200 * 30 * 1600
    assert most <= 5


def test_errors_come_where_the_damage_is(long: Path, tmp_path: Path) -> None:
    """Bad samples that reach the model, or a segment past the end that is cut in silence."""
    samples, rate = soundfile.read(long, dtype="float32")
    samples[50 * rate + 3, 1] = np.nan
    bad = tmp_path / "bad.wav"
    soundfile.write(bad, samples, rate, subtype="FLOAT")
    blocks = audio_blocks(bad, 16_000, whole_s=10.0)
    assert len(next(blocks)) > 29 * 16_000
    with pytest.raises(AudioError, match=f"sample {50 * rate + 3} is not a finite number"):
        next(blocks)
    with pytest.raises(AudioError, match="ends at 90 s but the recording at 75 s"):
        list(audio_blocks(long, 16_000, whole_s=10.0, offset_s=10.0, duration_s=80.0))
    with pytest.raises(AudioError, match="no samples between 80 s and the end"):
        list(audio_blocks(long, 16_000, whole_s=10.0, offset_s=80.0))


def test_channels_that_cancel_in_a_long_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A channel that is chosen anew in every block, or a long recording that is mixed to silence."""
    path = tmp_path / "inverted.wav"
    sound = noise(40 * 8000).numpy()
    soundfile.write(path, np.stack([0.5 * sound, -0.5 * sound], 1), 8000, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        found = torch.cat(list(audio_blocks(path, 8000, whole_s=10.0)))
    assert np.abs(found.numpy() - 0.5 * sound).max() < 1e-6
    assert sum("cancel each other" in record.message for record in caplog.records) == 1


def test_a_quiet_block_does_not_change_the_channels(tmp_path: Path) -> None:
    """A decision by one block: a pause in which hum of opposite sign is all that there is."""
    path = tmp_path / "hum.wav"
    left, right = noise(70 * 8000).numpy(), noise(70 * 8000, 1).numpy()
    hum = 1e-4 * np.sin(np.arange(70 * 8000) / 25).astype(np.float32)
    left[30 * 8000 :], right[30 * 8000 :] = hum[30 * 8000 :], -hum[30 * 8000 :]
    soundfile.write(path, np.stack([left, right], 1), 8000, subtype="FLOAT")
    with open_recording(path) as recording:
        assert len(list(recording.blocks(0, None))) > 1
    found = torch.cat(list(audio_blocks(path, 8000, whole_s=10.0)))
    assert (found - read_audio(path, 8000)).abs().max() < 1e-6
