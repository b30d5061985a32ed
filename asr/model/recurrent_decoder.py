"""The recurrent decoder: writes symbols one by one, each given those before it and an encoder's outputs.

It starts from a summary of these outputs, tanh(W [last output; first output of an encoder that also reads
backwards]). What else it knows of them depends on `attention`:

    none        nothing: the summary is its input at every step (Cho 2014)
    additive    before each step its last state chooses what to read of the outputs, which is part of the
                step's input (Bahdanau 2015)
    dot         after each step its new state chooses what to read (Luong 2015); with `input_feeding` what it
                made of that, is part of the next step's input

Given what is to be written, it runs over all steps at once where their inputs are known before: without
attention, and with dot attention without input feeding. The others run step by step, because a step's input
depends on the step before; they draw dropout anew at each step, where the others draw it once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr.frontend.features import frame_mask
from asr.model.attention import Attention, AttentionKind
from asr.model.recurrent.layers import RecurrentConfig, RecurrentStack
from asr.model.recurrent.unidirectional import State

__all__ = ["END", "DecoderConfig", "DecoderState", "EncodedSource", "RecurrentDecoder", "before_end"]

_DIAGONAL = 0.1  # width of the diagonal of `_off_diagonal`, as a share of the whole

END = 0  # id of the symbol that ends a sequence, and stands before its first symbol


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a recurrent decoder."""

    layers: RecurrentConfig  # the dropout is also that on embeddings and on the input of the output layer
    embedding: int  # size of the vector of a symbol at the input
    attention: AttentionKind
    input_feeding: bool = False
    label_smoothing: float = 0.0  # share of each target's probability that training spreads over all symbols
    guide: float = 0.0  # weight of a loss that keeps attention near the diagonal; see `_off_diagonal`


@dataclass(frozen=True)
class EncodedSource:
    """What a decoder reads of a batch of source sequences."""

    memory: Tensor  # (batch, encoder steps, size) the encoder's outputs
    keys: Tensor | None  # (batch, encoder steps, query size) of attention
    mask: Tensor  # (batch, encoder steps) bool, True at valid steps
    summary: Tensor  # (batch, width)

    def rows(self, index: Tensor) -> "EncodedSource":
        """The rows of an int64 index (n,), such as one for each hypothesis of a search."""
        return EncodedSource(
            self.memory[index], None if self.keys is None else self.keys[index], self.mask[index],
            self.summary[index],
        )  # fmt: skip

    def repeated(self, count: int) -> "EncodedSource":
        """The one row of this source as `count` rows, which share its memory."""
        return EncodedSource(
            self.memory.expand(count, -1, -1),
            None if self.keys is None else self.keys.expand(count, -1, -1),
            self.mask.expand(count, -1), self.summary.expand(count, -1),
        )  # fmt: skip


@dataclass(frozen=True)
class DecoderState:
    """The state of a decoder after some target symbols."""

    layers: list[State]  # of the recurrent layers
    # (batch, width) the input of the output layer at the last step; zeros before the first
    attentional_state: Tensor

    def rows(self, index: Tensor) -> "DecoderState":
        """The rows of an int64 index (n,)."""
        return DecoderState(
            [tuple(part[index] for part in layer) for layer in self.layers], self.attentional_state[index]
        )


class RecurrentDecoder(nn.Module):
    """The decoder: an encoder's outputs in, log-probabilities of symbols out.

    A sequence gets the same results alone and padded in a batch, up to rounding.

    Args:
        symbols: how many there are without `END`; they have the ids 1 to this.
        encoder: the settings of the encoder's recurrent layers.
        config: the settings.

    Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder for statistical
        machine translation", appendix A; for attention see `asr.model.attention`. What enters the output
        layer is tanh(W [decoder state; what was read]) for all kinds, Luong's equation 5.
    """

    def __init__(self, symbols: int, encoder: RecurrentConfig, config: DecoderConfig) -> None:
        super().__init__()
        self.shape = config
        layers, width = config.layers, config.layers.width
        self.target_embedding = nn.Embedding(symbols + 1, config.embedding)
        read_size = width if config.attention == "none" else encoder.output_size
        extra = {"none": read_size, "additive": read_size, "dot": width * config.input_feeding}
        self.decoder = RecurrentStack(config.embedding + extra[config.attention], layers)
        # additive attention asks with the state before the step, which no bottleneck has passed
        query_size = layers.hidden_size if config.attention == "additive" else layers.output_size
        self.attention = (
            None
            if config.attention == "none"
            else Attention(config.attention, encoder.output_size, query_size)
        )
        self.state_sizes = [_state_sizes(layers) for _ in range(layers.depth)]
        self.both_ends = encoder.bidirectional
        self.summary = nn.Linear(encoder.output_size * (2 if self.both_ends else 1), width)
        self.bridge = nn.Linear(width, sum(map(sum, self.state_sizes)))
        self.combination = nn.Linear(layers.output_size + read_size, width)
        self.output = nn.Linear(width, symbols + 1)
        self.dropout = nn.Dropout(layers.dropout)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.output.weight.device

    @property
    def symbols(self) -> int:
        """How many symbols there are, without `END`."""
        return self.output.out_features - 1

    @property
    def is_parallel_in_training(self) -> bool:
        """Whether it runs over all steps of given targets at once."""
        return self.shape.attention == "none" or (
            self.shape.attention == "dot" and not self.shape.input_feeding
        )

    def source(self, memory: Tensor, lengths: Tensor) -> EncodedSource:
        """What is read of an encoder's outputs.

        Args:
            memory: (batch, encoder steps, size) the outputs.
            lengths: (batch,) int64 valid steps, at least 1, on the same device.
        """
        ends = memory[torch.arange(len(memory), device=memory.device), lengths - 1]
        if self.both_ends:
            ends = torch.cat([ends, memory[:, 0]], 1)
        mask = frame_mask(lengths, memory.shape[1])
        keys = None if self.attention is None else self.attention.keys(memory)
        return EncodedSource(memory, keys, mask, self.summary(ends).tanh())

    def initial_state(self, source: EncodedSource) -> DecoderState:
        """The state before the first target symbol: a layer's state is tanh(W summary)."""
        sizes = [size for layer in self.state_sizes for size in layer]
        parts = iter(self.bridge(source.summary).tanh().split(sizes, 1))
        layers = [tuple(next(parts) for _ in layer) for layer in self.state_sizes]
        return DecoderState(layers, source.summary.new_zeros(len(source.summary), self.shape.layers.width))

    def step(
        self, source: EncodedSource, state: DecoderState, symbols: Tensor
    ) -> tuple[Tensor, DecoderState, Tensor]:
        """Write one symbol more.

        Args:
            source: of `source`.
            state: of `initial_state` or of the step before.
            symbols: (batch,) int64 ids that were written last; `END` at first.

        Returns:
            (batch, symbols + 1) float32 log-probabilities, the next state, and (batch, encoder steps) the
            attention's weights, zeros where there is no attention.
        """
        state, weights = self._advance(source, state, self.dropout(self.target_embedding(symbols)))
        return self._log_probs(state.attentional_state), state, weights

    def teacher_forced(self, source: EncodedSource, target: Tensor, target_lengths: Tensor) -> Tensor:
        """Predict each symbol of given outputs from those before it (teacher forcing).

        Args:
            source: of `source`.
            target: (batch, longest target) int64 ids, padded with anything valid.
            target_lengths: (batch,) int64 symbols of each target, on the same device.

        Returns:
            (batch, longest target + 1, symbols + 1) float32 log-probabilities: at step i those of symbol i
            given the ones before it. A row is valid up to its own length + 1, where `END` is due.
        """
        log_probs, _ = self._teacher_forced(source, target, target_lengths)
        return log_probs

    def _teacher_forced(
        self, source: EncodedSource, target: Tensor, target_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`given`, and (batch, longest target + 1, encoder steps) attention's weights; zeros without it."""
        state = self.initial_state(source)
        inputs = self.dropout(self.target_embedding(nn.functional.pad(target, (1, 0), value=END)))
        if self.is_parallel_in_training:
            all_states, all_weights = self._all_steps(source, state, inputs, target_lengths + 1)
            return self._log_probs(all_states), all_weights
        attentional_states, shares = [], []
        for embedded in inputs.unbind(1):
            state, weights = self._advance(source, state, embedded)
            attentional_states.append(state.attentional_state)
            shares.append(weights)
        return self._log_probs(torch.stack(attentional_states, 1)), torch.stack(shares, 1)

    def step_through(self, source: EncodedSource, target: Tensor) -> tuple[Tensor, Tensor]:
        """`given`, always step by step, with the attention's weights.

        Args:
            source: of `source`.
            target: (batch, longest target) int64 ids.

        Returns:
            (batch, longest target + 1, symbols + 1) log-probabilities, and (batch, longest target + 1,
            encoder steps) what share of each encoder step was read for each symbol; zeros without attention.
        """
        state = self.initial_state(source)
        rows, shares = [], []
        for symbols in nn.functional.pad(target, (1, 0), value=END).unbind(1):
            log_probs, state, weights = self.step(source, state, symbols)
            rows.append(log_probs)
            shares.append(weights)
        return torch.stack(rows, 1), torch.stack(shares, 1)

    def target_losses(self, source: EncodedSource, target: Tensor, target_lengths: Tensor) -> Tensor:
        """Negative log-likelihood of given outputs and their ends, smoothed and guided in training mode.

        Args:
            source: of `source`.
            target: (batch, longest target) int64 ids, padded with anything valid.
            target_lengths: (batch,) int64, on the same device.

        Returns:
            (batch,) float32 nats.

        Source: label smoothing: Szegedy et al. 2016, "Rethinking the Inception architecture for computer
            vision", equation in section 7, with a uniform distribution.
        """
        target = target.masked_fill(~frame_mask(target_lengths, target.shape[1]), END)
        log_probs, weights = self._teacher_forced(source, target, target_lengths)
        wanted = nn.functional.pad(target, (0, 1), value=END)
        losses = -log_probs.gather(2, wanted.unsqueeze(2)).squeeze(2)
        if self.training and self.shape.label_smoothing:
            share = self.shape.label_smoothing
            losses = (1 - share) * losses - share * log_probs.mean(2)
        if self.training and self.shape.guide:
            losses = losses + self.shape.guide * _off_diagonal(
                weights, source.mask.sum(1), target_lengths + 1
            )
        summed: Tensor = losses.masked_fill(~frame_mask(target_lengths + 1, losses.shape[1]), 0.0).sum(1)
        return summed

    @torch.inference_mode()
    def write(self, source: EncodedSource, longest: Tensor) -> list[tuple[int, ...]]:
        """Write the most probable symbol at each step, up to `END`.

        Args:
            source: of `source`.
            longest: (batch,) int64 most symbols of each output, on the same device.
        """
        state = self.initial_state(source)
        symbols, ended = torch.full_like(longest, END), longest <= 0
        written = [symbols]
        for count in range(1, int(longest.max()) + 1):
            log_probs, state, _ = self.step(source, state, symbols)
            symbols = log_probs.argmax(1).masked_fill(ended, END)
            written.append(symbols)
            ended = ended | (symbols == END) | (longest <= count)
            if bool(ended.all()):
                break
        return [before_end(row) for row in torch.stack(written[1:] or written, 1).tolist()]

    def _advance(
        self, source: EncodedSource, state: DecoderState, embedded: Tensor
    ) -> tuple[DecoderState, Tensor]:
        """One step of the recurrent layers and of attention; embedded: (batch, embedding)."""
        x, kind = embedded.unsqueeze(1), self.shape.attention
        context, weights = source.summary.unsqueeze(1), source.summary.new_zeros(source.mask.shape)
        if kind == "additive":
            context, all_weights = self._attend(source, state.layers[-1][0].unsqueeze(1))
            weights = all_weights[:, -1]
        if kind != "dot":
            x = torch.cat([x, context], 2)
        elif self.shape.input_feeding:
            x = torch.cat([x, state.attentional_state.unsqueeze(1)], 2)
        y, layers = self.decoder(x, torch.ones_like(source.mask[:, 0], dtype=torch.int64), state.layers)
        if kind == "dot":
            context, all_weights = self._attend(source, y)
            weights = all_weights[:, -1]
        return DecoderState(layers, self._combine(y, context).squeeze(1)), weights

    def _all_steps(
        self, source: EncodedSource, state: DecoderState, x: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What enters the output layer at every step, and the weights; x: (batch, steps, embedding)."""
        context = source.summary.unsqueeze(1).expand(-1, x.shape[1], -1)
        weights = x.new_zeros(()).expand(*x.shape[:2], source.mask.shape[1])
        if self.attention is None:
            x = torch.cat([x, context], 2)
        y, _ = self.decoder(x, lengths, state.layers)
        if self.attention is not None:
            context, weights = self._attend(source, y)
        return self._combine(y, context), weights

    def _attend(self, source: EncodedSource, query: Tensor) -> tuple[Tensor, Tensor]:
        """What is read for queries (batch, steps, query size), and (batch, steps, encoder steps) weights."""
        context, weights = self.attention(query, source.keys, source.memory, source.mask)  # type: ignore[misc]
        return context, weights

    def _combine(self, y: Tensor, context: Tensor) -> Tensor:
        combined: Tensor = self.combination(torch.cat([y, context], -1)).tanh()
        return combined

    def _log_probs(self, attentional_state: Tensor) -> Tensor:
        scores: Tensor = self.output(self.dropout(attentional_state))
        return scores.to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(-1)


def _off_diagonal(weights: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """(batch, steps) how far from the diagonal attention is, from 0 to 1.

    Args:
        weights: (batch, steps, encoder steps).
        lengths: (batch,) int64 valid encoder steps.
        target_lengths: (batch,) int64 steps, the end included.

    Source: Tachibana, Uenoyama & Aihara 2018, "Efficiently trainable text-to-speech system based on deep
        convolutional networks with guided attention", section 4.2, with half its width g.
    """
    steps, encoder_steps = (torch.arange(size, device=weights.device) for size in weights.shape[1:])
    written = steps / target_lengths.unsqueeze(1)
    read = encoder_steps / lengths.unsqueeze(1)
    apart = written.unsqueeze(2) - read.unsqueeze(1)
    off: Tensor = (weights.float() * (1 - (-(apart**2) / (2 * _DIAGONAL**2)).exp())).sum(2)
    return off


def before_end(row: list[int]) -> tuple[int, ...]:
    """The symbols of a row up to its first `END`."""
    return tuple(row[: row.index(END)] if END in row else row)


def _state_sizes(config: RecurrentConfig) -> list[int]:
    """Values of each part of a layer's state: h and, for the LSTMs, c."""
    hidden = config.projection or config.width
    return [hidden, config.width] if config.cell.startswith("lstm") else [hidden]
