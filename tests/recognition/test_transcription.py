"""The library: `asr.load`, `Model.transcribe`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import asr
from asr.errors import AudioError, ModelError, SettingsError
from asr.model.acoustic import AcousticModel

RECORDING = Path(__file__).parents[1] / "recordings" / "652-129742-0018.opus"
TEXT = "this dressing should stand in the ice box four or five hours to become seasoned"


def test_a_path_an_array_and_a_list(tones: Any) -> None:
    """A list in another order, an array that is not resampled, a list of one that is no list."""
    model = asr.load(tones.model)
    texts = list(tones.texts.values())
    assert [found.text for found in model.transcribe(tones.files)] == texts
    assert model.transcribe(tones.files[0]).text == model.transcribe(Path(tones.files[0])).text == texts[0]
    assert model.transcribe([]) == []
    assert [found.text for found in model.transcribe((tones.files[1],))] == [texts[1]]
    samples = tones.sound("ab c", 44_100)
    mixed = model.transcribe([samples, tones.files[1], torch.from_numpy(samples)], sample_rate=44_100)
    assert [found.text for found in mixed] == ["ab c", "cab", "ab c"]
    assert model.transcribe(samples.astype(np.float64), sample_rate=44_100).text == "ab c"


def test_a_waveform_is_the_file_that_holds_it(tones: Any) -> None:
    """Another result for the same samples."""
    model = asr.load(tones.model)
    samples, rate = soundfile.read(tones.files[0], dtype="float32")
    from_array, from_file = model.transcribe(samples, sample_rate=rate), model.transcribe(tones.files[0])
    assert from_array == from_file
    assert from_file.duration_s == pytest.approx(0.64)
    assert from_file.text == " ".join(word.text for word in from_file.words)
    assert all(0 <= word.start_s < word.end_s <= 0.64 for word in from_file.words)


def test_log_probs(tones: Any) -> None:
    """Columns that are other tokens than their names, rows that are padding, another order than was given."""
    model = asr.load(tones.model)
    files = sorted(tones.files, key=lambda file: soundfile.info(file).frames)
    found = model.log_probs(files)
    for file, log_probs in zip(files, found, strict=True):
        assert log_probs.dtype == np.float32
        assert log_probs.shape[1] == len(model.tokens)
        assert np.exp(log_probs).sum(1) == pytest.approx(1, abs=1e-4)
        assert len(log_probs) * model.step_s == pytest.approx(soundfile.info(file).duration, abs=0.1)
        best = log_probs.argmax(1)
        kept = [token for before, token in zip([0, *best], best, strict=False) if token not in (0, before)]
        assert "".join(model.tokens[token] for token in kept) == model.transcribe(file).text
        assert np.allclose(model.log_probs(file), log_probs, atol=1e-5)
    with pytest.raises(AudioError, match=r"missing\.wav: no such file"):
        model.log_probs("missing.wav")


@pytest.mark.parametrize(
    ("samples", "rate", "error", "message"),
    [
        (np.zeros(8000, np.float32), None, SettingsError, "sample_rate is missing"),
        (np.zeros(8000, np.float32), 16, SettingsError, "sample_rate is 16 Hz"),
        (np.zeros(8000, np.int16), 8000, AudioError, "waveform 0: samples of type int16"),
        (np.zeros((2, 8000), np.float32), 8000, AudioError, r"samples of shape \(2, 8000\)"),
        (np.zeros(0, np.float32), 8000, AudioError, r"samples of shape \(0,\)"),
        (np.full(8000, np.nan), 8000, AudioError, "sample 0 is not a finite number"),
        (np.zeros(80, np.float32), 8000, AudioError, "shorter than one window"),
        ("missing.wav", None, AudioError, "missing.wav: no such file"),
    ],
)
def test_unusable_audio(samples: Any, rate: int | None, error: type, message: str, tones: Any) -> None:
    """Integers taken for full scale a thousand times over, channels taken for samples, a silent result."""
    with pytest.raises(error, match=message):
        asr.load(tones.model).transcribe(samples, sample_rate=rate)


def test_unusable_settings(tones: Any) -> None:
    """A name, a device or a number that is replaced in silence."""
    with pytest.raises(ModelError, match="Did you mean english"):
        asr.load("englsh")
    with pytest.raises(SettingsError, match="device must be auto, cpu, cuda or cuda:N"):
        asr.load(tones.model, device="gpu")
    with pytest.raises(SettingsError, match="nbest must be at least 1"):
        asr.load(tones.model, nbest=0)
    with pytest.raises(SettingsError, match="--batch-s must be above 0"):
        asr.load(tones.model).transcribe(tones.files[0], batch_s=0)


def test_nbest(tones: Any) -> None:
    """One hypothesis where several were asked for, or a text that is not the best of them."""
    model = asr.load(tones.model, nbest=3)
    found = model.transcribe(tones.files[0])
    assert len(found.hypotheses) == 3
    assert found.text == found.hypotheses[0].text == "ab c"
    assert repr(model).startswith("<asr.Model on cpu, decoder: beam of 100")


def test_the_model_that_ships() -> None:
    """The example of the documentation: a recording, a text."""
    found = asr.load().transcribe(RECORDING)
    assert found.text == TEXT
    assert [word.text for word in found.words] == TEXT.split()


def test_long_recordings_are_cut(tones: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of segmentation that are ignored; a waveform of hours that is computed as one batch."""
    longest: list[int] = []
    whole = AcousticModel.outputs

    def watch(model: AcousticModel, waveforms: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        longest.append(max(map(len, waveforms)))
        return whole(model, waveforms)

    monkeypatch.setattr(AcousticModel, "outputs", watch)
    model = asr.load(tones.model)
    samples = np.concatenate([tones.sound("ab c") for _ in range(60)])  # 38 s
    soundfile.write(tmp_path / "long.wav", samples, 16_000)
    for audio in (samples, tmp_path / "long.wav"):
        longest.clear()
        found = model.transcribe(
            audio, sample_rate=16_000, segmentation=asr.SegmentationConfig(max_segment_s=6.0, vad="none")
        )
        assert max(longest) <= 6 * 16_000
        assert found.duration_s == pytest.approx(len(samples) / 16_000)
        assert found.words[-1].end_s > 37
        longest.clear()
        model.transcribe(audio, sample_rate=16_000, segmentation=asr.SegmentationConfig(max_segment_s=40.0))
        assert longest == [len(samples)]
