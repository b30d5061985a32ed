"""`asr transcribe`: one line per file, in order, whatever the batch."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr.cli import main
from asr.decoding.hypothesis import Hypothesis
from asr.errors import SettingsError
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.recognition.recognise import Segment, recognise


def transcribe(capsys: pytest.CaptureFixture[str], tones: Any, *arguments: str) -> tuple[int, list[str], str]:
    """(exit status, lines on stdout, stderr) of the command."""
    status = main(["transcribe", *arguments, "--model", str(tones.model)])
    captured = capsys.readouterr()
    return status, captured.out.split("\n")[:-1], captured.err


def test_one_line_a_file_in_the_given_order(tones: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Results in the order of length or of completion, a lost file, or a line that is not a transcript."""
    status, lines, err = transcribe(capsys, tones, *tones.files)
    assert status == 0
    assert lines == list(tones.texts.values())
    status, lines, _ = transcribe(capsys, tones, *reversed(tones.files))
    assert lines == list(reversed(tones.texts.values()))
    assert err.count("\n") == 1
    assert err.startswith("8 of 8 recordings, 7.0 s of audio in ")
    assert err.endswith(" times real time)\n")


def test_the_same_file_twice_has_two_lines(tones: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A list of n files whose output has fewer than n lines cannot be pasted beside the list."""
    status, lines, _ = transcribe(capsys, tones, tones.files[0], tones.files[1], tones.files[0])
    assert (status, lines) == (0, ["ab c", "cab", "ab c"])


@pytest.mark.parametrize("batch_s", ["0.01", "3", "1000"])
def test_batch_s_changes_no_text(tones: Any, capsys: pytest.CaptureFixture[str], batch_s: str) -> None:
    """A batch, or the window of batches that is sorted by length, that mixes up or changes results."""
    status, lines, _ = transcribe(capsys, tones, *tones.files, "--batch-s", batch_s)
    assert (status, lines) == (0, list(tones.texts.values()))


def test_batch_s_bounds_a_batch(tones: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that is parsed and ignored, or that forgets the padding: memory would overflow."""
    batches: list[list[int]] = []
    whole = AcousticModel.log_probs

    def watch(model: AcousticModel, waveforms: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        batches.append([len(waveform) for waveform in waveforms])
        return whole(model, waveforms)

    monkeypatch.setattr(AcousticModel, "log_probs", watch)
    results = list(recognise(load_model(tones.model), [Segment(Path(file)) for file in tones.files], 2.0))
    assert len(results) == sum(map(len, batches)) == 8
    assert max(map(len, batches)) > 1
    assert all(len(batch) == 1 or max(batch) * len(batch) <= 2.0 * 16000 for batch in batches)


@pytest.mark.parametrize("batch_s", ["0", "-1", "nan"])
def test_batch_s_must_be_positive(tones: Any, capsys: pytest.CaptureFixture[str], batch_s: str) -> None:
    """A batch of no seconds: an endless loop or a division by zero."""
    status, lines, err = transcribe(capsys, tones, tones.files[0], "--batch-s", batch_s)
    assert (status, lines) == (2, [])
    assert err == f"error: --batch-s must be above 0 seconds. Got {batch_s}.\n"


def test_a_batch_that_does_not_fit_names_the_setting(tones: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback from the depths of torch, where one setting is the remedy."""

    def fail(model: AcousticModel, waveforms: list[torch.Tensor]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AcousticModel, "log_probs", fail)
    with pytest.raises(
        SettingsError, match=r"batch-s 60: 8 recordings of up to 2 s do not fit.*Lower --batch-s"
    ):
        list(recognise(load_model(tones.model), [Segment(Path(file)) for file in tones.files], 60.0))


def test_ids_name_the_file(tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines that `asr score --ids` cannot match: a lost id, or one that ends at a space in a name."""
    spaced = tmp_path / "my take  2.wav"
    shutil.copy(tones.files[1], spaced)
    status, lines, err = transcribe(capsys, tones, tones.files[0], str(spaced), "--ids")
    assert (status, lines) == (0, ["t0 ab c", "my_take_2 cab"])
    assert "warning" not in err
    _, lines, err = transcribe(capsys, tones, tones.files[0], tones.files[0], "--ids")
    assert lines == ["t0 ab c", "t0 ab c"]
    assert "warning: --ids: 1 names belong to more than one file, such as t0." in err


def test_json_has_words_with_times(tones: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Times that run backwards or out of the audio, words that are not those of the text."""
    status, lines, _ = transcribe(capsys, tones, *tones.files, "--format", "json")
    assert status == 0
    rows = [json.loads(line) for line in lines]
    assert [row["audio_filepath"] for row in rows] == tones.files
    for row, text in zip(rows, tones.texts.values(), strict=True):
        assert row["text"] == text == " ".join(word["word"] for word in row["words"])
        assert row["duration"] == pytest.approx(0.16 * len(text), abs=1e-3)
        assert row["score"] <= 0.0
        times = [time for word in row["words"] for time in (word["start"], word["end"])]
        assert times == sorted(times)
        assert times[0] >= 0.0
        assert times[-1] <= row["duration"]
        assert all(word["start"] < word["end"] for word in row["words"])
        assert all(0.0 < word["confidence"] <= 1.0 for word in row["words"])
    # "ab c": the pause is the third letter of 0.16 s
    first, second = rows[0]["words"]
    assert first["start"] < 0.16
    assert first["end"] <= 0.44
    assert second["start"] >= 0.48


def test_json_of_a_failed_file_holds_the_error(tones: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that is missing, or that looks like silence."""
    status, lines, _ = transcribe(capsys, tones, "gone.wav", tones.files[1], "--format", "json")
    assert status == 1
    bad, good = map(json.loads, lines)
    assert bad == {"audio_filepath": "gone.wav", "duration": 0.0, "error": "gone.wav: no such file."}
    assert good["text"] == "cab"


def test_file_names_of_any_bytes(tones: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is not UTF-8 ends the command with an encoding error after an hour of work."""
    odd = str(tmp_path / b"\xff\xe4.wav".decode("utf-8", "surrogateescape"))
    status, lines, err = transcribe(capsys, tones, odd, tones.files[0], "--format", "json")
    assert status == 1
    assert json.loads(lines[0])["audio_filepath"] == odd
    assert json.loads(lines[1])["text"] == "ab c"
    assert "\\udcff\\udce4.wav: no such file." in err


def test_device_must_exist(tones: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A device that is silently replaced by another one."""
    for device, reason in (("tpu", "must be auto, cpu, cuda or cuda:N"), ("cuda:77", "device cuda:77")):
        status, lines, err = transcribe(capsys, tones, tones.files[0], "--device", device)
        assert (status, lines) == (2, [])
        assert err.startswith("error: ")
        assert reason in err
    assert transcribe(capsys, tones, tones.files[0], "--device", "cpu")[:2] == (0, ["ab c"])


def test_segments_of_a_long_file(tones: Any, tmp_path: Path) -> None:
    """An offset that is ignored: every segment of a file would be its beginning."""
    import soundfile

    long = tmp_path / "long.wav"
    soundfile.write(long, tones.sound("ab c" + "    " + "cab"), 16000)
    segments = [Segment(long, 0.16 * 8, 0.16 * 3), Segment(long, 0.0, 0.16 * 4)]
    results = list(recognise(load_model(tones.model), segments, 60.0))
    assert [result.segment for result in results] == segments
    assert [result.duration_s for result in results] == pytest.approx([0.48, 0.64])
    texts = [result.outcome.text for result in results if isinstance(result.outcome, Hypothesis)]
    assert texts == ["cab", "ab c"]


def test_other_rates_sound_the_same(tones: Any, tmp_path: Path) -> None:
    """A sample rate that is not looked at: the same words, faster."""
    import soundfile

    for rate in (22050, 44100, 96000):
        path = tmp_path / f"{rate}.wav"
        soundfile.write(path, tones.sound("ab c", rate), rate)
        (result,) = recognise(load_model(tones.model), [Segment(path)], 60.0)
        assert isinstance(result.outcome, Hypothesis)
        assert result.outcome.text == "ab c"


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_inverted_channel(noise: float, tones: Any, tmp_path: Path, run: Any) -> None:
    """A recording whose channels cancel when mixed, transcribed as silence or as the noise that is left."""
    sound = tones.sound("ab c")
    left, right = np.random.default_rng(1).normal(0, noise, (2, len(sound)))
    soundfile.write(tmp_path / "inverted.wav", np.stack([sound + left, right - sound], axis=1), 16_000)
    status, out, err = run("transcribe", tmp_path / "inverted.wav", "--model", tones.model)
    assert (status, out) == (0, "ab c\n")
    assert "inverted.wav: the channels cancel each other when mixed" in err


def test_long_recording(tones: Any, tmp_path: Path, run: Any) -> None:
    """A long recording without text until its end; options of its cutting that are ignored."""
    soundfile.write(tmp_path / "long.wav", np.concatenate([tones.sound("ab c" + " " * 20)] * 4), 16_000)
    command = ["transcribe", tmp_path / "long.wav", "--model", tones.model, "--max-segment-s", 5]
    status, out, err = run(*command, "--vad", "none")
    assert status == 0
    assert len(out.splitlines()) == 1
    assert re.search(r"long\.wav \[0:00:00-0:00:0\d\]: ab", err)
    assert "left out" not in err
    status, out, err = run(*command[:-1], 1)
    assert (status, out) == (2, "")
    assert "max-segment-s must be at least 5 seconds. Got 1." in err
