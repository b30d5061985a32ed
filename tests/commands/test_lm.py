"""`asr lm`: text in, a model out, and its perplexity; options do something, mistakes are one line."""

import gzip
import json
import math
import random
from pathlib import Path

import pytest

from asr.cli import main
from asr.lm.ngram.model import NgramModel
from asr.lm.perplexity import perplexity
from tests.conftest import no_space

TEXT = "the cat sat on the mat\nthe dog sat on the cat\na dog ran\nthe cat ran\n\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def lm(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `asr lm ...`."""
    status = main(["lm", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_train_then_score(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two commands of the README, and the arithmetic of what the second one prints."""
    out = text.with_name("lm.bin")
    status, output, log = lm(capsys, "train", text, text, "--order", 2, "-o", out)
    assert status == 0
    assert "lm.bin: 11 1-grams, 15 2-grams; " in output
    assert "lines without text, skipped: 2" in log
    assert "8 sentences, 36 words, 8 different" in log
    held_out, results = text.with_name("held.txt"), text.with_name("results.jsonl")
    held_out.write_text("The cat  ran\nzebra\n")
    arguments = ("score", held_out, "--lm", out, "--normalizer", "lower", "--results", results)
    status, output, _ = lm(capsys, *arguments)
    assert status == 0
    model = NgramModel.load(out)
    known, unknown = model.log_probs("the cat ran"), model.log_probs("zebra")
    total = known.sum() + unknown.sum()
    assert output.splitlines() == [
        "2 sentences, 4 words, 1 unknown (25.00%)",
        f"perplexity {math.exp(-total / 6):.2f} (words and sentence ends, unknown ones as <unk>)",
        f"perplexity {math.exp(-(total - unknown[0]) / 5):.2f} without the unknown ones",
    ]
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert rows[1] == {
        "text": str(held_out), "line": 2, "words": 1, "unknown": 1,
        "log_prob": pytest.approx(unknown.sum(), abs=1e-5),
    }  # fmt: skip


def test_characters(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--unit character` predicts letters and spaces, and the score is in bits."""
    out = text.with_name("lm.arpa.gz")
    assert lm(capsys, "train", text, "--order", 4, "--unit", "character", "-o", out)[0] == 0
    assert b"<space>" in gzip.decompress(out.read_bytes())
    model = NgramModel.load(out)
    assert model.unit == "character"
    assert model.ids[" "] > 2
    result = perplexity(model, [text])
    assert result.symbols == len(TEXT) - 5
    _, output, _ = lm(capsys, "score", text, "--lm", out)
    assert f"{math.log2(result.perplexity):.3f} bits per character" in output


def test_options_change_the_model(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that is parsed and then ignored."""
    out, words = text.with_name("lm.arpa"), text.with_name("words.txt")
    words.write_text("cat\nunseen\nthe\n")

    def counts(*options: object) -> tuple[int, ...]:
        assert lm(capsys, "train", text, "-o", out, "--order", 3, *options)[0] == 0
        return NgramModel.load(out).counts

    everything = counts()
    assert everything == (11, 15, 16)
    assert counts("--prune", 0, 1) == (11, 5, 2)
    assert counts("--prune", 0, 0, 1) == (11, 15, 2)
    assert counts("--prune-entropy", 0.01)[2] < 16
    assert counts("--vocabulary", 4)[0] == 7
    assert counts("--vocabulary", words)[0] == 6
    assert set(NgramModel.load(out).words) == {"<unk>", "<s>", "</s>", "cat", "the", "unseen"}
    words.write_text("t\nh\ne\n")
    for vocabulary in (words, 3):
        counts("--unit", "character", "--vocabulary", vocabulary)
        assert " " in NgramModel.load(out).words
    temporary = text.with_name("temporary")
    temporary.mkdir()
    assert counts("--temporary", temporary) == everything
    assert list(temporary.iterdir()) == []


def test_text_by_the_rules_of_the_transcripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--normalizer` on training text; and, whatever the rules, the Unicode form that transcripts have."""
    text, out = tmp_path / "text.txt", tmp_path / "lm.arpa"
    text.write_text("The Cat, sat.\nCafe\u0301\u00a0THE\n")
    words = {}
    for rules in ("verbatim", "lower", "english"):
        assert lm(capsys, "train", text, "--order", 1, "--normalizer", rules, "-o", out)[0] == 0
        words[rules] = set(NgramModel.load(out).words) - {"<unk>", "<s>", "</s>"}
    assert words == {
        "verbatim": {"The", "Cat,", "sat.", "Caf\u00e9", "THE"},
        "lower": {"the", "cat,", "sat.", "caf\u00e9"},
        "english": {"the", "cat", "sat", "caf\u00e9"},
    }


@pytest.mark.parametrize("unit", ["word", "character"])
def test_convert(text: Path, capsys: pytest.CaptureFixture[str], unit: str) -> None:
    """ARPA to binary and back gives the same score to every text."""
    arpa, binary, again = (text.with_name(name) for name in ("lm.arpa", "lm.bin", "again.arpa"))
    assert lm(capsys, "train", text, "--order", 3, "--unit", unit, "-o", arpa)[0] == 0
    status, output, _ = lm(capsys, "convert", arpa, "-o", binary)
    assert status == 0
    counts = ", ".join(f"{n:,} {k}-grams" for k, n in enumerate(NgramModel.load(arpa).counts, start=1))
    assert output.startswith(f"{binary}: {counts}; ")
    assert lm(capsys, "convert", binary, "-o", again)[0] == 0
    models = [NgramModel.load(path) for path in (arpa, binary, again)]
    assert {model.unit for model in models} == {unit}
    assert len({model.words for model in models}) == 1
    sentences = [*TEXT.splitlines()[:-1], "a zebra sat"]
    expected = [models[0].log_probs(sentence) for sentence in sentences]
    for model in models[1:]:
        for sentence, log_probs in zip(sentences, expected, strict=True):
            assert model.log_probs(sentence) == pytest.approx(log_probs, abs=1e-6)


def test_quantised_model_is_smaller_and_about_as_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that does nothing, or costs more than it saves."""
    draw = random.Random(1)
    words = [f"w{number}" for number in range(300)]
    lines = [" ".join(draw.choices(words, range(300), k=8)) for _ in range(3000)]
    text, held_out = tmp_path / "text.txt", tmp_path / "held.txt"
    text.write_text("\n".join(lines[:-500]) + "\n")
    held_out.write_text("\n".join(lines[-500:]) + "\n")
    exact, small = tmp_path / "exact.bin", tmp_path / "small.bin"
    assert lm(capsys, "train", text, "--order", 3, "-o", exact)[0] == 0
    status, output, _ = lm(capsys, "convert", exact, "-o", small, "--quantize", 8)
    assert status == 0
    assert " bytes per n-gram" in output
    assert small.stat().st_size < exact.stat().st_size
    fits = [perplexity(NgramModel.load(path), [held_out]) for path in (exact, small)]
    assert fits[1].log_prob != fits[0].log_prob
    assert fits[1].perplexity == pytest.approx(fits[0].perplexity, rel=0.01)


def test_interpolate(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights of --dev or of --weights, the table of perplexities, and options that do something."""
    first, second, out = (text.with_name(name) for name in ("first.bin", "second.arpa", "out.bin"))
    other, dev = text.with_name("other.txt"), text.with_name("dev.txt")
    other.write_text("a bird sat on a tree\nthe bird ran\n" * 3)
    dev.write_text("The bird sat on the mat\na dog ran\nthe cat\n")
    assert lm(capsys, "train", text, "-o", first)[0] == 0
    assert lm(capsys, "train", other, "-o", second, "--order", 2)[0] == 0
    arguments = ("interpolate", first, second, "-o", out, "--dev", dev, "--normalizer", "lower")
    status, output, _ = lm(capsys, *arguments)
    assert status == 0
    head, *rows, note, summary = output.splitlines()
    assert head.split() == ["weight", "unknown", "perplexity", "model"]
    assert note == "of 14 words and sentence ends; perplexity of the 10 that all know"
    weights = [float(row.split()[0]) for row in rows[:2]]
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    assert 0.1 < weights[0] < 0.9
    assert [int(row.split()[-3]) for row in rows] == [1, 3, 0]
    assert [row.split()[-1] for row in rows] == [str(first), str(second), str(out)]
    perplexities = [float(row.split()[-2]) for row in rows]
    assert perplexities[2] < min(perplexities[:2])
    for path, printed in zip((first, second, out), perplexities, strict=True):
        model, total, count = NgramModel.load(path), 0.0, 0
        for sentence in ("the bird sat on the mat", "a dog ran", "the cat"):
            words = [*sentence.split(), "</s>"]
            for word, log_prob in zip(words, model.log_probs(sentence), strict=True):
                if word in ("</s>", "the", "sat", "on", "a", "ran"):
                    total, count = total + log_prob, count + 1
        assert count == 10
        assert printed == pytest.approx(math.exp(-total / count), abs=0.01)
    merged = NgramModel.load(out)
    assert summary.startswith(f"{out}: 13 1-grams, {merged.counts[1]} 2-grams, 16 3-grams; ")
    # The weights that were found, given; and others.
    assert lm(capsys, *arguments[:5], "--weights", *weights)[0] == 0
    assert NgramModel.load(out).log_probs("a bird") == pytest.approx(merged.log_probs("a bird"), rel=1e-3)
    status, output, _ = lm(capsys, *arguments[:5], "--weights", 9, 1, "--vocabulary", 6)
    assert output.splitlines()[:3] == ["weight  model", f"0.9000  {first}", f"0.1000  {second}"]
    assert NgramModel.load(out).counts[0] == 9
    assert lm(capsys, *arguments, "--quantize", 3)[0] == 0
    assert NgramModel.load(out).log_probs("a bird") != pytest.approx(merged.log_probs("a bird"), rel=1e-3)


def test_mistakes_are_one_line(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ends with status 2 and one line that names value, file and remedy; nothing is written."""
    out, empty, special = text.with_name("x.bin"), text.with_name("empty.txt"), text.with_name("special.txt")
    empty.write_text(" \n\n")
    special.write_text("a </s> b\n")
    train = ("train", text, "-o", out)
    bare, other, more = (text.with_name(name) for name in ("bare.arpa", "other.arpa", "more.arpa"))
    for path in (other, more):
        lm(capsys, "train", text, "-o", path)
    bare.write_text(other.read_text().replace("<s>", "<z>"))
    mix, sound = ("interpolate", text, other, "-o", out), ("interpolate", other, more, "-o", out)
    for arguments, message in (
        ((*train, "--order", 0), "--order is 0. A number from 1 to 12 was expected"),
        ((*train, "--order", 13), "--order is 13."),
        ((*train, "--prune", 1, 1), "--prune is 1 1. A 0 for words, then numbers that do not fall"),
        ((*train, "--prune", 0, 2, 1), "--prune is 0 2 1."),
        ((*train, "--order", 2, "--prune", 0, 0, 1), "--prune has 3 numbers, but --order is 2"),
        ((*train, "--prune-entropy", -1), "--prune-entropy is -1.0"),
        ((*train, "--vocabulary", 0), "--vocabulary is 0"),
        ((*train, "--vocabulary", empty), "empty.txt holds no word"),
        (("train", "-o", out), "no TEXT is given"),
        (("train", empty, "-o", out), "no text in"),
        (("train", special, "-o", out), "the text has the word </s>"),
        (("train", text.with_name("none"), "-o", out), "none does not exist. A text file"),
        (("train", text, "-o", text), "would overwrite what is read"),
        (("train", text, "-o", text.parent), "is a folder. Name a file, such as"),
        (
            ("convert", text.with_name("x.safetensors"), "-o", out),
            "a network has only one format, whose weights",
        ),
        ((*train, "--temporary", text.with_name("no")), "No such file or directory. Make its folder, or"),
        (("train", text, "-o", text.with_name("no") / "x.bin"), "no does not exist. Make it, or choose"),
        (
            (*train, "--normalizer", "loud"),
            "must be one of verbatim, lower, english, words. Got 'loud'",
        ),
        (("convert", text, "-o", out), "This is no language model in ARPA format"),
        (("convert", text, "-o", text), "would overwrite what is read"),
        (("convert", text, "-o", out, "--quantize", 1), "--quantize is 1. Expected 2 to 16 bits, or 0"),
        (("convert", text.with_name("none.bin"), "-o", out), "none.bin does not exist"),
        (("convert", text, "-o", text.with_name("no") / "x.bin"), "no does not exist. Make it, or choose"),
        (
            ("interpolate", text, "-o", out, "--dev", text),
            "1 language model is given. Two or more were expected",
        ),
        (("interpolate", text, text, "-o", out, "--dev", text), "a language model is given twice"),
        (("interpolate", text, empty, "-o", out), "neither --dev nor --weights is given"),
        (("interpolate", text, empty, "-o", text, "--dev", text), "would overwrite what is read"),
        (
            (*mix, "--dev", text),
            "text.txt line 1: found 'the cat sat on the mat' where \\data\\ was expected",
        ),
        ((*mix, "--dev", text, "--quantize", 1), "--quantize is 1. Expected 2 to 16 bits, or 0"),
        (
            ("interpolate", text.with_name("x.safetensors"), text, "-o", out, "--dev", text),
            "is a network. An",
        ),
        (
            ("interpolate", bare, other, "-o", out, "--weights", 1, 1),
            "there is no 1-gram <s>, which marks the",
        ),
        ((*sound, "--weights", 1), "--weights is 1. A number for each of the 2 models was expected"),
        ((*sound, "--weights", 1, 1, "--vocabulary", 0), "--vocabulary is 0. A number of words, or a file"),
        ((*sound, "--weights", 1, 1, "--vocabulary", empty), "empty.txt holds no word"),
        ((*sound, "--dev", empty), "no text in"),
        ((*sound, "--dev", text, "--normalizer", "loud"), "normalizer must be one of verbatim, lower"),
        (("score", text, "--lm", text.with_name("none.bin")), "none.bin does not exist"),
        (("score", text, "--lm", text), "This is no language model in ARPA format"),
        (("score", "--lm", text), "no TEXT is given"),
        (("score", text, "--lm", text, "--results", text), "would overwrite what is read"),
        (("tune",), "unknown command 'lm tune'. Expected one of: lm train, lm score"),
    ):
        status, output, log = lm(capsys, *arguments)
        assert status == 2, arguments
        assert message in log
        assert output == ""
        assert [line for line in log.splitlines() if line.startswith("error: ")] == log.splitlines()[-1:]
    assert not out.exists()
    assert list(text.parent.glob("*.part*")) == []


def test_empty_text_is_not_scored(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A perplexity of nothing, or a division by zero."""
    out, empty = text.with_name("lm.bin"), text.with_name("empty.txt")
    empty.write_text("\n")
    lm(capsys, "train", text, "-o", out)
    status, _, log = lm(capsys, "score", empty, "--lm", out)
    assert status == 2
    assert "no text in" in log


def test_help_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    """`asr lm`, as `asr`, lists its commands, and each command explains all its settings."""
    status, output, _ = lm(capsys)
    assert status == 0
    assert "asr lm train text.txt" in output
    assert "asr lm score heldout.txt" in output
    for command, options in (
        ("train", ["TEXT...", "-o FILE", "--order INT", "--unit {word,character}", "--prune",
                   "--prune-entropy FLOAT", "--vocabulary FILE|NUMBER", "--temporary DIR"]),
        ("score", ["TEXT...", "--lm FILE", "--normalizer NAME", "--results FILE"]),
        ("interpolate", ["FILE...", "-o FILE", "--dev", "TEXT...", "--weights", "--vocabulary FILE|NUMBER"]),
    ):  # fmt: skip
        status, output, _ = lm(capsys, command, "--help")
        text = " ".join(output.replace("\u2502", " ").split())
        assert text.startswith(f"usage: asr lm {command} ")
        for option in options:
            assert option in text


def test_full_disks(text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bus error, where a page of a sparse file has no room; words that are lost; half an ARPA file."""

    out, temporary = text.with_name("out"), text.with_name("temporary")
    out.mkdir()
    temporary.mkdir()
    train = ("train", text, "--temporary", temporary, "-o")
    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", no_space)
        status, _, err = lm(capsys, *train, out / "lm.bin")
    assert status == 2
    assert err.endswith(
        f"error: {temporary}: No space left on device. Free some space, or write to another folder.\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr("asr.lm.ngram.disk.DiskArrays.new_path", lambda _: Path("/dev/full"))
        status, _, err = lm(capsys, *train, out / "lm.bin")
    assert status == 2
    assert err.endswith(
        f"error: {temporary}: No space left on device. Free some space, or write to another folder.\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_space)
        status, _, err = lm(capsys, *train, out / "lm.arpa")
    assert status == 2
    assert f"error: {out / 'lm.arpa'}: No space left on device." in err
    assert list(out.iterdir()) == list(temporary.iterdir()) == []
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: no_space())
    status, _, err = lm(capsys, *train, out / "lm.bin")
    assert status == 2
    assert err == (
        f"error: --output {out / 'lm.bin'}: the folder {out} cannot be written: No space left on device. "
        "Choose another one.\n"
    )
