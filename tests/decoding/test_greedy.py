"""Greedy CTC decoding against hand-worked posteriors and against a naive collapse."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.decoding.greedy import GreedyDecoder
from asr.decoding.hypothesis import Hypothesis
from asr.errors import ModelError
from asr.text.characters import CharTokenizer
from asr.text.tokenizer import BLANK

TOKENIZER = CharTokenizer((" ", "a", "b", "c"))  # ids 1..4
GREEDY = GreedyDecoder(TOKENIZER)


def path_log_probs(path: str, best: float = 0.8) -> Tensor:
    """(1, steps, 5) log-probabilities whose best path spells `path`, `_` for the blank."""
    probs = torch.full((1, len(path), TOKENIZER.vocab_size), (1 - best) / 4)
    for step, symbol in enumerate(path):
        probs[0, step, BLANK if symbol == "_" else TOKENIZER.encode(symbol)[0]] = best
    return probs.log()


def decode_path(path: str) -> Hypothesis:
    """The hypothesis of one utterance whose best path is `path`, 0.1 s a step."""
    [[hypothesis]] = GREEDY.decode(path_log_probs(path), torch.tensor([len(path)]), 0.1)
    return hypothesis


def random_batch(seed: int, batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities with many repeats and blanks, lengths from 0 to steps."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, steps, TOKENIZER.vocab_size, generator=generator, dtype=torch.float64)
    # each step has a good chance to look like the one before, so that runs of all lengths occur
    for step in range(1, steps):
        stay = torch.rand(batch, 1, generator=generator) < 0.5
        logits[:, step] = torch.where(stay, logits[:, step - 1], logits[:, step])
    lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
    return logits.log_softmax(dim=2), lengths


def naive(log_probs: Tensor, length: int) -> tuple[list[int], list[int], float]:
    """Tokens, steps and score of one utterance by itertools.groupby."""
    path = log_probs[:length].argmax(dim=1).tolist()
    tokens, steps = [], []
    for token, run in itertools.groupby(range(length), key=lambda step: path[step]):
        if token != BLANK:
            tokens.append(token)
            steps.append(next(run))
    return tokens, steps, float(log_probs[:length].max(dim=1).values.sum()) if length else 0.0


@pytest.mark.parametrize(
    ("path", "tokens", "text"),
    [
        ("aab_", "ab", "ab"),
        ("a_a", "aa", "aa"),
        ("aa_aa__b", "aab", "aab"),
        ("____", "", ""),
        ("_", "", ""),
        ("a", "a", "a"),
        ("a b", "a b", "a b"),
        ("  _ a  b_ _ ", "  a b  ", "a b"),
        ("   ", " ", ""),
        ("ab _ ba", "ab  ba", "ab ba"),
    ],
)
def test_collapse_by_hand(path: str, tokens: str, text: str) -> None:
    """Guards the CTC rule (repeats merge unless a blank parts them) and the folding of spaces in the text."""
    hypothesis = decode_path(path)
    assert TOKENIZER.decode(hypothesis.tokens) == tokens
    assert hypothesis.text == text
    assert [word.text for word in hypothesis.words] == text.split()


def test_word_times_and_confidence_by_hand() -> None:
    """Guards word times against off-by-one steps and confidence against counting blanks or neighbours."""
    #             steps: 0 1 2 3 4 5 6 7 8 9
    log_probs = path_log_probs("_aab_  cc_")
    log_probs[0, 1, 2] = math.log(0.6)  # run of "a": posteriors 0.6 and 0.8
    log_probs[0, 8, 4] = math.log(0.5)  # run of "c": 0.8 and 0.5
    [[hypothesis]] = GREEDY.decode(log_probs, torch.tensor([10]), 0.04)
    first, second = hypothesis.words
    assert (first.text, second.text) == ("ab", "c")
    assert (first.start_s, first.end_s) == pytest.approx((1 * 0.04, 4 * 0.04))
    assert (second.start_s, second.end_s) == pytest.approx((7 * 0.04, 9 * 0.04))
    assert first.confidence == pytest.approx((0.7 + 0.8) / 2)  # mean over tokens, not over steps
    assert second.confidence == pytest.approx(0.65)
    assert hypothesis.steps == (1, 3, 5, 7)
    assert hypothesis.score == pytest.approx(8 * math.log(0.8) + math.log(0.6) + math.log(0.5))


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_naive_collapse(seed: int) -> None:
    """Guards the vectorised run finding, across row borders and at the ends, against a groupby that cannot
    be wrong."""
    log_probs, lengths = random_batch(seed, batch=1 + seed % 7, steps=1 + 3 * seed)
    hypotheses = GREEDY.decode(log_probs, lengths, 0.04)
    assert len(hypotheses) == len(lengths)
    for row, [hypothesis] in enumerate(hypotheses):
        tokens, steps, score = naive(log_probs[row], int(lengths[row]))
        assert hypothesis.tokens == tuple(tokens)
        assert hypothesis.steps == tuple(steps)
        assert hypothesis.score == pytest.approx(score)
        assert hypothesis.text == " ".join(TOKENIZER.decode(tokens).split())


def test_alone_equals_in_a_batch() -> None:
    """Guards against rows or padding that change an utterance's result to the last bit of the score."""
    log_probs, lengths = random_batch(3, batch=9, steps=40)
    lengths[2] = 0
    log_probs = log_probs.float()
    together = GREEDY.decode(log_probs, lengths, 0.04)
    for row, length in enumerate(lengths.tolist()):
        [[alone]] = GREEDY.decode(log_probs[row : row + 1, :length], lengths[row : row + 1], 0.04)
        assert together[row] == [alone]


def test_padding_is_never_looked_at() -> None:
    """Guards against tokens, scores or NaN that leak out of the padding."""
    log_probs, lengths = random_batch(4, batch=5, steps=30)
    expected = GREEDY.decode(log_probs, lengths, 0.04)
    for fill in (math.nan, math.inf, 0.0):
        spoilt = log_probs.clone()
        spoilt[torch.arange(30) >= lengths[:, None]] = fill
        assert GREEDY.decode(spoilt, lengths, 0.04) == expected


def test_a_run_does_not_continue_in_the_next_utterance() -> None:
    """Guards against flattening the batch.

    The last token of one row and the first of the next must not merge.
    """
    log_probs = path_log_probs("aaaa").expand(3, -1, -1)
    hypotheses = GREEDY.decode(log_probs, torch.tensor([4, 4, 4]), 0.1)
    assert [hypothesis.text for [hypothesis] in hypotheses] == ["a", "a", "a"]


@pytest.mark.parametrize(("batch", "steps"), [(0, 5), (2, 0), (2, 3)])
def test_nothing_to_decode(batch: int, steps: int) -> None:
    """Guards empty batches and utterances of no steps: an empty hypothesis each, in order, with score 0."""
    log_probs = torch.zeros(batch, steps, TOKENIZER.vocab_size)
    hypotheses = GREEDY.decode(log_probs, torch.zeros(batch, dtype=torch.int64), 0.04)
    assert hypotheses == [[Hypothesis("", (), (), (), 0.0, 0.0)]] * batch


def test_half_precision_counts_long_utterances() -> None:
    """Guards the packed transfer: step counts and ids above 256 do not survive in bfloat16."""
    alphabet = CharTokenizer(tuple(chr(0x4E00 + number) for number in range(600)))
    path = torch.arange(1, 601)
    log_probs = torch.full((1, 600, 601), -20.0, dtype=torch.bfloat16)
    log_probs[0, torch.arange(600), path] = 0.0
    [[hypothesis]] = GreedyDecoder(alphabet).decode(log_probs, torch.tensor([599]), 0.04)
    assert hypothesis.tokens == tuple(range(1, 600))
    assert hypothesis.steps == tuple(range(599))


def test_impossible_steps_still_decode() -> None:
    """Guards -inf, a legal log-probability, against being taken for damage."""
    log_probs = path_log_probs("ab")
    log_probs[0, 1, :2] = -math.inf
    [[hypothesis]] = GREEDY.decode(log_probs, torch.tensor([2]), 0.1)
    assert hypothesis.text == "ab"
    assert np.isfinite(hypothesis.score)


@pytest.mark.parametrize(
    ("log_probs", "lengths", "message"),
    [
        (torch.zeros(3, 5), torch.tensor([3]), r"log_probs is \(3, 5\)"),
        (torch.zeros(2, 3, 5), torch.tensor([3]), r"step_lengths \(1,\)"),
        (torch.zeros(1, 3, 7), torch.tensor([3]), "7 classes but the tokenizer 5 ids"),
        (torch.zeros(2, 3, 5), torch.tensor([3, 4]), r"step_lengths\[1\] is 4. A length from 0 to 3"),
        (torch.zeros(2, 3, 5), torch.tensor([-1, 3]), r"step_lengths\[0\] is -1"),
        (torch.full((1, 3, 5), math.nan), torch.tensor([3]), "utterance 0 of the batch hold NaN"),
        (torch.full((1, 3, 5), 0.2), torch.tensor([3]), "not normalised at step 0: the largest is 0.2"),
        (
            torch.full((1, 3, 5), -math.inf),
            torch.tensor([3]),
            "not normalised at step 0: the largest is -inf",
        ),
    ],
)
def test_wrong_input(log_probs: Tensor, lengths: Tensor, message: str) -> None:
    """Guards against shapes that broadcast, lengths that are clipped, and what is no log-probability."""
    with pytest.raises(ModelError, match=message):
        GREEDY.decode(log_probs, lengths, 0.04)


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    """Guards the device path: the same hypotheses wherever log-probabilities and lengths lie."""
    log_probs, lengths = random_batch(6, batch=8, steps=50)
    expected = GREEDY.decode(log_probs, lengths, 0.04)
    assert GREEDY.decode(log_probs.cuda(), lengths, 0.04) == expected
    assert GREEDY.decode(log_probs.cuda(), lengths.cuda(), 0.04) == expected
