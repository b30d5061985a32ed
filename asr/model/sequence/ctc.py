"""Sequences to sequences by CTC: a recurrent encoder whose inputs are repeated, so that outputs fit.

CTC gives every input step at most one output symbol. A word may have more phones than letters ("x" is two),
and equal neighbours need a blank between them: each source symbol therefore stands `repeats` times in a row.
A pair that does not fit even so can be neither learned nor scored.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor, nn

from asr.errors import check_number, option_name
from asr.model.loss.ctc import ctc_loss, required_steps
from asr.model.recurrent.layers import LayerConfig, RecurrentConfig, RecurrentStack
from asr.model.sequence.encoder_decoder import check_symbols


@dataclass(frozen=True, kw_only=True)
class SequenceCtcConfig:
    """The shape of a network for CTC from symbols to symbols."""

    width: int = 128  # units a layer and direction
    depth: int = 3  # recurrent layers
    embedding: int = 64  # size of the vector of a symbol at the input
    # on embeddings, the input of every recurrent layer but the first, and that of the output layer
    dropout: float = 0.3
    layers: Annotated[LayerConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LayerConfig(layer_norm=False)
    )
    repeats: int = 2  # how often each source symbol stands in a row

    def __post_init__(self) -> None:
        for name in ("embedding", "repeats"):
            check_number(option_name("model", name), getattr(self, name), least=1)
        self.encoder()  # checks the rest

    def encoder(self) -> RecurrentConfig:
        """The recurrent layers."""
        return self.layers.stack(width=self.width, depth=self.depth, dropout=self.dropout)


class SequenceCtc(nn.Module):
    """The network: source symbols in, log-probabilities of target symbols and the blank at each step out.

    Args:
        sources: symbols of the input, each once; symbol i has the id i + 1.
        targets: symbols of the output, each once; symbol i has the id i + 1, the blank is 0.
        config: the settings.

    Raises:
        ModelError: no symbol, or one that occurs twice.

    Source: Rao et al. 2015, "Grapheme-to-phoneme conversion using long short-term memory recurrent neural
        networks", section 3.2, whose inputs are not repeated.
    """

    def __init__(self, sources: tuple[str, ...], targets: tuple[str, ...], config: SequenceCtcConfig) -> None:
        super().__init__()
        check_symbols(sources, targets)
        self.sources, self.targets, self.config = sources, targets, config
        self.provenance: dict[str, Any] = {}  # of a saved network
        self.embedding = nn.Embedding(len(sources) + 1, config.embedding)
        self.encoder = RecurrentStack(config.embedding, config.encoder())
        self.output = nn.Linear(self.encoder.config.output_size, len(targets) + 1)
        self.dropout = nn.Dropout(config.dropout)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.output.weight.device

    def forward(self, source: Tensor, lengths: Tensor) -> Tensor:
        """(batch, repeats * longest, symbols + 1) float32 log-probabilities.

        Args:
            source: (batch, longest) int64 ids, padded with anything valid.
            lengths: (batch,) int64 symbols of each row, on the same device.
        """
        repeats = self.config.repeats
        x = self.dropout(self.embedding(source)).repeat_interleave(repeats, 1)
        y, _ = self.encoder(x, lengths * repeats)
        log_probs: Tensor = self.output(self.dropout(y)).float().log_softmax(-1)
        return log_probs

    def losses(
        self,
        source: Tensor,
        lengths: Tensor,
        target: Tensor,
        target_lengths: Tensor,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Negative log-likelihood of each target sequence over all alignments.

        The arguments are those of an encoder-decoder.

        Returns:
            (batch,) float32 nats; infinite for a target that does not fit.
        """
        log_probs = self(source, lengths.to(source.device, non_blocking=True))
        if rows is not None:
            log_probs, lengths = log_probs[rows], lengths[rows]
        return ctc_loss(log_probs, lengths * self.config.repeats, target, target_lengths)

    def fits(self, source: tuple[int, ...], target: tuple[int, ...]) -> bool:
        """Whether a target has a probability above zero, given a source."""
        return required_steps(target) <= len(source) * self.config.repeats

    @torch.inference_mode()
    def greedy(self, source: Tensor, lengths: Tensor) -> list[tuple[int, ...]]:
        """The outputs of the most probable symbol of each step, without repetitions and blanks.

        Args:
            source: (batch, longest) int64 ids, on the net's device.
            lengths: (batch,) int64, on the net's device.
        """
        rows = self(source, lengths).argmax(2).tolist()
        steps = (lengths * self.config.repeats).tolist()
        return [_collapse(row[:count]) for row, count in zip(rows, steps, strict=True)]


def _collapse(path: list[int]) -> tuple[int, ...]:
    """The output of a path: neither repetitions nor blanks."""
    return tuple(now for before, now in zip([0, *path], path, strict=False) if now not in (0, before))
