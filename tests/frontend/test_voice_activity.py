"""Voice activity: speech is found at ordinary levels; silence, noise and hum are none."""

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.errors import SettingsError
from asr.frontend import voice_activity
from asr.frontend.audio import read_audio, resample
from asr.frontend.voice_activity import FRAME_S, VadName, find_vad, open_vad

RECORDING = Path(__file__).parents[1] / "recordings" / "652-129742-0018.opus"

needs_silero = pytest.mark.skipif(
    importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed"
)
DETECTORS: list[Any] = [pytest.param("silero", marks=needs_silero), "energy"]


def probabilities(name: VadName, waveform: Tensor, rate: int = 16_000, block: int = 480_000) -> Tensor:
    vad = open_vad(name, rate)
    found = [vad.accept(part) for part in torch.split(waveform, block)]
    return torch.cat([*found, vad.finish()])


def sounds(seconds: float, rate: int = 16_000) -> dict[str, Tensor]:
    """What is no speech, and varies little."""
    samples = round(seconds * rate)
    t = torch.arange(samples) / rate
    white = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(white)
    pink = torch.fft.irfft(spectrum / torch.arange(1, len(spectrum) + 1).sqrt(), samples)
    hum = sum((torch.sin(2 * np.pi * 50 * k * t) / k for k in (1, 2, 3, 5, 7)), torch.zeros(samples))
    return {
        "silence": torch.zeros(samples), "dither": 1e-5 * white, "quiet": 1e-3 * white, "loud": 0.2 * white,
        "pink": 0.1 * pink / pink.std(), "hum": 0.1 * hum, "hum and noise": 0.03 * hum + 1e-3 * white,
    }  # fmt: skip


@pytest.mark.parametrize("name", DETECTORS)
def test_noise_and_hum_are_no_speech(name: VadName) -> None:
    """Words that are invented where nobody speaks."""
    for sound, waveform in sounds(20).items():
        assert probabilities(name, waveform).max() < 0.35, sound


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("gain", [1.0, 0.1, 0.03])
def test_speech_is_found(name: VadName, gain: float) -> None:
    """Quiet speech that is dropped; a pause that is not seen."""
    speech = torch.nn.functional.pad(gain * read_audio(RECORDING, 16_000), (3 * 16_000, 3 * 16_000))
    noise = torch.randn(len(speech), generator=torch.Generator().manual_seed(1))
    found = probabilities(name, speech + 1e-4 * noise) > 0.5
    second = round(1 / FRAME_S)
    assert found[3 * second : -3 * second].float().mean() > 0.6
    assert not found[: 2 * second].any()
    assert not found[-2 * second :].any()


@pytest.mark.parametrize("name", [*DETECTORS, "none"])
def test_frames_do_not_drift(name: VadName) -> None:
    """Cuts that move away from the pauses over hours, where a frame is not a whole number of samples."""
    for rate, size in ((16_000, 512), (8000, 1000), (11_025, 997)):
        waveform = sounds(20, rate)["loud"]
        found = probabilities(name, waveform, rate, size)
        assert abs(len(found) - 20 / FRAME_S) <= 1


@needs_silero
def test_silero_does_not_depend_on_blocks() -> None:
    """A state or a context that is lost between blocks; another rate that is heard as another voice."""
    speech = read_audio(RECORDING, 16_000)
    whole = probabilities("silero", speech)
    for block in (100, 512, 16_001):
        assert (probabilities("silero", speech, block=block) - whole).abs().max() < 1e-4
    other = probabilities("silero", resample(speech, 16_000, 22_050), 22_050)
    assert ((other > 0.5) == (whole > 0.5)).float().mean() > 0.95


@needs_silero
def test_silero_equals_its_own_code() -> None:
    """A network that is put together in another way than it was trained."""
    file = voice_activity._silero_file()
    assert file is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
    speech = read_audio(RECORDING, 16_000)[: 512 * 60]
    with torch.inference_mode():
        expected = [float(network(frame[None], 16_000)) for frame in speech.view(-1, 512)]
    assert (probabilities("silero", speech) - torch.tensor(expected)).abs().max() < 1e-5


def test_the_detector_is_named_where_another_one_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worse detector that is used in silence."""
    monkeypatch.setattr(voice_activity, "_silero_file", lambda: None)
    with caplog.at_level(logging.INFO):
        assert find_vad("auto") == "energy"
    assert "takes music for speech: pip install silero-vad" in caplog.text
    with pytest.raises(SettingsError, match="--vad silero: the package silero-vad is not installed"):
        find_vad("silero")
    monkeypatch.setattr(voice_activity, "_silero_file", lambda: Path("silero_vad.jit"))
    assert [find_vad(name) for name in ("auto", "silero", "energy", "none")] == [
        "silero", "silero", "energy", "none",
    ]  # fmt: skip
