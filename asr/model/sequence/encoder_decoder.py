"""The RNN encoder-decoder: one recurrent network reads a sequence, another writes one.

The encoder reads the source symbols, in both directions by default, over all steps at once. The decoder
writes target symbols one by one; what it knows of the source, and when it runs over all steps at once, is
described in `asr.model.recurrent_decoder`.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, get_args

import torch
import tyro
from torch import Tensor, nn

from asr.errors import ModelError, SettingsError, check_choice, check_number
from asr.model.attention import AttentionKind
from asr.model.recurrent.factory import Cell
from asr.model.recurrent.layers import LayerConfig, RecurrentConfig, RecurrentStack
from asr.model.recurrent_decoder import DecoderConfig, EncodedSource, RecurrentDecoder

__all__ = ["EncoderDecoder", "EncoderDecoderConfig", "check_symbols", "longest_output"]


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """The shape of an encoder-decoder."""

    width: int = 256  # units a layer, and of the encoder a direction
    depth: int = 1  # recurrent layers of the encoder
    decoder_depth: int = 1  # recurrent layers of the decoder
    decoder_cell: Cell | None = None  # None: that of the encoder
    embedding: int = 64  # size of the vector of a symbol at the input of encoder and decoder
    # on embeddings, the input of every recurrent layer but the first, and that of the output layer
    dropout: float = 0.3
    # bidirectional is the encoder; the decoder always reads forwards
    layers: Annotated[LayerConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LayerConfig(layer_norm=False)
    )
    attention: AttentionKind = "additive"  # none: a fixed summary vector (Cho 2014)
    input_feeding: bool = False  # dot: what was read, and made of it, is part of the next step's input
    label_smoothing: float = 0.1  # share of each target's probability that training spreads over all symbols

    def __post_init__(self) -> None:
        check_number("--model.embedding", self.embedding, least=1)
        check_choice("--model.attention", self.attention, get_args(AttentionKind))
        check_number("--model.label-smoothing", self.label_smoothing, least=0, below=1)
        if self.input_feeding and self.attention != "dot":
            raise SettingsError(
                f"--model.input-feeding is a choice of dot attention, and --model.attention is "
                f"{self.attention}, whose decoder always reads the source. Leave it out."
            )
        check_number("--model.decoder-depth", self.decoder_depth, least=1)
        self.encoder(), self.decoder()  # check the rest

    def encoder(self) -> RecurrentConfig:
        """The encoder's recurrent layers."""
        return self.layers.stack(width=self.width, depth=self.depth, dropout=self.dropout)

    def decoder(self) -> DecoderConfig:
        """The decoder."""
        cell = self.decoder_cell or self.layers.cell
        layers = replace(self.encoder(), cell=cell, bidirectional=False, depth=self.decoder_depth)
        return DecoderConfig(layers, self.embedding, self.attention, self.input_feeding, self.label_smoothing)


class EncoderDecoder(RecurrentDecoder):
    """The network: source symbols in, log-probabilities of target symbols out.

    A sequence gets the same results alone and padded in a batch, up to rounding.

    Args:
        sources: symbols of the input, each once; symbol i has the id i + 1.
        targets: symbols of the output, each once; symbol i has the id i + 1, `END` is 0.
        config: the settings.

    Raises:
        ModelError: no symbol, or one that occurs twice.

    Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical
        machine translation", appendix A, whose encoder reads forwards only.
    """

    def __init__(
        self, sources: tuple[str, ...], targets: tuple[str, ...], config: EncoderDecoderConfig
    ) -> None:
        check_symbols(sources, targets)
        super().__init__(len(targets), config.encoder(), config.decoder())
        self.sources, self.targets, self.config = sources, targets, config
        self.provenance: dict[str, Any] = {}  # of a saved network
        self.source_embedding = nn.Embedding(len(sources) + 1, config.embedding)
        self.encoder = RecurrentStack(config.embedding, config.encoder())

    def encode(self, source: Tensor, lengths: Tensor) -> EncodedSource:
        """Run the encoder.

        Args:
            source: (batch, longest) int64 ids, padded with anything valid.
            lengths: (batch,) int64 symbols of each row, at least 1, on the same device.
        """
        memory, _ = self.encoder(self.dropout(self.source_embedding(source)), lengths)
        return self.source(memory, lengths)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor, target_lengths: Tensor) -> Tensor:
        """Predict each symbol of given outputs from those before it, see `RecurrentDecoder.given`.

        Args:
            source: (batch, longest) int64 ids.
            lengths: (batch,) int64 symbols of each source, at least 1, on the same device.
            target: (batch, longest target) int64 ids, padded with anything valid.
            target_lengths: (batch,) int64 symbols of each target, on the same device.
        """
        return self.teacher_forced(self.encode(source, lengths), target, target_lengths)

    def losses(
        self,
        source: Tensor,
        lengths: Tensor,
        target: Tensor,
        target_lengths: Tensor,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Negative log-likelihood of each target sequence and its end, smoothed in training mode.

        Args:
            source: (sources, longest) int64 ids.
            lengths: (sources,) int64, on this device or on the host.
            target: (batch, longest target) int64 ids.
            target_lengths: (batch,) int64, on this device or on the host.
            rows: (batch,) int64 row of each target's source; None: each has its own.

        Returns:
            (batch,) float32 nats.
        """
        lengths, target_lengths = (
            one.to(source.device, non_blocking=True) for one in (lengths, target_lengths)
        )
        encoded = self.encode(source, lengths)
        return self.target_losses(encoded if rows is None else encoded.rows(rows), target, target_lengths)

    @torch.inference_mode()
    def greedy(self, source: Tensor, lengths: Tensor) -> list[tuple[int, ...]]:
        """The outputs of the most probable symbol at each step.

        Args:
            source: (batch, longest) int64 ids, on the net's device.
            lengths: (batch,) int64, on the net's device.
        """
        return self.write(self.encode(source, lengths), longest_output(lengths))

    def fits(self, source: tuple[int, ...], target: tuple[int, ...]) -> bool:
        """True: every output has a probability above zero, given a source."""
        return True


def longest_output(lengths: Tensor) -> Tensor:
    """(batch,) int64 most symbols that a search writes for sources of these lengths (batch,)."""
    return 2 * lengths + 6


def check_symbols(sources: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Refuse alphabets of which a network cannot be made.

    Raises:
        ModelError: no symbol, or one that occurs twice.
    """
    for name, symbols in (("input", sources), ("output", targets)):
        if not symbols or len(set(symbols)) < len(symbols):
            raise ModelError(f"the {name} symbols are {symbols!r:.200}. Expected at least one, each once.")
