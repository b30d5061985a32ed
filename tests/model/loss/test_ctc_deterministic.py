"""Our own CTC loss against torch's, on a CPU."""

import math

import pytest
import torch
from torch import Tensor

from asr.model.loss.ctc import ctc_loss, deterministic_ctc_loss


def logits_of(batch: int, steps: int, vocab: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(batch, steps, vocab, generator=generator, dtype=torch.float64)


def both(
    logits: Tensor, steps: Tensor, tokens: Tensor, counts: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Losses and gradients of the logits: ours, torch's. Each utterance has a weight of its own."""
    results = []
    for loss in (deterministic_ctc_loss, ctc_loss):
        given = logits.clone().requires_grad_()
        losses = loss(given.log_softmax(dim=-1), steps, tokens, counts)
        weights = torch.arange(1, len(losses) + 1).to(losses)
        losses.backward(weights)
        assert given.grad is not None
        results.append((losses.detach(), given.grad))
    return results[0], results[1]


@pytest.mark.parametrize("seed", range(8))
def test_equals_torch_on_padded_batches(seed: int) -> None:
    """Guards values and gradients: all lengths, repeats (two symbols only), empty transcripts, one step."""
    generator = torch.Generator().manual_seed(seed)
    vocab = 3 if seed % 2 else 7
    counts = torch.tensor([0, 1, 5, 6, 3, 0, 2])
    steps = torch.tensor([9, 1, 23, 12, 23, 1, 6])
    tokens = torch.randint(1, vocab, (7, 6), generator=generator)
    ours, theirs = both(logits_of(7, 23, vocab, seed), steps, tokens, counts)
    assert theirs[0].isfinite().all()
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_equals_torch_on_a_long_utterance() -> None:
    """Guards float32 over hundreds of steps, where probabilities themselves would underflow."""
    logits = logits_of(2, 800, 29).float()
    tokens = torch.randint(1, 29, (2, 250), generator=torch.Generator().manual_seed(1))
    ours, theirs = both(logits, torch.tensor([800, 611]), tokens, torch.tensor([250, 201]))
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-3, atol=1e-3)


def test_infeasible_is_infinite_and_leaves_the_others_alone() -> None:
    """Guards what the trainer relies on: an infinite loss for too few steps, with a gradient that is not a
    number, and only there."""
    tokens = torch.tensor([[1, 1, 1], [1, 2, 1], [2, 2, 2]])
    steps, counts = torch.tensor([4, 4, 0]), torch.tensor([3, 3, 1])
    ours, theirs = both(logits_of(3, 4, 3), steps, tokens, counts)
    assert ours[0].tolist()[::2] == [math.inf, math.inf]
    assert not ours[1][0].isfinite().any()
    torch.testing.assert_close(ours[0][1], theirs[0][1])
    torch.testing.assert_close(ours[1][1], theirs[1][1])


def test_nothing_said_in_nothing() -> None:
    """Guards utterances without a step: an empty transcript is certain, any other impossible."""
    losses = deterministic_ctc_loss(
        logits_of(2, 3, 3).log_softmax(-1),
        torch.tensor([0, 0]),
        torch.tensor([[1], [1]]),
        torch.tensor([0, 1]),
    )
    assert losses.tolist() == [0.0, math.inf]
    only_empty = deterministic_ctc_loss(
        logits_of(1, 3, 3).log_softmax(-1),
        torch.tensor([3]),
        torch.zeros(1, 0, dtype=torch.int64),
        torch.tensor([0]),
    )
    expected = -logits_of(1, 3, 3).log_softmax(-1)[0, :, 0].sum()
    torch.testing.assert_close(only_empty[0], expected)


def test_gradient() -> None:
    """Guards the gradient of the log-probabilities themselves, without a softmax: finite differences."""
    steps, counts = torch.tensor([6, 4, 2]), torch.tensor([3, 2, 0])
    tokens = torch.tensor([[1, 1, 2], [3, 2, 0], [0, 0, 0]])

    def loss(values: Tensor) -> Tensor:
        return deterministic_ctc_loss(values, steps, tokens, counts)

    assert torch.autograd.gradcheck(loss, (logits_of(3, 6, 4, seed=3).requires_grad_(),))


def test_padding_and_impossible_symbols() -> None:
    """Guards against what lies beyond the lengths, whatever it is, and a symbol of probability 0."""
    logits = logits_of(2, 8, 4)
    logits[1, 2, 3] = -math.inf
    steps, counts = torch.tensor([8, 5]), torch.tensor([3, 2])
    tokens = torch.tensor([[1, 2, 2], [3, 1, 99]])
    log_probs = logits.log_softmax(-1)
    log_probs[1, 5:] = math.nan
    log_probs.requires_grad_()
    losses = deterministic_ctc_loss(log_probs, steps, tokens, counts)
    losses.sum().backward()
    alone = ctc_loss(log_probs[1:, :5], steps[1:], tokens[1:, :2], counts[1:])
    torch.testing.assert_close(losses[1:], alone)
    assert log_probs.grad is not None
    assert (log_probs.grad[1, 5:] == 0).all()
    assert log_probs.grad.isfinite().all()
    # At each step the symbols' shares add up to one.
    torch.testing.assert_close(log_probs.grad[1, :5].sum(-1), -torch.ones(5, dtype=torch.float64))
