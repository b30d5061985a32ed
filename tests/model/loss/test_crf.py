"""CTC-CRF against the sum over all paths and all label sequences, and its two implementations."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.model.loss import crf as module
from asr.model.loss.crf import crf_loss, log_partition
from asr.model.loss.ctc import ctc_loss, deterministic_ctc_loss
from asr.model.loss.denominator import DenominatorLm, witten_bell
from tests.model.loss.test_ctc import random_log_probs

ORDERS = pytest.mark.parametrize("order", [2, 3])
RUNS = pytest.mark.parametrize("run", ["_log_partition_compiled", "_log_partition_batched"])


def denominator_of(order: int, vocab: int, seed: int = 0) -> DenominatorLm:
    """A table in which no two probabilities are equal, and some are small."""
    shape = (vocab if order == 3 else 1, vocab, vocab)
    counts = np.random.default_rng(seed).integers(0, 40, size=shape) ** 2
    made = DenominatorLm(order, vocab)
    made.double().set_probs(witten_bell(counts))
    return made


def prior(denominator: DenominatorLm, tokens: tuple[int, ...]) -> float:
    """P of a label sequence, factor by factor."""
    ids, result = [0, 0, *tokens, 0], 1.0
    for before, last, following in zip(ids, ids[1:], ids[2:], strict=False):
        context = before if denominator.order == 3 else 0
        result *= float(denominator.probs[context, last, following])
    return result


def by_labels(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """p_ctc of every label sequence that fits into the steps, path by path."""
    steps, vocab = log_probs.shape
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(vocab), repeat=steps):
        labels = tuple(token for token, _ in itertools.groupby(path) if token)
        found[labels] += math.exp(sum(float(log_probs[step, token]) for step, token in enumerate(path)))
    return found


def run_on_gpu_path(monkeypatch: pytest.MonkeyPatch, run: str) -> None:
    """Let a CPU take the path of torch's operations, where that is wanted."""
    monkeypatch.setattr(module, "_log_partition_compiled", getattr(module, run))


@RUNS
@ORDERS
@pytest.mark.parametrize(("steps", "vocab"), [(0, 3), (1, 4), (2, 3), (3, 4), (5, 3), (5, 4)])
def test_equals_the_sum_over_all_label_sequences(
    steps: int, vocab: int, order: int, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the topology: beginning, repeats with and without a blank, both contexts, the end."""
    run_on_gpu_path(monkeypatch, run)
    denominator, log_probs = denominator_of(order, vocab), random_log_probs(1, steps, vocab)
    expected = sum(prob * prior(denominator, labels) for labels, prob in by_labels(log_probs[0]).items())
    (found,) = log_partition(log_probs, torch.tensor([steps]), denominator.probs).tolist()
    assert found == pytest.approx(math.log(expected), abs=1e-12)


@ORDERS
def test_probabilities_of_all_label_sequences_sum_to_one(order: int) -> None:
    """Guards the loss: without CTC's part it is minus the logarithm of a probability."""
    denominator, log_probs = denominator_of(order, 3), random_log_probs(1, 5, 3)
    labels = [found for found in by_labels(log_probs[0]) if found]
    tokens = torch.tensor([[*found, *[0] * (5 - len(found))] for found in labels])
    losses = crf_loss(
        log_probs.expand(len(labels), -1, -1), torch.full((len(labels),), 5), tokens,
        torch.tensor([len(found) for found in labels]), denominator_lm=denominator, ctc_weight=0.0,
    )  # fmt: skip
    empty = crf_loss(
        log_probs,
        torch.tensor([5]),
        tokens[:1],
        torch.tensor([0]),
        denominator_lm=denominator,
        ctc_weight=0.0,
    )
    assert float((-losses).exp().sum() + (-empty).exp()) == pytest.approx(1, abs=1e-9)
    assert (losses > 0).all()


@RUNS
@ORDERS
def test_is_zero_where_all_sequences_weigh_the_same(
    order: int, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards that every path is counted once: outputs are normalised, so without a language model Z is 1."""
    run_on_gpu_path(monkeypatch, run)
    ones = torch.ones(7 if order == 3 else 1, 7, 7)
    log_z = log_partition(random_log_probs(3, 400, 7).float(), torch.tensor([400, 31, 1]), ones)
    torch.testing.assert_close(log_z, torch.zeros(3), rtol=0, atol=1e-4)
    exact = log_partition(random_log_probs(3, 400, 7), torch.tensor([400, 31, 1]), ones.double())
    torch.testing.assert_close(exact, torch.zeros(3).double(), rtol=0, atol=1e-11)


@ORDERS
def test_is_never_below_one_label_sequence(order: int) -> None:
    """Guards the training in float32: the denominator holds the numerator, so the loss is not negative."""
    vocab, lengths = 12, torch.tensor([300, 200, 40, 9])
    denominator = denominator_of(order, vocab).float()
    tokens = torch.randint(1, vocab, (4, 30), generator=torch.Generator().manual_seed(1))
    counts = torch.tensor([30, 30, 10, 3])
    log_probs = (8 * random_log_probs(4, 300, vocab)).log_softmax(-1).float()
    for row, count in enumerate(counts.tolist()):  # one sequence is all but certain
        for place in range(count):
            log_probs[row, 3 * place, tokens[row, place]] = 20.0
    log_probs = log_probs.log_softmax(-1)
    losses = crf_loss(
        log_probs, lengths, tokens, counts, denominator_lm=denominator, ctc_weight=0.0, ctc=ctc_loss
    )
    assert (losses > -1e-4).all()
    assert losses.isfinite().all()


@RUNS
@ORDERS
@pytest.mark.parametrize("ctc", [ctc_loss, deterministic_ctc_loss])
def test_gradient(ctc: Callable[..., Tensor], order: int, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the gradient that is written by hand against finite differences, with a weight for each row."""
    run_on_gpu_path(monkeypatch, run)
    logits = torch.randn(4, 6, 4, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    steps, counts = torch.tensor([6, 4, 1, 0]), torch.tensor([3, 2, 1, 0])
    tokens = torch.tensor([[1, 1, 2], [3, 2, 0], [3, 0, 0], [0, 0, 0]])
    denominator, weights = denominator_of(order, 4), torch.tensor([1.0, -2.0, 3.0, 4.0])

    def loss(values: Tensor) -> Tensor:
        return weights * crf_loss(
            values.log_softmax(-1), steps, tokens, counts, denominator_lm=denominator, ctc_weight=0.3, ctc=ctc
        )

    assert torch.autograd.gradcheck(loss, (logits,))


@ORDERS
def test_gradient_of_the_outputs_themselves(order: int) -> None:
    """Guards the posteriors: they need no softmax before them, and sum to one at each step."""
    log_probs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(4)).double().requires_grad_()
    steps, probs = torch.tensor([5, 3]), denominator_of(order, 4).probs
    assert torch.autograd.gradcheck(lambda values: log_partition(values, steps, probs), (log_probs,))
    log_partition(log_probs, steps, probs).sum().backward()
    assert log_probs.grad is not None
    sums = log_probs.grad.sum(-1)
    torch.testing.assert_close(sums, torch.tensor([[1.0] * 5, [1.0] * 3 + [0.0] * 2]).double())


@ORDERS
def test_both_paths_agree_in_float32(order: int) -> None:
    """Guards a GPU: torch's operations and the compiled ones give the same loss and gradient, over hundreds
    of steps, in which products of probabilities themselves would underflow."""
    vocab, lengths = 41, torch.tensor([300, 220, 13, 0])
    probs = denominator_of(order, vocab).float().probs
    emissions = (4 * random_log_probs(4, 300, vocab)).log_softmax(-1).float().exp()
    arcs = module._Arcs.of(probs)
    log_z, posteriors = module._log_partition_compiled(emissions, lengths, arcs, True)
    other, other_posteriors = module._log_partition_batched(emissions, lengths, arcs, True)
    assert posteriors is not None
    assert log_z[0] < -100
    torch.testing.assert_close(log_z, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(posteriors, other_posteriors, rtol=1e-3, atol=1e-5)
    for run in (module._log_partition_compiled, module._log_partition_batched):
        without, none = run(emissions, lengths, arcs, False)
        assert none is None
        torch.testing.assert_close(without, log_z, rtol=1e-5, atol=1e-5)


@RUNS
@ORDERS
def test_padding_changes_nothing(order: int, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards alone == in a batch: steps beyond the lengths, whatever they hold, in values and gradients."""
    run_on_gpu_path(monkeypatch, run)
    lengths, probs = torch.tensor([12, 3, 7, 1]), denominator_of(order, 5).probs
    spoilt = random_log_probs(4, 12, 5)
    spoilt[torch.arange(12) >= lengths[:, None]] = math.nan
    spoilt.requires_grad_()
    together = log_partition(spoilt, lengths, probs)
    together.sum().backward()
    assert spoilt.grad is not None
    for row, length in enumerate(lengths.tolist()):
        alone = spoilt.detach()[row : row + 1, :length].requires_grad_()
        log_z = log_partition(alone, lengths[row : row + 1], probs)
        log_z.backward()
        assert alone.grad is not None
        torch.testing.assert_close(log_z[0], together[row], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone.grad[0], spoilt.grad[row, :length], rtol=1e-9, atol=1e-12)
        assert (spoilt.grad[row, length:] == 0).all()


@RUNS
def test_infeasible_and_broken_rows_leave_the_others_alone(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what the trainer relies on: too few steps give an infinite loss, outputs that are not numbers
    one that is none, each with such a gradient in its own row only."""
    run_on_gpu_path(monkeypatch, run)
    log_probs = random_log_probs(3, 4, 3).float()
    log_probs[2, 1] = math.nan
    log_probs.requires_grad_()
    tokens = torch.tensor([[1, 1, 1], [1, 2, 1], [1, 2, 1]])
    losses = crf_loss(
        log_probs, torch.tensor([4, 4, 4]), tokens, torch.tensor([3, 3, 3]),
        denominator_lm=denominator_of(2, 3).float(), ctc_weight=0.1,
    )  # fmt: skip
    losses.sum().backward()
    assert losses[0] == math.inf
    assert losses[1].isfinite()
    assert losses[2].isnan()
    assert log_probs.grad is not None
    assert log_probs.grad.isfinite().all(-1).all(-1).tolist() == [False, True, False]


def test_weight_of_ctc() -> None:
    """Guards the sign of CTC's part: it is added, as often as the setting says."""
    log_probs, steps = random_log_probs(2, 6, 4), torch.tensor([6, 5])
    tokens, counts = torch.tensor([[1, 2, 1], [3, 0, 0]]), torch.tensor([3, 1])
    denominator = denominator_of(2, 4)
    without, more = (
        crf_loss(log_probs, steps, tokens, counts, denominator_lm=denominator, ctc_weight=weight)
        for weight in (0.0, 0.25)
    )
    torch.testing.assert_close(more, without + 0.25 * ctc_loss(log_probs, steps, tokens, counts))
