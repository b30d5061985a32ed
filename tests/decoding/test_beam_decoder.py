"""Prefix beam search against the enumeration of all paths."""

import logging
import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from asr.decoding import beam_decoder as beam_module
from asr.decoding import beam_search
from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.decoding.greedy import GreedyDecoder
from asr.decoding.kernel.arena import EMPTY_PREFIX, spell
from asr.errors import ModelError, SettingsError
from asr.text.characters import CharTokenizer

TOKENIZER = CharTokenizer((" ", "a", "b"))
UNLIMITED = BeamConfig(
    beam_size=5000, nbest=5000, beam_threshold=math.inf, token_threshold=math.inf, blank_skip=1.0,
    recombine=False, lattice_threshold=math.inf, threads=1,
)  # fmt: skip

Rows = Callable[..., Tensor]
Enumerate = Callable[[Tensor], dict[tuple[int, ...], float]]


def decode_one(decoder: BeamDecoder, log_probs: Tensor) -> list:
    [hypotheses] = decoder.decode(log_probs[None], torch.tensor([len(log_probs)]), 0.04)
    return hypotheses


def best_by_text(
    sums: dict[tuple[int, ...], float], bonus: float = 0.0
) -> list[tuple[str, tuple[int, ...], float]]:
    """Each text with its best tokens and score, best first."""
    best: dict[str, tuple[tuple[int, ...], float]] = {}
    for tokens, score in sums.items():
        text = " ".join(TOKENIZER.decode(tokens).split())
        score += bonus * len(text.split())
        if text not in best or score > best[text][1]:
            best[text] = (tokens, score)
    rows = [(text, tokens, score) for text, (tokens, score) in best.items()]
    return sorted(rows, key=lambda row: -row[2])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bonus", [0.0, 1.5, -0.7])
def test_unlimited_beam_is_exhaustive_search(
    seed: int, bonus: float, enumerated: Enumerate, random_rows: Rows
) -> None:
    """Guards the merging of blank and non-blank endings, repeats, and the word bonus: every text with its
    score, and none missing."""
    log_probs = random_rows(seed, steps=6, vocab=4)
    expected = best_by_text(enumerated(log_probs), bonus)
    found = decode_one(BeamDecoder(TOKENIZER, UNLIMITED.with_weights(word_bonus=bonus)), log_probs)
    assert [hypothesis.text for hypothesis in found] == [text for text, _, _ in expected]
    assert [hypothesis.tokens for hypothesis in found] == [tokens for _, tokens, _ in expected]
    assert [hypothesis.score for hypothesis in found] == pytest.approx(
        [score for *_, score in expected], abs=1e-9
    )
    for hypothesis in found:
        words = len(hypothesis.words)
        assert hypothesis.acoustic_score + bonus * words == pytest.approx(hypothesis.score, abs=1e-9)
        assert hypothesis.lm_log_prob == 0.0


def test_scales_and_priors_by_enumeration(enumerated: Enumerate, random_rows: Rows) -> None:
    """Guards the order of acoustic scale, priors and blank scale, each applied to every step of a path."""
    log_probs = random_rows(7, steps=5, vocab=4)
    priors = np.array([0.6, 0.1, 0.2, 0.1])
    changed = 0.7 * (log_probs - 0.4 * torch.from_numpy(np.log(priors)))
    changed[:, 0] += math.log(0.3)
    config = UNLIMITED.with_weights(acoustic_scale=0.7, prior_weight=0.4, blank_scale=0.3)
    found = decode_one(BeamDecoder(TOKENIZER, replace(config, priors=tuple(priors))), log_probs)
    expected = best_by_text(enumerated(changed))
    assert [hypothesis.text for hypothesis in found] == [text for text, _, _ in expected]
    assert [hypothesis.score for hypothesis in found] == pytest.approx(
        [score for *_, score in expected], abs=1e-9
    )


def test_sum_over_paths_beats_the_best_path() -> None:
    """Guards against a search that keeps the best path only: the textbook case where "a" wins over nothing.

    At each of 2 steps blank has 0.6 and "a" 0.4: the best path is blank, blank (0.36), but three paths spell
    "a" (0.64).
    """
    log_probs = torch.tensor([[0.6, 0.0, 0.4, 0.0]] * 2, dtype=torch.float64).log()
    first, second = decode_one(BeamDecoder(TOKENIZER, replace(UNLIMITED, nbest=2)), log_probs)
    assert (first.text, second.text) == ("a", "")
    assert first.score == pytest.approx(math.log(0.64))
    assert second.score == pytest.approx(math.log(0.36))
    [[greedy]] = GreedyDecoder(TOKENIZER).decode(log_probs[None], torch.tensor([2]), 0.04)
    assert greedy.text == ""


def test_a_prefix_that_returns_is_the_same_prefix(enumerated: Enumerate) -> None:
    """Guards against two copies of one prefix, when it left the beam while a longer one stayed.

    With a beam of 2, "a" is dropped after "ab" and is reached again later; its probability must not stand
    apart from what "ab" gets from it.
    """
    probs = torch.tensor(
        [
            [0.02, 0.0, 0.96, 0.02],
            [0.02, 0.0, 0.02, 0.96],
            [0.50, 0.0, 0.02, 0.48],
            [0.30, 0.0, 0.35, 0.35],
            [0.30, 0.0, 0.35, 0.35],
        ],
        dtype=torch.float64,
    )
    for size in (1, 2, 3, 4, 5):
        config = replace(UNLIMITED, beam_size=size, nbest=size)
        found = decode_one(BeamDecoder(TOKENIZER, config), probs.log())
        tokens = [hypothesis.tokens for hypothesis in found]
        assert len(tokens) == len(set(tokens)) == size
        exact = enumerated(probs.log())
        for hypothesis in found:  # what is pruned can only be missing
            assert hypothesis.score <= exact[hypothesis.tokens] + 1e-9


@pytest.mark.parametrize("seed", range(25))
def test_recombination_keeps_the_best(seed: int, peaky_rows: Rows) -> None:
    """Guards the dropping of prefixes that go on alike: on peaks like a trained model's, the best text stays.

    It is approximate: on flat output a prefix can be dropped that would have become the best.
    """
    tokens = torch.randint(1, 4, (20,), generator=torch.Generator().manual_seed(seed)).tolist()
    log_probs = peaky_rows(tokens, vocab=4, seed=seed, noise=3.0)
    wide = replace(UNLIMITED, beam_size=1000, nbest=1, recombine=False)
    [best] = decode_one(BeamDecoder(TOKENIZER, wide), log_probs)
    [found] = decode_one(BeamDecoder(TOKENIZER, replace(wide, recombine=True)), log_probs)
    assert found.text == best.text


@pytest.mark.parametrize("seed", range(8))
def test_lossless_shortcuts(seed: int, random_rows: Rows) -> None:
    """Guards the bounds that skip hopeless prefixes before they are made.

    A narrow beam must equal a plain search that makes all of them and then cuts.
    """
    log_probs = random_rows(100 + seed, steps=25, vocab=4, sharpness=1.0 + seed % 3)
    for size in (1, 3, 17):
        config = replace(UNLIMITED, beam_size=size, nbest=size).with_weights(word_bonus=0.5)
        search = BeamDecoder(TOKENIZER, config)._search(0)
        search.advance(log_probs.numpy())
        ends = (
            search.final_prefixes()
        )  # hypotheses have the scores of all paths, these those of the paths in the beam
        found = {
            tuple(spell(search.beam.nodes, node, EMPTY_PREFIX)[0].tolist()): score
            for node, score in zip(ends.node, ends.score, strict=True)
        }
        expected = naive_beam(log_probs, size, bonus=0.5)
        for tokens, score in found.items():
            assert score == pytest.approx(expected[tokens], abs=1e-9)
        assert max(found.values()) == pytest.approx(max(expected.values()), abs=1e-9)


def naive_beam(log_probs: Tensor, size: int, bonus: float) -> dict[tuple[int, ...], float]:
    """Prefix beam search as in the paper, with dictionaries: tokens -> score."""
    beam = {(): (1.0, 0.0)}

    def fused(tokens: tuple[int, ...]) -> float:  # words that a space has ended
        text = TOKENIZER.decode(tokens)
        return math.exp(bonus * (len(text.split()) - (bool(text) and not text.endswith(" "))))

    for row in log_probs.exp().tolist():
        after: dict[tuple[int, ...], list[float]] = {}
        for tokens, (blank, token) in beam.items():
            probs = after.setdefault(tokens, [0.0, 0.0])
            probs[0] += (blank + token) * row[0]
            if tokens:
                probs[1] += token * row[tokens[-1]]
            for new in range(1, len(row)):
                came = blank if tokens and tokens[-1] == new else blank + token
                after.setdefault((*tokens, new), [0.0, 0.0])[1] += came * row[new]
        best = sorted(after, key=lambda tokens: -sum(after[tokens]) * fused(tokens))[:size]
        beam = {tokens: (after[tokens][0], after[tokens][1]) for tokens in best}
    return {
        tokens: math.log(sum(probs)) + bonus * len(TOKENIZER.decode(tokens).split())
        for tokens, probs in beam.items()
    }


def test_pruning_keeps_a_clear_result(peaky_rows: Rows) -> None:
    """Guards the default pruning.

    On output like a trained model's it must not change the best text or, by more than a hair, its score.
    """
    alphabet = CharTokenizer(tuple(" abcdefghijklmnopqrstuvwxyz'"))
    text = "the quick brown fox jumps over the lazy dog and all the bookkeepers see it"
    log_probs = peaky_rows(alphabet.encode(text), vocab=29, seed=1)
    exact = replace(UNLIMITED, beam_size=500, nbest=1)
    [wide] = decode_one(BeamDecoder(alphabet, exact), log_probs)
    [usual] = decode_one(BeamDecoder(alphabet, BeamConfig(threads=1)), log_probs)
    assert wide.text == usual.text == text
    assert usual.score == pytest.approx(wide.score, abs=0.05)
    [narrow] = decode_one(
        BeamDecoder(alphabet, BeamConfig(beam_threshold=3.0, token_top=2, threads=1)), log_probs
    )
    assert narrow.text == text


def test_token_pruning_by_hand() -> None:
    """Guards token-top and token-threshold: other tokens start nothing, and the best ones do."""
    log_probs = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    for config, tokens in [
        (replace(UNLIMITED, token_top=1), {(), (1,)}),
        (replace(UNLIMITED, token_top=2), {(), (1,), (2,)}),
        (replace(UNLIMITED, token_threshold=math.log(0.4 / 0.15)), {(), (1,), (2,)}),
        (replace(UNLIMITED, beam_threshold=math.log(0.4 / 0.25)), {(), (1,)}),
        (replace(UNLIMITED, blank_skip=0.35), {()}),
        (UNLIMITED, {(), (1,), (2,), (3,)}),
    ]:
        # a space alone is an empty text as well
        texts = {" ".join(TOKENIZER.decode(one).split()) for one in tokens}
        assert {
            hypothesis.text for hypothesis in decode_one(BeamDecoder(TOKENIZER, config), log_probs)
        } == texts


def test_alone_equals_in_a_batch_on_any_number_of_threads(random_rows: Rows) -> None:
    """Guards against utterances, padding or threads that change each other's result to the last bit."""
    lengths = [30, 0, 7, 30, 1, 22, 15, 3]
    batch = torch.full((len(lengths), 30, 4), math.nan, dtype=torch.float64)
    for row, length in enumerate(lengths):
        batch[row, :length] = random_rows(row, steps=30, vocab=4)[:length]
    config = BeamConfig(beam_size=8, nbest=3, threads=4)
    together = BeamDecoder(TOKENIZER, config).decode(batch, torch.tensor(lengths), 0.04)
    decoder = BeamDecoder(TOKENIZER, replace(config, threads=1))
    for row, length in enumerate(lengths):
        [alone] = decoder.decode(batch[row : row + 1, :length], torch.tensor([length]), 0.04)
        assert together[row] == alone
    [silent] = together[1]
    assert (silent.text, silent.words, silent.score) == ("", (), 0.0)


def test_words_times_and_confidence_by_hand() -> None:
    """Guards word times against off-by-one steps, and confidences against blanks or neighbours."""
    path = [0, 2, 2, 0, 1, 3, 3, 0]  # "a b"
    probs = torch.full((8, 4), 0.02, dtype=torch.float64)
    probs[torch.arange(8), torch.tensor(path)] = 0.94
    probs[2] = torch.tensor([0.38, 0.01, 0.60, 0.01])
    [best] = decode_one(BeamDecoder(TOKENIZER), probs.log())
    assert best.text == "a b"
    assert best.tokens == (2, 1, 3)
    assert best.steps == (1, 4, 5)
    first, second = best.words
    assert (first.text, second.text) == ("a", "b")
    assert (first.start_s, first.end_s) == pytest.approx((0.04, 0.12))
    assert (second.start_s, second.end_s) == pytest.approx((0.20, 0.28))
    assert first.confidence == pytest.approx((0.94 + 0.60) / 2)
    assert second.confidence == pytest.approx(0.94)


def test_a_full_arena_changes_nothing(random_rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the making of room: prefixes that are dropped or moved within a step must leave no trace."""
    log_probs = random_rows(5, steps=200, vocab=4, sharpness=0.7)
    decoder = BeamDecoder(TOKENIZER, BeamConfig(beam_size=20, nbest=20, threads=1))
    expected = decode_one(decoder, log_probs)
    monkeypatch.setattr(beam_search, "_CAPACITY", 24)
    assert decode_one(decoder, log_probs) == expected


def test_impossible_steps_still_decode() -> None:
    """Guards -inf, a legal log-probability: also where it leaves one path only."""
    probs = torch.tensor(
        [[0.0, 0, 1, 0], [0.5, 0, 0.5, 0], [1.0, 0, 0, 0], [0, 0, 1.0, 0]], dtype=torch.float64
    )
    [best] = decode_one(BeamDecoder(TOKENIZER), probs.log())
    assert best.text == "aa"
    assert best.score == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("log_probs", "lengths", "message"),
    [
        (torch.zeros(3, 4), torch.tensor([3]), r"log_probs is \(3, 4\)"),
        (torch.zeros(1, 3, 7), torch.tensor([3]), "7 classes but the tokenizer 4 ids"),
        (torch.zeros(1, 3, 4), torch.tensor([4]), r"step_lengths\[0\] is 4. A length from 0 to 3"),
        (
            torch.zeros(1, 3, 4),
            torch.tensor([3]),
            r"utterance 0 .* not normalised at step 0: logsumexp is 1.386",
        ),
        (torch.full((2, 3, 4), -math.log(4)), torch.tensor([3, 3]), None),
        (
            torch.full((2, 3, 4), math.nan),
            torch.tensor([0, 3]),
            "utterance 1 of the batch hold NaN at step 0",
        ),
        (torch.full((1, 3, 4), -math.inf), torch.tensor([3]), "not normalised at step 0: logsumexp is -inf"),
        (torch.full((1, 3, 4), 0.25), torch.tensor([3]), "not normalised"),
    ],
)
def test_wrong_log_probs(log_probs: Tensor, lengths: Tensor, message: str | None) -> None:
    """Guards against output of another model, NaN, logits and probabilities that decode to some text."""
    decoder = BeamDecoder(TOKENIZER)
    if message is None:
        decoder.decode(log_probs, lengths, 0.04)
        return
    with pytest.raises(ModelError, match=message):
        decoder.decode(log_probs, lengths, 0.04)


def test_half_precision_is_normalised_enough(peaky_rows: Rows) -> None:
    """Guards the check of the sum against refusing what a model in half precision gives."""
    log_probs = peaky_rows([2, 3, 1, 2], vocab=4, seed=2)
    [best] = decode_one(BeamDecoder(TOKENIZER), log_probs.bfloat16())
    assert best.text == "ab a"


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("beam_size", 0, "--beam.beam-size must be at least 1. Got 0"),
        ("nbest", 0, "--nbest must be at least 1. Got 0"),
        ("token_top", -1, "--beam.token-top must be at least 0. Got -1"),
        ("threads", -2, "--beam.threads must be at least 0. Got -2"),
        ("beam_threshold", 0.0, "--beam.beam-threshold must be above 0. Got 0"),
        ("token_threshold", math.nan, "--beam.token-threshold must be above 0. Got nan"),
        ("blank_skip", 0.0, r"--beam.blank-skip must be in \(0, 1\]. Got 0"),
        ("unknown_words", "drop", "--beam.unknown-words must be one of allow, forbid. Got 'drop'"),
    ],
)
def test_wrong_settings(setting: str, value: object, message: str) -> None:
    """Guards each range: a value outside it is named as the user types it."""
    with pytest.raises(SettingsError, match=message):
        BeamConfig(**{setting: value})


@pytest.mark.parametrize(
    ("weight", "value", "message"),
    [
        ("acoustic_scale", math.inf, "--acoustic-scale must be in (0, 100]. Got inf"),
        ("blank_scale", -1.0, "--blank-scale must be in (0, 100]. Got -1"),
        ("prior_weight", -0.1, "--prior-weight must be in 0..100. Got -0.1"),
        ("lm_weight", math.nan, "--lm-weight must be in 0..100. Got nan"),
        ("word_bonus", 101.0, "--word-bonus must be in -100..100. Got 101"),
        ("word_bonus", math.inf, "--word-bonus must be in -100..100. Got inf"),
        ("unknown_penalty", math.nan, "--unknown-penalty must be in -100..100. Got nan"),
        ("unknown_letter_penalty", 0.5, "--unknown-letter-penalty must be in -100..0. Got 0.5"),
        ("rescore_weight", -1.0, "--rescore-weight must be in 0..1. Got -1"),
        ("attention_weight", 1.5, "--attention-weight must be in 0..1. Got 1.5"),
    ],
)
def test_wrong_weights(weight: str, value: float, message: str) -> None:
    """Guards each weight's range, which is declared with it."""
    with pytest.raises(SettingsError, match=re.escape(message)):
        BeamConfig().with_weights(**{weight: value})


def test_priors_that_are_missing_or_wrong() -> None:
    """Guards a prior weight without priors, and priors of another model or of 0, against being ignored."""
    config = BeamConfig().with_weights(prior_weight=0.3)
    with pytest.raises(ModelError, match=r"--prior-weight is 0.3, but there are no priors"):
        BeamDecoder(TOKENIZER, config)
    with pytest.raises(ModelError, match=r"priors are of shape \(3,\)"):
        BeamDecoder(TOKENIZER, replace(config, priors=(0.3, 0.3, 0.3)))
    with pytest.raises(ModelError, match="the least is 0"):
        BeamDecoder(TOKENIZER, replace(config, priors=(1.0, 0.0, 0.0, 0.0)))


def test_compiling_is_announced(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the message about the first call: without it the program seems to hang.

    Nor may it stand where nothing is compiled, and the file of an earlier run is read on a slow machine.
    """
    monkeypatch.setattr(beam_module, "_ANNOUNCE_S", 0.0)
    monkeypatch.setattr(beam_module, "_compiled", lambda: False)
    for missed in (False, True):
        monkeypatch.setattr(beam_module, "_missed", lambda missed=missed: missed)
        with caplog.at_level(logging.INFO, logger="asr"):
            decode_one(BeamDecoder(TOKENIZER), torch.full((400, 4), -math.log(4)))
        assert ("compiling the decoder; the result is kept" in caplog.text) == missed
