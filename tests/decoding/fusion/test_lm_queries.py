"""A language model that is called from Python: the same results as compiled, and few calls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.lm.ngram.model import NgramModel
from tests.decoding.fusion.exhaustive import (
    TOKENIZER,
    UNLIMITED,
    Outside,
    Rows,
    decode_one,
)


@pytest.mark.parametrize("size", [2, 8, 40])
@pytest.mark.parametrize("unit", ["word", "character"])
@pytest.mark.parametrize("seed", range(3))
def test_three_calls_equal_compiled_at_any_beam(
    size: int,
    unit: str,
    seed: int,
    models: dict[str, NgramModel],
    random_rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards the slower path, room making and pruning included: the same hypotheses with the same scores."""
    monkeypatch.setattr("asr.decoding.beam_search._CAPACITY", 64)
    # the look-ahead takes unigrams where it can; the three calls have none
    monkeypatch.setattr(
        "asr.decoding.fusion.prepared._score_words", lambda lm, words, lm_ids: -1.0 - np.arange(len(words))
    )
    log_probs = random_rows(20 + seed, steps=40, vocab=4, sharpness=1.5)
    # which prefixes recombine depends on the numbers of states, which differ
    config = BeamConfig(beam_size=size, nbest=1 if seed == 0 else size, recombine=seed == 0, threads=1)
    hot = {"ab": 1.0}
    compiled = decode_one(BeamDecoder(TOKENIZER, config, lm=models[unit], hotwords=hot), log_probs)
    outside = decode_one(BeamDecoder(TOKENIZER, config, lm=Outside(models[unit]), hotwords=hot), log_probs)
    assert [h.text for h in outside] == [h.text for h in compiled]
    assert [h.score for h in outside] == pytest.approx([h.score for h in compiled], abs=1e-9)
    assert [h.lm_log_prob for h in outside] == pytest.approx([h.lm_log_prob for h in compiled], abs=1e-9)


def test_states_that_cannot_be_compared(models: dict[str, NgramModel], random_rows: Rows) -> None:
    """Guards models whose states have no hash: equal ones are not found, and nothing else changes."""

    class Listed(Outside):
        def start(self) -> Any:
            return [super().start()]

        def score(self, states: Sequence[Any], symbols: Sequence[str]) -> Any:
            log_probs, after = super().score([state for [state] in states], symbols)
            return log_probs, [[state] for state in after]

        def finish(self, states: Sequence[Any]) -> Any:
            return super().finish([state for [state] in states])

    log_probs = random_rows(31, steps=20, vocab=4, sharpness=1.0)
    config = BeamConfig(beam_size=10, nbest=10, recombine=False)
    found = [
        decode_one(BeamDecoder(TOKENIZER, config, lm=lm), log_probs)
        for lm in (Outside(models["character"]), Listed(models["character"]))
    ]
    assert found[0] == found[1]


def test_a_batch_asks_together(models: dict[str, NgramModel], random_rows: Rows) -> None:
    """Guards whose answer is whose, and that a batch asks no more often than the longest of it alone."""
    asked: list[int] = []

    class Counted(Outside):
        def score(self, states: Sequence[Any], symbols: Sequence[str]) -> Any:
            asked.append(len(states))
            return super().score(states, symbols)

    steps = [30, 0, 12, 21]
    rows = [
        random_rows(40 + number, steps=count, vocab=4, sharpness=1.0) for number, count in enumerate(steps)
    ]
    decoder = BeamDecoder(TOKENIZER, BeamConfig(beam_size=8, nbest=8), lm=Counted(models["character"]))
    alone, calls = [], []
    for row in rows:
        alone.append(decode_one(decoder, row))
        calls.append(len(asked))
        asked.clear()
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    assert decoder.decode(batch, torch.tensor(steps), 0.04) == alone
    assert len(asked) == max(calls) < sum(calls)


def test_few_waiting_prefixes_at_a_time(
    models: dict[str, NgramModel], random_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards a step with more new prefixes than are asked at once: none may be lost."""
    log_probs = random_rows(30, steps=12, vocab=4, sharpness=0.5)
    decoder = BeamDecoder(TOKENIZER, BeamConfig(beam_size=30, nbest=30), lm=Outside(models["word"]))
    expected = decode_one(decoder, log_probs)
    monkeypatch.setattr("asr.decoding.beam_search._MAX_PENDING", 3)
    assert decode_one(decoder, log_probs) == expected


def test_a_weight_of_0_forgets_impossible_words(models: dict[str, NgramModel], random_rows: Rows) -> None:
    """Guards 0 times the logarithm of 0: the text would be no number, and fall out."""
    log_probs = random_rows(3, steps=6, vocab=4)

    class Never(Outside):
        def score(self, states: Sequence[Any], symbols: Sequence[str]) -> tuple[Any, list[Any]]:
            nats, after = super().score(states, symbols)
            return np.full_like(nats, -np.inf), after

    config = replace(UNLIMITED, nbest=1).with_weights(lm_weight=0.0)
    [best] = decode_one(BeamDecoder(TOKENIZER, config, lm=Never(models["word"])), log_probs)
    [expected] = decode_one(BeamDecoder(TOKENIZER, config, lm=models["word"]), log_probs)
    assert (best.text, best.score) == (expected.text, pytest.approx(expected.score))
