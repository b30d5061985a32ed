"""Hot words: words that the user expects, each with a boost in nats.

A hot word is found by its symbols. What the beam has written of it is rewarded in advance, symbol by symbol,
so that it survives until it is complete; if it does not become complete, that is taken back. A phrase is
found across its spaces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.errors import SettingsError
from asr.text.normalize import normalize

__all__ = ["HotwordAutomaton", "build_hotwords", "check_hotwords", "parse_hotwords"]

_BOOST = 3.0  # nats for a hot word that names none
_GREATEST = 100.0  # nats: e ** 100 is more than any evidence in audio

_START, _DEAD = 0, 1  # states: a word begins; within a word that is no hot word


@dataclass(frozen=True, eq=False)
class HotwordAutomaton:
    """An automaton of s states over n symbols.

    Attributes:
        next_state: (s, n + 1) int32: the state after each symbol; the last column: after a word's end.
        advance: (s,) float64 nats: what a prefix in this state is given in advance.
        gain: (s,) float64 nats: the boosts of what is complete if a word ends in this state.
    """

    next_state: NDArray[np.int32]
    advance: NDArray[np.float64]
    gain: NDArray[np.float64]


def parse_hotwords(options: Sequence[str], normalizer: str = "verbatim") -> dict[str, float]:
    """Hot words as they are typed: `word`, `word:4.5`, or `two words:2.5`.

    Args:
        options: see above.
        normalizer: text rules that each goes through, those of the model's transcripts: `Zebra` is a word
            that a model of small letters writes `zebra`.

    Returns:
        The boost of each, in nats; 3 where none is given.

    Raises:
        SettingsError: one is not of this form, its boost is not above 0, or it is given twice.
    """
    boosts: dict[str, float] = {}
    for option in options:
        text, colon, number = option.rpartition(":") if ":" in option else (option, "", "")
        phrase = " ".join(normalize(text, normalizer).split())
        expected = (
            "Expected a word, or a word, a colon and a boost above 0, at most 100 nats, such as zebra:3."
        )
        try:
            boost = float(number) if colon else _BOOST
        except ValueError:
            raise SettingsError(f"--hotwords {option}: {number!r} is not a number. {expected}") from None
        if not phrase:
            raise SettingsError(f"--hotwords {option}: there is no word. {expected}")
        if not 0 < boost <= _GREATEST:
            raise SettingsError(f"--hotwords {option}: the boost is {number.strip()}. {expected}")
        if phrase in boosts:
            raise SettingsError(f"--hotwords {option}: {phrase!r} is given twice. Leave one out.")
        boosts[phrase] = boost
    return boosts


def check_hotwords(boosts: Mapping[str, float]) -> None:
    """Refuse hot words that cannot be found, and boosts out of range.

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


def build_hotwords(boosts: Mapping[str, float], symbol_ids: Mapping[str, int]) -> HotwordAutomaton:
    """The automaton that finds hot words.

    Args:
        boosts: nats of each word or phrase.
        symbol_ids: the id of each symbol, from 0.

    Raises:
        SettingsError: a hot word has a symbol that the model does not write; a difference in case is named.
    """
    for phrase in boosts:
        _check_symbols(phrase, symbol_ids)
    states = {"": _START}  # what hot words begin with -> its state; 1 is _DEAD
    # nats a symbol: the greatest boost among the hot words that begin like this, each by its length
    promised: dict[str, float] = {}
    for phrase, boost in boosts.items():
        for length in range(1, len(phrase) + 1):
            written = phrase[:length]
            states.setdefault(written, len(states) + 1)
            promised[written] = max(promised.get(written, 0.0), boost / len(phrase))
    size = len(states) + 1
    next_state = np.full((size, len(symbol_ids) + 1), _DEAD, dtype=np.int32)
    next_state[:, -1] = _START
    advance, gain = np.zeros(size), np.zeros(size)
    # Shorter beginnings first: the transitions of a state are those of its longest ending that
    # is a state, and more.
    for written, state in sorted(states.items(), key=lambda item: len(item[0])):
        endings = _endings(written)
        for ending in endings:
            gain[state] += boosts.get(ending, 0.0)
            advance[state] = max(advance[state], promised.get(ending, 0.0) * len(ending))
        shorter = next((states[ending] for ending in endings[1:] if ending in states), None)
        if shorter is not None:
            next_state[state] = next_state[shorter]
        if written.endswith(" "):
            next_state[state, -1] = state
        if written:
            before = states[written[:-1]]
            next_state[before, symbol_ids[written[-1]] if written[-1] != " " else -1] = state
    return HotwordAutomaton(next_state, advance, gain)


def _check_symbols(phrase: str, symbol_ids: Mapping[str, int]) -> None:
    """Refuse a hot word that the model cannot write.

    Raises:
        SettingsError: it has symbols that are none of the model's.
    """
    foreign = sorted(set(phrase) - {" "} - symbol_ids.keys())
    if not foreign:
        return
    for case, changed in (("lower", phrase.lower()), ("upper", phrase.upper())):
        if set(changed) - {" "} <= symbol_ids.keys():
            raise SettingsError(
                f"hotwords: {phrase!r} is not in {case} case, but the model's text is. Give {changed!r}."
            )
    raise SettingsError(
        f"hotwords: {phrase!r} has {', '.join(map(repr, foreign))}, which the model cannot write. Its "
        f"letters are {''.join(sorted(symbol_ids))!r}. Spell the word with these."
    )


def _endings(written: str) -> list[str]:
    """Where hot words may have begun: the whole text, and from each of its words on; the longest first."""
    return [written, *(written[index + 1 :] for index, symbol in enumerate(written) if symbol == " ")]
