"""The best path of given tokens against torchaudio."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchaudio
from torch import Tensor

from asr.decoding import alignment
from asr.decoding.alignment import align_tokens


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("beam_nats", [60.0, 1.0])
def test_agrees_with_torchaudio(
    seed: int, beam_nats: float, random_rows: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards repeats, ends and the beam of states that are looked at: the path is the best of all."""
    monkeypatch.setattr(alignment, "_BEAM_NATS", beam_nats)
    log_probs = random_rows(seed, steps=40, vocab=5)
    tokens = torch.randint(1, 5, (3 + seed,), generator=torch.Generator().manual_seed(seed))
    spans, log_prob = align_tokens(log_probs.numpy(), tokens.numpy().astype(np.int32))
    path = torch.zeros(40, dtype=torch.int64)
    for token, (begin, end) in zip(tokens, spans, strict=True):
        assert begin < end
        assert (path[begin:end] == 0).all()
        path[begin:end] = token
    score = log_probs[torch.arange(40), path].sum()
    _, expected = torchaudio.functional.forced_align(log_probs[None], tokens[None].int())
    assert [token for token, _ in itertools.groupby(path.tolist()) if token] == tokens.tolist()
    if beam_nats == 60.0:
        assert float(score) == pytest.approx(float(expected.sum()), abs=1e-4)
        length = torch.tensor([len(tokens)])
        loss = torch.nn.functional.ctc_loss(
            log_probs[:, None], tokens[None], torch.tensor([40]), length, reduction="sum"
        )
        assert log_prob == pytest.approx(-float(loss), abs=1e-9)


def test_nothing_to_align() -> None:
    """Guards empty texts and utterances without steps."""
    spans, log_prob = align_tokens(np.full((5, 3), -1.5), np.zeros(0, np.int32))
    assert (spans.shape, log_prob) == ((0, 2), -7.5)
    spans, log_prob = align_tokens(np.zeros((0, 3)), np.zeros(0, np.int32))
    assert (spans.shape, log_prob) == ((0, 2), 0.0)


def test_tokens_that_only_just_fit() -> None:
    """Guards the retry with a wider window: 'aa' in three steps needs the improbable blank between."""
    log_probs = np.log(np.array([[1e-30, 1.0], [1e-60, 1.0], [1e-30, 1.0]]))
    spans, _ = align_tokens(log_probs, np.array([1, 1], np.int32))
    assert spans.tolist() == [[0, 1], [2, 3]]
