"""Consistency: how far the outputs of two views of an utterance differ.

Source: Yao et al. 2025, "CR-CTC: consistency regularization on CTC for improved speech recognition".
"""

from torch import Tensor

from asr.frontend.features import frame_mask


def consistency_loss(log_probs: Tensor, step_lengths: Tensor) -> Tensor:
    """Divergence between two views of each utterance, summed over its steps; each view learns from the other.

    Args:
        log_probs: (2 * batch, steps, vocab) log-probabilities: each first view, then each second one.
        step_lengths: (batch,) int64 valid steps.

    Returns:
        (batch,) nats: half of the Kullback-Leibler divergences in both directions. The gradient of each goes
        to one view, as if the other were given.

    Source: Yao et al. 2025, equation 2.
    """
    first, second = log_probs.chunk(2)
    divergence = (_divergence(second.detach(), first) + _divergence(first.detach(), second)) / 2
    return divergence.masked_fill(~frame_mask(step_lengths, log_probs.shape[1]), 0.0).sum(dim=1)


def _divergence(target: Tensor, log_probs: Tensor) -> Tensor:
    """(batch, steps) nats, of distributions over the vocabulary."""
    return (target.exp() * (target - log_probs)).sum(dim=2)
