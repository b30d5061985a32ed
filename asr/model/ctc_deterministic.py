"""The CTC loss whose gradient has the same bits in every run, on every device.

torch's own, on a card, adds up a symbol's gradient over all places where a transcript has it in the order in
which threads arrive, so two runs differ in the last bits, and soon in all. Here that sum is a product with a
matrix of zeros and ones, whose order is fixed (on a card, once cuBLAS is told:
`asr.device`).
It costs more memory, (batch, states, vocab), and a few small kernels a step.

Source: Graves et al. 2006, "Connectionist temporal classification", equations 5 to 16, in logarithms.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr.frontend.features import frame_mask
from asr.text.tokenizer import BLANK


def deterministic_ctc_loss(
    log_probs: Tensor, step_lengths: Tensor, tokens: Tensor, token_lengths: Tensor
) -> Tensor:
    """Negative log-likelihood of each utterance's tokens; see `ctc_loss`, which has the same numbers.

    The gradient is that of the log-probabilities as they are; torch's is that of the log-softmax which it
    supposes before them. Behind a log-softmax both are the same.

    Args:
        log_probs: (batch, steps, vocab), blank at 0.
        step_lengths: (batch,) int64 valid steps, here or on the host.
        tokens: (batch, longest) int64, padded with anything.
        token_lengths: (batch,) int64, here or on the host.

    Returns:
        (batch,) nats; infinite, with gradients that are not numbers, where an utterance has too few steps.
    """
    device = log_probs.device
    lengths = (lengths.to(device, non_blocking=True) for lengths in (step_lengths, token_lengths))
    losses: Tensor = _Loss.apply(log_probs, tokens.to(device), *lengths)
    return losses


class _Loss(torch.autograd.Function):
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
        one, other = ends.unbind(1)
        # Without tokens there is one state only, not to be counted twice.
        total = torch.where(token_lengths > 0, torch.logaddexp(one, other), one)
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
        # The backward variables are the forward ones of everything turned round.
        steps = _turned(step_lengths, emissions.shape[1])
        places = _turned(states, emissions.shape[2])
        betas = _alphas(_turn(emissions, steps, places), labels.gather(1, places), step_lengths)
        betas = _turn(betas, steps, places)
        valid = frame_mask(step_lengths, emissions.shape[1]).unsqueeze(2)
        valid = valid & frame_mask(states, emissions.shape[2]).unsqueeze(1)
        # Both have the emission of the step itself. Where that is impossible, so is the state.
        logs = alphas + betas - emissions - total.view(-1, 1, 1)
        gamma = logs.masked_fill(~valid | emissions.isneginf(), -math.inf).exp()
        symbols = torch.arange(ctx.vocab, device=labels.device)
        places_of = (labels.unsqueeze(2) == symbols).to(gamma)
        return -(gamma * gradient.view(-1, 1, 1)) @ places_of, None, None, None


def _labels(tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """(batch, 2 * longest + 1) the symbol of each state: blanks before, between and behind the tokens."""
    batch, longest = tokens.shape
    labels = tokens.new_full((batch, 2 * longest + 1), BLANK)
    labels[:, 1::2] = tokens.masked_fill(~frame_mask(token_lengths, longest), BLANK)
    return labels


def _alphas(emissions: Tensor, labels: Tensor, step_lengths: Tensor) -> Tensor:
    """(batch, steps, states) log-probability of all that ends in a state; unchanged after the last step."""
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


def _turned(lengths: Tensor, size: int) -> Tensor:
    """(batch, size) index that turns the valid part of each row round and leaves the rest where it is."""
    index = torch.arange(size, device=lengths.device)
    return torch.where(index < lengths[:, None], lengths[:, None] - 1 - index, index)


def _turn(values: Tensor, steps: Tensor, places: Tensor) -> Tensor:
    """Turn (batch, steps, states) values round in both."""
    turned = values.gather(1, steps.unsqueeze(2).expand_as(values))
    return turned.gather(2, places.unsqueeze(1).expand_as(values))
