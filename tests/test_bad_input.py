"""What bad input gets: one clear line each, the right exit status, nothing lost. The real commands are run.

Most run inside this process, because importing torch takes seconds; each runs once in a separate process.
"""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from asr.errors import ModelError
from asr.model.saved import load_model, save_model
from tests.conftest import no_space

ROOT = Path(__file__).resolve().parents[1]

Run = Callable[..., tuple[int, str, str]]


def process(*arguments: object) -> tuple[int, str, str]:
    """Runs a command in a separate process: (exit status, stdout, stderr)."""
    command = [sys.executable, "-m", "asr", *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout, result.stderr


def the_complaint(err: str) -> str:
    """The one line of stderr that begins with `error: ` or `warning: `."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith(("error: ", "warning: "))]
    assert len(lines) == 1, err
    return lines[0]


# ------------------------------------------------------------------------------------------------- recordings


def _text_file(path: Path) -> None:
    path.write_text("this is not a sound\n" * 20)


def _cut_flac(path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.5, 0.5, 32000), 16000, format="FLAC", subtype="PCM_16")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _samples(samples: list[float], subtype: str = "PCM_16") -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, np.array(samples), 16000, format="WAV", subtype=subtype)


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.wav": (lambda path: None, "no such file"),
    "empty.wav": (Path.touch, "the file is empty (0 bytes). Expected an audio file"),
    "text.wav": (_text_file, "not a readable audio file"),
    "nothing.wav": (_samples([]), "the recording has no samples"),
    "short.wav": (_samples([0.1] * 160), "a recording of 0.010 s is shorter than one window of 25 ms."),
    "nan.wav": (_samples([0.1] * 4000 + [float("nan")] * 9, "FLOAT"), "sample 4000 is not a finite number"),
    "folder.mp3": (Path.mkdir, "no audio files in this folder. Expected some that end in .wav"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_recording_alone(name: str, tones: Any, tmp_path: Path, run: Run) -> None:
    """A recording that cannot be used and exits with 0, prints a traceback, or is not named."""
    make, reason = UNUSABLE[name]
    make(tmp_path / name)
    status, out, err = run("transcribe", tmp_path / name, "--model", tones.model)
    assert status == 2
    assert out.strip() == ""
    assert err == the_complaint(err) + "\n"
    assert err.startswith(f"error: {tmp_path / name}: ")
    assert reason in err


def test_unusable_recordings_in_a_list(tones: Any, tmp_path: Path, run: Run) -> None:
    """One bad file of many that ends the command, shifts the lines of the others, or that a script misses."""
    names = [name for name in UNUSABLE if name != "folder.mp3"]
    paths: list[object] = [tones.files[0]]
    for name in names:
        UNUSABLE[name][0](tmp_path / name)
        paths += [tmp_path / name, tones.files[1]]
    status, out, err = run("transcribe", *paths, "--model", tones.model)
    assert status == 1
    assert out == "ab c\n" + "\ncab\n" * len(names)
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(names)
    for name, line in zip(names, errors, strict=True):
        assert line.startswith(f"error: {tmp_path / name}: ")
        assert UNUSABLE[name][1] in line
    assert f"\n{len(names) + 1} of {2 * len(names) + 1} recordings, " in err


def test_unusable_recording_as_a_process(tones: Any, tmp_path: Path) -> None:
    """What holds inside the test process and not in a shell: exit status, warnings of libraries on stderr."""
    _text_file(tmp_path / "text.wav")
    status, out, err = process("transcribe", tmp_path / "text.wav", tones.files[0], "--model", tones.model)
    assert (status, out) == (1, "\nab c\n")
    assert the_complaint(err).startswith(f"error: {tmp_path / 'text.wav'}: ")
    assert len(err.splitlines()) == 2


def test_cut_recording_is_transcribed_as_far_as_it_decodes(tones: Any, tmp_path: Path, run: Run) -> None:
    """The words before the damage lost with those after it; or half a text that looks like a whole one."""
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.tile(tones.sound("ab c    "), 4), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    status, out, err = run("transcribe", path, tones.files[1], "--model", tones.model)
    first, second = out.splitlines()
    assert (status, second) == (0, "cab")
    assert first.startswith("ab c")
    assert len(first) < len("ab c ab c ab c ab c")
    assert the_complaint(err).startswith(f"warning: {path}: cannot be decoded")
    assert "what could be decoded is used" in err


def test_silence_is_transcribed_and_said(tones: Any, tmp_path: Path, run: Run) -> None:
    """NaN from the variance of silence; or a dead microphone that nobody notices."""
    _samples([0.0] * 8000)(tmp_path / "silence.wav")
    status, out, err = run("transcribe", tmp_path / "silence.wav", tones.files[0], "--model", tones.model)
    assert status == 0
    assert out.splitlines()[1] == "ab c"
    assert the_complaint(err) == (
        f"warning: {tmp_path / 'silence.wav'}: silence (no sample above -80 dBFS). Check the recording."
    )


def test_high_rate_and_many_channels_work(tones: Any, tmp_path: Path, run: Run) -> None:
    """96 kHz in 6 channels, refused, or read as if it were 16 kHz mono."""
    sound = tones.sound("ab c", 96000)
    soundfile.write(tmp_path / "studio.wav", np.stack([sound] * 6, axis=1), 96000, subtype="PCM_24")
    status, out, err = run("transcribe", tmp_path / "studio.wav", "--model", tones.model)
    assert (status, out) == (0, "ab c\n")
    assert err.startswith("1 of 1 recordings, 0.6 s of audio")


# -------------------------------------------------------------------------------------------------- manifests


def _broken(rows: list[dict[str, Any]]) -> str:
    lines = [json.dumps(row) for row in rows]
    lines[2] = lines[2][:20]
    return "\n".join(lines)


def _changed(number: int, **values: object) -> Callable[[list[dict[str, Any]]], str]:
    def change(rows: list[dict[str, Any]]) -> str:
        rows[number] |= values
        # null means a key that is left out
        kept = [{key: value for key, value in row.items() if value is not None} for row in rows]
        return "\n".join(json.dumps(row) for row in kept)

    return change


MANIFESTS: dict[str, tuple[Callable[[list[dict[str, Any]]], str], str, list[str]]] = {
    "missing key": (_changed(1, duration=None), "line 2", ["'duration' is missing", "Expected audio"]),
    "broken JSON": (_broken, "line 3", ["broken JSON", "Expected one JSON object per line"]),
    "duplicate id": (_changed(3, id="t1"), "line 4", ["'t1'", "line 2", "Rename one"]),
    "audio gone": (_changed(5, audio_filepath="gone.wav"), "line 6", ["does not exist", "correct the"]),
    "no duration": (_changed(0, duration=-2), "line 1", ["duration is -2", "Expected seconds above 0"]),
    "empty": (lambda rows: "", "", ["the manifest is empty", "Expected one JSON object per line"]),
}  # fmt: skip


@pytest.fixture
def manifest(tones: Any, tmp_path: Path) -> Callable[[Callable[[list[dict[str, Any]]], str]], Path]:
    """Writes a manifest of the recordings, spoilt in some way."""

    def write(spoil: Callable[[list[dict[str, Any]]], str]) -> Path:
        rows = [json.loads(line) for line in tones.manifest.read_text().splitlines()]
        for row in rows:
            row["audio_filepath"] = str(tones.folder / row["audio_filepath"])
        path = tmp_path / "spoilt.jsonl"
        path.write_text(spoil(rows))
        return path

    return write


def train_arguments(run_dir: Path, epochs: int = 1) -> list[object]:
    """Settings of a training that takes a second."""
    settings = {
        "features.n-mels": 20, "model.width": 8, "model.depth": 1, "model.channels": 4, "batch.seconds": 2,
        "batch.cache-dir": "None", "train.epochs": epochs, "train.precision": "float32",
        "train.device": "cpu", "train.run-dir": run_dir,
    }  # fmt: skip
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


@pytest.mark.parametrize("kind", MANIFESTS)
def test_unusable_manifest(kind: str, tones: Any, manifest: Any, tmp_path: Path, run: Run) -> None:
    """A fault of the manifest that is found after an hour, or that does not name file and line."""
    spoil, line, parts = MANIFESTS[kind]
    path = manifest(spoil)
    model, out_dir, run_dir = tones.model, tmp_path / "out", tmp_path / "run"
    for arguments in (
        ["evaluate", path, "--model", model, "--out", out_dir],
        ["train", path, "--dev", tones.manifest, *train_arguments(run_dir)],
        ["train", tones.manifest, "--dev", path, *train_arguments(run_dir)],
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err == the_complaint(err) + "\n"
        assert err.startswith(f"error: {path} {line}".rstrip() + ":")
        for part in parts:
            assert part in err
    assert not out_dir.exists()
    assert not run_dir.exists()


def test_missing_manifest_as_a_process(tones: Any, tmp_path: Path) -> None:
    """The commands that read manifests, as a shell sees them."""
    for arguments in (
        ["evaluate", "gone.jsonl", "--model", tones.model],
        ["train", "gone.jsonl", "--dev", tones.manifest, *train_arguments(tmp_path / "run")],
        ["score", "gone.jsonl", "gone.jsonl"],
    ):
        status, out, err = process(*arguments)
        assert (status, out) == (2, "")
        assert err == the_complaint(err) + "\n"
        assert err.startswith("error: gone.jsonl")


def test_empty_transcript(tones: Any, manifest: Any, tmp_path: Path, run: Run) -> None:
    """Training refuses it (CTC would learn silence from speech); a score counts what is recognised there."""
    path = manifest(_changed(6, text=" "))
    status, _, err = run("train", path, "--dev", tones.manifest, *train_arguments(tmp_path / "run"))
    assert status == 2
    assert the_complaint(err).startswith(f"error: {path} line 7: the transcript is empty. Expected the words")
    status, out, _ = run("evaluate", path, "--model", tones.model, "--out", tmp_path / "out")
    assert status == 0
    assert "[ 4 / 15, 4 ins, 0 del, 0 sub ]" in out


def test_transcript_too_long_for_its_audio(tones: Any, manifest: Any, tmp_path: Path, run: Run) -> None:
    """An infinite loss after an hour, or an utterance that is left out without a word."""
    path = manifest(_changed(3, text="abc " * 20))
    command = ["train", path, "--dev", tones.manifest]
    status, out, err = run(*command, *train_arguments(tmp_path / "a"), "--text.too-long", "fail")
    assert (status, out) == (2, "")
    assert re.search(
        r"1 of 8 .*utterances .* t3 \(79 tokens need 79 steps, its audio has 9\)", the_complaint(err)
    )
    assert "Correct the transcripts, lower --model.subsampling, or use --text.too-long drop." in err
    status, out, err = run(*command, *train_arguments(tmp_path / "b"), "--text.too-long", "drop")
    assert status == 0
    assert out.startswith(f"model: {tmp_path / 'b' / 'model.safetensors'}\n")
    assert "t3 (79 tokens need 79 steps, its audio has 9)" in the_complaint(err)
    assert "They are left out." in err


def test_audio_that_fails_during_training_or_evaluation(
    tones: Any, manifest: Any, tmp_path: Path, run: Run
) -> None:
    """A score over what could be read, or a training that goes on without saying what it does not hear."""
    bad = tmp_path / "cut.flac"
    _cut_flac(bad)
    path = manifest(_changed(2, audio_filepath=str(bad), duration=2.0))
    status, out, err = run("evaluate", path, "--model", tones.model, "--out", tmp_path / "out")
    assert (status, out) == (2, "")
    assert the_complaint(err).startswith(f"error: utterance t2: {bad}: ")
    status, out, err = run("train", path, "--dev", tones.manifest, *train_arguments(tmp_path / "run"))
    assert (status, out) == (2, "")
    assert str(bad) in the_complaint(err)


# ----------------------------------------------------------------------------------------------------- models


class _Payload:
    """Unpickled, it makes a folder; real ones do worse."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def _newer(source: Path, path: Path) -> None:
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    text = {
        key: value.replace('"format_version": 2', '"format_version": 99') for key, value in metadata.items()
    }
    assert text != metadata
    save_file(load_file(source), path, text)


def _cut(source: Path, path: Path) -> None:
    path.write_bytes(source.read_bytes()[: source.stat().st_size // 2])


def _pickle(source: Path, path: Path) -> None:
    path.write_bytes(pickle.dumps(_Payload(path.with_name("ran"))))


def _torch(source: Path, path: Path) -> None:
    torch.save(_Payload(path.with_name("ran")), path)


def _foreign(source: Path, path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def _swapped(source: Path, path: Path) -> None:
    """Settings of one model, weights of another."""
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
    save_file({"weight": torch.zeros(3)}, path, metadata)


MODELS: dict[str, tuple[Callable[[Path, Path], object], list[str]]] = {
    "missing": (lambda source, path: None, ["no such model file", "Expected a .safetensors file"]),
    "folder": (lambda source, path: path.mkdir(), ["is a folder", "model.safetensors"]),
    "empty": (lambda source, path: path.touch(), ["not a readable model"]),
    "cut": (_cut, ["not a readable model", "copy it again"]),
    "newer": (_newer, ["model format 99", "reads format 2", "Use the version"]),
    "pickle": (_pickle, ["not a readable model"]),
    "torch": (_torch, ["not a readable model"]),
    "foreign": (_foreign, ["not a model of this project", "asr train"]),
    "swapped": (_swapped, ["its weights do not fit its", "settings"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_unusable_model(kind: str, tones: Any, tmp_path: Path, run: Run) -> None:
    """An untrusted model that runs code, or a damaged one that ends in a traceback."""
    make, parts = MODELS[kind]
    path = tmp_path / "model.safetensors"
    make(tones.model, path)
    for arguments in (
        ["transcribe", tones.files[0], "--model", path],
        ["evaluate", tones.manifest, "--model", path, "--out", tmp_path / "out"],
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err == the_complaint(err) + "\n"
        assert err.startswith(f"error: {path}: ")
        for part in parts:
            assert part in err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["cut", "pickle", "newer"])
def test_unusable_checkpoint(kind: str, tones: Any, tmp_path: Path, run: Run) -> None:
    """Resuming from a damaged or evil checkpoint: no code runs, and the models beside it stay."""
    run_dir = tmp_path / "run"
    command = ["train", tones.manifest, "--dev", tones.manifest, *train_arguments(run_dir)]
    assert run(*command)[0] == 0
    checkpoint = run_dir / "checkpoint.pt"
    if kind == "cut":
        checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    elif kind == "pickle":
        torch.save(_Payload(tmp_path / "ran"), checkpoint)
    else:
        torch.save({**torch.load(checkpoint, weights_only=True), "format_version": 99}, checkpoint)
    model = (run_dir / "model.safetensors").read_bytes()
    status, out, err = run(*command, "--train.resume")
    assert (status, out) == (2, "")
    assert the_complaint(err).startswith(f"error: {checkpoint}: ")
    assert ("reads format 4" if kind == "newer" else "not a readable checkpoint") in err
    assert not (tmp_path / "ran").exists()
    assert (run_dir / "model.safetensors").read_bytes() == model


# ------------------------------------------------------------------------------------------------- full disks


def test_full_disk_spares_the_old_model(
    tones: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """A disk that fills up in the middle of a model: the old one must survive, and no half one stay."""
    run_dir = tmp_path / "run"
    command = ["train", tones.manifest, "--dev", tones.manifest, *train_arguments(run_dir)]

    old = tmp_path / "old.safetensors"
    shutil.copy(tones.model, old)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        with pytest.raises(
            ModelError, match=r"old\.safetensors: cannot be written: .*No space left.*before is unharmed"
        ):
            save_model(old, load_model(tones.model), {})
        status, out, err = run(*command)
    assert old.read_bytes() == tones.model.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.safetensors", "run"]
    assert (status, out) == (2, "")
    assert re.search(
        r"error: \S+\.safetensors: cannot be written: .*No space left on device", the_complaint(err)
    )
    assert "Free some space" in err
    assert not list(run_dir.glob("*.part"))


def test_full_disk_for_real(tones: Any, tmp_path: Path) -> None:
    """The same on a disk that is full: checkpoint and models of before stay as they were."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a small disk needs root and unshare")
    command = [
        sys.executable, "-m", "asr", "train", tones.manifest, "--dev", tones.manifest,
        *train_arguments(disk / "run", epochs=2000), "--train.save-every-s", 0,
    ]  # fmt: skip
    script = f"""
        mount -t tmpfs -o size=2m tmpfs {disk} || exit 77
        {" ".join(map(str, command))} 2> {tmp_path}/err1 &
        while [ ! -s {disk}/run/checkpoint.pt ]; do sleep 0.1; done
        kill -9 $!; wait $!
        rm -f {disk}/run/*.part  # or the next session removes it, which makes room
        dd if=/dev/zero of={disk}/filler bs=4k 2> /dev/null
        cp -r {disk}/run {tmp_path}/before
        {" ".join(map(str, command))} --train.resume 2> {tmp_path}/err2
        echo $?
        cp -r {disk}/run {tmp_path}/after
    """
    result = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip(f"no private mounts here: {result.stderr.strip()}")
    assert result.stdout == "2\n"
    err = (tmp_path / "err2").read_text()
    assert "No space left on device" in the_complaint(err)
    assert "Free some space" in err
    before, after = tmp_path / "before", tmp_path / "after"
    kept = {path.name for path in before.iterdir() if path.suffix in (".pt", ".safetensors")}
    assert "checkpoint.pt" in kept
    for name in kept:
        assert (after / name).read_bytes() == (before / name).read_bytes(), name
    assert not list(after.glob("*.part"))


# ---------------------------------------------------------------------------------------------------- kill -9


def test_kill_9_in_mid_epoch_loses_nothing(tones: Any, tmp_path: Path, run: Run) -> None:
    """A killed run that cannot go on, begins again, or ends elsewhere than one that was never killed."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"

    def command(run_dir: Path) -> list[object]:
        arguments = ["train", tones.manifest, "--dev", tones.manifest, *train_arguments(run_dir, epochs=12)]
        return [*arguments, "--train.save-every-s", 0, "--train.seed", 3]

    with subprocess.Popen(
        [sys.executable, "-m", "asr", *map(str, command(killed))],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        while running.poll() is None and not (killed / "model.safetensors").exists():
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    status, out, err = run(*command(killed))
    assert (status, out) == (2, "")
    assert "already holds a run. Add --train.resume to continue it" in the_complaint(err)
    status, out, err = run(*command(killed), "--train.resume")
    assert status == 0
    assert re.search(r"resuming in epoch \d+, after batch \d+", err)
    assert "Traceback" not in err
    assert run(*command(whole))[0] == 0
    for name in ("last.safetensors", "model.safetensors"):
        one, other = load_file(killed / name), load_file(whole / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    assert not list(killed.glob("*.part"))
