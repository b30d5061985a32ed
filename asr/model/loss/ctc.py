"""CTC: the loss, the same with a deterministic gradient, and how many steps a transcript needs.

Source: Graves et al. 2006, "Connectionist temporal classification".
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from asr.frontend.features import frame_mask
from asr.text.token_lists import TokenLists
from asr.text.tokenizer import BLANK


def ctc_loss(log_probs: Tensor, step_lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Negative log-likelihood of each utterance's tokens over all alignments.

    Args:
        log_probs: (batch, steps, vocab) float32 log-probabilities, blank at 0.
        step_lengths: (batch,) int64 valid steps.
        tokens: (batch, longest) int64, padded with anything.
        token_lengths: (batch,) int64.

    Returns:
        (batch,) float32, nats; inf, with NaN gradients, where an utterance has too few steps for its tokens
        (`required_steps`).

    Source: Graves et al. 2006, equations 5 to 8; torch.nn.functional.ctc_loss does the work.
    """
    return F.ctc_loss(
        log_probs.transpose(0, 1), tokens, step_lengths, token_lengths, blank=BLANK, reduction="none"
    )


def required_steps(tokens: Sequence[int]) -> int:
    """Fewest steps that a transcript needs: one per token, and a blank between equal neighbours."""
    return len(tokens) + sum(left == right for left, right in pairwise(tokens))


def required_steps_of_all(tokens: TokenLists) -> NDArray[np.int64]:
    """`required_steps` of each of many transcripts, (transcripts,)."""
    ends = np.cumsum(tokens.counts)
    equal = np.flatnonzero(tokens.ids[1:] == tokens.ids[:-1])  # to the token after it
    transcript = np.searchsorted(ends, equal, side="right")
    inside = transcript[equal + 1 < ends[transcript]]  # not across the end of a transcript
    return tokens.counts + np.bincount(inside, minlength=len(ends))


def blank_steps(log_probs: Tensor, step_lengths: Tensor) -> Tensor:
    """Number of valid steps in a batch whose most probable output is the blank: () int64, on the device.

    Args:
        log_probs: (batch, steps, vocab).
        step_lengths: (batch,) int64 valid steps.
    """
    return ((log_probs.argmax(dim=-1) == BLANK) & frame_mask(step_lengths, log_probs.shape[1])).sum()


def deterministic_ctc_loss(
    log_probs: Tensor, step_lengths: Tensor, tokens: Tensor, token_lengths: Tensor
) -> Tensor:
    """`ctc_loss` with a gradient that has the same bits in every run, on every device.

    On a GPU torch adds up a symbol's gradient over its states in the order in which threads arrive, so that
    two runs differ in the last bits, and soon in all. Here that sum is a product with a matrix of zeros and
    ones, whose order is fixed (on a GPU, once cuBLAS is set so: `asr train --train.deterministic`). It takes
    more memory, (batch, states, vocab), and a few small kernels a step.

    The gradient is that of the log-probabilities as they are; torch's includes that of a log-softmax that it
    assumes before them. After a log-softmax both are the same.

    Args:
        log_probs: (batch, steps, vocab), blank at 0.
        step_lengths: (batch,) int64 valid steps, on the same device or on the host.
        tokens: (batch, longest) int64, padded with anything.
        token_lengths: (batch,) int64, on the same device or on the host.

    Returns:
        (batch,) nats; infinite, with gradients that are not numbers, where an utterance has too few steps.

    Source: Graves et al. 2006, equations 5 to 16, in logarithms.
    """
    device = log_probs.device
    step_lengths = step_lengths.to(device, non_blocking=True)
    token_lengths = token_lengths.to(device, non_blocking=True)
    losses: Tensor = _DeterministicLoss.apply(log_probs, tokens.to(device), step_lengths, token_lengths)
    return losses


class _DeterministicLoss(torch.autograd.Function):
    """Forward and backward variables over the states of each transcript: (batch, steps, states)."""

    @staticmethod
    def forward(
        ctx: Any, log_probs: Tensor, tokens: Tensor, step_lengths: Tensor, token_lengths: Tensor
    ) -> Tensor:
        states = 2 * token_lengths + 1
        labels = _labels(tokens, token_lengths)
        index = labels.unsqueeze(1).expand(-1, log_probs.shape[1], -1)
        valid = frame_mask(step_lengths, log_probs.shape[1]).unsqueeze(2)
        emissions = log_probs.gather(2, index).masked_fill(~valid, 0.0)
        alphas = _alphas(emissions, labels, step_lengths)
        last = alphas[:, -1]
        ends = last.gather(1, torch.stack([states - 1, (states - 2).clamp_min(0)], dim=1))
        in_blank, in_token = ends.unbind(1)  # a path ends in the last blank, or in the token before it
        # Without tokens there is one state only, not to be counted twice.
        total = torch.where(token_lengths > 0, torch.logaddexp(in_blank, in_token), in_blank)
        # Without steps only the empty transcript is possible.
        impossible = torch.where(token_lengths > 0, -math.inf, 0.0).to(total)
        total = torch.where(step_lengths > 0, total, impossible)
        ctx.save_for_backward(emissions, alphas, labels, total, step_lengths, states)
        ctx.vocab = log_probs.shape[2]
        return -total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        emissions, alphas, labels, total, step_lengths, states = ctx.saved_tensors
        # The backward variables are the forward ones of the reversed steps and states.
        step_order = _reversed_index(step_lengths, emissions.shape[1])
        state_order = _reversed_index(states, emissions.shape[2])
        betas = _alphas(
            _reverse(emissions, step_order, state_order), labels.gather(1, state_order), step_lengths
        )
        betas = _reverse(betas, step_order, state_order)
        valid = frame_mask(step_lengths, emissions.shape[1]).unsqueeze(2)
        valid = valid & frame_mask(states, emissions.shape[2]).unsqueeze(1)
        # Both have the emission of the step itself. Where that is impossible, so is the state.
        logs = alphas + betas - emissions - total.view(-1, 1, 1)
        gamma = logs.masked_fill(~valid | emissions.isneginf(), -math.inf).exp()
        symbols = torch.arange(ctx.vocab, device=labels.device)
        is_symbol = (labels.unsqueeze(2) == symbols).to(gamma)
        return -(gamma * gradient.view(-1, 1, 1)) @ is_symbol, None, None, None


def _labels(tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """(batch, 2 * longest + 1) the symbol of each state: blanks before, between and after the tokens."""
    batch, longest = tokens.shape
    labels = tokens.new_full((batch, 2 * longest + 1), BLANK)
    labels[:, 1::2] = tokens.masked_fill(~frame_mask(token_lengths, longest), BLANK)
    return labels


def _alphas(emissions: Tensor, labels: Tensor, step_lengths: Tensor) -> Tensor:
    """(batch, steps, states) log-probability of all paths into a state; unchanged after the last step."""
    batch, steps, states = emissions.shape
    # From the state two before, where that is another token.
    skip = torch.zeros_like(labels, dtype=torch.bool)
    skip[:, 3::2] = labels[:, 3::2] != labels[:, 1:-2:2]
    skips = torch.where(skip, 0.0, -math.inf).to(emissions)
    valid = frame_mask(step_lengths, steps)
    # Two impossible states before the first, so that all states are treated alike.
    current = emissions.new_full((batch, states + 2), -math.inf)
    current[:, 2:4] = emissions[:, 0, :2]
    rows = [current]
    for step in range(1, steps):
        reached = torch.logaddexp(torch.logaddexp(current[:, 2:], current[:, 1:-1]), current[:, :-2] + skips)
        after = torch.full_like(current, -math.inf)
        after[:, 2:] = reached + emissions[:, step]
        current = torch.where(valid[:, step, None], after, current)
        rows.append(current)
    return torch.stack(rows, dim=1)[:, :, 2:]


def _reversed_index(lengths: Tensor, size: int) -> Tensor:
    """(batch, size) index that reverses the valid part of each row and leaves the rest where it is."""
    index = torch.arange(size, device=lengths.device)
    return torch.where(index < lengths[:, None], lengths[:, None] - 1 - index, index)


def _reverse(values: Tensor, step_order: Tensor, state_order: Tensor) -> Tensor:
    """(batch, steps, states) in the orders (batch, steps) of steps and (batch, states) of states."""
    reversed_steps = values.gather(1, step_order.unsqueeze(2).expand_as(values))
    return reversed_steps.gather(2, state_order.unsqueeze(1).expand_as(values))
