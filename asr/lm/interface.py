"""The interface of a language model: what a decoder asks (`unit`, `words`) and calls.

Any object with these methods can be fused into a beam search or rescore its result: `NgramModel`, the
character RNN, or one of yours. Log-probabilities are natural logarithms.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["LanguageModel", "Unit"]

Unit = Literal["word", "character"]

S = TypeVar("S")


class LanguageModel(Protocol[S]):
    """A language model over words or characters, whose states S are opaque to the caller.

    A state represents the text so far. It may be kept, and used more than once and in any order.
    """

    @property
    def unit(self) -> Unit:
        """What one symbol is: a whole word, or one character (the space between words included)."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """All its words or characters, `<s>` and the like among them."""
        ...

    def start(self) -> S:
        """The state in which a text begins."""
        ...

    def score(self, states: Sequence[S], symbols: Sequence[str]) -> tuple[NDArray[np.float64], list[S]]:
        """Log-probability of each symbol after its state, and the states that follow.

        Args:
            states: (n,) states.
            symbols: (n,) words or characters, see `unit`; out-of-vocabulary ones are allowed.

        Returns:
            (n,) natural log-probabilities, and (n,) new states.
        """
        ...

    def finish(self, states: Sequence[S]) -> NDArray[np.float64]:
        """(n,) natural log-probabilities that the text ends after each of n states."""
        ...
