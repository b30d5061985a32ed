"""CTC-CRF: the loss of a conditional random field with CTC's topology, beside CTC's own loss.

CTC multiplies probabilities of steps as if its tokens were independent. Here a token n-gram, the
`DenominatorLm`, weighs all label sequences, and the outputs are normalised over all of them:

    p(l | x) = p_ctc(l | x) P(l) / Z(x),    Z(x) = sum over all l' of p_ctc(l' | x) P(l')

    loss = log Z(x) - log P(l) - (1 + ctc_weight) log p_ctc(l | x)

Z is the sum over the states of the n-gram, each with two forward variables: the last step emitted the
state's last token (`alpha_label`, here l) or the blank (`alpha_blank`, here b). With a bigram:

    l_t[j] = y_t(j) (l_t-1[j] + sum over k of (l_t-1[k] (k != j) + b_t-1[k]) P(j | k))
    b_t[k] = y_t(blank) (b_t-1[k] + l_t-1[k])
    Z = sum over k of (l_T[k] + b_T[k]) P(end | k)

Source: Xiang & Ou 2019, "CRF-based single-stage acoustic modeling with CTC topology", equations 2 to 6; the
sign of its CTC part as in CAT, github.com/thu-spmi/CAT.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr.device import without_tf32
from asr.frontend.features import frame_mask
from asr.model.loss.crf_kernels import CrfTables, CrfVariables, backward_step, forward_step
from asr.model.loss.ctc import ctc_loss
from asr.model.loss.denominator import DenominatorLm

__all__ = ["crf_loss", "log_partition"]


def crf_loss(
    log_probs: Tensor,
    step_lengths: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
    *,
    denominator_lm: DenominatorLm,
    ctc_weight: float,
    ctc: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = ctc_loss,
) -> Tensor:
    """Negative log-likelihood of each utterance's tokens by the CRF, and a part of CTC's.

    Nothing is read from the device (torch's CTC may wait).

    Args:
        log_probs: (batch, steps, vocab) float32 log-probabilities, blank at 0.
        step_lengths: (batch,) int64 valid steps, on the same device or on the host.
        tokens: (batch, longest) int64, padded with anything.
        token_lengths: (batch,) int64, on the same device or on the host.
        denominator_lm: P, on the same device.
        ctc_weight: of CTC's loss, which keeps the outputs near probabilities that CTC would give.
        ctc: `ctc_loss`, or one that gives the same numbers in another way.

    Returns:
        (batch,) nats, at least 0 but for rounding; inf, with NaN gradients, where an utterance has too few
        steps for its tokens.
    """
    device = log_probs.device
    ctc_nll = ctc(log_probs, step_lengths, tokens, token_lengths)
    log_z = log_partition(log_probs, step_lengths, denominator_lm.probs)
    lengths = token_lengths.to(device, non_blocking=True)
    # It has no gradient, but with it the loss is that of a probability.
    log_p_labels = denominator_lm.log_prob(tokens.to(device), lengths)
    return log_z - log_p_labels + (1 + ctc_weight) * ctc_nll


def log_partition(log_probs: Tensor, step_lengths: Tensor, probs: Tensor) -> Tensor:
    """Log Z, of all label sequences together.

    Args:
        log_probs: (batch, steps, vocab) float32 or float64, blank at 0.
        step_lengths: (batch,) int64 valid steps, on the same device or on the host.
        probs: (contexts, vocab, vocab) the table of a `DenominatorLm`, on the same device.

    Returns:
        (batch,) nats. Its gradient is the probability with which each symbol is emitted at each step.
    """
    lengths = step_lengths.to(log_probs.device, non_blocking=True)
    log_z: Tensor = _LogPartition.apply(log_probs, lengths, probs.to(log_probs.dtype))
    return log_z


class _LogPartition(torch.autograd.Function):
    """The gradient is computed together with the value, from variables that are not kept."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, step_lengths: Tensor, probs: Tensor) -> Tensor:
        run = _log_partition_compiled if log_probs.device.type == "cpu" else _log_partition_batched
        log_z, occupancy = run(log_probs.exp(), step_lengths, _Arcs.of(probs), ctx.needs_input_grad[0])
        if occupancy is not None:
            ctx.save_for_backward(occupancy)
        return log_z.to(log_probs.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (occupancy,) = ctx.saved_tensors
        return occupancy * gradient.view(-1, 1, 1), None, None


class _Arcs(NamedTuple):
    """The table by the uses of its parts.

    A state is (group, token). With a bigram there is one group, and the token is the last one. With a trigram
    the group is the last token, and the token is the one before it: so all products of a step are one batch.
    """

    starts: Tensor  # (groups, vocab, vocab): state, then new token, which is another one than the last
    repeats: Tensor  # (groups, vocab) of the last token once more, after a blank
    ends: Tensor  # (groups, vocab) of the end

    @staticmethod
    def of(probs: Tensor) -> "_Arcs":
        vocab = probs.shape[2]
        same = torch.eye(vocab, dtype=torch.bool, device=probs.device)
        starts = probs.masked_fill(same, 0.0)
        starts[:, :, 0] = 0.0
        repeats = probs.diagonal(dim1=1, dim2=2).clone()
        repeats[:, 0] = 0.0  # the boundary does not follow itself
        ends = probs[:, :, 0]
        if len(probs) > 1:
            starts, repeats, ends = starts.transpose(0, 1), repeats.t(), ends.t()
        return _Arcs(starts.contiguous(), repeats.contiguous(), ends.contiguous())


def _log_partition_compiled(
    emissions: Tensor, step_lengths: Tensor, arcs: _Arcs, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """(batch,) log Z, and (batch, steps, vocab) posteriors if a gradient is wanted: on a CPU."""
    (batch, steps, vocab), starts = emissions.shape, arcs.starts
    groups = len(starts)
    # Without a gradient, the variables of two steps suffice.
    alpha_label = emissions.new_empty(steps + 1 if with_gradient else 2, groups, batch, vocab)
    alpha_blank = torch.empty_like(alpha_label)
    alpha_label[0], alpha_blank[0] = 0.0, 0.0
    alpha_blank[0, 0, :, 0] = 1.0
    alpha, product = alpha_blank[0].clone(), torch.zeros_like(alpha_blank[0])
    log_scale, log_z = torch.zeros(batch).double(), arcs.ends[0, 0].double().log().repeat(batch)
    tables = CrfTables(
        emissions.contiguous().numpy(), step_lengths.numpy(), arcs.repeats.numpy(), arcs.ends.numpy()
    )
    variables = CrfVariables(product.numpy(), alpha_label.numpy(), alpha_blank.numpy())
    forward_arrays = alpha.numpy(), log_scale.numpy(), log_z.numpy()
    for t in range(steps):
        torch.bmm(alpha, starts, out=product)
        before, after = (t, t + 1) if with_gradient else (t % 2, (t + 1) % 2)
        forward_step(tables, variables, *forward_arrays, t, before, after)
    if not with_gradient:
        return log_z, None
    occupancy, emitted = torch.empty_like(emissions), torch.zeros_like(alpha)
    beta_label, beta_blank = torch.zeros_like(alpha), torch.zeros_like(alpha)
    backward_arrays = emitted.numpy(), beta_label.numpy(), beta_blank.numpy(), occupancy.numpy()
    transposed = starts.transpose(1, 2)
    for t in range(steps - 1, -1, -1):
        torch.bmm(emitted, transposed, out=product)
        backward_step(tables, variables, *backward_arrays, t)
    return log_z, occupancy


def _log_partition_batched(
    emissions: Tensor, step_lengths: Tensor, arcs: _Arcs, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """The same in torch's operations, without waiting for the device: on a GPU."""
    (batch, steps, vocab), (starts, repeats, ends) = emissions.shape, arcs
    trigram = len(starts) > 1
    repeats, ends = repeats.unsqueeze(1), ends.unsqueeze(1)
    valid = frame_mask(step_lengths, steps).t()[:, None, :, None]
    by_step = emissions.transpose(0, 1)
    # Of each state's last token, and of the blank: each may be multiplied with (groups, batch, vocab).
    tokens = by_step.transpose(1, 2).unsqueeze(3) if trigram else by_step.unsqueeze(1)
    silence = by_step[:, None, :, :1]
    alpha_label = emissions.new_zeros(len(starts), batch, vocab)
    alpha_blank = torch.zeros_like(alpha_label)
    alpha_blank[0, :, 0] = 1.0
    scales, kept = [], []
    with without_tf32():
        for t in range(steps):
            alpha, repeated = alpha_label + alpha_blank, alpha_blank * repeats
            new = torch.bmm(alpha, starts)
            if trigram:
                new.diagonal(dim1=0, dim2=2).add_(repeated.sum(2).t())
                new = new.transpose(0, 2)  # the last token becomes the one before it
            else:
                new += repeated
            new_label, new_blank = (new + alpha_label) * tokens[t], alpha * silence[t]
            scale = (new_label + new_blank).sum((0, 2), keepdim=True)
            alpha_label = torch.where(valid[t], new_label / scale, alpha_label)
            alpha_blank = torch.where(valid[t], new_blank / scale, alpha_blank)
            scales.append(torch.where(valid[t], scale, 1.0))
            if with_gradient:
                kept.append((alpha_label, alpha_blank))
        log_z = ((alpha_label + alpha_blank) * ends).sum((0, 2)).double().log()
        if steps:
            log_z = log_z + torch.stack(scales).double().log().sum(0).flatten()
        if not with_gradient or not steps:
            return log_z, torch.zeros_like(emissions) if with_gradient else None
        beta_label = beta_blank = ends.expand(-1, batch, -1)
        transposed, rows = starts.transpose(1, 2), []
        for t in range(steps - 1, -1, -1):
            alpha_label, alpha_blank = kept[t]
            posteriors = (alpha_label * beta_label).sum(2).t() if trigram else (alpha_label * beta_label)[0]
            posteriors[:, 0] = (alpha_blank * beta_blank).sum((0, 2))  # the blank's id, which no token has
            rows.append(posteriors / posteriors.sum(1, keepdim=True))
            emitted = beta_label * tokens[t]
            if trigram:
                before_first = emitted.transpose(0, 2)
                other = torch.bmm(before_first, transposed)
                repeated = emitted.diagonal(dim1=0, dim2=2).t().unsqueeze(2) * repeats
            else:
                other, repeated = torch.bmm(emitted, transposed), emitted * repeats
            other += beta_blank * silence[t]
            new_label, new_blank = other + emitted, other + repeated
            scale = (new_label + new_blank).sum((0, 2), keepdim=True)
            beta_label = torch.where(valid[t], new_label / scale, beta_label)
            beta_blank = torch.where(valid[t], new_blank / scale, beta_blank)
    return log_z, torch.stack(rows[::-1], dim=1).masked_fill(~valid[:, 0].transpose(0, 1), 0.0)
