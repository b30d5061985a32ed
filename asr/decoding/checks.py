"""Checks of every decoder's input: shapes, lengths, and that it is normalised log-probabilities."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.errors import ModelError
from asr.text.tokenizer import Tokenizer

__all__ = ["check_best", "check_lengths", "check_normalised", "check_shapes", "nan_error", "tolerance_of"]


def check_shapes(log_probs: Tensor, step_lengths: Tensor, tokenizer: Tokenizer) -> None:
    """Refuse shapes that do not fit each other or the tokenizer.

    Args:
        log_probs: should be (batch, steps, vocab).
        step_lengths: should be (batch,).
        tokenizer: the model's.

    Raises:
        ModelError: they do not fit.
    """
    if log_probs.dim() != 3 or step_lengths.shape != log_probs.shape[:1]:
        raise ModelError(
            f"log_probs is {tuple(log_probs.shape)} and step_lengths {tuple(step_lengths.shape)}. "
            "(batch, steps, vocab) and (batch,) were expected."
        )
    if log_probs.shape[2] != tokenizer.vocab_size:
        raise ModelError(
            f"log_probs has {log_probs.shape[2]} classes but the tokenizer {tokenizer.vocab_size} ids, the "
            "blank included. Model and tokenizer must belong together."
        )


def check_lengths(step_lengths: list[int], steps: int) -> None:
    """Refuse lengths that are not within 0..steps.

    Raises:
        ModelError: one is not.
    """
    for row, length in enumerate(step_lengths):
        if not 0 <= length <= steps:
            raise ModelError(
                f"step_lengths[{row}] is {length}. A length from 0 to {steps} was expected, "
                "the number of steps in log_probs."
            )


def check_normalised(log_probs: Tensor, step_lengths: Tensor, block: bool = False) -> None:
    """Refuse NaN and what is not the logarithm of a distribution, such as logits or probabilities.

    Args:
        log_probs: (batch, steps, vocab) float.
        step_lengths: (batch,) int64, within 0..steps.
        block: whether they are a stream's next steps, a batch of one.

    Raises:
        ModelError: names the first utterance and step.
    """
    sums = log_probs.logsumexp(dim=2)
    tolerance = tolerance_of(log_probs)
    valid = torch.arange(log_probs.shape[1], device=sums.device) < step_lengths.to(sums.device)[:, None]
    wrong = (valid & ~(sums.abs() <= tolerance)).nonzero()  # NaN is not below anything
    if len(wrong) == 0:
        return
    row, step = wrong[0].tolist()
    whose = "the block" if block else f"utterance {row} of the batch"
    if bool(log_probs[row, step].isnan().any()):
        raise nan_error(whose, step)
    raise ModelError(
        f"the log-probabilities of {whose} are not normalised at step {step}: "
        f"logsumexp is {float(sums[row, step]):.4g}. 0 was expected. Apply log_softmax to the model's output."
    )


def check_best(best: NDArray[np.float64], classes: int, tolerance: float, block: bool = False) -> None:
    """Refuse what cannot be the largest log-probability of a step, the only one that greedy decoding reads.

    Args:
        best: (batch, steps) largest log-probability of each step, 0 in the padding.
        classes: how many there are, so that the largest is at least -log(classes).
        tolerance: nats.
        block: whether they are a stream's next steps, a batch of one.

    Raises:
        ModelError: names the first utterance and step.
    """
    wrong = np.argwhere(~((best <= tolerance) & (best >= -np.log(classes) - tolerance)))
    if len(wrong) == 0:
        return
    row, step = wrong[0].tolist()
    whose = "the block" if block else f"utterance {row} of the batch"
    if np.isnan(best[row, step]):
        raise nan_error(whose, step)
    raise ModelError(
        f"the log-probabilities of {whose} are not normalised at step {step}: the largest is "
        f"{best[row, step]:.4g}. From -log({classes}) to 0 was expected. Apply log_softmax to the model's "
        "output."
    )


def tolerance_of(log_probs: Tensor) -> float:
    """Nats by which the logarithm of a distribution's sum may differ from 0, by the precision."""
    return 1e-2 if torch.finfo(log_probs.dtype).bits >= 32 else 0.1


def nan_error(whose: str, step: int) -> ModelError:
    """The error for log-probabilities that hold NaN.

    Args:
        whose: the utterance or block, for the message.
        step: the first step that holds a NaN.
    """
    return ModelError(
        f"the log-probabilities of {whose} hold NaN at step {step}. Finite numbers were expected. Check the "
        "audio for NaN samples and the model for a training run that diverged."
    )
