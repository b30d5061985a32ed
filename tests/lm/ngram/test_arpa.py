"""ARPA files: what is read equals KenLM's reading; what is damaged is named with its line."""

import bz2
import gzip
import lzma
import math
import random
from pathlib import Path

import numpy as np
import pytest

from asr.errors import ModelError
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.model import NgramModel

ARPA = """\
\\data\\
ngram 1=5
ngram 2=4
ngram 3=1

\\1-grams:
-1\ta\t-0.3
-99\t<s>\t-0.2
-0.8\t</s>
-2\t<unk>
-0.9\tb\t-0.1

\\2-grams:
-0.4\ta b\t-0.15
-0.5\t<s> a
-0.6\tb a
-0.7\tb </s>

\\3-grams:
-0.2\ta b a

\\end\\
"""


def load(folder: Path, text: str | bytes) -> NgramModel:
    path = folder / "small.arpa"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return NgramModel.load(path)


def log10_of(model: NgramModel, text: str) -> list[float]:
    return (model.log_probs(text) / math.log(10)).tolist()


def test_scores_are_the_sums_of_the_file(tmp_path: Path) -> None:
    """Summed by hand: a back-off that is forgotten, taken twice or taken from the wrong context."""
    model = load(tmp_path, ARPA)
    # "<s> a" costs nothing to forget; after "b a", which has no back-off, that of "a" counts.
    assert log10_of(model, "a b a") == pytest.approx([-0.5, -0.4, -0.2, -0.3 - 0.8], abs=1e-6)
    # An unknown word forgets everything before it.
    wanted = [-0.5, -0.4, -0.15 - 0.1 - 2, -1, -0.3 - 0.8]
    assert log10_of(model, "a b zebra a") == pytest.approx(wanted, abs=1e-6)


def test_other_writers_files(tmp_path: Path) -> None:
    """Spaces for tabs, blank lines, CRLF, compression, lines in another order, `<UNK>`, a byte order mark,
    text before the header: the same model."""
    wanted = log10_of(load(tmp_path, ARPA), "a b a c b")
    swapped = ARPA.replace("-0.4\ta b\t-0.15\n-0.5\t<s> a\n", "-0.5\t<s> a\n-0.4\ta b\t-0.15\n")
    for text in (
        ARPA.replace("\t", " "),
        "\n\n" + ARPA.replace("\n", "\r\n"),
        ARPA.replace("-0.5\t<s> a\n", "-0.5\t<s> a\t0\n\n").replace("ngram 1=5", "ngram  1 = 5"),
        ARPA.replace("<unk>", "<UNK>"),
        swapped,
        "\ufeff" + ARPA,
        "made by someone\nngram 1=3 is not the header\n\n" + ARPA,
        gzip.compress(ARPA.encode()),
        lzma.compress(ARPA.encode()),
        bz2.compress(ARPA.encode()),
        ARPA.replace("-99\t<s>", "-inf\t<s>"),
    ):
        assert log10_of(load(tmp_path, text), "a b a c b") == wanted
    assert swapped != ARPA


def test_missing_unk_is_kenlms_default(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model of a closed vocabulary: unknown words are all but impossible, not an error."""
    text = ARPA.replace("-2\t<unk>\n", "").replace("ngram 1=5", "ngram 1=4")
    assert log10_of(load(tmp_path, text), "zebra")[0] == pytest.approx(-0.2 - 100, abs=1e-4)
    assert "there is no 1-gram <unk>: unknown words have the log10 probability -100" in caplog.text


def test_missing_suffix_is_allowed(tmp_path: Path) -> None:
    """SRILM's pruning leaves "a b a" but takes "b a": from there the state is "a"."""
    text = ARPA.replace("-0.6\tb a\n", "").replace("ngram 2=4", "ngram 2=3")
    assert log10_of(load(tmp_path, text), "a b a b") == pytest.approx([-0.5, -0.4, -0.2, -0.4, -0.15 - 0.7])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "hello", r"line 1: found 'hello' where \\data\\ was expected. This is no"),
        ("\\data\\", "hello\n" * 20_000, r"line 1: found 'hello' where \\data\\ was expected. This is no"),
        ("ngram 2=4", "ngram 3=4", "line 3: found 'ngram 3=4' where `ngram 2=COUNT` was expected"),
        ("ngram 2=4", "ngram 2=x", "line 3: found 'ngram 2=x' where"),
        ("ngram 2=4", "ngram 2=5", r"line 19: 4 2-grams, but the header \(\\data\\\) declares 5"),
        ("ngram 2=4", "ngram 2=3", "line 17: more 2-grams than the 3"),
        ("ngram 1=5\nngram 2=4\nngram 3=1\n", "", "line 3: no line `ngram 1=COUNT` in the header"),
        ("\\2-grams:", "\\4-grams:", r"line 13: found '\\\\4-grams:' where \\2-grams: was expected"),
        ("-0.4\ta b", "NaN\ta b", "line 14: found 'NaN' where a log10 probability was expected: a finite"),
        ("-0.4\ta b", "inf\ta b", "line 14: found 'inf' where"),
        ("a b\t-0.15", "a b\tnan", "line 14: found 'nan' where a back-off was expected"),
        ("-0.4\ta b", "0.4\ta b", "line 14: the log10 probability '0.4' is positive"),
        ("-0.4\ta b\t-0.15", "-0.4\ta", "line 14: .*2 words and, at most, a back-off were expected"),
        ("-0.4\ta b\t", "-0.4\ta c\t", "line 14: the word 'c' is not among the 1-grams"),
        ("-0.6\tb a", "-0.4\ta b", "line 16: this 2-gram is already in line 14"),
        ("-0.9\tb\t", "-0.9\ta\t", "line 11: the 1-gram 'a' occurs twice"),
        ("-0.2\ta b a", "-0.2\ta a b", "line 20: the first 2 words of this 3-gram are no 2-gram"),
        ("-0.2\ta b a", "-0.2\ta b a\t-0.3", "line 20: the back-off '-0.3'. The n-grams of the"),
        ("-0.8\t</s>\n", "-0.8\tc\n", "no 1-gram </s>, which marks the end of a sentence"),
        ("-99\t<s>\t", "-99\tc\t", "no 1-gram <s>"),
        ("-99\t<s>\t", "-99\t<S>\t", "no 1-gram <s>, .* Write <s> for <S>"),
        (ARPA, "", "small.arpa is empty"),
        ("\\end\\", "\\end\\\nmore", r"line 23: found 'more' after \\end\\"),
        ("\\end\\", "", r"line 2\d: the file ends where \\end\\ was expected. It was cut short"),
        ("\\3-grams:\n-0.2\ta b a\n\n\\end\\\n", "", r"the file ends where \\3-grams: was expected"),
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A damaged file that loads and gives wrong scores, or ends in a traceback."""
    assert old in ARPA
    with pytest.raises(ModelError, match=message):
        load(tmp_path, ARPA.replace(old, new))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("iARPA\n\n" + ARPA, "is IRSTLM's intermediate format.*compile-lm .*small.arpa --text=yes NEW.arpa"),
        ("\ufeffa remark\niARPA\n" + ARPA, "is IRSTLM's intermediate format"),
        ("qARPA 3\n" + ARPA, "is IRSTLM's quantised text format"),
        (b"blmt 3 1 2 3\n\0\1\2", "is an IRSTLM binary.*compile-lm"),
        (b"QblmtI 3 1 2 3\n", "is an IRSTLM binary"),
        (b"mmap lm http://kheafield.com/code format version 5\n\0", "is a KenLM binary.*build_binary"),
        (gzip.compress(b"mmap lm http://kheafield.com/code\n", mtime=0), "is a KenLM binary"),
        (b"SRILM_BINARY_NGRAM_002\n", "is an SRILM binary.*-write-lm"),
        (b"Trie Language Model\3", "is a Sphinx binary.*sphinx_lm_convert"),
        (b"\x11\0\0\0Darpa Trigram LM\0", "is a Sphinx binary"),
        (b"\xd6\xfd\xb2\x7e\6\0\0\0vector", "is a finite-state transducer"),
        (b"PK\x03\x04", "is a zip archive. .*unzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS .*git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (ARPA.encode("utf-16"), "is UTF-16. Expected UTF-8 text. Convert it: iconv -f UTF-16 -t UTF-8"),
        (ARPA.encode("utf-16-le"), "is UTF-16LE. Expected UTF-8 text"),
        (bytes(range(256)), "holds binary data, of a tool that is not recognised"),
    ],
)
def test_files_of_other_tools_are_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    """A format that looks like ARPA and whose numbers mean something else; one that nobody can guess."""
    with pytest.raises(ModelError, match=message) as caught:
        load(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_a_second_end_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A tutorial copies the line of `<s>` for `</s>`: the first counts, as in KenLM; a third is an error."""
    wanted = log10_of(load(tmp_path, ARPA.replace("-0.8\t</s>", "-0.1\t</s>")), "a b a c b")
    second = ARPA.replace("ngram 1=5", "ngram 1=6").replace("-99\t<s>", "-0.1\t</s>\t-0.2\n-99\t<s>")
    assert log10_of(load(tmp_path, second), "a b a c b") == wanted
    assert "line 10: </s> is already in line 8. The first is used" in caplog.text
    for damaged, message in (
        (second.replace("1=6", "1=7").replace("-2\t<unk>", "-1\t</s>\n-2\t<unk>"), "'</s>' occurs twice"),
        (second.replace("1=6", "1=7"), "6 1-grams, but the header"),
        (second.replace("1=6", "1=5"), "more 1-grams than the 5"),
    ):
        with pytest.raises(ModelError, match=message):
            load(tmp_path, damaged)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    """No file, a folder, half a gzip file, and words that are not UTF-8."""
    with pytest.raises(ModelError, match=r"none\.arpa does not exist"):
        NgramModel.load(tmp_path / "none.arpa")
    with pytest.raises(ModelError, match="is a folder"):
        NgramModel.load(tmp_path)
    with pytest.raises(ModelError, match="is damaged"):
        load(tmp_path, gzip.compress(ARPA.encode())[:-9])
    with pytest.raises(ModelError, match="'d\ufffd' is not UTF-8"):
        load(tmp_path, ARPA.encode().replace(b"\tb\t", b"\td\xe9\t"))


def texts(seed: int) -> list[str]:
    draw = random.Random(seed)
    words = [f"w{i}" for i in range(60)]
    return [" ".join(draw.choices(words, [1 / (i + 1) for i in range(60)], k=7)) for _ in range(80)]


@pytest.mark.parametrize("order", range(2, 7))
def test_written_models_score_in_kenlm_as_here(tmp_path: Path, order: int) -> None:
    """Every order, unknown words, beginnings and ends: the same to 1e-5, written plain and packed."""
    kenlm = pytest.importorskip("kenlm")
    (tmp_path / "text").write_text("\n".join(texts(1)))
    config = NgramConfig(order=order, entropy=1e-4 if order % 2 else 0.0)
    path = tmp_path / ("m.arpa" if order % 2 else "m.arpa.gz")
    ours = build([tmp_path / "text"], config, path)
    theirs = kenlm.Model(str(path))
    for text in [*texts(2), "", "zebra", "w0 zebra zebra w1 w2"]:
        wanted = [score for score, *_ in theirs.full_scores(text, bos=True, eos=True)]
        assert log10_of(ours, text) == pytest.approx(wanted, abs=1e-5)


def test_unigrams_are_the_files(tmp_path: Path) -> None:
    """Order 1, which KenLM refuses: each word has the probability that the file gives."""
    (tmp_path / "text").write_text("\n".join(texts(1)))
    model = build([tmp_path / "text"], NgramConfig(order=1), tmp_path / "m.arpa")
    lines = [line.split("\t") for line in (tmp_path / "m.arpa").read_text().splitlines() if "\t" in line]
    table = {word: float(log_prob) for log_prob, word in lines}
    assert log10_of(model, "w3 zebra w1") == pytest.approx(
        [table["w3"], table["<unk>"], table["w1"], table["</s>"]], abs=1e-6
    )


def test_characters_survive(tmp_path: Path) -> None:
    """A space cannot be a word of an ARPA file; `<space>` marks a file of characters."""
    (tmp_path / "text").write_text("ab ba\nabba\n")
    model = build([tmp_path / "text"], NgramConfig(order=3, unit="character"), tmp_path / "m.bin")
    model.save(tmp_path / "m.arpa")
    again = NgramModel.load(tmp_path / "m.arpa")
    assert again.unit == "character"
    assert np.allclose(again.log_probs("ab ba x"), model.log_probs("ab ba x"), atol=1e-6)
    assert NgramModel.load(tmp_path / "m.arpa", unit="word").encode("<space> a").all()
    assert NgramModel.load(tmp_path / "m.arpa", unit="word").unit == "word"
