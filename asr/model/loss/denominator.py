"""The denominator LM of CTC-CRF: a bigram or trigram of tokens, estimated from transcripts.

Its probabilities are one table (contexts, vocab, vocab): of the token before the last one, the last one and
the next one; a bigram has one context. Where a token would be the blank, 0, it is the boundary of a sentence
instead: the beginning before, the end after. Token ids are padded with anything.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.errors import SettingsError
from asr.frontend.features import frame_mask

__all__ = ["DenominatorLm", "count_ngrams", "witten_bell"]

_MAX_ENTRIES = 1 << 22  # of the table: a trigram of 160 tokens, a bigram of 2,000
_CHUNK = 10_000  # transcripts that are counted at once


class DenominatorLm(nn.Module):
    """A bigram or trigram of tokens; its table is saved with the model.

    Args:
        order: 2 or 3.
        vocab_size: of the model's output, the blank included.

    Raises:
        SettingsError: the table would be too large.
    """

    probs: Tensor  # (contexts, vocab, vocab) float32

    def __init__(self, order: int, vocab_size: int) -> None:
        super().__init__()
        if vocab_size**order > _MAX_ENTRIES:
            raise SettingsError(
                f"--model.denominator-order {order}: a table of {vocab_size} to the power of {order} "
                f"probabilities is too large. Expected at most {_MAX_ENTRIES}: use fewer output units (there "
                f"are about 40 phones)"
                + (", or a bigram: --model.denominator-order 2." if order > 2 else ".")
            )
        contexts = vocab_size if order == 3 else 1
        uniform = torch.full((contexts, vocab_size, vocab_size), 1 / vocab_size)
        self.register_buffer("probs", uniform)

    @property
    def order(self) -> int:
        """2 or 3."""
        return 2 if len(self.probs) == 1 else 3

    def set_probs(self, probs: NDArray[np.float64]) -> None:
        """Store the table that `witten_bell` has estimated."""
        self.probs.copy_(torch.from_numpy(probs))

    def log_prob(self, tokens: Tensor, token_lengths: Tensor) -> Tensor:
        """(batch,) log-probability of each transcript, its end included.

        Args:
            tokens: (batch, longest) int64, on the table's device.
            token_lengths: (batch,) int64, on the same device.
        """
        batch, longest = tokens.shape
        boundary = tokens.new_zeros(batch, 1)
        inside = torch.where(frame_mask(token_lengths, longest), tokens, 0)
        following = torch.cat([inside, boundary], dim=1)
        last = torch.cat([boundary, inside], dim=1)
        before = torch.cat([boundary, last[:, :-1]], dim=1) if self.order == 3 else torch.zeros_like(last)
        log_probs = self.probs.log()[before, last, following]
        return log_probs.masked_fill(~frame_mask(token_lengths + 1, longest + 1), 0.0).sum(1)

    def perplexity(self, counts: NDArray[np.int64]) -> float:
        """Perplexity a token of n-grams with these counts, ends included."""
        table = self.probs.cpu().numpy()
        seen = counts > 0
        return float(np.exp(-(counts[seen] * np.log(table[seen])).sum() / counts.sum()))


def count_ngrams(transcripts: Iterable[Sequence[int]], order: int, vocab_size: int) -> NDArray[np.int64]:
    """Counts of all bigrams or trigrams, in the shape of the table.

    Args:
        transcripts: token ids of each; read once.
        order: 2 or 3.
        vocab_size: of the model's output, the blank included.

    Returns:
        (contexts, vocab, vocab); their sum is the number of all tokens and ends.
    """
    shape = (vocab_size if order == 3 else 1, vocab_size, vocab_size)
    counts = np.zeros(shape, dtype=np.int64)
    iterator = iter(transcripts)
    while chunk := list(islice(iterator, _CHUNK)):
        # Two boundaries before each transcript: the first one is also the end of the transcript before it.
        ids = np.fromiter(chain.from_iterable((0, 0, *tokens) for tokens in chunk), dtype=np.int64)
        ids = np.append(ids, 0)
        before, last, following = ids[:-2], ids[1:-1], ids[2:]
        # No token or end follows where the next transcript's second boundary does.
        begins = np.cumsum([len(tokens) + 2 for tokens in chunk[:-1]], dtype=np.int64)
        wanted = np.ones(len(following), dtype=np.bool_)
        wanted[begins - 1] = False
        if order == 2:
            before = np.zeros_like(before)
        index = np.ravel_multi_index((before[wanted], last[wanted], following[wanted]), shape)
        counts += np.bincount(index, minlength=counts.size).reshape(shape)
    return counts


def witten_bell(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Interpolated probabilities of n-grams: every one is above 0, and each row of the table sums to 1.

    The more different tokens have followed a context, the more of its probability goes to the next shorter
    one; the shortest of all is uniform.

    Args:
        counts: (contexts, vocab, vocab) of `count_ngrams`.

    Returns:
        The table, of the same shape.

    Source: Witten & Bell 1991, method C, interpolated as in Chen & Goodman 1999, section 2.5.
    """
    contexts, vocab, _ = counts.shape
    orders: list[tuple[int, ...]] = [(0, 1), (0,)]  # summed over: a unigram, a bigram
    probs = np.full(vocab, 1 / vocab)
    for axes in [*orders, ()] if contexts > 1 else orders:
        order_counts = counts.sum(axis=axes)
        types = (order_counts > 0).sum(axis=-1, keepdims=True)
        total = order_counts.sum(axis=-1, keepdims=True)
        # Nothing is known of a context that was never seen.
        probs = np.where(total > 0, (order_counts + types * probs) / np.maximum(total + types, 1), probs)
    return probs.reshape(counts.shape)
