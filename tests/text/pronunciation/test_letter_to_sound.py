"""Letter-to-sound: alignment, n-gram and search against small cases whose answer is known."""

import itertools
import logging
import random

import numpy as np
import pytest

from asr.errors import DataError
from asr.text.lexicon import cmudict
from asr.text.pronunciation.joint_ngram import advance
from asr.text.pronunciation.letter_to_sound import LetterToSound

# A language with the troubles of English: "sh" is one sound, "x" is two, a final "e" is silent.
RULES = {
    "sh": ["SH"],
    "x": ["K", "S"],
    "a": ["A"],
    "o": ["O"],
    "t": ["T"],
    "s": ["S"],
    "h": ["H"],
    "l": ["L"],
}


def pronunciation_of(word: str) -> tuple[str, ...]:
    phones, rest = [], word.removesuffix("e")
    while rest:
        key = rest[:2] if rest[:2] in RULES else rest[0]
        phones += RULES[key]
        rest = rest[len(key) :]
    return tuple(phones)


def words(seed: int, count: int) -> list[str]:
    generator = random.Random(seed)
    heads, tails = ["sh", "x", "t", "s", "h", "l"], ["a", "o"]
    parts = [[generator.choice(heads) + generator.choice(tails) for _ in range(3)] for _ in range(count)]
    return ["".join(part) + generator.choice(["", "te", "le", "l"]) for part in parts]


@pytest.fixture(scope="module")
def model() -> LetterToSound:
    return LetterToSound((word, pronunciation_of(word)) for word in words(0, 400))


def test_a_regular_language_is_learned(model: LetterToSound) -> None:
    """Guards the whole chain: silent letters, two letters for one sound, one letter for two sounds."""
    fresh = sorted(set(words(1, 200)) - set(words(0, 400)))
    assert len(fresh) > 100
    wrong = [word for word in fresh if model.pronounce(word) != pronunciation_of(word)]
    assert not wrong


def test_the_same_lexicon_gives_the_same_model(model: LetterToSound) -> None:
    """Guards the same seed, same bytes: the order of the lexicon changes nothing."""
    again = LetterToSound((word, pronunciation_of(word)) for word in reversed(words(0, 400)))
    for ours, theirs in zip(model.joint.ngram, again.joint.ngram, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_ngram_sums_to_one(model: LetterToSound) -> None:
    """Guards smoothing and back-off: after every context, the probabilities of all tokens add up to 1."""
    size = len(model._chunks) + 2
    generator = np.random.default_rng(0)
    contexts = [0, model.joint.start, *generator.integers(0, model.joint.ngram.first_leaf, 30).tolist()]
    for node in contexts:
        total = sum(np.exp(advance(model.joint.ngram, node, token)[0]) for token in range(size))
        assert total == pytest.approx(1, abs=1e-6)


def test_search_finds_the_best(model: LetterToSound) -> None:
    """Guards the beam against exhaustive search over all graphones of a word."""
    for word in ("shax", "xote", "hala"):
        numbers = [model._ids[letter] for letter in word]
        choices = [range(model.joint.bounds[number], model.joint.bounds[number + 1]) for number in numbers]
        best, best_score = (), -np.inf
        for path in itertools.product(*choices):
            node, score = model.joint.start, 0.0
            for graphone in [*path, model.joint.end]:
                gain, node = advance(model.joint.ngram, node, graphone)
                score += gain
            if score > best_score:
                best, best_score = path, score
        sounds = [phone for graphone in best for phone in model._chunks[graphone]]
        assert list(model.pronounce(word)) == sounds


@pytest.fixture(scope="module")
def irregular() -> LetterToSound:
    """A language in which each letter may sound in any way: many graphones, and contexts that meet."""
    generator = random.Random(5)
    lexicon = []
    for _ in range(80):
        word = "".join(generator.choice("ab") for _ in range(generator.randint(1, 4)))
        lexicon.append((word, [generator.choice("PQ") for _ in range(generator.randint(1, 2 * len(word)))]))
    return LetterToSound(lexicon)


def sums_over_graphones(model: LetterToSound, word: str) -> dict[tuple[str, ...], float]:
    """Log-probability of every pronunciation of a word, by enumeration of all sequences of graphones."""
    numbers = [model._ids[letter] for letter in word]
    sums: dict[tuple[str, ...], float] = {}
    for path in itertools.product(
        *(range(model.joint.bounds[n], model.joint.bounds[n + 1]) for n in numbers)
    ):
        node, score = model.joint.start, 0.0
        for graphone in [*path, model.joint.end]:
            gain, node = advance(model.joint.ngram, node, graphone)
            score += gain
        sounds = tuple(phone for graphone in path for phone in model._chunks[graphone])
        sums[sounds] = float(np.logaddexp(sums.get(sounds, -np.inf), score))
    return sums


def test_score_sums_over_all_graphone_sequences(irregular: LetterToSound) -> None:
    """Guards the score of a pronunciation, also where sequences meet in one context."""
    for word in ("ab", "abba"):
        sums = sums_over_graphones(irregular, word)
        assert len(sums) > 20
        found = irregular.score([word] * len(sums), list(sums))
        assert found == pytest.approx(list(sums.values()), abs=1e-6)
        assert irregular.score([word], [("P",) * 20]) == [-np.inf]
        assert irregular.score([word], [("X",)]) == [-np.inf]


def test_alternatives_are_all_where_the_beam_holds_them(irregular: LetterToSound) -> None:
    """Guards the n-best list: alternatives with the same context are not dropped, and probabilities are sums
    over graphone sequences."""
    sums = sums_over_graphones(irregular, "ba")
    (found,) = irregular.search(["ba"], 30)
    total = np.logaddexp.reduce(list(sums.values()))
    expected = {sounds: value - total for sounds, value in sums.items() if sounds}
    assert {one.phones: one.log_prob for one in found} == pytest.approx(expected, abs=1e-6)
    log_probs = [one.log_prob for one in found]
    assert log_probs == sorted(log_probs, reverse=True)


def test_alternatives_are_ranked_and_begin_with_the_best(model: LetterToSound) -> None:
    """Guards the n-best list: distinct, best first, probabilities of at most 1 in all; the first is the one
    that `pronounce` gives for regular words."""
    for word in words(2, 20):
        (found,) = model.search([word], 5)
        assert found[0].phones == model.pronounce(word)
        assert len({one.phones for one in found}) == len(found) <= 5
        log_probs = [one.log_prob for one in found]
        assert log_probs == sorted(log_probs, reverse=True)
        assert sum(map(np.exp, log_probs)) <= 1 + 1e-9
    assert [one.phones for one in model.search(["shax"], 1)[0]] == [model.pronounce("shax")]


def test_unknown_letters(model: LetterToSound) -> None:
    """Guards against letters that vanish from a word."""
    assert model.unknown("sh\u00e9z") == "\u00e9z"
    with pytest.raises(DataError, match=r"no pronunciation for 'sh\u00e9'.*'\u00e9'"):
        model.pronounce("sh\u00e9")


def test_words_that_cannot_be_aligned_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Guards abbreviations ("w" is seven phones): they cannot be learned from, and are counted."""
    caplog.set_level(logging.INFO, "asr")
    model = LetterToSound([("w", list("DABALYU")), ("a", ["A"]), ("ta", ["T", "A"])])
    assert model.letters == ("a", "t")
    assert "1 of 3 pronunciations" in caplog.text
    with pytest.raises(DataError, match="no word to learn"):
        LetterToSound([("w", list("DABALYU"))])


@pytest.mark.slow
def test_error_rates_on_cmudict() -> None:
    """The figures in the module's head: 5% of CMUdict held out."""
    lexicon = cmudict().entries
    every = sorted(lexicon)
    order = np.random.default_rng(0).permutation(len(every))
    held_out = [every[number] for number in order[: len(every) // 20]]
    kept = [every[number] for number in sorted(order[len(every) // 20 :])]
    model = LetterToSound((word, phones) for word in kept for phones in lexicon[word])
    errors = phones = wrong = 0
    for word in held_out:
        made = model.pronounce(word)
        best = min(lexicon[word], key=lambda phones: _distance(phones, made) / len(phones))
        distance = _distance(best, made)
        errors, phones, wrong = errors + distance, phones + len(best), wrong + (distance > 0)
    assert 100 * errors / phones == pytest.approx(6.2, abs=0.2)
    assert 100 * wrong / len(held_out) == pytest.approx(25.9, abs=0.5)


def _distance(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    row = list(range(len(right) + 1))
    for i, x in enumerate(left, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(right, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
