"""What the beam search can be told."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from asr.errors import SettingsError

__all__ = ["BeamConfig"]

# Not among a command's --beam.…: asr/decoder.py has them, where they can be left to what was tuned.
_Tuned = Annotated[float, tyro.conf.Suppress]
_Asked = Annotated[int, tyro.conf.Suppress]


@dataclass(frozen=True)
class BeamConfig:
    """How wide the beam search looks, and how it weighs what it finds.

    Raises:
        SettingsError: a value out of range, named as the user types it.
    """

    beam_size: int = 100  # prefixes kept after each step
    nbest: _Asked = 1  # hypotheses returned, of different texts; there may be fewer
    beam_threshold: float = 25.0  # nats: a prefix this far below the best one is dropped; inf keeps all
    # nats: a token this far below the step's best starts nothing; inf tries all
    token_threshold: float = 12.0
    token_top: int = 0  # tokens tried in a step, the most probable ones; 0 tries all
    blank_skip: float = 0.999  # above this blank probability a step starts no new prefixes; 1 never skips
    # of prefixes that go on alike, keep the best (where one hypothesis is asked for): a smaller beam does,
    # and a stream knows its text sooner; approximate: where the model is unsure, another text can win
    recombine: bool = True
    acoustic_scale: _Tuned = 1.0  # factor on the model's log-probabilities
    blank_scale: _Tuned = 1.0  # factor on the blank's probability; below 1 more is written
    prior_weight: _Tuned = 0.0  # the tokens' probabilities are divided by their priors to this power
    lm_weight: _Tuned = 0.5  # factor on the language model's log-probabilities
    word_bonus: _Tuned = 0.0  # nats for each word; above 0 more words are written
    unknown_words: Literal["allow", "forbid"] = "allow"  # words outside the vocabulary
    unknown_penalty: float = -5.0  # nats for each unknown word, beside what the language model says of it
    # nats for each of its letters; without it, words that are run together are cheaper than words
    unknown_letter_penalty: float = -1.5
    threads: int = 0  # utterances decoded at the same time; 0: one a usable core

    def __post_init__(self) -> None:
        for name in ("beam_size", "nbest"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("token_top", "threads"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in ("beam_threshold", "token_threshold", "acoustic_scale", "blank_scale"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "a number above 0")
        for name in ("acoustic_scale", "blank_scale"):
            _check(name, getattr(self, name), math.isfinite(getattr(self, name)), "a finite number above 0")
        for name in ("prior_weight", "lm_weight"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < math.inf, "a finite number, 0 or more")
        for name in ("word_bonus", "unknown_penalty"):
            _check(name, getattr(self, name), math.isfinite(getattr(self, name)), "a finite number")
        _check("blank_skip", self.blank_skip, 0 < self.blank_skip <= 1, "a probability above 0, up to 1")
        price = self.unknown_letter_penalty
        _check("unknown_letter_penalty", price, -math.inf < price <= 0, "a finite number, 0 or less")
        known = self.unknown_words in ("allow", "forbid")
        _check("unknown_words", self.unknown_words, known, '"allow" or "forbid"')


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise SettingsError(f"{name.replace('_', '-')} is {value}. Expected {expected}.")
