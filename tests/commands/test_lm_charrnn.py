"""`asr lm train --kind charrnn` and `asr lm score`, as a user types them."""

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


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--kind", "trigram", "x.txt"], "--kind is 'trigram'. Expected ngram or charrnn."),
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
