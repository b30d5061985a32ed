"""Weights: that each counts, in the right direction, and can be changed without preparing again."""

import pytest
import torch

from asr.decoding.beam_decoder import BeamDecoder
from asr.decoding.config import BeamConfig
from asr.errors import SettingsError
from asr.lm.ngram.model import NgramModel
from tests.decoding.fusion.exhaustive import (
    TOKENIZER,
    Rows,
    decode_one,
)


def test_language_model_decides_between_equals(models: dict[str, NgramModel]) -> None:
    """Guards the direction of lm-weight: of two words that sound the same the more probable one wins."""
    probs = torch.full((3, 4), 0.01, dtype=torch.float64)
    probs[0, 2], probs[1, 1], probs[2, 2], probs[2, 3] = 0.97, 0.97, 0.49, 0.49  # "a a" or "a b"
    [best] = decode_one(
        BeamDecoder(TOKENIZER, BeamConfig().with_weights(lm_weight=1.0), lm=models["word"]), probs.log()
    )
    assert best.text == "a b"


def test_weights_can_be_changed(models: dict[str, NgramModel], random_rows: Rows) -> None:
    """Guards tuning: another weight on the shared vocabulary equals a decoder that was made with it."""
    log_probs = random_rows(31, steps=20, vocab=4)
    config = BeamConfig(nbest=5).with_weights(lm_weight=0.3)
    decoder = BeamDecoder(TOKENIZER, BeamConfig().with_weights(lm_weight=2.0), lm=models["word"])
    expected = decode_one(BeamDecoder(TOKENIZER, config, lm=models["word"]), log_probs)
    assert decode_one(decoder.with_config(config), log_probs) == expected
    with pytest.raises(SettingsError, match=r"--beam\.unknown-words cannot be changed"):
        decoder.with_config(BeamConfig(unknown_words="forbid"))


def test_rare_symbols_have_a_floor() -> None:
    """Guards priors of symbols that a dev set hardly has: divided by 1e-9, "b" is all that is written."""
    log_probs = torch.tensor([[0.05, 0.05, 0.89995, 5e-5]] * 3, dtype=torch.float64).log()
    log_probs = log_probs - log_probs.logsumexp(1, keepdim=True)
    config = BeamConfig(priors=(0.7, 0.1, 0.2, 1e-9)).with_weights(prior_weight=0.6)
    [best] = decode_one(BeamDecoder(TOKENIZER, config), log_probs)
    assert best.text == "a"
