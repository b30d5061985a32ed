"""Models of the real lmplz: `asr lm train` writes the same numbers, and our reader finds the same scores.

The folder lmplz/ holds a text and what KenLM (its Python package's source, 0.3.0) made of it:

    lmplz -o 3 < text.txt | gzip -9n > order3.arpa.gz
    lmplz -o 3 --prune 0 0 1 < text.txt | gzip -9n > order3_pruned.arpa.gz
    query -v sentence order3.arpa < queries.txt

The first column of scores.tsv is queries.txt, the second what `query` prints: log10 of each sentence.

The text has white space of every kind and words that are not ASCII. It has no blank line: lmplz counts one as
a sentence without words, `asr lm train` skips it.
"""

import gzip
import math
from pathlib import Path

import pytest

from asr.cli import main
from asr.lm.ngram.model import NgramModel

LMPLZ = Path(__file__).parent / "lmplz"


def read_arpa(path: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    """The log10 probability and back-off of each n-gram, read without the code under test."""
    table: dict[tuple[str, ...], tuple[float, float]] = {}
    order = 0
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        if line.endswith("-grams:"):
            order = int(line[1])
        elif order and "\t" in line:
            log_prob, words, *backoff = line.split("\t")
            table[tuple(words.split(" "))] = float(log_prob), float(backoff[0]) if backoff else 0.0
    return table


@pytest.mark.parametrize(("name", "prune"), [("order3", ()), ("order3_pruned", ("--prune", "0", "0", "1"))])
def test_every_ngram_is_that_of_lmplz(tmp_path: Path, name: str, prune: tuple[str, ...]) -> None:
    """A discount, a count, an interpolation or a cut-off that is not lmplz's, at any order."""
    path = tmp_path / "ours.arpa.gz"
    assert main(["lm", "train", str(LMPLZ / "text.txt"), "--order", "3", *prune, "-o", str(path)]) == 0
    ours, theirs = read_arpa(path), read_arpa(LMPLZ / f"{name}.arpa.gz")
    assert ours.keys() == theirs.keys()
    assert len(ours) > 2000
    # Never predicted: lmplz writes 0, the format asks for -99.
    assert (ours.pop(("<s>",))[0], theirs.pop(("<s>",))[0]) == (-99.0, 0.0)
    for ngram, values in theirs.items():
        assert ours[ngram] == pytest.approx(values, abs=2e-6), ngram


def test_sentences_score_as_in_kenlm() -> None:
    """A back-off from the wrong context, or an unknown word at another price."""
    model = NgramModel.load(LMPLZ / "order3.arpa.gz")
    rows = [line.split("\t") for line in (LMPLZ / "scores.tsv").read_text().splitlines()]
    assert len(rows) == 8
    for text, log10 in rows:
        assert model.log_probs(text).sum() / math.log(10) == pytest.approx(float(log10), abs=1e-4), text
