"""Beam search of a recurrent decoder: the best output sequences of each source of a batch.

An output's log-probability is that of its symbols and of its end. The beam keeps the best unfinished outputs
of each source and, apart from them, the best finished ones; with a beam that holds all sequences it is
exhaustive. Rows do not affect each other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from asr.model.recurrent_decoder import END, EncodedSource, RecurrentDecoder, before_end

Output = tuple[tuple[int, ...], float]  # ids of an output sequence, and its log-probability in nats


@dataclass(frozen=True)
class SearchConfig:
    """The beam search of a recurrent decoder."""

    beam_size: int = 5  # unfinished outputs that are kept of each source, and finished ones
    # outputs are ranked by log-probability / (symbols + 1) ^ this; 0 does not normalise by length
    length_exponent: float = 0.0

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ValueError(f"beam_size must be at least 1. Got {self.beam_size}.")
        if not self.length_exponent >= 0:
            raise ValueError(f"length_exponent must be at least 0. Got {self.length_exponent:g}.")


@torch.inference_mode()
def beam_search(
    net: RecurrentDecoder, source: EncodedSource, config: SearchConfig, longest: Tensor
) -> list[list[Output]]:
    """The best outputs of each source, at most `beam_size`, best first; equal ones as they were found.

    Args:
        net: in evaluation mode.
        source: of `RecurrentDecoder.source`.
        config: the settings.
        longest: (batch,) int64 most symbols of an output, on the net's device.
    """
    batch, beam = len(longest), config.beam_size
    device, exponent = longest.device, config.length_exponent
    symbol_count = net.symbols + 1
    limit = int(longest.max())
    firsts = torch.arange(batch, device=device).repeat_interleave(beam)
    state = net.initial_state(source).rows(firsts)
    encoded = source.rows(firsts)
    # Log-probabilities and symbols of the unfinished outputs, and of the finished ones with their ranks.
    scores = torch.full((batch, beam), -torch.inf, device=device)
    scores[:, 0] = 0.0
    written = torch.full((batch, beam, limit), END, device=device)
    done = torch.full((batch, beam), -torch.inf, device=device)
    ranks = torch.full((batch, beam), -torch.inf, device=device)
    done_written = written.clone()
    symbols = torch.full((batch * beam,), END, device=device)
    for count in range(limit + 1):  # symbols written so far
        log_probs, state, _ = net.step(encoded, state, symbols)
        totals = scores.unsqueeze(2) + log_probs.view(batch, beam, symbol_count)
        # those that end here, among the finished ones
        ending = totals[:, :, END]
        pool = torch.cat([ranks, ending / (count + 1) ** exponent], 1)
        ranks, chosen = _top(pool, beam)
        done = torch.cat([done, ending], 1).gather(1, chosen)
        index = chosen.unsqueeze(2).expand(-1, -1, limit)
        done_written = torch.cat([done_written, written], 1).gather(1, index)
        if count == limit:
            break
        # those that go on
        totals[:, :, END] = -torch.inf
        totals = totals.masked_fill((longest <= count).view(-1, 1, 1), -torch.inf)
        scores, chosen = _top(totals.flatten(1), beam)
        # An output only loses by more symbols, and at best is divided by the longest output's length.
        best = scores[:, 0] / (longest + 1) ** exponent
        if bool((best <= ranks[:, -1]).all()):
            break
        parents, symbols = chosen // symbol_count, chosen % symbol_count
        written = written.gather(1, parents.unsqueeze(2).expand(-1, -1, limit))
        written[:, :, count] = symbols
        state = state.rows((torch.arange(batch, device=device).unsqueeze(1) * beam + parents).flatten())
        symbols = symbols.flatten()
    return [
        [
            (before_end(row), log_prob)
            for row, log_prob in zip(rows, log_probs, strict=True)
            if log_prob > -torch.inf
        ]
        for rows, log_probs in zip(done_written.tolist(), done.tolist(), strict=True)
    ]


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest values of each row and their indices; of equal ones the first come first."""
    found, index = values.sort(dim=1, descending=True, stable=True)
    return found[:, :count], index[:, :count]
