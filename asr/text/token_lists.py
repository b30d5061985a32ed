"""Token lists: the tokens of many transcripts in two arrays."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["TokenLists"]


class TokenLists(NamedTuple):
    """The tokens of many transcripts, one after the other."""

    ids: NDArray[np.int32]  # (tokens,)
    counts: NDArray[np.int64]  # (transcripts,)

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> "TokenLists":
        """The token lists of transcripts, given one by one."""
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        return cls(np.fromiter(chain.from_iterable(lists), np.int32, counts.sum()), counts)
