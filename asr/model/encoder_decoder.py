"""The RNN encoder-decoder: one recurrent network reads a sequence, another writes one.

The encoder reads the source symbols, in both directions by default. The decoder writes target symbols one by
one, each given those before it. What it knows of the source depends on `attention`:

    none        a fixed summary vector, its input at every step (Cho 2014)
    additive    before each step its last state chooses what to read of the encoder's outputs, which is part
                of the step's input (Bahdanau 2015)
    dot         after each step its new state chooses what to read (Luong 2015); with `input_feeding` what it
                made of that is part of the next step's input

The encoder runs over all steps at once. So does the decoder in training where its inputs are known before:
without attention, and with dot attention without input feeding. The others run step by step, because a
step's input depends on the step before; they draw dropout anew at each step, where the others draw it once.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, get_args

import torch
import tyro
from torch import Tensor, nn

from asr.errors import ModelError, SettingsError
from asr.frontend.features import frame_mask
from asr.model.attention import Attention, AttentionKind
from asr.model.recurrent.factory import Cell
from asr.model.recurrent.layers import LayerConfig, RecurrentConfig, RecurrentStack
from asr.model.recurrent.unidirectional import State

END = 0  # id of the target symbol that ends a sequence, and stands before its first symbol


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
        if self.embedding < 1:
            raise SettingsError(f"--model.embedding must be at least 1. Got {self.embedding}.")
        if self.attention not in get_args(AttentionKind):
            kinds = ", ".join(get_args(AttentionKind))
            raise SettingsError(f"--model.attention must be one of {kinds}. Got {self.attention!r}.")
        if not 0 <= self.label_smoothing < 1:
            raise SettingsError(f"--model.label-smoothing must be in [0, 1). Got {self.label_smoothing:g}.")
        if self.input_feeding and self.attention != "dot":
            raise SettingsError(
                f"--model.input-feeding is a choice of dot attention, and --model.attention is "
                f"{self.attention}, whose decoder always reads the source. Leave it out."
            )
        if self.decoder_depth < 1:
            raise SettingsError(f"--model.decoder-depth must be at least 1. Got {self.decoder_depth}.")
        self.encoder(), self.decoder()  # check the rest

    def encoder(self) -> RecurrentConfig:
        """The encoder's recurrent layers."""
        return self.layers.stack(width=self.width, depth=self.depth, dropout=self.dropout)

    def decoder(self) -> RecurrentConfig:
        """The decoder's recurrent layers."""
        cell = self.decoder_cell or self.layers.cell
        return replace(self.encoder(), cell=cell, bidirectional=False, depth=self.decoder_depth)


@dataclass(frozen=True)
class EncodedSource:
    """What a decoder reads of a batch of source sequences."""

    memory: Tensor  # (batch, encoder steps, size) the encoder's outputs
    keys: Tensor | None  # (batch, encoder steps, query size) of attention
    mask: Tensor  # (batch, encoder steps) bool, True at valid steps
    summary: Tensor  # (batch, width) tanh(W [last output; first output if bidirectional])

    def rows(self, index: Tensor) -> "EncodedSource":
        """The rows of an int64 index (n,), such as one for each hypothesis of a search."""
        return EncodedSource(
            self.memory[index], None if self.keys is None else self.keys[index], self.mask[index],
            self.summary[index],
        )  # fmt: skip


@dataclass(frozen=True)
class DecoderState:
    """The state of a decoder after some target symbols."""

    layers: list[State]  # of the recurrent layers
    # (batch, width) Luong's h~, the input of the output layer at the last step; zeros before the first
    attentional_state: Tensor

    def rows(self, index: Tensor) -> "DecoderState":
        """The rows of an int64 index (n,)."""
        return DecoderState(
            [tuple(part[index] for part in layer) for layer in self.layers], self.attentional_state[index]
        )


class EncoderDecoder(nn.Module):
    """The network: source symbols in, log-probabilities of target symbols out.

    A sequence gets the same results alone and padded in a batch, up to rounding.

    Args:
        sources: symbols of the input, each once; symbol i has the id i + 1.
        targets: symbols of the output, each once; symbol i has the id i + 1, `END` is 0.
        config: the settings.

    Raises:
        ModelError: no symbol, or one that occurs twice.

    Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical
        machine translation", appendix A, whose encoder reads forwards only; for attention see
        `asr.model.attention`. What enters the output layer is tanh(W [decoder state; what was read]) for all
        kinds, Luong's equation 5.
    """

    def __init__(
        self, sources: tuple[str, ...], targets: tuple[str, ...], config: EncoderDecoderConfig
    ) -> None:
        super().__init__()
        check_symbols(sources, targets)
        self.sources, self.targets, self.config = sources, targets, config
        self.provenance: dict[str, Any] = {}  # of a saved network
        encoder, decoder = config.encoder(), config.decoder()
        self.source_embedding = nn.Embedding(len(sources) + 1, config.embedding)
        self.target_embedding = nn.Embedding(len(targets) + 1, config.embedding)
        self.encoder = RecurrentStack(config.embedding, encoder)
        read_size = config.width if config.attention == "none" else encoder.output_size
        extra = {"none": read_size, "additive": read_size, "dot": config.width * config.input_feeding}
        self.decoder = RecurrentStack(config.embedding + extra[config.attention], decoder)
        # additive attention asks with the state before the step, which no bottleneck has passed
        query_size = decoder.hidden_size if config.attention == "additive" else decoder.output_size
        self.attention = (
            None
            if config.attention == "none"
            else Attention(config.attention, encoder.output_size, query_size)
        )
        self.state_sizes = [_state_sizes(decoder) for _ in range(decoder.depth)]
        self.summary = nn.Linear(encoder.output_size * (2 if encoder.bidirectional else 1), config.width)
        self.bridge = nn.Linear(config.width, sum(map(sum, self.state_sizes)))
        self.combination = nn.Linear(decoder.output_size + read_size, config.width)
        self.output = nn.Linear(config.width, len(targets) + 1)
        self.dropout = nn.Dropout(config.dropout)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.output.weight.device

    @property
    def is_parallel_in_training(self) -> bool:
        """Whether the decoder runs over all steps of given targets at once."""
        return self.config.attention == "none" or (
            self.config.attention == "dot" and not self.config.input_feeding
        )

    def encode(self, source: Tensor, lengths: Tensor) -> EncodedSource:
        """Run the encoder.

        Args:
            source: (batch, longest) int64 ids, padded with anything valid.
            lengths: (batch,) int64 symbols of each row, at least 1.
        """
        x = self.dropout(self.source_embedding(source))
        memory, _ = self.encoder(x, lengths)
        ends = memory[torch.arange(len(memory), device=memory.device), lengths - 1]
        if self.config.layers.bidirectional:
            ends = torch.cat([ends, memory[:, 0]], 1)
        summary = self.summary(ends).tanh()
        mask = frame_mask(lengths, memory.shape[1])
        keys = None if self.attention is None else self.attention.keys(memory)
        return EncodedSource(memory, keys, mask, summary)

    def initial_state(self, source: EncodedSource) -> DecoderState:
        """The state before the first target symbol: a layer's state is tanh(W summary)."""
        sizes = [size for layer in self.state_sizes for size in layer]
        parts = iter(self.bridge(source.summary).tanh().split(sizes, 1))
        layers = [tuple(next(parts) for _ in layer) for layer in self.state_sizes]
        return DecoderState(layers, source.summary.new_zeros(len(source.summary), self.config.width))

    def step(
        self, source: EncodedSource, state: DecoderState, symbols: Tensor
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """Write one symbol more.

        Args:
            source: of `encode`.
            state: of `initial_state` or of the step before.
            symbols: (batch,) int64 ids that were written last; `END` at first.

        Returns:
            (batch, symbols + 1) float32 log-probabilities, the next state, and (batch, encoder steps) the
            attention's weights, zeros where there is no attention.
        """
        state, weights = self._advance(source, state, self.dropout(self.target_embedding(symbols)))
        return self._log_probs(state.attentional_state), state, weights

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor, target_lengths: Tensor) -> Tensor:
        """Predict each symbol of given outputs from those before it (teacher forcing).

        Args:
            source: (batch, longest) int64 ids.
            lengths: (batch,) int64 symbols of each source, at least 1, on the same device.
            target: (batch, longest target) int64 ids, padded with anything valid.
            target_lengths: (batch,) int64 symbols of each target, on the same device.

        Returns:
            (batch, longest target + 1, symbols + 1) float32 log-probabilities: at step i those of symbol i
            given the ones before it. A row is valid up to its own length + 1, where `END` is due.
        """
        return self._teacher_forced(self.encode(source, lengths), target, target_lengths)

    def _teacher_forced(self, encoded: EncodedSource, target: Tensor, target_lengths: Tensor) -> Tensor:
        """`forward` after the encoder."""
        state = self.initial_state(encoded)
        inputs = self.dropout(self.target_embedding(nn.functional.pad(target, (1, 0), value=END)))
        if self.is_parallel_in_training:
            return self._log_probs(self._all_steps(encoded, state, inputs, target_lengths + 1))
        attentional_states = []
        for embedded in inputs.unbind(1):
            state, _ = self._advance(encoded, state, embedded)
            attentional_states.append(state.attentional_state)
        return self._log_probs(torch.stack(attentional_states, 1))

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

        Source: label smoothing: Szegedy et al. 2016, "Rethinking the Inception architecture for computer
            vision", equation in section 7, with a uniform distribution.
        """
        lengths, target_lengths = (
            one.to(source.device, non_blocking=True) for one in (lengths, target_lengths)
        )
        target = target.masked_fill(~frame_mask(target_lengths, target.shape[1]), END)
        encoded = self.encode(source, lengths)
        log_probs = self._teacher_forced(
            encoded if rows is None else encoded.rows(rows), target, target_lengths
        )
        wanted = nn.functional.pad(target, (0, 1), value=END)
        losses = -log_probs.gather(2, wanted.unsqueeze(2)).squeeze(2)
        if self.training and self.config.label_smoothing:
            share = self.config.label_smoothing
            losses = (1 - share) * losses - share * log_probs.mean(2)
        summed: Tensor = losses.masked_fill(~frame_mask(target_lengths + 1, losses.shape[1]), 0.0).sum(1)
        return summed

    def fits(self, source: tuple[int, ...], target: tuple[int, ...]) -> bool:
        """True: every output has a probability above zero, given a source."""
        return True

    @torch.inference_mode()
    def greedy(self, source: Tensor, lengths: Tensor) -> list[tuple[int, ...]]:
        """The outputs of the most probable symbol at each step.

        Args:
            source: (batch, longest) int64 ids, on the net's device.
            lengths: (batch,) int64, on the net's device.
        """
        encoded = self.encode(source, lengths)
        state = self.initial_state(encoded)
        longest = longest_output(lengths)
        symbols, ended = torch.full_like(lengths, END), torch.zeros_like(lengths, dtype=torch.bool)
        written = []
        for count in range(1, int(longest.max()) + 1):
            log_probs, state, _ = self.step(encoded, state, symbols)
            symbols = log_probs.argmax(1).masked_fill(ended, END)
            written.append(symbols)
            ended = ended | (symbols == END) | (longest <= count)
            if bool(ended.all()):
                break
        return [before_end(row) for row in torch.stack(written, 1).tolist()]

    def _advance(
        self, source: EncodedSource, state: DecoderState, embedded: Tensor
    ) -> tuple[DecoderState, Tensor]:
        """One step of the recurrent layers and of attention; embedded: (batch, embedding)."""
        x, kind = embedded.unsqueeze(1), self.config.attention
        context, weights = source.summary.unsqueeze(1), source.summary.new_zeros(source.mask.shape)
        if kind == "additive":
            context, weights = self._attend(source, state.layers[-1][0].unsqueeze(1))
        if kind != "dot":
            x = torch.cat([x, context], 2)
        elif self.config.input_feeding:
            x = torch.cat([x, state.attentional_state.unsqueeze(1)], 2)
        y, layers = self.decoder(x, torch.ones_like(source.mask[:, 0], dtype=torch.int64), state.layers)
        if kind == "dot":
            context, weights = self._attend(source, y)
        return DecoderState(layers, self._combine(y, context).squeeze(1)), weights

    def _all_steps(self, source: EncodedSource, state: DecoderState, x: Tensor, lengths: Tensor) -> Tensor:
        """What enters the output layer at every step; x: (batch, steps, embedding)."""
        context = source.summary.unsqueeze(1).expand(-1, x.shape[1], -1)
        if self.attention is None:
            x = torch.cat([x, context], 2)
        y, _ = self.decoder(x, lengths, state.layers)
        if self.attention is not None:
            context, _ = self._attend(source, y)
        return self._combine(y, context)

    def _attend(self, source: EncodedSource, query: Tensor) -> tuple[Tensor, Tensor]:
        """What is read for queries (batch, steps, query size), and the last one's weights, a row each."""
        context, weights = self.attention(query, source.keys, source.memory, source.mask)  # type: ignore[misc]
        return context, weights[:, -1]

    def _combine(self, y: Tensor, context: Tensor) -> Tensor:
        combined: Tensor = self.combination(torch.cat([y, context], -1)).tanh()
        return combined

    def _log_probs(self, attentional_state: Tensor) -> Tensor:
        scores: Tensor = self.output(self.dropout(attentional_state))
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(-1)


def longest_output(lengths: Tensor) -> Tensor:
    """(batch,) int64 most symbols that a search writes for sources of these lengths (batch,)."""
    return 2 * lengths + 6


def before_end(row: list[int]) -> tuple[int, ...]:
    """The symbols of a row up to its first `END`."""
    return tuple(row[: row.index(END)] if END in row else row)


def check_symbols(sources: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Refuse alphabets of which a network cannot be made.

    Raises:
        ModelError: no symbol, or one that occurs twice.
    """
    for name, symbols in (("input", sources), ("output", targets)):
        if not symbols or len(set(symbols)) < len(symbols):
            raise ModelError(f"the {name} symbols are {symbols!r:.200}. Expected at least one, each once.")


def _state_sizes(config: RecurrentConfig) -> list[int]:
    """Values of each part of a layer's state: h and, for the LSTMs, c."""
    hidden = config.projection or config.width
    return [hidden, config.width] if config.cell.startswith("lstm") else [hidden]
