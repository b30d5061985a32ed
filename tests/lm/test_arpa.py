"""ARPA files: what is read equals KenLM's reading; what is damaged is named with its line."""

from pathlib import Path

import numpy as np
import pytest

from asr.lm.ngram import NgramModel

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


@pytest.fixture
def model(tmp_path: Path) -> NgramModel:
    path = tmp_path / "small.arpa"
    path.write_text(ARPA)
    return NgramModel.load(path)


def test_scores_are_the_sums_of_the_file(model: NgramModel) -> None:
    """Summed by hand: a back-off that is forgotten, taken twice or taken from the wrong context."""
    # <s> a | <s> a b: backs off from the childless "<s> a" for nothing, then "a b" | "a b a" | "a b a </s>":
    # "b a" has no back-off, then that of a, then </s>.
    wanted = [-0.5, -0.4, -0.2, -0.3 - 0.8]
    assert model.log_probs("a b a") / np.log(10) == pytest.approx(wanted, abs=1e-6)
    # An unknown word forgets everything that was said before it.
    wanted = [-0.5, -0.4, -0.15 - 0.1 - 2, -1, -0.3 - 0.8]
    assert model.log_probs("a b zebra a") / np.log(10) == pytest.approx(wanted, abs=1e-6)
