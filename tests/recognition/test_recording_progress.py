"""Progress over recordings: position, speed and time left in a long one, and how much audio there was."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.decoding.greedy import GreedyDecoder
from asr.frontend.segmentation import SegmentationConfig
from asr.model.saved import load_model
from asr.recognition.long_audio import recognise_recordings
from asr.recognition.long_emissions import recording_emissions
from asr.recognition.recognise import Segment
from asr.recognition.recording_progress import Position, RecordingProgress


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("asr.progress.time.monotonic", clock.monotonic)
    return clock


def test_one_long_recording(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """An hour of `0 of 1 recordings`, without position, speed and time left."""
    caplog.set_level(logging.INFO, "asr")
    position, progress = Position(3600.0), RecordingProgress(1)
    for end_s in (900.0, 1800.0, 3600.0):
        clock.now += end_s / 100
        seconds, share = position.advance(end_s, last=end_s == 3600.0)
        progress.add(int(end_s == 3600.0), seconds, share)
    progress.end()
    assert caplog.messages == [
        "0:15:00 of 1:00:00, 100 times real time, 0:00:27 left",
        "0:30:00 of 1:00:00, 67 times real time, 0:00:27 left",
        "1 of 1 recordings, 1:00:00 of audio, 57 times real time, 0:00:00 left",
        "1 of 1 recordings, 3600.0 s of audio in 63.0 s (57 times real time)",
    ]


def test_a_length_that_is_not_known(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A time left that is made up, for a pipe."""
    caplog.set_level(logging.INFO, "asr")
    position, progress = Position(None), RecordingProgress(1)
    clock.now += 3
    progress.add(0, *position.advance(60.0, last=False))
    progress.add(1, *position.advance(90.0, last=True))
    assert caplog.messages == [
        "0:01:00 of audio, 20 times real time",
        "1 of 1 recordings, 0:01:30 of audio, 30 times real time, 0:00:00 left",
    ]


def test_several_recordings(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A time left that forgets the half of the long one that is done, or those that cannot be used."""
    caplog.set_level(logging.INFO, "asr")
    progress = RecordingProgress(4)
    clock.now += 10
    progress.failed(1)
    progress.without_speech(10.0)
    progress.add(0, 20.0, 0.5)
    assert caplog.messages == ["2 of 4 recordings, 0:00:30 of audio, 3 times real time, 0:00:06 left"]


@pytest.mark.parametrize("kind", ["cut", "overlapping", "emissions"])
def test_the_summary_has_the_seconds_of_the_recordings(
    kind: str, tones: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pauses between segments that are not counted, or overlaps that are counted twice."""
    caplog.set_level(logging.INFO, "asr")
    net = load_model(tones.model)
    spoken = "abcabc" * 12 if kind == "overlapping" else ("abcabc" + " " * 30) * 3
    sound = tones.sound(spoken)
    sounds = [sound, np.zeros(16_000 * 7, np.float32)]
    if kind == "emissions":
        sounds = [np.tile(sound, 3)]
    segments = [Segment(tmp_path / f"{number}.wav") for number in range(len(sounds))]
    for segment, samples in zip(segments, sounds, strict=True):
        soundfile.write(segment.path, samples, 16_000)
    if kind == "emissions":
        list(recording_emissions(net, segments, 60.0))
    else:
        config = SegmentationConfig(max_segment_s=5.0, vad="energy")
        list(recognise_recordings(net, segments, 10.0, GreedyDecoder(net.settings.tokenizer), config))
    seconds = sum(map(len, sounds)) / 16_000
    count = len(sounds)
    assert caplog.messages[-1 if kind == "emissions" else -2].startswith(
        f"{count} of {count} recordings, {seconds:.1f} s of audio in "
    )
