"""The settings of an acoustic model's attention decoder, which rescores what CTC has found.

It writes the model's tokens one by one, from the outputs of the acoustic encoder, and so knows which tokens
follow each other, which CTC does not. It is trained together with CTC, or alone on a frozen encoder.

Source: Watanabe et al. 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition".
"""

import math
from dataclasses import dataclass
from typing import get_args

from asr.errors import check_choice, check_number, option_name
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
        check_choice("--model.attention-decoder", self.attention_decoder, get_args(AttentionKind))
        for name in ("decoder_width", "decoder_depth", "decoder_embedding"):
            check_number(option_name("model", name), getattr(self, name), least=1)
        for name in ("decoder_dropout", "decoder_label_smoothing"):
            check_number(option_name("model", name), getattr(self, name), least=0, below=1)
        check_number("--model.attention-loss-weight", self.attention_loss_weight, above=0, below=1)
        check_number("--model.attention-guide", self.attention_guide, least=0, below=math.inf)
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
