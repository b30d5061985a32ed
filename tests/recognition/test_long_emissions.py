"""Emissions of long recordings: those of the whole, whatever the windows, and an error for each failure."""

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor

from asr.errors import AudioError
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.recognition import long_emissions
from asr.recognition.long_emissions import recording_emissions
from asr.recognition.recognise import Segment

STEP = 640  # samples of a step of the model of tones


@pytest.fixture
def net(tones: Any, monkeypatch: pytest.MonkeyPatch) -> AcousticModel:
    """A model whose output is wrong within 0.3 s of where a window ends or begins, and windows of 2 s."""
    net = load_model(tones.model)

    def listen(model: AcousticModel, waveforms: list[Tensor]) -> tuple[Tensor, Tensor, None]:
        rows = []
        for waveform in waveforms:
            steps = torch.nn.functional.pad(waveform, (0, STEP - len(waveform) % STEP)).view(-1, STEP)
            row = torch.stack([steps[:, n * 100] for n in range(4)], dim=1)
            row[:7] += torch.randn(len(row[:7]), 4) if waveform[0] != 0 else 0.0
            row[-7:] += torch.randn(len(row[-7:]), 4) if waveform[-1] != 0 else 0.0
            rows.append(row.log_softmax(1))
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([*map(len, rows)]), None

    monkeypatch.setattr(AcousticModel, "outputs", listen)
    monkeypatch.setattr(long_emissions, "_WINDOW_S", 2.0)
    monkeypatch.setattr(long_emissions, "_OVERLAP_S", 1.2)
    return net


def sound(seconds: float, seed: int = 0) -> Tensor:
    """Noise that begins and ends with a sample of silence."""
    waveform = torch.randn(round(seconds * 16_000), generator=torch.Generator().manual_seed(seed)) / 4
    waveform[0] = waveform[-1] = 0.0
    return waveform.clamp(-0.9, 0.9)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 2.05, 3.3, 10.0, 10.01])
def test_windows_are_the_whole(net: AcousticModel, seconds: float) -> None:
    """Steps that are lost or doubled where windows meet, or taken from a window that lacks context there."""
    waveform = sound(seconds)
    (found,) = recording_emissions(net, [Segment(Path("x"), waveform=waveform)], 20.0)
    assert isinstance(found.outcome, Tensor)
    whole, _, _ = net.outputs([waveform])
    assert torch.equal(found.outcome, whole[0])
    assert found.duration_s == pytest.approx(seconds)


def test_recordings_in_order_and_errors(net: AcousticModel, tmp_path: Path) -> None:
    """A recording that fails costs another its result, or the results change places."""
    for number, seconds in enumerate((5.0, 0.4, 3.0)):
        soundfile.write(tmp_path / f"{number}.wav", sound(seconds, number).numpy(), 16_000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no audio")
    segments = [
        Segment(tmp_path / "0.wav"), Segment(tmp_path / "text.wav"), Segment(tmp_path / "1.wav", 0.0, 0.4),
        Segment(tmp_path / "gone.wav", 0.0, 9.0), Segment(tmp_path / "2.wav", 0.0, 3.0),
        Segment(Path("empty"), waveform=torch.zeros(10)),
    ]  # fmt: skip
    found = list(recording_emissions(net, segments, 20.0))
    assert [one.segment for one in found] == segments
    assert [one.duration_s for one in found] == pytest.approx([5.0, 0.0, 0.4, 0.0, 3.0, 0.0])
    errors = [isinstance(one.outcome, AudioError) for one in found]
    assert errors == [False, True, False, True, False, True]
    (alone,) = recording_emissions(net, segments[4:5], 20.0)
    assert isinstance(alone.outcome, Tensor)
    assert isinstance(found[4].outcome, Tensor)
    assert torch.equal(found[4].outcome, alone.outcome)
