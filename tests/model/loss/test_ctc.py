"""CTC against the sum over all paths, and the number of steps that a transcript needs."""

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from asr.model.loss.ctc import blank_steps, ctc_loss, required_steps


def random_log_probs(batch: int, steps: int, vocab: int, seed: int = 0) -> Tensor:
    logits = torch.randn(batch, steps, vocab, generator=torch.Generator().manual_seed(seed)).double()
    return (2 * logits).log_softmax(dim=-1)


def collapse(path: tuple[int, ...]) -> list[int]:
    return [token for token, _ in itertools.groupby(path) if token != 0]


def all_paths_loss(log_probs: Tensor, tokens: list[int]) -> float:
    """-log of the probabilities of every path that collapses to the tokens, one by one."""
    steps, vocab = log_probs.shape
    total = 0.0
    for path in itertools.product(range(vocab), repeat=steps):
        if collapse(path) == tokens:
            total += math.exp(sum(float(log_probs[step, token]) for step, token in enumerate(path)))
    return -math.log(total) if total else math.inf


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_equals_the_sum_over_all_paths(steps: int) -> None:
    """Guards the definition itself: blanks, repeats, empty transcripts, and those that do not fit."""
    cases: list[list[int]] = [
        [],
        [1],
        [2],
        [1, 2],
        [1, 1],
        [2, 1, 2],
        [1, 1, 2],
        [1, 1, 1],
        [1, 2, 1, 2, 1],
        [2] * 4,
    ]
    log_probs = random_log_probs(len(cases), steps, 3)
    expected = [all_paths_loss(log_probs[row], tokens) for row, tokens in enumerate(cases)]
    padded = torch.full((len(cases), 5), 1)
    for row, tokens in enumerate(cases):
        padded[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
    losses = ctc_loss(
        log_probs, torch.tensor([steps] * len(cases)), padded, torch.tensor([len(t) for t in cases])
    )
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    assert [math.isinf(value) for value in losses.tolist()] == [required_steps(t) > steps for t in cases]


def test_a_batch_of_mixed_lengths_equals_each_alone() -> None:
    """Guards against steps and tokens beyond the lengths, whatever they hold."""
    log_probs = random_log_probs(4, 12, 6, seed=1)
    step_lengths, token_lengths = torch.tensor([12, 3, 7, 1]), torch.tensor([5, 2, 0, 1])
    tokens = torch.randint(1, 6, (4, 5), generator=torch.Generator().manual_seed(2))
    losses = ctc_loss(log_probs, step_lengths, tokens, token_lengths)
    for row in range(4):
        steps, count = int(step_lengths[row]), int(token_lengths[row])
        alone = F.ctc_loss(log_probs[row, :steps], tokens[row, :count], (steps,), (count,), reduction="sum")
        torch.testing.assert_close(losses[row], alone, rtol=1e-12, atol=1e-12)
    spoilt_tokens = torch.where(torch.arange(5) < token_lengths[:, None], tokens, 3)
    spoilt = log_probs.clone()
    spoilt[torch.arange(12) >= step_lengths[:, None]] = math.nan
    assert torch.equal(ctc_loss(spoilt, step_lengths, spoilt_tokens, token_lengths), losses)


def test_gradient() -> None:
    """Guards the gradient against finite differences, through the softmax that torch's own assumes, and that
    none comes out of the padding."""
    logits = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    step_lengths, token_lengths = torch.tensor([6, 4, 2]), torch.tensor([3, 2, 0])
    tokens = torch.tensor([[1, 1, 2], [3, 2, 9], [9, 9, 9]]).clamp_max(3)

    def loss(values: Tensor) -> Tensor:
        return ctc_loss(values.log_softmax(-1), step_lengths, tokens, token_lengths)

    assert torch.autograd.gradcheck(loss, (logits,))
    loss(logits).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[torch.arange(6) >= step_lengths[:, None]] == 0).all()
    assert (logits.grad[0].abs().sum(-1) > 0).all()


def test_infeasible_is_infinite_and_leaves_the_others_alone() -> None:
    """Guards what the trainer relies on: a transcript that is too long shows as an infinite loss of its
    own."""
    log_probs = random_log_probs(2, 4, 3).float()
    tokens = torch.tensor([[1, 1, 1], [1, 2, 1]])
    losses = ctc_loss(log_probs, torch.tensor([4, 4]), tokens, torch.tensor([3, 3]))
    assert losses.dtype == torch.float32
    assert math.isinf(losses[0])
    assert losses[1].isfinite()


@pytest.mark.parametrize("seed", range(30))
def test_required_steps(seed: int) -> None:
    """Guards the check before training: the loss is finite exactly from required_steps on."""
    rng = random.Random(seed)
    tokens = [rng.randint(1, 2) for _ in range(rng.randint(0, 12))]
    needed = required_steps(tokens)
    steps = torch.tensor([max(needed - 1, 0), needed, needed + 1])
    log_probs = random_log_probs(3, needed + 1, 3, seed)
    losses = ctc_loss(log_probs, steps, torch.tensor([[*tokens, 1]] * 3), torch.tensor([len(tokens)] * 3))
    assert losses.isfinite().tolist() == [needed == 0, True, True]


@pytest.mark.parametrize(
    ("tokens", "steps"), [([], 0), ([1], 1), ([1, 2], 2), ([1, 1], 3), ([1, 1, 1, 2, 2], 8), ((3, 1, 3), 3)]
)
def test_required_steps_by_hand(tokens: list[int], steps: int) -> None:
    """Guards doubled letters: each pair needs a blank of its own."""
    assert required_steps(tokens) == steps


def test_blank_steps() -> None:
    """Guards the count behind the warning of an all-blank output: valid steps only."""
    log_probs = torch.tensor(
        [[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [[0.7, 0.3], [0.9, 0.1], [0.9, 0.1]]]
    ).log()
    assert int(blank_steps(log_probs, torch.tensor([3, 1]))) == 3
    assert int(blank_steps(log_probs, torch.tensor([2, 0]))) == 1
