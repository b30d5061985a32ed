"""`asr corpus segment`: utterances with their words, cut at pauses, and a count of all that is left out."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from asr.manifests.manifest import read_manifest

Run = Callable[..., tuple[int, str, str]]
LETTER_S = 0.16
SENTENCES = ["ab c ab", "cab cc bb", "a b ca b", "bb ca bc", "ab ba c", "ca cb a"]


@pytest.fixture
def talk(tones: Any, tmp_path: Path) -> Path:
    path = tmp_path / "my talk.wav"
    soundfile.write(path, tones.sound("     ".join(SENTENCES)), 16_000)
    return path


def options(tones: Any, tmp_path: Path) -> list[Any]:
    return ["-o", tmp_path / "out", "--model", tones.model, "--min-s", "0.5", "--pause-s", "0.4"]


def test_utterances_and_their_words(tones: Any, talk: Path, run: Run, tmp_path: Path) -> None:
    """Words in another utterance than they are said in, or audio of another length than the manifest says."""
    command = ["corpus", "segment", talk, " ".join(SENTENCES), *options(tones, tmp_path)]
    status, out, err = run(*command, "--max-s", "2", "--speaker", "me")
    assert status == 0, err
    utterances = read_manifest(tmp_path / "out" / "my_talk.jsonl")
    assert [one.text for one in utterances] == SENTENCES
    assert [one.id for one in utterances] == [f"my_talk-{n:04}" for n in range(1, 7)]
    assert {one.speaker for one in utterances} == {"me"}
    whole, _ = soundfile.read(talk)
    position = 0
    for one in utterances:
        samples, rate = soundfile.read(one.audio_filepath)
        assert rate == 16_000
        assert one.duration == pytest.approx(len(samples) / rate)
        assert one.duration <= 2
        begin = next(
            n for n in range(position, len(whole)) if abs(whole[n : n + 200] - samples[:200]).max() < 1e-4
        )
        assert abs(whole[begin : begin + len(samples)] - samples).max() < 1e-4
        position = begin + len(samples)
    assert (tmp_path / "out" / "my_talk-left-out.jsonl").read_text() == ""
    assert out.startswith(f"{tmp_path}/out/my_talk.jsonl: 6 utterances of ")
    assert "left out" not in out
    status, out, err = run(*command, "--max-s", "4.2")
    texts = [one.text for one in read_manifest(tmp_path / "out" / "my_talk.jsonl")]
    assert texts == [" ".join(SENTENCES[n : n + 2]) for n in (0, 2, 4)]


def test_what_does_not_match_is_left_out(tones: Any, talk: Path, run: Run, tmp_path: Path) -> None:
    """A transcript that nobody said in the training data, or words that are left out without a trace."""
    text = " ".join([*SENTENCES[:2], "bbb aaa ccc", *SENTENCES[3:]])
    command = ["corpus", "segment", talk, text, *options(tones, tmp_path), "--max-s", "2"]
    status, out, err = run(*command)
    assert status == 0, err
    texts = [one.text for one in read_manifest(tmp_path / "out" / "my_talk.jsonl")]
    assert texts == SENTENCES[:2] + SENTENCES[3:]
    (row,) = map(json.loads, (tmp_path / "out" / "my_talk-left-out.jsonl").read_text().splitlines())
    assert (row["text"], row["reason"]) == ("bbb aaa ccc", "does not match")
    assert "left out: does not match: 1 stretch, 3 words (my_talk-left-out.jsonl)" in out


def test_bad_input(tones: Any, talk: Path, run: Run, tmp_path: Path) -> None:
    """A traceback, or an empty manifest."""
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    cases: list[tuple[list[Any], str]] = [
        ([talk, "ab", "--min-s", "3", "--max-s", "2"], "--min-s 3 --max-s 2. Expected seconds above 0"),
        ([talk, "ab", "--pause-s", "0"], "--pause-s must be at least 0.1 seconds. Got 0."),
        ([talk, "ab", "--sample-rate", "1"], "--sample-rate must be at least 1000 Hz. Got 1."),
        ([talk, " ".join(SENTENCES), "--min-s", "90", "--max-s", "99"], "not one utterance of 90 to 99 s"),
        ([tmp_path / "gone.wav", "ab"], "gone.wav: no such file."),
        ([tmp_path, "ab"], "is a folder. One recording was expected"),
        ([tmp_path / "pipe", "ab"], "is not a file, but is read more than once."),
        ([talk, "gone.txt"], "gone.txt does not exist."),
    ]  # fmt: skip
    for arguments, message in cases:
        status, _, err = run("corpus", "segment", *arguments, "-o", tmp_path / "out", "--model", tones.model)
        assert status == 2, arguments
        assert message in err
    status, _, err = run("corpus", "segment", talk, "ab", "-o", tmp_path / "file", "--model", tones.model)
    assert status == 2
    assert "file: File exists. Choose another file or folder." in err
    status, _, err = run("corpus", "sort")
    assert status == 2
    assert "error: unknown command 'corpus sort'. Expected one of: corpus list, corpus prepare, " in err
