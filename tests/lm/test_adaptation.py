"""Text interpolated into a language model: the weight is what lines that were held out ask for."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.errors import DataError
from asr.lm.adaptation import SubjectText, adapt_lm, read_subject_text
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.model import NgramModel

COMMON = [f"w{number}" for number in range(30)]
Adapt = Callable[[list[str], list[str]], tuple[NgramModel, dict[str, float]]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> NgramModel:
    """A model of sentences of any words of `COMMON`."""
    folder, draw = tmp_path_factory.mktemp("source"), random.Random(0)
    lines = (" ".join(draw.choices(COMMON, k=6)) for _ in range(400))
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    return build([folder / "text.txt"], NgramConfig(order=3), folder / "lm.bin")


@pytest.fixture
def adapt(source: NgramModel, tmp_path: Path) -> Adapt:
    def adapt_to(lines: list[str], words: list[str]) -> tuple[NgramModel, dict[str, float]]:
        (tmp_path / "mine.txt").write_text("\n".join(lines) + "\n")
        text: SubjectText = read_subject_text([tmp_path / "mine.txt"], "english")
        adapted = adapt_lm(source, "source", text, [*words, *text.words], tmp_path)
        assert adapted.after < adapted.before
        assert sum(adapted.weights.values()) == pytest.approx(1)
        return adapted.model, adapted.weights

    return adapt_to


def test_the_weight_is_found_on_other_lines(adapt: Adapt, source: NgramModel) -> None:
    """A text that is learned by heart: words that only held-out lines have are known to its model."""
    draw = random.Random(1)
    own = [f"the valve number {a} of the pump {b} leaks" for a in "abcdef" for b in "ghijk"]
    model, weights = adapt(own, [])
    assert [*weights] == ["source", "text"]
    assert weights["text"] > 0.9
    sentence = "the valve number z of the pump h leaks"
    assert model.log_probs(sentence).sum() > source.log_probs(sentence).sum() + 10
    # Each line has words of the source at random, and one of its own that never comes again.
    alien = [" ".join([*draw.choices(COMMON, k=5), f"alien{number}"]) for number in range(60)]
    _, weights = adapt([line for line in alien for _ in range(3)], [])
    assert weights["text"] < 0.2


def test_words_that_the_text_lacks_are_known(adapt: Adapt) -> None:
    """Words of the list that are as improbable as an unknown word, or more probable than one of the text."""
    lines = [f"w{a} w{b} pump" for a in range(5) for b in range(5)] + ["w1 once"]
    model, weights = adapt(lines, [*"abcdefg", "kaldi"])
    assert weights["words"] == pytest.approx((weights["text"] + weights["words"]) * 8 / (8 + 77))
    assert model.score([0], ["kaldi"])[0][0] == pytest.approx(math.log(weights["words"] / 8), abs=0.7)
    model, _ = adapt(lines, [])
    assert "kaldi" not in model.ids


def test_too_little_text(tmp_path: Path) -> None:
    """One line often, which is one line."""
    (tmp_path / "mine.txt").write_text("The pump leaks.\n" * 50 + "\n\nthe PUMP\n")
    with pytest.raises(DataError, match=r"mine.txt: 2 different lines of text. At least 10"):
        read_subject_text([tmp_path / "mine.txt"], "english")
