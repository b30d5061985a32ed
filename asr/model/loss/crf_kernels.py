"""CTC-CRF's denominator Z on a CPU, compiled: what a step needs besides one matrix product.

`asr.model.loss.crf` has the equations and the matrix products, and does the same in torch's operations on a
GPU.
All arrays but lengths are of one type, float32 or float64, unless noted. Names: G groups, B batch, V vocab.

A state is [g, b, v]. With a bigram g is 0 and v the last token; with a trigram g is the last token and v the
one before it. `product` is [g, b, new token]. With a bigram that is the next state itself; with a trigram the
next state has the new token for g and the old g for v, so that it is read as product[v, b, g].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from asr.compiled import kernel

# The order of a sum is free, so that the compiler makes vector instructions; NaN and infinity go through.
_compile: Callable[[Callable[..., None]], Callable[..., None]] = kernel(fastmath={"contract", "reassoc"})


class CrfTables(NamedTuple):
    """What both passes read."""

    emissions: Any  # (B, steps, V) probabilities
    lengths: Any  # (B,) int64 valid steps; nothing changes after them
    repeats: Any  # (G, V) probability of the last token as the next one
    ends: Any  # (G, V) probability of the end


class CrfVariables(NamedTuple):
    """What the forward pass writes and the backward pass reads, and the product of a step."""

    product: Any  # (G, B, V)
    alpha_label: Any  # (rows, G, B, V) forward variables of states whose last step was their last token
    alpha_blank: Any  # (rows, G, B, V) of those whose last step was blank


@_compile
def forward_step(
    tables: Any, variables: Any, alpha: Any, log_scale: Any, log_z: Any, t: int, before: int, after: int
) -> None:
    """Forward variables after step `t`, divided by their sum.

    Args:
        tables: `CrfTables`.
        variables: `CrfVariables`, whose product is `alpha` times the probabilities of new tokens.
        alpha: (G, B, V) sum of alpha_label and alpha_blank before step t; replaced by that after it.
        log_scale: (B,) float64 sum of the logarithms of what was divided by; updated.
        log_z: (B,) float64, set after an utterance's last step.
        t: the step.
        before: row of the variables before it.
        after: row of those after it.
    """
    emissions, lengths, repeats, ends = tables
    product, alpha_label, alpha_blank = variables
    groups, batch, vocab = product.shape
    for b in range(batch):
        if t >= lengths[b]:
            continue
        emission, blank = emissions[b, t], emissions[b, t, 0]
        scale = blank * 0
        for g in range(groups):
            again = scale * 0
            for v in range(vocab):
                if groups == 1:
                    product[g, b, v] += alpha_blank[before, g, b, v] * repeats[g, v]
                else:
                    again += alpha_blank[before, g, b, v] * repeats[g, v]
            if groups > 1:
                product[g, b, g] += again
        for g in range(groups):
            for v in range(vocab):
                if groups == 1:
                    label = (product[g, b, v] + alpha_label[before, g, b, v]) * emission[v]
                else:
                    label = (product[v, b, g] + alpha_label[before, g, b, v]) * emission[g]
                alpha_label[after, g, b, v] = label
                alpha_blank[after, g, b, v] = alpha[g, b, v] * blank
                scale += label + alpha_blank[after, g, b, v]
        factor, total = 1 / scale, scale * 0
        for g in range(groups):
            for v in range(vocab):
                alpha_label[after, g, b, v] *= factor
                alpha_blank[after, g, b, v] *= factor
                alpha[g, b, v] = alpha_label[after, g, b, v] + alpha_blank[after, g, b, v]
                total += alpha[g, b, v] * ends[g, v]
        log_scale[b] += np.log(np.float64(scale))
        if t == lengths[b] - 1:
            log_z[b] = log_scale[b] + np.log(np.float64(total))


@_compile
def backward_step(
    tables: Any, variables: Any, emitted: Any, beta_label: Any, beta_blank: Any, occupancy: Any, t: int
) -> None:
    """Backward variables after step `t`, divided by their sum, and the posteriors of its symbols.

    Args:
        tables: `CrfTables`.
        variables: `CrfVariables` of all steps; their product is `emitted` times the transposed probabilities
            of new tokens: a state.
        emitted: (G, B, V) beta_label after step t + 1 times the emissions of that step; replaced by that of
            step t. In the layout of the forward pass's product: state [g, b, v] of a trigram is at [v, b, g].
        beta_label: (G, B, V) backward variables after step t + 1; replaced by those after step t.
        beta_blank: (G, B, V) the same of states whose last step was blank.
        occupancy: (B, steps, V), set at step t; 0 in the padding.
        t: the step.
    """
    emissions, lengths, repeats, ends = tables
    product, alpha_label, alpha_blank = variables
    groups, batch, vocab = product.shape
    for b in range(batch):
        posteriors = occupancy[b, t]
        posteriors[:] = 0
        if t >= lengths[b]:
            continue
        if t == lengths[b] - 1:
            for g in range(groups):
                for v in range(vocab):
                    beta_label[g, b, v] = beta_blank[g, b, v] = ends[g, v]
        else:
            emission, blank = emissions[b, t + 1], emissions[b, t + 1, 0]
            scale = blank * 0
            for g in range(groups):
                for v in range(vocab):
                    other = product[g, b, v] + beta_blank[g, b, v] * blank
                    last, repeated = (v, emitted[g, b, v]) if groups == 1 else (g, emitted[g, b, g])
                    beta_label[g, b, v] = other + beta_label[g, b, v] * emission[last]
                    beta_blank[g, b, v] = other + repeated * repeats[g, v]
                    scale += beta_label[g, b, v] + beta_blank[g, b, v]
            factor = 1 / scale
            for g in range(groups):
                for v in range(vocab):
                    beta_label[g, b, v] *= factor
                    beta_blank[g, b, v] *= factor
        emission, blank_posterior = emissions[b, t], emissions[b, t, 0] * 0
        for g in range(groups):
            label_posterior = blank_posterior * 0
            for v in range(vocab):
                blank_posterior += alpha_blank[t + 1, g, b, v] * beta_blank[g, b, v]
                if groups == 1:
                    posteriors[v] += alpha_label[t + 1, g, b, v] * beta_label[g, b, v]
                    emitted[g, b, v] = beta_label[g, b, v] * emission[v]
                else:
                    label_posterior += alpha_label[t + 1, g, b, v] * beta_label[g, b, v]
                    emitted[v, b, g] = beta_label[g, b, v] * emission[g]
            posteriors[g] += label_posterior
        posteriors[0] += blank_posterior  # the blank's id: no token has it, so this was 0
        factor = 1 / posteriors.sum()
        for v in range(vocab):
            posteriors[v] *= factor
