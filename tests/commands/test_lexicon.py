"""`asr lexicon train`, `apply` and `score`, as a user types them."""

import itertools
import json
import logging
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from asr.batching.examples import TextConfig, learn_tokenizer
from asr.cli import main
from asr.commands.lexicon import LexiconApplySettings, run_apply
from asr.manifests.utterance import Utterance
from asr.text.lexicon import parse_lexicon, read_lexicon

ROOT = Path(__file__).resolve().parents[2]
SOUNDS = {"b": "B", "d": "D", "m": "M", "a": "AA1", "i": "IY0", "o": "OW2"}
WORDS = ["".join(word) for word in itertools.product("bdm", "aio", "bdm", "aio", "bdm")]
SMALL = ["--model.width", "12", "--model.depth", "1", "--model.embedding", "4", "--train.device", "cpu",
         "--train.precision", "float32"]  # fmt: skip


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    """A regular lexicon with stress marks, a word in upper case, and a word with two pronunciations."""
    path = tmp_path / "lexicon.txt"
    lines = [f"{word}\t{' '.join(SOUNDS[letter] for letter in word)}" for word in WORDS]
    path.write_text("\n".join([*lines, f"{WORDS[5]}(2)\tB AA0", "DABBA D AA1 B AH0"]) + "\n")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `asr lexicon ...`."""
    status = main(["lexicon", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_train_apply_score(lexicon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands together: a regular lexicon is learned, without stress; the table has each model and all
    together; what apply writes is a lexicon."""
    models = []
    for kind in ("encoder-decoder", "ctc"):
        out = tmp_path / f"{kind}.safetensors"
        plan = ["--train.epochs", 40, "--train.learning-rate", 0.02, "--train.run-dir", tmp_path / kind]
        status, output, log = run(
            capsys, "train", "--kind", kind, lexicon, *SMALL, *plan, "--pairs.symbols", 300, "-o", out
        )
        assert status == 0
        assert f"network: {out}" in output
        assert "inflected twins of test words are left out of training" in log
        models.append(out)

    words, made = tmp_path / "words.txt", tmp_path / "made.txt"
    words.write_text("dabim\n\nBodam\nd\u00e9bod\n")
    status, output, log = run(capsys, "apply", words, "--models", models[0], "-o", made)
    assert status == 0
    assert output == f"{made}: 3 of 3 words\n"
    assert "1 empty lines are skipped" in log
    assert "'d\u00e9bod' is pronounced without '\u00e9' (U+00E9)" in log
    assert made.read_text().splitlines()[0] == "dabim\tD AA B IY M"
    assert made.read_text().splitlines()[2].endswith("\t# without '\u00e9' (U+00E9)")
    entries = read_lexicon(made).entries
    assert list(entries) == ["dabim", "Bodam", "d\u00e9bod"]
    assert "without" not in entries["d\u00e9bod"][0]
    config = TextConfig(units="phones", pronouncer=models[0])
    tokenizer = learn_tokenizer(
        [Utterance(id="u", audio_filepath=Path("u.wav"), duration=1.0, text="cat dabim")], config
    )
    assert tokenizer.decode(tokenizer.encode("dabim cat")) == "D AA B IY M K AE T"

    results = tmp_path / "results.jsonl"
    status, output, log = run(
        capsys, "score", "--lexicon", lexicon, "--models", *models, "--nbest", 3, "--results", results
    )
    assert status == 0
    names = [line.split("  ")[0].strip() for line in output.splitlines()[1:5]]
    assert names == ["encoder-decoder", "ctc", "joint n-gram", "all together"]
    assert "too good" not in log
    row = json.loads(results.read_text().splitlines()[0])
    assert set(row["given"]) == set(names)
    assert re.search(r"tuned on dev \(\d+\.\d\d% wrong\): --ngram --weights [\d. ]+$", output, re.MULTILINE)
    wrong = [float(re.split(r"\s{2,}", line)[1].split()[0]) for line in output.splitlines()[1:5]]
    assert wrong[3] <= max(wrong[:3]) <= 50

    small = tmp_path / "small.safetensors"
    assert run(capsys, "compress", models[0], "-o", small)[0] == 0
    assert small.stat().st_size < models[0].stat().st_size
    assert run(capsys, "apply", words, "--models", small)[1].splitlines()[0] == "dabim\tD AA B IY M"

    _, _, log = run(
        capsys, "score", "--lexicon", lexicon, "--models", models[0], "--split.seed", 2, "--nbest", 2
    )
    assert "was trained with another split.seed: test words may be among its training words" in log


def test_resume(lexicon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run goes on for nothing, another lexicon is refused, and a seed gives the same bits."""
    weights = []
    for name in ("one", "two"):
        arguments = ["train", lexicon, *SMALL, "--train.epochs", 2, "--train.run-dir", tmp_path / name]
        assert run(capsys, *arguments, "--train.resume")[0] == 0
        assert run(capsys, *arguments, "--train.resume")[0] == 0
        weights.append(load_file(tmp_path / name / "last.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    lexicon.write_text(lexicon.read_text() + "bob B AA B\n")
    status, _, log = run(capsys, *arguments, "--train.resume")
    assert status == 2
    assert "the digest of the training and dev data was" in log


def test_apply_shows_progress(
    lexicon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A network works for minutes on the words of a lexicon."""
    monkeypatch.setattr("asr.progress._REPORT_EVERY_S", 0.0)
    words = tmp_path / "words.txt"
    words.write_text("bad\nab\nda\n")
    with caplog.at_level(logging.INFO, "asr"):
        settings = LexiconApplySettings((words,), lexicon=lexicon)
        assert len([text for text, _ in run_apply(settings) if text]) == 3
    shown = [record.getMessage() for record in caplog.records if getattr(record, "transient", False)]
    assert [line.split(",")[0] for line in shown] == [
        f"pronunciations: {number} of 3 words" for number in (1, 2, 3)
    ]


def test_apply_options(lexicon: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Alternatives and probabilities of the joint n-gram; a word of another alphabet is refused, the others
    go on, with status 1; a word of 200 letters is answered."""
    words = tmp_path / "words.txt"
    words.write_text("\u0436\u0438\nbad\n" + "ba" * 100 + "\n")
    status, output, log = run(capsys, "apply", words, "--lexicon", lexicon, "--nbest", 2, "--probabilities")
    assert status == 1
    assert (
        "no pronunciation for '\u0436\u0438': no word of the training had '\u0436' (U+0436), '\u0438'" in log
    )
    rows = [line.split("\t") for line in output.splitlines()]
    assert [row[0] for row in rows].count("bad") in (1, 2)
    assert rows[0] == ["bad", rows[0][1], "B AA D"]
    assert 0.5 < float(rows[0][1]) <= 1
    made = parse_lexicon(output.splitlines(), "made")  # as --lexicon and --text.lexicon read it
    assert list(made.log_probs) == ["bad", "ba" * 100]
    assert made.relative_log_probs("bad")[0] == 0.0
    assert rows[-1][0] == "ba" * 100
    assert len(rows[-1][2].split()) > 100
    words.write_text("\u0436\n")
    assert run(capsys, "apply", words, "--lexicon", lexicon)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train", "--kind", "transformer"], "--kind is 'transformer'. Expected encoder-decoder or ctc."),
        (["train", "column.txt"], "column.txt line 1: 'word' has no phones. Expected a word, a tab and its"),
        (["train", "none.txt"], "none.txt: cannot be read"),
        (["train", "tiny.txt"], "1 words, of which 1 remain to train on and 0 to test on"),
        (["train", "tiny.txt", "-o", "tiny.txt"], "--output tiny.txt would overwrite what is read"),
        (["train", "--model.input-feeding"], "--model.input-feeding is a choice of dot attention"),
        (["train", "--split.words", "-1"], "--split.words must be at least 0"),
        (["apply"], "no WORDS are given"),
        (["apply", "empty.txt"], "no word in empty.txt. Expected one word a line."),
        (["apply", "two.txt"], "two.txt line 2: 'two words' is more than one word"),
        (["apply", "tiny.txt", "--nbest", "0"], "--nbest must be at least 1"),
        (["apply", "column.txt", "--models", "tiny.txt"], "tiny.txt: not a readable sequence model"),
        (["apply", "column.txt", "--models", "none.safetensors"], "no such sequence model"),
        (
            ["apply", "column.txt", "--lexicon", "tiny.txt", "--weights", "1", "2"],
            "--weights 1 2: 2 for 1 model",
        ),
        (["apply", "column.txt", "-o", "column.txt"], "would overwrite what is read"),
        (["score", "--nbest", "1"], "--nbest must be at least 2"),
        (["score", "--lexicon", "tiny.txt"], "0 to test on"),
        (["compress", "tiny.txt", "-o", "x.safetensors"], "tiny.txt: not a readable sequence model"),
        (["compress", "tiny.txt", "-o", "tiny.txt"], "would overwrite what is read"),
        (["tune"], "unknown command 'lexicon tune'. Expected one of: lexicon train, lexicon apply"),
    ],
)
def test_bad_input(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One clear line and exit status 2; nothing is written."""
    monkeypatch.chdir(tmp_path)
    Path("column.txt").write_text("word\n")
    Path("tiny.txt").write_text("a A\n")
    Path("empty.txt").write_text("\n \n")
    Path("two.txt").write_text("one\ntwo words\n")
    before = sorted(tmp_path.iterdir())
    status, _, log = run(capsys, *arguments)
    assert status == 2
    assert complaint in log
    assert [line for line in log.splitlines() if line.startswith("error: ")] == log.splitlines()[-1:]
    assert sorted(tmp_path.iterdir()) == before


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`asr lexicon` lists its commands."""
    status, output, _ = run(capsys)
    assert status == 0
    for command in ("train", "train --kind ctc", "apply", "score", "compress"):
        assert f"\n  {command} " in output


@pytest.mark.slow
def test_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe from end to end, on a thousand words of CMUdict."""
    arguments = [
        "letter_to_sound",
        "--quick",
        "--networks",
        "dot",
        "ctc",
        "--train.run-dir",
        str(tmp_path / "r"),
    ]
    monkeypatch.setattr(sys, "argv", [*arguments, "--train.device", "cpu"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "recipes" / "letter_to_sound.py"), run_name="__main__")
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert "all together" in output
    assert "% wrong by letters" in output
