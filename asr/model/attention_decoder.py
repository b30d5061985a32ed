"""The settings of an acoustic model's attention decoder, which rescores what CTC has found.

It writes the model's tokens one by one, from the outputs of the acoustic encoder, and so knows which tokens
follow each other, which CTC does not. It is trained together with CTC, or alone on a frozen encoder.

Source: Watanabe et al. 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition".
"""

import math
from dataclasses import dataclass
from typing import get_args

from asr.errors import SettingsError, option_name
from asr.model.attention import AttentionKind
from asr.model.recurrent.factory import Cell
from asr.model.recurrent.layers import RecurrentConfig
from asr.model.recurrent_decoder import DecoderConfig, RecurrentDecoder

__all__ = ["AttentionDecoderConfig", "make_attention_decoder"]


@dataclass(frozen=True)
class AttentionDecoderConfig:
    """The attention decoder of an acoustic model."""

    # A second decoder beside CTC, which rescores what the search finds: dot (Luong 2015), which training runs
    # over all steps at once, or additive (Bahdanau 2015), which it runs step by step.
    attention_decoder: AttentionKind = "none"
    decoder_width: int = 256  # units a recurrent layer of the attention decoder
    decoder_depth: int = 1  # its recurrent layers
    decoder_cell: Cell = "lstm"  # of them
    decoder_embedding: int = 64  # size of the vector of a token at its input
    # on its embeddings, between its recurrent layers and on the input of its output layer
    decoder_dropout: float = 0.3
    decoder_label_smoothing: float = 0.1  # share of a token's probability that its loss spreads over all
    # Weight of a loss that keeps attention near the diagonal, since text and speech both run forwards: from
    # little speech it does not find out by itself where to read. 0: none.
    attention_guide: float = 1.0
    attention_loss_weight: float = 0.7  # of its loss in training; that of --model.criterion has the rest

    def __post_init__(self) -> None:
        if self.attention_decoder not in get_args(AttentionKind):
            kinds = ", ".join(get_args(AttentionKind))
            raise SettingsError(
                f"--model.attention-decoder must be one of {kinds}. Got {self.attention_decoder!r}."
            )
        for name in ("decoder_width", "decoder_depth", "decoder_embedding"):
            value = getattr(self, name)
            if value < 1:
                raise SettingsError(f"{option_name('model', name)} must be at least 1. Got {value}.")
        for name in ("decoder_dropout", "decoder_label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise SettingsError(f"{option_name('model', name)} must be in [0, 1). Got {value:g}.")
        if not 0 < self.attention_loss_weight < 1:
            raise SettingsError(
                f"--model.attention-loss-weight must be between 0 and 1. Got {self.attention_loss_weight:g}."
            )
        if not 0 <= self.attention_guide < math.inf:
            raise SettingsError(f"--model.attention-guide must be at least 0. Got {self.attention_guide:g}.")
        self._layers()  # checks the rest

    def _layers(self) -> RecurrentConfig:
        return RecurrentConfig(
            cell=self.decoder_cell, bidirectional=False, layer_norm=False, width=self.decoder_width,
            depth=self.decoder_depth, dropout=self.decoder_dropout,
        )  # fmt: skip

    def decoder(self) -> DecoderConfig:
        """The settings of the recurrent decoder."""
        return DecoderConfig(
            self._layers(), self.decoder_embedding, self.attention_decoder,
            label_smoothing=self.decoder_label_smoothing, guide=self.attention_guide,
        )  # fmt: skip


def make_attention_decoder(
    config: AttentionDecoderConfig, encoder: RecurrentConfig, vocab_size: int
) -> RecurrentDecoder | None:
    """The decoder with fresh weights; None where the settings ask for none.

    Args:
        config: the settings.
        encoder: of the acoustic encoder's recurrent layers.
        vocab_size: tokens, blank included. In place of the blank, id 0 means the end of the text.
    """
    if config.attention_decoder == "none":
        return None
    return RecurrentDecoder(vocab_size - 1, encoder, config.decoder())
