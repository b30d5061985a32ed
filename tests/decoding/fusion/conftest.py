"""Language models of words and of characters, small enough for exhaustive search."""

import pytest

from asr.lm.ngram.model import NgramModel

WORD_ARPA = """\\data\\
ngram 1=7
ngram 2=6
ngram 3=3

\\1-grams:
-1.3 <unk> -0.1
-99 <s> -0.4
-0.9 </s>
-0.7 a -0.3
-0.8 ab -0.2
-1.1 b -0.25
-1.4 bba

\\2-grams:
-0.5 <s> a -0.2
-0.3 a b -0.15
-0.6 b a
-0.2 ab </s>
-0.9 b ab -0.1
-0.8 a <unk>

\\3-grams:
-0.2 <s> a b
-0.1 a b ab
-0.7 b ab </s>

\\end\\
"""

CHARACTER_ARPA = """\\data\\
ngram 1=6
ngram 2=6
ngram 3=2

\\1-grams:
-2.0 <unk>
-99 <s> -0.4
-0.9 </s>
-0.7 a -0.3
-0.6 <space> -0.2
-1.1 b -0.25

\\2-grams:
-0.5 <s> a -0.2
-0.3 a b -0.15
-0.6 b a
-0.2 b </s>
-0.9 b <space> -0.1
-1.8 <space> <space>

\\3-grams:
-0.2 <s> a b
-0.1 a b <space>

\\end\\
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NgramModel]:
    folder = tmp_path_factory.mktemp("lm")
    found = {}
    for unit, text in (("word", WORD_ARPA), ("character", CHARACTER_ARPA)):
        path = folder / f"{unit}.arpa"
        path.write_text(text)
        found[unit] = NgramModel.load(path)
        assert found[unit].unit == unit
    return found
