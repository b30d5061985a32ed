"""The microphone, with a stand-in for PortAudio."""

import sys
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asr.errors import SettingsError
from asr.frontend.microphone import Microphone


class PortAudioError(Exception):
    pass


class FakeSoundDevice:
    """What the microphone uses of sounddevice: one device, which records five blocks at once."""

    PortAudioError = PortAudioError

    def __init__(self, *, overflow: bool = False, devices: bool = True) -> None:
        self.overflow, self.devices = overflow, devices

    def query_devices(self, device: Any, kind: str) -> dict[str, Any]:
        if not self.devices or device not in (None, 0, "Desk"):
            raise ValueError(f"No input device matching {device!r}")
        return {"name": "Desk", "default_samplerate": 44_100.0}

    def InputStream(self, *, callback: Any, blocksize: int, samplerate: int, **_: Any) -> Any:  # noqa: N802
        outer = self

        class Stream:
            def __enter__(self) -> None:
                for number in range(5):
                    block = np.full((blocksize, 1), number / 10, np.float32)
                    callback(block, blocksize, None, SimpleNamespace(input_overflow=outer.overflow))
                    block[:] = 9  # PortAudio uses its memory again

            def __exit__(self, *_: object) -> None:
                pass

        return Stream()


def test_blocks_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards blocks against the next ones, which come into the same memory."""
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSoundDevice())
    microphone = Microphone("Desk")
    assert (microphone.sample_rate, microphone.name) == (44_100, "Desk")
    found = list(islice(microphone.blocks(), 5))
    assert [len(block) for block in found] == [4410] * 5
    np.testing.assert_allclose([block[0] for block in found], [0, 0.1, 0.2, 0.3, 0.4])


def test_lost_samples_are_reported(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Guards a machine that is too slow: words missing without a word."""
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSoundDevice(overflow=True))
    blocks = Microphone().blocks()
    next(blocks)
    next(blocks)
    assert "0.5 s of the microphone are lost" in caplog.text


def test_no_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the lines that say what to install or to choose."""
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSoundDevice(devices=False))
    with pytest.raises(SettingsError, match="--microphone Desk: there is none"):
        Microphone("Desk")
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SettingsError, match=r"pip install 'asr-rnn\[microphone\]'"):
        Microphone()
