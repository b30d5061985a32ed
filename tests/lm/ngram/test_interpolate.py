"""Interpolation against dictionaries and plain loops over the ARPA files of the models."""

import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asr.errors import DataError, ModelError, SettingsError
from asr.lm.ngram.build import NgramConfig, build
from asr.lm.ngram.interpolate import best_weights, interpolate, word_probs
from asr.lm.ngram.model import NgramModel
from asr.lm.perplexity import perplexity

Gram = tuple[str, ...]


class Dictionaries:
    """A back-off model as an ARPA file has it, read and scored without arrays."""

    def __init__(self, path: Path) -> None:
        self.probs: dict[Gram, float] = {}
        self.backoffs: dict[Gram, float] = {}
        for section in path.read_text().split("-grams:\n")[1:]:
            for line in section.split("\n\n")[0].splitlines():
                prob, words, *backoff = line.split("\t")
                gram = tuple(words.split(" "))
                self.probs[gram] = 10 ** float(prob)
                self.backoffs[gram] = 10 ** float(backoff[0]) if backoff else 1.0

    def prob(self, gram: Gram) -> float:
        """Of the last word after the others, all of which the model has."""
        if gram in self.probs:
            return self.probs[gram]
        return self.backoffs.get(gram[:-1], 1.0) * self.prob(gram[1:])

    def prob_of_any(self, gram: Gram) -> float:
        """The same for words that the model may not have."""
        if (gram[-1],) not in self.probs:
            return 0.0
        return self.prob(tuple(word if (word,) in self.probs else "<unk>" for word in gram))


def naive(models: list[Dictionaries], weights: list[float]) -> Dictionaries:
    """The interpolated model by its definition."""
    merged = Dictionaries.__new__(Dictionaries)
    grams = sorted({gram for model in models for gram in model.probs}, key=len)
    merged.probs = {
        gram: sum(w * model.prob_of_any(gram) for w, model in zip(weights, models, strict=True))
        for gram in grams
    }
    merged.probs["<s>",] = 0.0
    merged.backoffs = {}
    for context in grams:
        words = [gram[-1] for gram in grams if gram[:-1] == context]
        rest = 1 - sum(merged.probs[(*context, word)] for word in words)
        rest_low = 1 - sum(merged.prob((*context[1:], word)) for word in words)
        merged.backoffs[context] = rest / rest_low if words else 1.0
    return merged


def train(folder: Path, seed: int, words: str, name: str, **config: object) -> Path:
    """An ARPA file of a model of skewed nonsense."""
    draw = random.Random(seed)
    weights = [1 / (1 + i) for i in range(len(words))]
    lines = [" ".join(draw.choices(words, weights, k=draw.randint(1, 7))) for _ in range(60)]
    text, path = folder / f"{name}.txt", folder / name
    text.write_text("\n".join(lines) + "\n")
    build([text], NgramConfig(**config), path)  # type: ignore[arg-type]
    return path


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Models of different orders and words; one of them has n-grams with <unk>, one is pruned."""
    return [
        train(tmp_path, 1, "abcdefg", "a.arpa", order=3),
        train(tmp_path, 2, "gfxyba", "b.arpa", order=2, vocabulary=4),
        train(tmp_path, 3, "cabz", "c.arpa", order=4, entropy=1e-3),
    ]


def load(paths: list[Path]) -> dict[str, NgramModel]:
    return {str(path): NgramModel.load(path) for path in paths}


def after(model: NgramModel, history: Gram, words: list[str]) -> np.ndarray:
    """(words,) probabilities after a history, which does not begin a sentence."""
    state = 0
    for word in history:
        state = model.score([state], [word])[1][0]
    return np.exp(model.score([state] * len(words), words)[0])


@pytest.mark.parametrize("weights", [[0.5, 0.3, 0.2], [0.01, 0.01, 0.98]])
def test_equals_dictionaries(paths: list[Path], tmp_path: Path, weights: list[float]) -> None:
    """An n-gram that is lost, backed off wrongly, or mixed with the wrong history's."""
    out = tmp_path / "out.arpa"
    interpolate(load(paths), weights).save(out)
    expected, found = naive([Dictionaries(path) for path in paths], weights), Dictionaries(out)
    assert found.probs.keys() == expected.probs.keys()
    assert max(map(len, found.probs)) == 4
    for gram, prob in expected.probs.items():
        assert found.probs[gram] == pytest.approx(prob, rel=1e-5, abs=1e-90), gram
        assert found.backoffs[gram] == pytest.approx(expected.backoffs[gram], rel=1e-3), gram


def test_arpa_of_other_tools(
    tmp_path: Path, random_table: Callable[..., dict[tuple[int, ...], tuple]]
) -> None:
    """N-grams whose suffixes are missing, as after SRILM's pruning; `<s>` with the probability 1 of lmplz."""
    paths, names = [], [["<s>", "</s>", "a", "b"], ["b", "</s>", "c", "<s>"]]
    for number, words in enumerate(names):
        table = random_table(number, 3)
        lines = ["\\data\\", *(f"ngram {n}={sum(len(g) == n for g in table)}" for n in (1, 2, 3))]
        for n in (1, 2, 3):
            lines += ["", f"\\{n}-grams:"]
            for gram, (log_prob, backoff) in table.items():
                if len(gram) == n:
                    value = 0 if [words[i] for i in gram] == ["<s>"] else log_prob - 1
                    lines.append(f"{value}\t{' '.join(words[i] for i in gram)}\t{backoff if n < 3 else 0}")
        paths.append(tmp_path / f"{number}.arpa")
        paths[-1].write_text("\n".join([*lines, "", "\\end\\", ""]))
    out = tmp_path / "out.arpa"
    interpolate(load(paths), [0.5, 0.5]).save(out)
    models = [Dictionaries(path) for path in paths]
    for model in models:  # as our reader adds it
        model.probs["<unk>",] = model.backoffs["<unk>",] = 1e-100
        model.backoffs["<unk>",] = 1.0
    expected, found = naive(models, [0.5, 0.5]), Dictionaries(out)
    assert found.probs.keys() == expected.probs.keys()
    for gram, prob in expected.probs.items():
        assert found.probs[gram] == pytest.approx(prob, rel=1e-5, abs=2e-99), gram
    assert found.probs["<s>",] == 1e-99


@pytest.mark.parametrize("vocabulary", [None, 5])
def test_sums_to_one(paths: list[Path], vocabulary: int | None) -> None:
    """Probability that is made or lost: by unknown words, a smaller vocabulary, or a back-off weight."""
    model = interpolate(load(paths), [0.4, 0.3, 0.3], vocabulary)
    words = [word for word in model.words if word != "<s>"]
    assert len(words) == (11 if vocabulary is None else 7)
    for history in itertools.product([*words, "<s>"], repeat=3):
        assert after(model, history, words).sum() == pytest.approx(1, abs=3e-6), history


def test_characters_sum_to_one(tmp_path: Path) -> None:
    """After most characters every other is known: nothing, or hardly anything, is left to back off to."""
    paths = [
        train(tmp_path, 1, "abcd", "a.arpa", order=5, unit="character"),
        train(tmp_path, 2, "dcbe", "b.arpa", order=4, unit="character"),
    ]
    model = interpolate(load(paths), [0.7, 0.3])
    assert model.unit == "character"
    words = [word for word in model.words if word != "<s>"]
    for history in itertools.product("ab e", repeat=4):
        assert after(model, history, words).sum() == pytest.approx(1, abs=2e-5), history


def test_nothing_left_to_back_off_to(tmp_path: Path) -> None:
    """Without smoothing a context may know its next word for sure, and a back-off weight would add to it."""
    head = "\\data\\\nngram 1=5\nngram 2=1\n\n\\1-grams:\n-99\t<s>\t0\n-0.60206\t</s>\t0\n"
    for name in ("c", "d"):
        words = f"-0.60206\ta\t-99\n-0.60206\tb\t0\n-0.60206\t{name}\t0\n"
        (tmp_path / f"{name}.arpa").write_text(f"{head}{words}\n\\2-grams:\n0\ta b\n\n\\end\\\n")
    model = interpolate(load([tmp_path / "c.arpa", tmp_path / "d.arpa"]), [0.5, 0.5])
    words = [word for word in model.words if word != "<s>"]
    assert after(model, ("a",), ["b"])[0] == pytest.approx(1)
    assert after(model, ("a",), words).sum() == pytest.approx(1, abs=2e-5)


def test_weights_1_and_0_are_the_parts(paths: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    """With all of the weight a model is unchanged; the other's words are not there, which is said."""
    models = load(paths)
    for position, (name, model) in enumerate(models.items()):
        weights = [float(i == position) for i in range(3)]
        merged = interpolate(models, weights)
        assert merged.counts == model.counts
        assert set(merged.words) == set(model.words)
        words = [word for word in model.words if word != "<s>"]
        for history in itertools.product([*words, "<s>"], repeat=2):
            assert after(merged, history, words) == pytest.approx(after(model, history, words), rel=1e-4)
        assert all((f"{other} has the weight 0" in caplog.text) == (other != name) for other in models)
        caplog.clear()
    first = next(iter(models.values()))
    almost = interpolate(models, [1, 1e-9, 1e-9])
    assert sum(almost.counts) > sum(first.counts)
    words = [word for word in first.words if word != "<s>"]
    for history in itertools.product(words, repeat=2):
        assert after(almost, history, words) == pytest.approx(after(first, history, words), rel=1e-4)


def test_weights_are_divided_by_their_sum(paths: list[Path]) -> None:
    """Probabilities above 1."""
    models = load(paths)
    texts = ["a b g", "z x"]
    whole, parts = interpolate(models, [2, 1, 1]), interpolate(models, [0.5, 0.25, 0.25])
    for text in texts:
        assert whole.log_probs(text) == pytest.approx(parts.log_probs(text))


def test_vocabulary(paths: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file's words and a number's; words of no model are said; what is lost goes to <unk>."""
    models, weights = load(paths), [0.4, 0.3, 0.3]
    words = tmp_path / "words.txt"
    words.write_text("a\nz\nnever\n")
    model = interpolate(models, weights, words)
    assert set(model.words) == {"<unk>", "<s>", "</s>", "a", "z"}
    assert "1 of the 3 words of" in caplog.text
    everything = interpolate(models, weights)
    assert everything.words[3] == "a"  # the most probable one
    assert len(interpolate(models, weights, 1).words) == 4
    kept = after(everything, (), ["a", "z", "</s>"])
    assert after(model, (), ["a", "z", "</s>"]) == pytest.approx(kept, rel=1e-5)
    assert after(model, (), ["<unk>"])[0] == pytest.approx(1 - kept.sum(), rel=1e-5)
    assert not [gram for gram in everything.words if gram == "never"]


def test_best_weights_are_the_best(paths: list[Path], tmp_path: Path) -> None:
    """EM that stops early or climbs another hill, against a grid; the mixture beats each of its parts."""
    models = load(paths[:1] + paths[2:])
    dev = tmp_path / "dev.txt"
    dev.write_text("a b c\nz a c\nc z unheard b\nd e a\n\n")
    weights = best_weights(word_probs(models, [dev]))
    assert weights.sum() == pytest.approx(1)
    first, second = (Dictionaries(Path(name)) for name in models)

    def fit(weight: float) -> float:
        total = 0.0
        for line in dev.read_text().splitlines()[:-1]:
            words = ("<s>", *line.split(), "</s>")
            for i in range(1, len(words)):
                gram = words[max(0, i - 3) : i + 1]
                prob = weight * first.prob_of_any(gram) + (1 - weight) * second.prob_of_any(gram)
                total += math.log(prob) if prob else 0.0
        return total

    grid = np.arange(0.001, 1, 0.001)
    assert weights[0] == pytest.approx(grid[np.argmax([fit(weight) for weight in grid])], abs=2e-3)
    assert 0.1 < weights[0] < 0.9
    draw = random.Random(5)
    dev.write_text("".join(" ".join(draw.choices("abc", k=4)) + "\n" for _ in range(50)))  # both have these
    merged = interpolate(models, best_weights(word_probs(models, [dev])).tolist())
    best = min(perplexity(model, [dev]).perplexity for model in models.values())
    assert perplexity(merged, [dev]).perplexity < best


def test_mistakes(paths: list[Path], tmp_path: Path) -> None:
    """Each is named; nothing is mixed that does not fit together."""
    models = load(paths)
    for weights in ([1.0], [0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [1.0, math.nan, 1.0]):
        with pytest.raises(SettingsError, match="A number for each of the 3 models was expected"):
            interpolate(models, weights)
    with pytest.raises(SettingsError, match="--vocabulary is 0"):
        interpolate(models, [1, 1, 1], 0)
    characters = NgramModel.load(train(tmp_path, 1, "ab", "d.arpa", order=2, unit="character"))
    with pytest.raises(ModelError, match=r"a.arpa is a model of words, d of characters"):
        interpolate({str(paths[0]): models[str(paths[0])], "d": characters}, [1, 1])
    upper = NgramModel.load(train(tmp_path, 1, "ABCDEF", "e.arpa", order=2))
    with pytest.raises(
        ModelError, match=r"the words of e are written otherwise than those of .*a.arpa: upper"
    ):
        interpolate({str(paths[0]): models[str(paths[0])], "e": upper}, [1, 1])
    dev = tmp_path / "dev.txt"
    dev.write_text("\n")
    with pytest.raises(DataError, match=r"no text in .*dev.txt"):
        word_probs(models, [dev])


def test_too_many_ngrams(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes whose numbers overflow."""
    monkeypatch.setattr("asr.lm.ngram.interpolate.MAX_NODES", 100)
    with pytest.raises(ModelError, match="more than 100 n-grams"):
        interpolate(load(paths), [1, 1, 1])
