"""`asr align`: words with their times, in every format, and one line for each thing that is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from asr.transcripts.formats import read_transcripts
from tests.conftest import no_space

Run = Callable[..., tuple[int, str, str]]
LETTER_S = 0.16


@pytest.fixture
def talk(tones: Any, tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    soundfile.write(path, tones.sound("ab c   cab a"), 16_000)
    return path


def test_words_and_tokens(tones: Any, talk: Path, run: Run, tmp_path: Path) -> None:
    """Words at other times than they are said, or without what was asked for."""
    text = tmp_path / "talk.txt"
    text.write_text("Ab, c!\nCab a.\n")
    status, out, err = run("align", talk, text, "--model", tones.model, "--units", "tokens")
    assert status == 0, err
    row = json.loads(out)
    assert row["text"] == "Ab, c! Cab a."
    assert row["confidence"] > 0.5
    assert "mismatches" not in row
    begins = [LETTER_S * n for n in (0, 3, 7, 11)]
    for word, begin in zip(row["words"], begins, strict=True):
        assert begin - 0.05 <= word["start"] < begin + LETTER_S
        assert word["start"] < word["end"]
    assert [token["text"] for token in row["tokens"]] == list("abccaba")
    assert row["tokens"][0]["start"] == row["words"][0]["start"]
    assert row["duration"] == pytest.approx(12 * LETTER_S)


def test_every_format(tones: Any, talk: Path, run: Run, tmp_path: Path) -> None:
    """A format that lacks words, or tokens where they were asked for."""
    formats = ["json", "ctm", "textgrid", "srt", "vtt", "tsv"]
    command = ["align", talk, "ab c cab a", "--model", tones.model, "--units", "tokens"]
    status, out, err = run(*command, "--format", *formats, "--output-dir", tmp_path / "out")
    assert (status, out) == (0, ""), err
    assert "json, ctm, textgrid, srt, vtt, tsv of 1 recordings written" in err
    for suffix in ("json", "srt", "vtt", "tsv", "TextGrid"):
        (found,) = read_transcripts(tmp_path / "out" / f"talk.{suffix}")
        assert found.text == "ab c cab a", suffix
    (found,) = read_transcripts(tmp_path / "out" / "talk.ctm")
    assert found.text == "a b c c a b a"
    grid = (tmp_path / "out" / "talk.TextGrid").read_text()
    assert "size = 2" in grid
    assert 'name = "tokens"' in grid
    status, out, err = run(*command[:-2], "--format", "ctm")
    assert [line.split()[4] for line in out.splitlines()] == ["ab", "c", "cab", "a"]


def test_text_that_is_not_said(tones: Any, run: Run, tmp_path: Path) -> None:
    """A wrong sentence without a word about it, or whose words are gone from the output."""
    spoken = ["ab c ab", "cab cc bb", "a b ca b", "bb ca bc"]
    path = tmp_path / "long.wav"
    soundfile.write(path, tones.sound("    ".join(spoken)), 16_000)
    text = " ".join([spoken[0], "bbb aaa abab", *spoken[2:]])
    status, out, err = run("align", path, text, "--model", tones.model)
    assert status == 0
    row = json.loads(out)
    assert row["text"] == text
    assert "warning: long: " in err
    assert " do not match the audio" in err
    assert err.count("warning") == 1
    wrong = [word for word in row["words"] if word["confidence"] < 0.1]
    assert {"bbb", "aaa", "abab"} <= {word["word"] for word in wrong}
    assert any("bbb" in one["text"] for one in row["mismatches"])
    late = row["words"][-3:]
    assert [word["word"] for word in late] == ["bb", "ca", "bc"]
    assert late[0]["start"] > LETTER_S * (len("    ".join(spoken[:3])) + 3)


def test_manifests(tones: Any, run: Run, tmp_path: Path) -> None:
    """Results in another order, or that one bad line costs."""
    rows = [json.loads(line) for line in tones.manifest.read_text().splitlines()]
    for row in rows:
        row["audio_filepath"] = str(tones.folder / row["audio_filepath"])
    rows[2]["text"] = ""
    (tmp_path / "bad.wav").write_text("")
    rows[4]["audio_filepath"] = str(tmp_path / "bad.wav")
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, err = run("align", manifest, "--model", tones.model)
    assert status == 1
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["audio_filepath"] for row in found] == [row["audio_filepath"] for row in rows]
    assert [("error" in row) for row in found] == [n in (2, 4) for n in range(8)]
    assert "error: the text of t2: the text is empty." in err
    assert "bad.wav" in err
    for number in (0, 1, 3, 5, 6, 7):
        assert [word["word"] for word in found[number]["words"]] == rows[number]["text"].split()
    status, out, err = run("align", manifest, "--model", tones.model, "--output-dir", tmp_path / "out")
    assert (status, out) == (1, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"t{n}.json" for n in (0, 1, 3, 5, 6, 7)
    ]
    assert "json of 6 recordings written; 2 failed" in err


def test_full_disk(tones: Any, talk: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice to use an option of another command."""

    monkeypatch.setattr("os.fsync", no_space)
    command = ["align", talk, "ab c cab a", "--model", tones.model, "--output-dir", tmp_path / "out"]
    status, _, err = run(*command)
    assert status == 2
    assert err.endswith(
        f"error: {tmp_path / 'out' / 'talk.json'}: cannot be written: No space left on device. The "
        "transcripts before it are complete. Free some space, and start again.\n"
    )


def test_bad_input(tones: Any, talk: Path, run: Run, tmp_path: Path) -> None:
    """A traceback, or work that is done before the error is found."""
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "none.txt").write_text("\n")
    (tmp_path / "folder").mkdir()
    cases: list[tuple[list[Any], str]] = [
        ([talk], "TEXT is missing, what is said in the recording."),
        ([talk, "gone.txt"], "gone.txt does not exist. Expected a text file, or the words themselves"),
        ([talk, "notes.docx"], "notes.docx does not exist. Expected a text file"),
        ([talk, tmp_path / "latin.txt"], "latin.txt line 1: byte 0xe9"),
        ([talk, tmp_path / "none.txt"], "none.txt: the text is empty."),
        ([talk, "привет"], "the text: none of its words can be written in the model's characters"),
        ([talk, "ccc " * 99], "the text: none of its 99 words was found"),
        ([tmp_path / "gone.wav", "a"], "gone.wav: no such file."),
        ([tmp_path / "empty.wav", "a"], "empty.wav"),
        ([tmp_path / "folder", "a"], "folder"),
        ([tones.folder, "a"], "names 8 recordings, but a text is that of one."),
        ([tones.manifest, "a"], "tones.jsonl is a manifest, whose recordings have texts of their own."),
        ([tones.manifest, "--format", "srt"], "--format srt: a file of this format has one recording"),
        ([talk, "ab", "--format", "mp3"], "--format mp3: unknown."),
        ([talk, "ab", "--format", "srt,ctm"], "several formats need a folder."),
        ([talk, "ab", "--min-score", "2"], "--min-score must be in 0..1. Got 2."),
        ([talk, "ab", "--threads", "0"], "--threads must be at least 1. Got 0."),
        ([talk, "ab", "--lexicon", tmp_path / "gone"], "gone: cannot be read"),
        ([talk, "ab", "--output-dir", talk], "cannot be written: is a file."),
    ]
    for arguments, message in cases:
        status, _, err = run("align", *arguments, "--model", tones.model)
        assert status == 2, arguments
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, err
        assert message in errors[0], err


def test_the_model_that_ships_against_known_times(speech: Path, run: Run, tmp_path: Path) -> None:
    """Words that the phones of the shipped model place in another utterance than they are said in."""
    rows = [json.loads(line) for line in (speech / "english" / "dev.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["id"].startswith("84-121123") and row["duration"] < 6][:8]
    from asr.frontend.audio import read_audio

    sounds = [read_audio(speech / "english" / row["audio_filepath"], 16_000).numpy() for row in rows]
    soundfile.write(tmp_path / "glued.flac", np.concatenate(sounds), 16_000)
    text = " ".join(row["text"] for row in rows)
    status, out, err = run("align", tmp_path / "glued.flac", text)
    assert status == 0, err
    assert "warning" not in err
    found = json.loads(out)
    assert found["confidence"] > 0.75
    number, begin = 0, 0.0
    for row, sound in zip(rows, sounds, strict=True):
        end = begin + len(sound) / 16_000
        words = found["words"][number : number + len(row["text"].split())]
        assert begin - 0.1 <= words[0]["start"] < words[-1]["end"] <= end + 0.1
        number, begin = number + len(words), end
