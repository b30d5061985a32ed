"""Rooms: decay and direct sound as drawn, and speech that stays where it was."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.errors import AudioError
from asr.frontend.augment.reverb import RecordedRoom, SyntheticRoom, reverberate

RATE = 16_000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("rt60_s", [0.2, 0.5, 1.2])
@pytest.mark.parametrize("direct_db", [-5.0, 0.0, 12.0])
def test_synthetic_room(rt60_s: float, direct_db: float) -> None:
    """Guards the meaning of both numbers: Schroeder's backward integral falls by 60 dB in RT60, and the
    energies of direct sound and reverberation have the ratio."""
    response = SyntheticRoom(rt60_s, direct_db, seed=1).response(RATE).astype(np.float64)
    assert len(response) == 1 + round(rt60_s * RATE)
    tail = response[1:]
    assert 10 * np.log10(response[0] ** 2 / np.square(tail).sum()) == pytest.approx(direct_db, abs=0.01)
    left_db = 10 * np.log10(np.cumsum(np.square(tail)[::-1])[::-1])
    # As measured in rooms: the time from -5 to -25 dB, times three.
    fall = [int(np.argmax(left_db < left_db[0] - level)) for level in (5, 25)]
    assert 3 * (fall[1] - fall[0]) / RATE == pytest.approx(rt60_s, rel=0.1)


def test_synthetic_room_is_a_function_of_its_seed() -> None:
    """Guards against one room for all, and against global random state."""
    first = SyntheticRoom(0.3, 0.0, 1).response(RATE)
    np.random.seed(3)
    assert np.array_equal(SyntheticRoom(0.3, 0.0, 1).response(RATE), first)
    assert not np.array_equal(SyntheticRoom(0.3, 0.0, 2).response(RATE), first)


def test_reverberation_is_a_convolution() -> None:
    """Guards the transform's size (a circular convolution would put the end before the beginning) against
    numpy's direct convolution; length and power are the speech's."""
    for samples, taps in ((1000, 300), (513, 512), (100, 1000), (401, 1)):
        speech, response = noise(samples), noise(taps, seed=1)
        reverberant = reverberate(speech, response)
        assert reverberant.dtype == np.float32
        expected = np.convolve(speech.astype(np.float64), response)[:samples]
        expected *= np.sqrt(np.square(speech, dtype=np.float64).sum() / np.square(expected).sum())
        assert reverberant == pytest.approx(expected, abs=1e-5)


def test_direct_sound_stays_in_place() -> None:
    """Guards against words that move against their transcript: the largest correlation is at lag 0."""
    speech = noise(RATE)
    reverberant = reverberate(speech, SyntheticRoom(0.6, 0.0, seed=2).response(RATE))
    assert reverberant.shape == speech.shape
    correlation = np.fft.irfft(np.fft.rfft(reverberant, 2 * RATE) * np.fft.rfft(speech, 2 * RATE).conj())
    assert int(correlation.argmax()) == 0


def test_silence_stays_silent() -> None:
    """Guards against NaN from a division by no power."""
    assert not reverberate(np.zeros(500, np.float32), SyntheticRoom(0.1, 0.0, 1).response(RATE)).any()


def test_recorded_room(tmp_path: Path) -> None:
    """Guards the alignment of responses that begin with the sound's way through the room, and against the
    mean of several microphones, which is a comb filter."""
    response = np.zeros((4000, 2), np.float32)
    response[:2000, 0] = 0.001
    response[[2000, 2100], 0] = 0.8, 0.4
    response[[300, 900], 1] = 0.9
    soundfile.write(tmp_path / "room.wav", response, RATE, subtype="FLOAT")
    found = RecordedRoom(tmp_path / "room.wav").response(RATE)
    assert len(found) == 2000
    assert found[[0, 100]].tolist() == pytest.approx([0.8, 0.4])
    assert not found[1:100].any()


def test_silent_response(tmp_path: Path) -> None:
    """Guards against an utterance that vanishes in a silent room."""
    soundfile.write(tmp_path / "room.wav", np.zeros(100), RATE)
    with pytest.raises(
        AudioError, match=r"room\.wav: silent throughout\. Expected a room's impulse response"
    ):
        RecordedRoom(tmp_path / "room.wav").response(RATE)
