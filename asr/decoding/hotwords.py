"""Hot words: words that the user expects, with a boost each.

A hot word is found by its letters. What the beam has written of it is rewarded in advance, letter by letter,
so that it survives until it is complete; if it does not become complete, that is taken back. A phrase is
found across its spaces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.errors import SettingsError

__all__ = ["HotWords", "build_hot_words", "check_hot_words", "parse_hot_words"]

_BOOST = 3.0  # nats for a hot word that names none
_GREATEST = 100.0  # nats: e ** 100 is more than any evidence in audio

_START, _DEAD = 0, 1  # states: a word begins; within a word that is not hot


@dataclass(frozen=True, eq=False)
class HotWords:
    """An automaton of s states over n letters.

    Attributes:
        following: (s, n + 1) int32: the state after each letter; the last column: after a word's end.
        advance: (s,) float64 nats: what a prefix in this state has been given in advance.
        gain: (s,) float64 nats: the boosts of what is complete if a word ends in this state.
    """

    following: NDArray[np.int32]
    advance: NDArray[np.float64]
    gain: NDArray[np.float64]


def parse_hot_words(given: Sequence[str]) -> dict[str, float]:
    """Hot words as they are typed: `word`, `word:4.5`, or `two words:2.5`.

    Returns:
        The boost of each, in nats; 3 where none is given.

    Raises:
        SettingsError: one is not of this form, its boost is not above 0, or it stands there twice.
    """
    boosts: dict[str, float] = {}
    for one in given:
        text, colon, number = one.rpartition(":") if ":" in one else (one, "", "")
        phrase = " ".join(text.split())
        expected = (
            "Expected a word, or a word, a colon and a boost above 0, at most 100 nats, such as zebra:3."
        )
        try:
            boost = float(number) if colon else _BOOST
        except ValueError:
            raise SettingsError(f"--hotwords {one}: {number!r} is not a number. {expected}") from None
        if not phrase:
            raise SettingsError(f"--hotwords {one}: there is no word. {expected}")
        if not 0 < boost <= _GREATEST:
            raise SettingsError(f"--hotwords {one}: the boost is {number.strip()}. {expected}")
        if phrase in boosts:
            raise SettingsError(f"--hotwords {one}: {phrase!r} is given twice. Leave one out.")
        boosts[phrase] = boost
    return boosts


def check_hot_words(boosts: Mapping[str, float]) -> None:
    """Refuse boosts with which nothing could be found, or nothing else.

    Raises:
        SettingsError: a phrase is empty or not of words with single spaces, or its boost is not above 0.
    """
    for phrase, boost in boosts.items():
        if not phrase or phrase != " ".join(phrase.split()):
            raise SettingsError(f"hotwords: {phrase!r}. Words with single spaces between them were expected.")
        if not 0 < boost <= _GREATEST:
            raise SettingsError(
                f"hotwords: the boost of {phrase!r} is {boost}. Nats above 0, at most 100, were expected."
            )


def build_hot_words(boosts: Mapping[str, float], numbers: Mapping[str, int]) -> HotWords:
    """The automaton that finds hot words.

    Args:
        boosts: nats of each word or phrase.
        numbers: the number of each letter, from 0.

    Raises:
        SettingsError: a hot word has a letter that the model does not write; a difference in case is named.
    """
    for phrase in boosts:
        _check_letters(phrase, numbers)
    states = {"": _START}  # what hot words begin with, and the state of each; 1 is _DEAD
    promised: dict[
        str, float
    ] = {}  # nats a letter: the greatest boost of those that begin so, by their length
    for phrase, boost in boosts.items():
        for length in range(1, len(phrase) + 1):
            written = phrase[:length]
            states.setdefault(written, len(states) + 1)
            promised[written] = max(promised.get(written, 0.0), boost / len(phrase))
    size = len(states) + 1
    following = np.full((size, len(numbers) + 1), _DEAD, dtype=np.int32)
    following[:, -1] = _START
    advance, gain = np.zeros(size), np.zeros(size)
    # Shorter beginnings first: what follows a state is what follows its longest ending that is one, and more.
    for written, state in sorted(states.items(), key=lambda one: len(one[0])):
        endings = _endings(written)
        for ending in endings:
            gain[state] += boosts.get(ending, 0.0)
            advance[state] = max(advance[state], promised.get(ending, 0.0) * len(ending))
        shorter = next((states[ending] for ending in endings[1:] if ending in states), None)
        if shorter is not None:
            following[state] = following[shorter]
        if written.endswith(" "):
            following[state, -1] = state
        if written:
            before = states[written[:-1]]
            following[before, numbers[written[-1]] if written[-1] != " " else -1] = state
    return HotWords(following, advance, gain)


def _check_letters(phrase: str, numbers: Mapping[str, int]) -> None:
    """Refuse a hot word that the model cannot write.

    Raises:
        SettingsError: it has letters that are none of the model's.
    """
    strange = sorted(set(phrase) - {" "} - numbers.keys())
    if not strange:
        return
    for case, changed in (("lower", phrase.lower()), ("upper", phrase.upper())):
        if set(changed) - {" "} <= numbers.keys():
            raise SettingsError(
                f"hotwords: {phrase!r} is not in {case} case, but the model's text is. Give {changed!r}."
            )
    raise SettingsError(
        f"hotwords: {phrase!r} has {', '.join(map(repr, strange))}, which the model cannot write. Its "
        f"letters are {''.join(sorted(numbers))!r}. Spell the word with these."
    )


def _endings(written: str) -> list[str]:
    """What hot words may have begun: all of it, or from one of its words on; the longest first."""
    return [written, *(written[place + 1 :] for place, letter in enumerate(written) if letter == " ")]
