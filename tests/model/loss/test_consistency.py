import torch
from torch import Tensor
from torch.nn import functional as F

from asr.model.loss.consistency import consistency_loss

LENGTHS = torch.tensor([5, 3])


def two_views() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(4, 5, 6, dtype=torch.float64).log_softmax(2).requires_grad_()


def test_value_is_the_mean_of_both_divergences() -> None:
    """Guards the loss against torch's own Kullback-Leibler divergence, and against counting padding."""
    log_probs = two_views().detach()
    expected = []
    for row, steps in enumerate(LENGTHS.tolist()):
        one, other = log_probs[row, :steps], log_probs[2 + row, :steps]
        both = (
            F.kl_div(one, other, reduction="sum", log_target=True),
            F.kl_div(other, one, reduction="sum", log_target=True),
        )
        expected.append(sum(both) / 2)
    torch.testing.assert_close(consistency_loss(log_probs, LENGTHS), torch.stack(expected))


def test_each_view_learns_from_the_other_as_given() -> None:
    """Guards the gradient: after a softmax it is the difference of the distributions, half for each view."""
    logits = torch.randn(4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    log_probs = logits.log_softmax(2)
    consistency_loss(log_probs, LENGTHS).sum().backward()
    first, second = log_probs.detach().exp().chunk(2)
    valid = torch.arange(5) < LENGTHS[:, None]
    difference = (first - second) / 2 * valid.unsqueeze(2)
    torch.testing.assert_close(logits.grad, torch.cat((difference, -difference)))


def test_equal_views_have_no_loss() -> None:
    """Guards the minimum: two views that agree cost nothing, whatever they say."""
    view = two_views().detach()[:2]
    assert torch.equal(
        consistency_loss(torch.cat((view, view)), LENGTHS), torch.zeros(2, dtype=torch.float64)
    )
