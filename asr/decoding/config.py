"""What the beam search can be told."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from asr.errors import SettingsError
from asr.model.tuning import Weights

__all__ = ["BeamConfig"]

# Not among a command's --beam.…: asr/decoding/decoder.py has them, where they can be left to what was tuned.
_Tuned = Annotated[Weights, tyro.conf.Suppress, tyro.conf.Fixed]
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
    # of prefixes that go on alike, keep the best: a smaller beam does, and a stream knows its text sooner;
    # approximate: where the model is unsure, another text can win
    recombine: bool = True
    # nats: a prefix that recombination drops and that is this far below the best one gives no alternative
    lattice_threshold: float = 16.0
    weights: _Tuned = field(default_factory=Weights)
    unknown_words: Literal["allow", "forbid"] = "allow"  # words outside the vocabulary
    threads: int = 0  # utterances decoded at the same time; 0: one a usable core

    def __post_init__(self) -> None:
        for name in ("beam_size", "nbest"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("token_top", "threads"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        for name in ("beam_threshold", "token_threshold", "lattice_threshold"):
            _check(name, getattr(self, name), getattr(self, name) > 0, "a number above 0")
        _check("blank_skip", self.blank_skip, 0 < self.blank_skip <= 1, "a probability above 0, up to 1")
        known = self.unknown_words in ("allow", "forbid")
        _check("unknown_words", self.unknown_words, known, '"allow" or "forbid"')

    def with_weights(self, **weights: float) -> "BeamConfig":
        """The same settings, some weights changed."""
        return replace(self, weights=replace(self.weights, **weights))


def _check(name: str, value: object, right: bool, expected: str) -> None:
    if not right:
        raise SettingsError(f"{name.replace('_', '-')} is {value}. Expected {expected}.")
