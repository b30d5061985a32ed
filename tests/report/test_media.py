"""What is shown of an utterance: tokens where the model thinks of them, sound and picture of its length."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile

from asr.manifests.manifest import read_manifest
from asr.manifests.utterance import Utterance
from asr.model.saved import load_model
from asr.report.media import TokenRun, read_media, token_runs


def test_token_runs() -> None:
    """A blank among the tokens, a faint token that is shown, two separate runs that become one."""
    tokenizer: Any = SimpleNamespace(symbols=("a", "b"))
    probs = np.zeros((6, 3), np.float32)
    probs[:, 0] = 0.9
    probs[:, 1] = [0.0, 0.05, 0.95, 0.0, 0.2, 0.0]
    probs[:, 2] = 0.08
    assert token_runs(probs, tokenizer) == (TokenRun("a", 1, "09"), TokenRun("a", 4, "2"))
    assert token_runs(probs[:0], tokenizer) == ()


def test_sound_and_picture(tones: Any, tmp_path: Path) -> None:
    """A sound of another length or pitch, a picture upside down; a file that has vanished ends the page."""
    from PIL import Image

    utterance = read_manifest(tones.manifest)[5]  # abcabc
    gone = Utterance(id="gone", audio_filepath=tmp_path / "gone.wav", duration=1.0, text="a")
    found, nothing = read_media(load_model(tones.model), [utterance, gone], 60.0)
    assert nothing is None
    assert found is not None
    samples, rate = soundfile.read(io.BytesIO(found.sound))
    assert abs(len(samples) / rate - utterance.duration) < 0.05
    third = samples[: rate // 10]  # an a, of 300 Hz
    assert abs(np.argmax(np.abs(np.fft.rfft(third))) * 10 - 300) < 25
    picture = np.asarray(Image.open(io.BytesIO(found.picture)))
    assert picture.shape[1] == -(-int(1 + 100 * utterance.duration) // 2)
    low, high = (picture[:, begin : begin + 4].sum(1).argmax() for begin in (3, 19))  # an a, a c
    assert low > high
    assert "".join(run.token for run in found.runs if max(run.levels) > "5") == "abcabc"
