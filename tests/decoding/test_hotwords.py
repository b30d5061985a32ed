"""Hot words as they are typed, and the automaton that finds them."""

import pytest

from asr.decoding.hotwords import build_hot_words, parse_hot_words
from asr.errors import SettingsError

LETTERS = {letter: number for number, letter in enumerate("abc")}


def test_as_they_are_typed() -> None:
    """Guards colons within words, spaces around and within phrases."""
    assert parse_hot_words(["ab:3", "two  words : 2.5", "a:b:0.5"]) == {
        "ab": 3.0,
        "two words": 2.5,
        "a:b": 0.5,
    }


@pytest.mark.parametrize("given", ["ab", "ab:", ":3", "ab:x", "ab:0", "ab:-1", "ab:inf", "ab:nan", ""])
def test_not_a_hot_word(given: str) -> None:
    """Guards against a boost that is missing, no number, or that would punish."""
    with pytest.raises(
        SettingsError, match=r"is not a hot word. Expected a word, a colon and a boost above 0"
    ):
        parse_hot_words([given])


def test_advance_by_hand() -> None:
    """Guards what is given letter by letter, and that the greater of two promises counts."""
    hot = build_hot_words({"ab": 2.0, "abc": 6.0}, LETTERS)

    def after(text: str) -> tuple[float, float]:
        state = 0
        for letter in text:
            state = hot.following[state, -1 if letter == " " else LETTERS[letter]]
        return hot.advance[state], hot.gain[state]

    assert after("a") == pytest.approx((2.0, 0.0))
    assert after("ab") == pytest.approx((4.0, 2.0))
    assert after("abc") == pytest.approx((6.0, 6.0))
    assert after("abca") == (0.0, 0.0)  # another word
    assert after("cab") == (0.0, 0.0)  # not from its beginning
    assert after("cab ab") == pytest.approx((4.0, 2.0))
