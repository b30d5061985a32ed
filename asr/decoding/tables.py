"""From tokenizer, settings and models to the arrays that the compiled search reads."""

import math

import numpy as np
from numpy.typing import NDArray

from asr.decoding.config import BeamConfig
from asr.decoding.fusion import Tables
from asr.decoding.search import Pruning
from asr.errors import ModelError
from asr.text.tokenizer import BLANK, Tokenizer

__all__ = ["build_pruning", "build_tables"]


def build_pruning(config: BeamConfig, vocab: int) -> Pruning:
    """What the search may leave out, as the kernel takes it."""
    return Pruning(
        beam_threshold=config.beam_threshold,
        token_threshold=config.token_threshold,
        token_top=min(config.token_top or vocab, vocab),
        blank_skip=math.log(config.blank_skip) if config.blank_skip < 1 else math.inf,
    )


def build_tables(tokenizer: Tokenizer, config: BeamConfig, priors: NDArray[np.float64] | None) -> Tables:
    """What scores a prefix.

    Args:
        tokenizer: the model's.
        config: weights.
        priors: (vocab,) float64 probabilities, blank included; needed where prior_weight is not 0.

    Raises:
        ModelError: priors are missing, of the wrong shape, or not all above 0.
    """
    pieces = tokenizer.pieces
    begins = [piece.begins_word for piece in pieces] if pieces else [False] * tokenizer.vocab_size
    spelt = [piece.text for piece in pieces] if pieces else ["", *tokenizer.symbols]
    alphabet = sorted(set("".join(spelt))) if pieces else list(tokenizer.symbols)
    numbers = {letter: number for number, letter in enumerate(alphabet)}
    letters = (
        [[numbers[letter] for letter in text] for text in spelt]
        if pieces
        else [[], *([n] for n in range(len(alphabet)))]
    )
    bonus = math.exp(config.word_bonus)
    return Tables(
        scale=config.acoustic_scale,
        bias=_bias(tokenizer.vocab_size, config, priors),
        begins=np.array(begins, dtype=np.bool_),
        letter_start=np.cumsum([0, *map(len, letters)], dtype=np.int32),
        letters=np.array([number for token in letters for number in token], dtype=np.int32),
        separated=any(begins),
        vocabulary=False,
        unknown=True,
        child_start=np.array([1, 1], dtype=np.int32),
        letter=np.array([-1], dtype=np.int32),
        word_start=np.zeros(2, dtype=np.int32),
        words=np.zeros(0, dtype=np.int32),
        ahead=np.zeros(2),
        gain_within=np.ones(2),
        gain_end=np.array([1.0, bonus]),
        word_bonus=config.word_bonus,
        unknown_penalty=config.unknown_penalty,
        word_boost=np.zeros(0),
        hot_next=np.zeros((1, len(alphabet) + 1), dtype=np.int32),
        hot_value=np.zeros(1),
        hot_gain=np.zeros(1),
        lm_weight=config.lm_weight,
        most_proposals=2,
    )


def _bias(vocab: int, config: BeamConfig, priors: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(vocab,) nats added to the scaled log-probabilities."""
    bias = np.zeros(vocab)
    if config.prior_weight > 0:
        if priors is None:
            raise ModelError(
                f"prior-weight is {config.prior_weight:g}, but there are no priors. The tokens' mean "
                "probabilities were expected. Give them, or set --prior-weight 0."
            )
        if priors.shape != (vocab,) or not (priors > 0).all():
            raise ModelError(
                f"priors are of shape {priors.shape}, the least is {priors.min(initial=math.inf):g}. "
                f"({vocab},) probabilities above 0 were expected, one a token, the blank first."
            )
        bias -= config.acoustic_scale * config.prior_weight * np.log(priors)
    bias[BLANK] += math.log(config.blank_scale)
    return bias
