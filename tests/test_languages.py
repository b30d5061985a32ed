"""A model of another script, from its audio to its texts, scores and page: nothing is made for English alone.

The model of the tones writes Chinese characters, Thai letters with marks, or Hebrew, in place of a, b and c.
"""

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.model.saved import load_model, save_model
from asr.text.characters import CharTokenizer
from tests.conftest import Tones

Run = Callable[..., tuple[int, str, str]]

CHINESE = dict(zip(" abc", "界你好世", strict=True))
HEBREW = dict(zip(" abc", " אבג", strict=True))


@dataclass(frozen=True)
class Recordings:
    """Recordings of tones, with transcripts in another script and a model that writes it."""

    folder: Path
    model: Path
    files: list[str]
    texts: list[str]

    @property
    def manifest(self) -> Path:
        return self.folder / "other.jsonl"


def recordings(tones: Tones, folder: Path, letters: dict[str, str], rules: str = "words") -> Recordings:
    """Those of the tones, with other letters."""
    model = load_model(tones.model)
    tokenizer = CharTokenizer(tuple(letters[symbol] for symbol in model.settings.tokenizer.symbols))
    model.settings = replace(model.settings, tokenizer=tokenizer, text_normalizer=rules)
    save_model(folder / "other.safetensors", model, {})
    rows = [json.loads(line) for line in tones.manifest.read_text().splitlines()]
    for row in rows:
        row["audio_filepath"] = str(tones.folder / row["audio_filepath"])
        row["text"] = "".join(letters[letter] for letter in row["text"])
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "other.jsonl").write_text(text, encoding="utf-8")
    return Recordings(folder, folder / "other.safetensors", tones.files, [row["text"] for row in rows])


def test_transcripts_without_spaces(run: Run, tones: Tones, tmp_path: Path) -> None:
    """Spaces between Chinese characters, or one time for a whole sentence, which subtitles cannot cut."""
    given = recordings(tones, tmp_path, CHINESE)
    status, out, _ = run("transcribe", *given.files, "--model", given.model, "--format", "json")
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert [row["text"] for row in found] == given.texts
    assert [[word["word"] for word in row["words"]] for row in found] == [list(text) for text in given.texts]
    times = [word["start"] for word in found[2]["words"]]
    assert times == sorted({*times})
    status, out, _ = run("transcribe", given.files[2], "--model", given.model, "--format", "srt")
    assert out.splitlines()[2] == given.texts[2]


def test_long_recordings_and_streams_without_spaces(
    run: Run, tones: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spaces where segments or blocks are joined."""
    given = recordings(tones, tmp_path, CHINESE)
    text = "abcbacabbc" * 10
    samples = np.concatenate([Tones.sound(text[begin : begin + 10]) for begin in range(0, 100, 10)])
    soundfile.write(tmp_path / "long.wav", samples, 16000, subtype="PCM_16")
    status, out, log = run(
        "transcribe", tmp_path / "long.wav", "--model", given.model, "--max-segment-s", 5, "--vad", "none"
    )
    assert status == 0, log
    assert len(out.strip()) > 60  # of 100: the model has not learned from so long recordings
    assert {*out.strip()} <= {*CHINESE.values()}
    pipe = SimpleNamespace(buffer=io.BytesIO((32767 * samples[:16000]).astype("<i2").tobytes()))
    monkeypatch.setattr(sys, "stdin", pipe)
    options = ("--vad", "energy", "--chunk-s", "0.16", "--right-context-s", "0.32", "--format", "json")
    status, out, _ = run("stream", "-", "--model", given.model, *options)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert rows[-1]["text"] == "".join(word["word"] for word in rows[-1]["words"])
    assert not any(" " in row["text"] for row in rows)


def test_aligning_without_spaces(run: Run, tones: Tones, tmp_path: Path) -> None:
    """A text whose sentence is one word to align, or that loses its marks; one time for all of it."""
    given = recordings(tones, tmp_path, CHINESE)
    written = f"「{given.texts[5][:3]}」，{given.texts[5][3:]}。"
    status, out, log = run("align", given.files[5], written, "--model", given.model)
    row = json.loads(out)
    assert (status, row["text"]) == (0, written), log
    times = [(word["start"], word["end"]) for word in row["words"]]
    assert len(times) == len(given.texts[5])
    assert times == sorted(times)


def test_scores_without_spaces(run: Run, tones: Tones, tmp_path: Path) -> None:
    """A sentence error rate under the name of words, on the screen, on the page and in comparisons."""
    given = recordings(tones, tmp_path, CHINESE)
    rows = given.manifest.read_text(encoding="utf-8").replace(f'"{given.texts[1]}"', '"世世好"')
    given.manifest.write_text(rows, encoding="utf-8")
    for name in ("a", "b"):
        options = ("--model", given.model, "--out", tmp_path / name)
        status, out, _ = run("evaluate", given.manifest, *options)
        assert status == 0
        assert out.startswith(f"%CER 2.27 [ 1 / {sum(map(len, given.texts))}, 0 ins, 0 del, 1 sub ]\n")
        assert "%WER" not in out
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "Character error rate" in page
    assert "Word error rate" not in page
    assert '"unit": "characters"' in page
    status, out, _ = run("compare", tmp_path / "a", tmp_path / "b")
    assert "A: %CER 2.27" in out


def test_language_models_without_spaces(run: Run, tones: Tones, tmp_path: Path) -> None:
    """A search with a model of characters, or of words that a tool has cut, that writes or counts spaces."""
    given = recordings(tones, tmp_path, CHINESE)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(given.texts * 3) + "\n", encoding="utf-8")
    status, _, log = run("lm", "train", text, "--order", "2", "-o", tmp_path / "sentences.bin")
    assert "in a script without spaces between words, 1.0 a line" in log
    status, _, log = run(
        "lm", "train", text, "--unit", "character", "--order", "3", "-o", tmp_path / "characters.bin"
    )
    assert (status, "without spaces" in log) == (0, False)
    text.write_text("\n".join(re.sub("(..)", r"\1 ", one) for one in given.texts) + "\n", encoding="utf-8")
    status, _, log = run("lm", "train", text, "--order", "2", "-o", tmp_path / "words.bin")
    assert status == 0
    for lm in ("characters.bin", "words.bin"):
        options = ("--model", given.model, "--lm", tmp_path / lm, "--lm-weight", "0.5")
        status, out, log = run("transcribe", *given.files, *options)
        assert (status, out.splitlines()) == (0, given.texts), log
    status, out, log = run(
        "tune", given.manifest, "--model", given.model, "--lm", tmp_path / "characters.bin"
    )
    assert status == 0, log
    assert f"%CER 0.00 [ 0 / {sum(map(len, given.texts))}," in out


def test_right_to_left(run: Run, tones: Tones, tmp_path: Path) -> None:
    """Letters in the order of the screen instead of that of speech."""
    given = recordings(tones, tmp_path, HEBREW)
    status, out, _ = run("transcribe", *given.files, "--model", given.model)
    assert (status, out.splitlines()) == (0, given.texts)
    status, out, _ = run("evaluate", given.manifest, "--model", given.model, "--out", tmp_path / "out")
    assert out.startswith("%WER 0.00 [ 0 / 19, 0 ins, 0 del, 0 sub ]\n%CER 0.00 ")


def test_language_of_a_training(run: Run, tones: Tones, tmp_path: Path) -> None:
    """A language that is forgotten between training and scoring: I is ı in one, i in the other."""
    letters = dict(zip(" abc", " ıiş", strict=True))
    given = recordings(tones, tmp_path, letters)
    rows = [json.loads(line) for line in given.manifest.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["text"] = row["text"].replace("i", "İ").replace("ı", "I").replace("ş", "Ş")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    given.manifest.write_text(text, encoding="utf-8")
    small = ("--model.width", "8", "--model.depth", "1", "--train.epochs", "1")
    run_dir = tmp_path / "run"
    status, _, log = run(
        "train", given.manifest, "--dev", given.manifest, "--text.language", "tr", *small,
        "--train.run-dir", run_dir, "--train.device", "cpu",
    )  # fmt: skip
    assert status == 0, log
    settings = load_model(run_dir / "model.safetensors").settings
    assert settings.text_normalizer == "words:tr"
    assert settings.tokenizer.symbols == (" ", "i", "ı", "ş")
    status, out, _ = run(
        "evaluate", given.manifest, "--model", run_dir / "model.safetensors", "--out", tmp_path / "out"
    )
    assert "Normalizer: words:tr" in out


@pytest.mark.parametrize("name", ["Turkish", "tr_TR", "t"])
def test_languages_that_are_none(run: Run, tmp_path: Path, name: str) -> None:
    """A misspelt language, which would be trained without its rules."""
    status, _, err = run(
        "train", tmp_path / "a.jsonl", "--dev", tmp_path / "b.jsonl", "--text.language", name
    )
    assert status == 2
    assert f"'{name}' is no language. Expected a code of ISO 639, such as tr for Turkish." in err
