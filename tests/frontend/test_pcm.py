"""Sound from a pipe: raw PCM and WAV of unknown length."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.errors import AudioError, SettingsError
from asr.frontend.pcm import PcmFormat, PcmStream

RATE = 8000
SAMPLES = (0.5 * np.sin(np.arange(4000) / 9)).astype(np.float32)


class Trickle(io.BytesIO):
    """A pipe that holds a few bytes at a time."""

    def read1(self, size: int | None = -1) -> bytes:
        return super().read1(min(size or 0, 1237))


def read(data: bytes, form: PcmFormat | None = None) -> np.ndarray:
    stream = PcmStream(Trickle(data), form or PcmFormat(rate=RATE))
    return np.concatenate([*stream.blocks(), np.zeros(0, np.float32)])


@pytest.mark.parametrize(
    ("samples", "data", "step"),
    [
        ("u8", (128 + 127 * SAMPLES).astype(np.uint8).tobytes(), 1 / 64),
        ("s16le", (32768 * SAMPLES).astype("<i2").tobytes(), 1e-4),
        (
            "s24le",
            (2**31 * SAMPLES.astype(np.float64)).astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes(),
            1e-6,
        ),
        ("s32le", (2**31 * SAMPLES.astype(np.float64)).astype("<i4").tobytes(), 1e-6),
        ("f32le", SAMPLES.tobytes(), 0),
        ("f64le", SAMPLES.astype(np.float64).tobytes(), 0),
    ],
)
def test_samples_of_every_type(samples: str, data: bytes, step: float) -> None:
    """Guards signs, byte orders and scales, and samples that the pipe cuts in the middle."""
    found = read(data, PcmFormat(samples=samples, rate=RATE))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, SAMPLES, rtol=0, atol=step)


def test_channels_are_averaged() -> None:
    """Guards two channels against being read as one of twice the length."""
    both = np.stack([SAMPLES, 0 * SAMPLES], axis=1)
    np.testing.assert_allclose(read(both.tobytes(), PcmFormat("f32le", RATE, 2)), SAMPLES / 2, atol=1e-7)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF])
def test_wav_has_its_own_form(subtype: str, size: int | None, tmp_path: Path) -> None:
    """Guards headers that a program writes before it knows the length, and what comes after the samples."""
    soundfile.write(tmp_path / "a.wav", np.stack([SAMPLES, SAMPLES], axis=1), 44_100, subtype=subtype)
    data = (tmp_path / "a.wav").read_bytes()
    if size is None:
        data += b"LIST\x04\x00\x00\x00abcd"
    else:
        place = data.index(b"data") + 4
        data = data[:place] + struct.pack("<I", size) + data[place + 4 :]
    stream = PcmStream(Trickle(data), PcmFormat())
    assert (stream.sample_rate, stream.form.channels) == (44_100, 2)
    np.testing.assert_allclose(np.concatenate([*stream.blocks()]), SAMPLES, rtol=0, atol=1 / 64)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"fLaC" + bytes(20), "a file of FLAC"),
        (b"OggS" + bytes(20), "a file of Ogg"),
        (b"\0\0\0\x20ftypM4A " + bytes(20), "a file of MP4"),
        (b"RIFF\0\0\0\0WAVE", "WAV without samples"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "without a description"),
        (b"RIFF\0\0\0\0WAVEfmt \x04\0\0\0abcd", "a damaged WAV header"),
        (
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 7, 1, RATE, RATE, 1, 8),
            "codec 7 with 8 bits",
        ),
    ],
)
def test_what_is_no_pcm(data: bytes, message: str) -> None:
    """Guards compressed files against being recognised as noise."""
    with pytest.raises(AudioError, match=message):
        PcmStream(io.BytesIO(data), PcmFormat())


def test_a_sample_that_is_cut_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Guards the wrong width or number of channels, which nobody would notice otherwise."""
    assert len(read(bytes(101))) == 50
    assert "in the middle of a sample" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": "s8"}, "--pcm.samples must be one of"),
        ({"rate": 16}, r"--pcm.rate must be in 1000..768000 Hz"),
        ({"channels": 0}, r"--pcm.channels must be in 1..64"),
    ],
)
def test_impossible_forms(settings: dict, message: str) -> None:
    """Guards the settings."""
    with pytest.raises(SettingsError, match=message):
        PcmFormat(**settings)
