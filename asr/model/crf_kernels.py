"""CTC-CRF's denominator on a CPU, compiled: what a step needs besides one matrix product.

`asr.model.crf` has the equations, the matrix products and the layout of the states, and does the same in
torch's operations on a GPU. All arrays but lengths are of one type, float32 or float64, unless noted. Names:
G groups, B batch, V vocab; with a bigram there is one group.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from asr.compiled import kernel

# The order of a sum is free, so that the compiler makes vector instructions; NaN and infinity go through.
_compile: Callable[[Callable[..., None]], Callable[..., None]] = kernel(fastmath={"contract", "reassoc"})


@_compile
def forward_step(
    product: Any, both: Any, labels: Any, blanks: Any, emissions: Any, lengths: Any, repeats: Any, ends: Any,
    log_scale: Any, log_z: Any, t: int, now: int, then: int,
) -> None:  # fmt: skip
    """Forward variables after step `t`, divided by their sum.

    Args:
        product: (G, B, V) `both` times the probabilities of new tokens.
        both: (G, B, V) sum of labels and blanks; updated.
        labels: (rows, G, B, V) forward variables of states whose last step was their last token.
        blanks: (rows, G, B, V) of those whose last step was blank.
        emissions: (B, steps, V) probabilities.
        lengths: (B,) int64 valid steps; nothing changes after them.
        repeats: (G, V) probability of the last token as the next one.
        ends: (G, V) probability of the end.
        log_scale: (B,) float64 sum of the logarithms of what was divided by; updated.
        log_z: (B,) float64, set after an utterance's last step.
        t: the step.
        now: row of the variables before it.
        then: row of those after it.
    """
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
                    product[g, b, v] += blanks[now, g, b, v] * repeats[g, v]
                else:
                    again += blanks[now, g, b, v] * repeats[g, v]
            if groups > 1:
                product[g, b, g] += again
        for g in range(groups):
            for v in range(vocab):
                if groups == 1:
                    label = (product[g, b, v] + labels[now, g, b, v]) * emission[v]
                else:  # the last token becomes the one before it
                    label = (product[v, b, g] + labels[now, g, b, v]) * emission[g]
                labels[then, g, b, v] = label
                blanks[then, g, b, v] = both[g, b, v] * blank
                scale += label + blanks[then, g, b, v]
        factor, total = 1 / scale, scale * 0
        for g in range(groups):
            for v in range(vocab):
                labels[then, g, b, v] *= factor
                blanks[then, g, b, v] *= factor
                both[g, b, v] = labels[then, g, b, v] + blanks[then, g, b, v]
                total += both[g, b, v] * ends[g, v]
        log_scale[b] += np.log(np.float64(scale))
        if t == lengths[b] - 1:
            log_z[b] = log_scale[b] + np.log(np.float64(total))


@_compile
def backward_step(
    product: Any, emitted: Any, beta_labels: Any, beta_blanks: Any, labels: Any, blanks: Any, emissions: Any,
    lengths: Any, repeats: Any, ends: Any, occupancy: Any, t: int,
) -> None:  # fmt: skip
    """Backward variables after step `t`, divided by their sum, and the posteriors of its symbols.

    Args:
        product: (G, B, V) `emitted` times the transposed probabilities of new tokens.
        emitted: (G, B, V) beta_labels times the emissions of step t + 1 in, of step t out; with a trigram the
            token before the last one comes first.
        beta_labels: (G, B, V) backward variables after step t + 1; updated.
        beta_blanks: (G, B, V) the same for `blanks`.
        labels: (steps + 1, G, B, V) of `forward_step`.
        blanks: (steps + 1, G, B, V).
        emissions: (B, steps, V) probabilities.
        lengths: (B,) int64 valid steps.
        repeats: (G, V) probability of the last token as the next one.
        ends: (G, V) probability of the end.
        occupancy: (B, steps, V), set at step t; 0 in the padding.
        t: the step.
    """
    groups, batch, vocab = product.shape
    for b in range(batch):
        posteriors = occupancy[b, t]
        posteriors[:] = 0
        if t >= lengths[b]:
            continue
        if t == lengths[b] - 1:
            for g in range(groups):
                for v in range(vocab):
                    beta_labels[g, b, v] = beta_blanks[g, b, v] = ends[g, v]
        else:
            emission, blank = emissions[b, t + 1], emissions[b, t + 1, 0]
            scale = blank * 0
            for g in range(groups):
                for v in range(vocab):
                    other = product[g, b, v] + beta_blanks[g, b, v] * blank
                    last, repeated = (v, emitted[g, b, v]) if groups == 1 else (g, emitted[g, b, g])
                    beta_labels[g, b, v] = other + beta_labels[g, b, v] * emission[last]
                    beta_blanks[g, b, v] = other + repeated * repeats[g, v]
                    scale += beta_labels[g, b, v] + beta_blanks[g, b, v]
            factor = 1 / scale
            for g in range(groups):
                for v in range(vocab):
                    beta_labels[g, b, v] *= factor
                    beta_blanks[g, b, v] *= factor
        emission, blank = emissions[b, t], emissions[b, t, 0] * 0
        for g in range(groups):
            label = blank * 0
            for v in range(vocab):
                blank += blanks[t + 1, g, b, v] * beta_blanks[g, b, v]
                if groups == 1:
                    posteriors[v] += labels[t + 1, g, b, v] * beta_labels[g, b, v]
                    emitted[g, b, v] = beta_labels[g, b, v] * emission[v]
                else:
                    label += labels[t + 1, g, b, v] * beta_labels[g, b, v]
                    emitted[v, b, g] = beta_labels[g, b, v] * emission[g]
            posteriors[g] += label
        posteriors[0] += blank  # no token has this id
        factor = 1 / posteriors.sum()
        for v in range(vocab):
            posteriors[v] *= factor
