"""CTC: the loss, and how many steps a transcript needs.

Source: Graves et al. 2006, "Connectionist temporal classification".
"""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional
from torch import Tensor

from asr.frontend.features import frame_mask
from asr.text.tokenizer import BLANK


def ctc_loss(log_probs: Tensor, step_lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Negative log-likelihood of each utterance's tokens, summed over all alignments.

    Args:
        log_probs: (batch, steps, vocab) float32 log-probabilities, blank at 0.
        step_lengths: (batch,) int64 valid steps.
        tokens: (batch, longest) int64, padded with anything.
        token_lengths: (batch,) int64.

    Returns:
        (batch,) float32, nats; infinite, with gradients that are not numbers, where an utterance has too few
        steps for its tokens (`required_steps`).

    Source: Graves et al. 2006, equations 5 to 8; torch.nn.functional.ctc_loss does the work.
    """
    return torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), tokens, step_lengths, token_lengths, blank=BLANK, reduction="none"
    )


def required_steps(tokens: Sequence[int]) -> int:
    """Fewest steps that can carry a transcript: one a token, and a blank between equal neighbours."""
    return len(tokens) + sum(left == right for left, right in pairwise(tokens))


def blank_steps(log_probs: Tensor, step_lengths: Tensor) -> Tensor:
    """Number of valid steps in a batch whose most probable output is the blank: () int64, on the device.

    Args:
        log_probs: (batch, steps, vocab).
        step_lengths: (batch,) int64 valid steps.
    """
    return ((log_probs.argmax(dim=-1) == BLANK) & frame_mask(step_lengths, log_probs.shape[1])).sum()
