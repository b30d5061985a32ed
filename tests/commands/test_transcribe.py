"""`asr transcribe`: one line per file, in order, whatever the batch."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr.cli import main
from asr.decoding.hypothesis import Hypothesis
from asr.device import usable_cores
from asr.errors import SettingsError
from asr.frontend import recordings
from asr.model.acoustic import AcousticModel
from asr.model.saved import load_model
from asr.recognition.recognise import Segment, recognise
from asr.transcripts.formats import read_transcripts
from asr.transcripts.output import TranscriptFolder
from tests.conftest import no_space


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
    whole = AcousticModel.outputs

    def watch(model: AcousticModel, waveforms: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        batches.append([len(waveform) for waveform in waveforms])
        return whole(model, waveforms)

    monkeypatch.setattr(AcousticModel, "outputs", watch)
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

    monkeypatch.setattr(AcousticModel, "outputs", fail)
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


# ---------------------------------------------------------------------------------------- formats and folders


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_of_several_formats(tones: Any, tmp_path: Path, run: Any) -> None:
    """A format that is not written, another recording's transcript, or text on stdout as well."""
    out = tmp_path / "new" / "out"
    command = ["transcribe", tones.folder, "-o", out, "--model", tones.model]
    status, stdout, err = run(*command, "--format", "txt", "srt", "--format", "json,ctm,textgrid,trn,vtt,tsv")
    assert (status, stdout) == (0, "")
    suffixes = sorted((".txt", ".srt", ".json", ".ctm", ".TextGrid", ".trn", ".vtt", ".tsv"))
    assert files_in(out) == [f"t{n}{suffix}" for n in range(8) for suffix in suffixes]
    assert f"{out}: txt, srt, json, ctm, textgrid, trn, vtt, tsv of 8 recordings written\n" in err
    for name, text in tones.texts.items():
        stem = Path(name).stem
        assert (out / f"{stem}.txt").read_text() == f"{text}\n"
        assert (out / f"{stem}.trn").read_text() == f"{text} ({stem})\n"
        for suffix in (".srt", ".json", ".ctm", ".TextGrid", ".vtt", ".tsv"):
            assert [one.text for one in read_transcripts(out / f"{stem}{suffix}")] == [text], suffix


def test_formats_that_join(tones: Any, tmp_path: Path, run: Any) -> None:
    """One ctm or trn of a whole list that asr score cannot read, or ids that are not those of the files."""
    command = ["transcribe", *tones.files, "--model", tones.model, "--format"]
    reference = tmp_path / "ref.jsonl"
    reference.write_text(tones.manifest.read_text())
    for kind in ("ctm", "trn"):
        status, out, _ = run(*command, kind)
        assert status == 0
        (tmp_path / f"hyp.{kind}").write_text(out)
        status, score, _ = run("score", reference, tmp_path / f"hyp.{kind}")
        assert score.startswith("%WER 0.00 [ 0 / 19, 0 ins")
    status, out, err = run(*command, "srt")
    assert (status, out) == (2, "")
    assert "error: --format srt: a file of this format has one recording, not 8. Add --output-dir" in err
    status, out, _ = run("transcribe", tones.files[0], "--model", tones.model, "--format", "srt")
    assert (status, out) == (0, "1\n00:00:00,000 --> 00:00:00,640\nab c\n")


def test_equal_names_from_two_folders(tones: Any, tmp_path: Path, run: Any) -> None:
    """The transcript of one recording replaced by that of another of the same name."""
    for folder, file in (("a", tones.files[0]), ("b", tones.files[1])):
        (tmp_path / folder).mkdir()
        shutil.copy(file, tmp_path / folder / "x.wav")
    command = ["transcribe", tmp_path / "a" / "x.wav", tmp_path / "b" / "x.wav", "--model", tones.model]
    assert run(*command, "--output-dir", tmp_path / "out")[0] == 0
    assert files_in(tmp_path / "out") == ["a/x.txt", "b/x.txt"]
    assert (tmp_path / "out" / "b" / "x.txt").read_text() == "cab\n"


def test_skip_existing(tones: Any, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is done twice, or a half finished recording that is taken for a finished one."""
    out = tmp_path / "out"
    command = ["transcribe", tones.folder, "--output-dir", out, "--model", tones.model, "--format", "txt,srt"]
    assert run(*command)[0] == 0
    (out / "t3.srt").unlink()
    (out / "t4.txt").write_text("mine\n")
    status, stdout, err = run(*command, "--skip-existing")
    assert (status, stdout) == (0, "")
    assert "1 of 1 recordings, " in err
    assert f"{out}: txt, srt of 1 recordings written; 7 were there already\n" in err
    assert (out / "t4.txt").read_text() == "mine\n"
    assert (out / "t3.srt").exists()
    # nothing to do: the model is not even looked for
    status, stdout, err = run(*command[:-3], "gone", *command[-2:], "--skip-existing")
    assert (status, stdout) == (0, "")
    assert "0 of" not in err.replace("of 0 recordings written; 8 were there already", "")


def test_failures_cost_no_other_result(tones: Any, tmp_path: Path, run: Any) -> None:
    """One bad file, folder, line of a manifest or name of many that ends the command or is not counted."""
    out, manifest = tmp_path / "out", tmp_path / "list.jsonl"
    rows = [
        {"audio_filepath": tones.files[1], "id": "good"},
        {"audio_filepath": tones.files[1], "id": "beyond", "offset": 99.0},
        {"audio_filepath": tones.files[1], "id": "zero", "duration": 0.0},
        {"audio_filepath": "gone.wav"},
        {"audio_filepath": tones.files[2], "id": "n" * 300},
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "empty").mkdir()
    (out / "t0.txt").mkdir(parents=True)
    inputs = [tmp_path / "empty", tones.files[0], manifest, tmp_path / ("x" * 300), tones.files[3]]
    status, _, err = run("transcribe", *inputs, "--output-dir", out, "--model", tones.model)
    assert status == 1
    assert files_in(out) == ["good.txt", "t3.txt"]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    expected = [
        "no audio files in this folder", "t0.txt: cannot be written: Is a directory", "no samples between 99",
        "line 3: duration is 0", "gone.wav: no such file", "cannot be written: File name too long",
        "cannot be read: File name too long",
    ]  # fmt: skip
    assert len(errors) == len(expected)
    for line, part in zip(errors, expected, strict=True):
        assert part in line
    assert "txt of 9 recordings written" not in err
    assert f"{out}: txt of 2 recordings written; 7 failed" in err


def test_results_are_written_as_they_come(
    tones: Any, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up, or a crash, after which nothing is left of the hours before."""
    out = tmp_path / "out"
    write, written = TranscriptFolder.write, []

    def fill(folder: TranscriptFolder, name: str, transcript: Any) -> None:
        if len(written) == 3:
            monkeypatch.setattr("os.fsync", no_space)
        write(folder, name, transcript)
        written.append(name)

    monkeypatch.setattr(TranscriptFolder, "write", fill)
    status, _, err = run("transcribe", tones.folder, "--output-dir", out, "--model", tones.model)
    assert status == 2
    assert files_in(out) == ["t0.txt", "t1.txt", "t2.txt"]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"{out / 't3.txt'}: cannot be written: No space left on device." in errors[0]
    assert "--skip-existing does the rest" in errors[0]


def test_settings_that_do_not_fit(tones: Any, tmp_path: Path, run: Any) -> None:
    """A misspelt format, an option without effect, or an output folder that is found out after an hour."""
    (tmp_path / "file").touch()
    for arguments, message in (
        (["--format", "srtt"], "--format srtt: unknown. Expected txt, json, srt"),
        (["--format", "srt", "vtt"], "--format srt,vtt: several formats need a folder"),
        (["--skip-existing"], "--skip-existing: there is no folder to look into"),
        (["--threads", "0"], "--threads must be at least 1. Got 0."),
        (["--output-dir", tmp_path / "file"], "file: cannot be written: is a file. Choose another"),
        (["--output-dir", tmp_path / "file" / "out"], "out: cannot be written: Not a directory. Choose"),
    ):
        status, out, err = run("transcribe", tones.files[0], "--model", tones.model, *arguments)
        assert (status, out) == (2, "")
        assert err.startswith("error: ")
        assert message in err
        assert err.count("\n") == 1


def test_output_folder_that_cannot_be_written(tones: Any, tmp_path: Path) -> None:
    """A read-only disk that is noticed after the first recordings, or a traceback."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-m", "asr", "transcribe", tones.files[0], "--model", tones.model]
    script = (
        f"mount -t tmpfs -o ro tmpfs {disk} || exit 77; {' '.join(map(str, command))} --output-dir {disk}/a"
    )
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a disk needs root and unshare")
    result = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, check=False
    )
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip(f"no private mounts here: {result.stderr.strip()}")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: --output-dir {disk}/a: cannot be written: Read-only file system. Choose another folder.\n"
    )


def test_closed_pipe_ends_quietly(tones: Any) -> None:
    """`asr transcribe … | head -1`: a traceback, or work that goes on for nobody."""
    files = tones.files * 200
    command = [sys.executable, "-m", "asr", "transcribe", *files, "--model", tones.model, "--batch-s", "1"]
    with subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == "ab c\n"
        running.stdout.close()
        err = running.stderr.read()
        assert running.wait() == 141
    assert err == ""


@pytest.mark.parametrize("suffix", [".wav", ".m4a"])
def test_a_file_that_changes_while_it_is_read(
    suffix: str, tones: Any, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transcript of half a recording that is still being made, without a word."""
    path = tmp_path / f"growing{suffix}"
    shutil.copy(tones.files[0], path)
    if suffix == ".m4a":  # a name does not make it one: FFmpeg reads it where libsndfile is told not to
        monkeypatch.setattr("soundfile.SoundFile", raise_error)
    check = recordings._check_rate

    def grow(*arguments: Any) -> None:
        with path.open("ab") as file:
            file.write(b"more")
        check(*arguments)

    monkeypatch.setattr(recordings, "_check_rate", grow)
    status, out, err = run("transcribe", path, tones.files[1], "--model", tones.model)
    assert (status, out) == (0, "ab c\ncab\n")
    assert f"warning: {path}: the file changed while it was read" in err
    assert err.count("warning: ") == 1


def raise_error(*arguments: object) -> None:
    raise TypeError


def test_channels(tones: Any, tmp_path: Path, run: Any) -> None:
    """Two speakers in one text, the wrong one of them, or a file that one channel takes from the other."""
    left, right = tones.sound("ab c"), tones.sound("cab ")
    soundfile.write(tmp_path / "call.wav", np.stack([left, right], axis=1), 16_000)
    command = ["transcribe", tmp_path / "call.wav", "--model", tones.model, "--channels"]
    assert run(*command, "separate")[1] == "ab c\ncab\n"
    assert run(*command, "first")[1] == "ab c\n"
    assert run(*command, "separate", "--ids")[1] == "call-A ab c\ncall-B cab\n"
    both = tmp_path / "both.jsonl"
    both.write_text(run(*command, "separate", "--format", "json")[1])
    rows = [json.loads(line) for line in both.read_text().splitlines()]
    assert [(row["id"], row["channel"], row["text"]) for row in rows] == [
        ("call-A", 0, "ab c"), ("call-B", 1, "cab"),
    ]  # fmt: skip
    (tmp_path / "ref.stm").write_text("call B ben 0 9 cab\ncall A anna 0 9 ab c\n")
    assert "%WER 0.00 [ 0 / 3" in run("score", tmp_path / "ref.stm", both)[1]
    ctm = run(*command, "separate", "--format", "ctm")[1].splitlines()
    assert [line.split()[:2] for line in ctm] == [["call", "A"], ["call", "A"], ["call", "B"]]
    assert run(*command, "separate", "--output-dir", tmp_path / "out")[0] == 0
    assert files_in(tmp_path / "out") == ["call-A.txt", "call-B.txt"]
    manifest = tmp_path / "list.jsonl"
    manifest.write_text('{"audio_filepath": "call.wav", "channel": 1}\n')
    assert run("transcribe", manifest, "--model", tones.model)[1] == "cab\n"


def test_threads(tones: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that limits the model and not the search or the reading, or that outlives the command."""
    seen: list[tuple[int, int]] = []
    whole = AcousticModel.outputs

    def watch(model: AcousticModel, waveforms: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((torch.get_num_threads(), usable_cores()))
        return whole(model, waveforms)

    monkeypatch.setattr(AcousticModel, "outputs", watch)
    before = torch.get_num_threads(), usable_cores()
    assert run("transcribe", *tones.files, "--model", tones.model, "--threads", 3)[0] == 0
    assert {*seen} == {(3, 3)}
    assert (torch.get_num_threads(), usable_cores()) == before
