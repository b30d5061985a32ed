"""Hot words as they are typed, and the automaton that finds them."""

import itertools
import math

import pytest

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.fusion.hotwords import build_hotwords, parse_hotwords
from asr.errors import SettingsError
from asr.lm.ngram.model import NgramModel
from asr.text.characters import CharTokenizer
from tests.decoding.fusion.exhaustive import (
    TOKENIZER,
    UNLIMITED,
    Enumerate,
    Rows,
    Words,
    compare,
    decode_one,
    exhaust,
    fused_word_scores,
    spelled,
)

LETTERS = {letter: number for number, letter in enumerate("abc")}


def test_as_they_are_typed() -> None:
    """Guards colons within words, spaces around and within phrases, and the boost where none is given."""
    assert parse_hotwords(["ab:3", "two  words : 2.5", "a:b:0.5", " new  york "]) == {
        "ab": 3.0,
        "two words": 2.5,
        "a:b": 0.5,
        "new york": 3.0,
    }


def test_as_the_transcripts_are_written() -> None:
    """Guards a name with a capital letter against being no word of a model of small letters."""
    assert parse_hotwords(["Zebra", "New York!:2"], "english") == {"zebra": 3.0, "new york": 2.0}
    with pytest.raises(SettingsError, match="'zebra' is given twice"):
        parse_hotwords(["Zebra", "zebra:4"], "english")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["ab:"], "--hotwords ab:: '' is not a number"),
        ([":3"], "--hotwords :3: there is no word"),
        (["ab:x"], "'x' is not a number"),
        (["ab:0"], "the boost is 0. Expected a word, or a word, a colon and a boost above 0"),
        (["ab:-1"], "the boost is -1"),
        (["ab:inf"], "the boost is inf"),
        (["ab:nan"], "the boost is nan"),
        ([" "], "there is no word"),
        ([""], "there is no word"),
        (["ab:1", "c", "ab:2"], "--hotwords ab:2: 'ab' is given twice"),
    ],
)
def test_not_a_hot_word(given: list[str], complaint: str) -> None:
    """Guards against a boost that is no number, that would punish, or after which nothing else is found."""
    with pytest.raises(SettingsError) as caught:
        parse_hotwords(given)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("boosts", [{"a": math.nan}, {"a": math.inf}, {"a": 0.0}, {"": 1.0}, {"a  b": 1.0}])
def test_boosts_from_python_are_checked(boosts: dict[str, float]) -> None:
    """Guards a decoder that is given such boosts, and then writes nothing at all."""
    with pytest.raises(SettingsError, match=r"hotwords: .* expected"):
        BeamDecoder(CharTokenizer((" ", "a", "b")), hotwords=boosts)


def test_advance_by_hand() -> None:
    """Guards the advance letter by letter, and that the greater of two counts."""
    hot = build_hotwords({"ab": 2.0, "abc": 6.0}, LETTERS)

    def after(text: str) -> tuple[float, float]:
        state = 0
        for letter in text:
            state = hot.next_state[state, -1 if letter == " " else LETTERS[letter]]
        return hot.advance[state], hot.gain[state]

    assert after("a") == pytest.approx((2.0, 0.0))
    assert after("ab") == pytest.approx((4.0, 2.0))
    assert after("abc") == pytest.approx((6.0, 6.0))
    assert after("abca") == (0.0, 0.0)  # another word
    assert after("cab") == (0.0, 0.0)  # not from its beginning
    assert after("cab ab") == pytest.approx((4.0, 2.0))


def test_the_automaton_is_that_of_its_definition() -> None:
    """A state that forgets a phrase's shorter ending, or advances another boost, against the definition."""
    boosts = {"a b": 3.0, "a bc": 8.0, "b": 1.0, "ab a b": 2.0, "b a": 2.5}
    hot = build_hotwords(boosts, LETTERS)

    def endings(text: str) -> list[str]:
        return [text, *(text[index + 1 :] for index, letter in enumerate(text) if letter == " ")]

    for length in range(1, 7):
        for letters in itertools.product("abc ", repeat=length):
            text = "".join(letters)
            if text.startswith(" ") or "  " in text:
                continue
            state = 0
            for letter in text:
                state = hot.next_state[state, -1 if letter == " " else LETTERS[letter]]
            begun = [
                boost * len(ending) / len(phrase)
                for ending in endings(text)
                for phrase, boost in boosts.items()
                if ending and phrase.startswith(ending)
            ]
            assert hot.advance[state] == pytest.approx(max(begun, default=0.0)), text
            assert hot.gain[state] == pytest.approx(sum(boosts.get(ending, 0.0) for ending in endings(text)))


def test_absurd_boosts_are_named() -> None:
    """A boost at which nothing has a probability, and a message that blames the model for it."""
    with pytest.raises(SettingsError, match=r"--hotwords ab:1000: the boost is 1000\. .* at most 100 nats"):
        parse_hotwords(["ab:1000"])
    with pytest.raises(SettingsError, match=r"hotwords: the boost of 'a' is 1000000\.0"):
        BeamDecoder(CharTokenizer((" ", "a", "b")), hotwords={"a": 1e6})


@pytest.mark.parametrize("unit", [None, "word", "character"])
def test_hot_words_are_exhaustive_search(
    unit: str | None, models: dict[str, NgramModel], enumerated: Enumerate, random_rows: Rows
) -> None:
    """Guards boosts that are given in advance.

    They are taken back where the word does not become complete, count once for each word, for a phrase across
    its spaces, and for a phrase that begins within another.
    """
    boosts = {"ab": 1.1, "b a": 2.3, "a b": 0.7, "bb": 0.9}
    log_probs = random_rows(17, steps=7, vocab=4, sharpness=1.0)
    model = models[unit] if unit else None

    def fused(tokens: tuple[int, ...], words: Words) -> tuple[float, float]:
        nats, lm = UNLIMITED.weights.word_bonus * len(words), 0.0
        if unit == "word":
            nats, lm = fused_word_scores(models["word"], UNLIMITED, hot=["ab", "b", "a", "bb"])(tokens, words)
        elif unit == "character":
            lm = float(models["character"].log_probs(TOKENIZER.decode(tokens)).sum())
            nats += UNLIMITED.weights.lm_weight * lm
        for phrase, boost in boosts.items():
            parts = tuple(phrase.split())
            nats += boost * sum(words[i : i + len(parts)] == parts for i in range(len(words)))
        return nats, lm

    found = decode_one(BeamDecoder(TOKENIZER, UNLIMITED, lm=model, hotwords=boosts), log_probs)
    compare(found, exhaust(enumerated(log_probs), spelled, fused))
