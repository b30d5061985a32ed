"""`asr lm train --kind charrnn`, `--kind wordrnn` and `asr lm score`, as a user types them."""

import re
from pathlib import Path

import pytest

from asr.cli import main

LINES = ["the cat sat on the mat", "a dog sat on a cat", "the mat and the dog"] * 40
SMALL = [
    "--model.width", "16", "--model.depth", "1", "--model.embedding", "4", "--text.streams", "4",
    "--text.block", "16", "--train.epochs", "2", "--train.device", "cpu",
]  # fmt: skip


def test_train_then_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two commands together: bits on the held-out lines as the training logged, in a file where it was
    asked for."""
    text, held, out = tmp_path / "text.txt", tmp_path / "held.txt", tmp_path / "lm.safetensors"
    text.write_text("\n".join(LINES) + "\n")
    held.write_text("\n".join(LINES[:50]) + "\n")
    command = ["lm", "train", "--kind", "charrnn", str(text), "--dev", str(held), "-o", str(out), *SMALL]
    assert main([*command, "--train.run-dir", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert f"language model: {out}" in captured.out
    assert "it writes: " in captured.err
    trained = re.findall(r"dev (\d\.\d+) bits per character", captured.err)
    assert main(["lm", "score", str(held), "--lm", str(out)]) == 0
    captured = capsys.readouterr()
    assert "50 sentences" in captured.out
    assert " 0 unknown (0.00%)" in captured.out
    scored = re.search(r"(\d\.\d+) bits per character", captured.out)
    assert scored
    # lines one by one, from the state after a line's end, instead of as running text
    assert float(scored[1]) == pytest.approx(min(map(float, trained)), rel=0.15)


def test_train_words_then_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The perplexity on the held-out lines is the one that the training logged; a text that is named twice
    counts twice."""
    text, held, out = tmp_path / "text.txt", tmp_path / "held.txt", tmp_path / "lm.safetensors"
    text.write_text("\n".join(LINES) + "\n")
    held.write_text("\n".join(LINES[:50]) + "\n")
    command = ["lm", "train", "--kind", "wordrnn", str(text), str(text), "--dev", str(held), "-o", str(out)]
    shape = ["--model.width", "16", "--text.words", "60", "--train.epochs", "2", "--train.device", "cpu"]
    assert main([*command, *shape, "--train.run-dir", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert f"language model: {out}" in captured.out
    assert "training on 240 sentences, 0.00 M words; 0.00% of the dev text's words" in captured.err
    trained = re.findall(r"dev perplexity (\d+\.\d)  ", captured.err)
    assert main(["lm", "score", str(held), "--lm", str(out)]) == 0
    scored = re.search(r"perplexity (\d+\.\d)", capsys.readouterr().out)
    assert scored
    assert float(scored[1]) == pytest.approx(min(map(float, trained)), abs=0.11)
    small = tmp_path / "small.safetensors"
    assert main(["lm", "convert", str(out), "--quantize", "8", "-o", str(small)]) == 0
    assert small.stat().st_size < 0.5 * out.stat().st_size
    assert f"{small}: word RNN of 8 words, 0.0 MB" in capsys.readouterr().out
    assert main(["lm", "score", str(held), "--lm", str(small)]) == 0
    rounded = re.search(r"perplexity (\d+\.\d)", capsys.readouterr().out)
    assert rounded
    assert float(rounded[1]) == pytest.approx(float(scored[1]), rel=0.05)
    assert main(["lm", "convert", str(out), "--quantize", "6", "-o", str(small)]) == 2
    assert "Expected --quantize 8 and an --output that ends in .safetensors." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--kind", "trigram", "x.txt"], "--kind is 'trigram'. Expected ngram or charrnn or wordrnn."),
        (["--kind=charrnn"], "no TEXT is given"),
        (["--kind", "charrnn", "missing.txt"], "missing.txt does not exist"),
        (
            ["--kind", "charrnn", "x.txt", "-o", "no/where/lm.safetensors"],
            "no/where does not exist. Make it, or",
        ),
        (["--kind", "charrnn", "x.txt", "-o", "x.txt"], "--output x.txt would overwrite what is read"),
        (["--kind", "charrnn", "y.txt", "--dev", "x.txt", "-o", "x.txt"], "would overwrite what is read"),
        (["--kind", "charrnn", "x.txt", "-o", "."], "--output .: is a folder. Name a file, such as lm"),
        (["--kind", "charrnn", "x.txt", "-o", "lm.bin"], "end in .safetensors. Call it lm.safetensors."),
        (["--kind", "charrnn", "x.txt", "--model.cell", "lstn"], "lstn"),
        (["--kind", "wordrnn"], "no TEXT is given"),
        (["--kind", "wordrnn", "x.txt"], "one line of text. Two were expected, or a dev text (--dev)."),
    ],
)
def test_bad_input(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One clear line and exit status 2, and no run folder remains."""
    monkeypatch.chdir(tmp_path)
    Path("x.txt").write_text("a b c\n")
    try:
        status = main(["lm", "train", *arguments])
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.txt"]
