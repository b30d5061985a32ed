"""Attention: which steps of an encoder's output a decoder reads at each of its own steps, and how.

Both kinds compare a query, the decoder's state, with a key for each encoder step, and return the mean of the
encoder's outputs weighted by a softmax over these comparisons. They differ in the comparison:

    additive    v . tanh(key + W query)     Bahdanau 2015, appendix A.1.2
    dot         key . query                 Luong 2015, equation 8, "general", whose W makes the key here
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

AttentionKind = Literal["none", "additive", "dot"]


class Attention(nn.Module):
    """Attention of one kind.

    Args:
        kind: additive or dot.
        memory_size: values of an encoder step.
        query_size: values of a query.

    Source: Bahdanau, Cho & Bengio 2015, "Neural machine translation by jointly learning to align and
        translate"; Luong, Pham & Manning 2015, "Effective approaches to attention-based neural machine
        translation".
    """

    def __init__(self, kind: AttentionKind, memory_size: int, query_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(memory_size, query_size, bias=False)
        self.query = nn.Linear(query_size, query_size) if kind == "additive" else None
        self.comparison = nn.Parameter(torch.empty(query_size)) if kind == "additive" else None
        if self.comparison is not None:
            nn.init.uniform_(self.comparison, -(query_size**-0.5), query_size**-0.5)

    def keys(self, memory: Tensor) -> Tensor:
        """(batch, encoder steps, query_size) keys of the encoder's outputs (batch, encoder steps, size)."""
        keys: Tensor = self.key(memory)
        return keys

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Read the encoder's outputs.

        Args:
            query: (batch, steps, query_size).
            keys: (batch, encoder steps, query_size), of `keys`.
            memory: (batch, encoder steps, memory_size), the encoder's outputs.
            mask: (batch, encoder steps) bool, True at valid steps; at least one in each row.

        Returns:
            (batch, steps, memory_size) what was read, and (batch, steps, encoder steps) the weights, each
            row's sum 1 and 0 in the padding.
        """
        if self.query is None or self.comparison is None:
            scores = query @ keys.transpose(1, 2)
        else:
            scores = (keys.unsqueeze(1) + self.query(query).unsqueeze(2)).tanh() @ self.comparison
        weights = scores.masked_fill(~mask.unsqueeze(1), -math.inf).softmax(-1).to(memory.dtype)
        return weights @ memory, weights
