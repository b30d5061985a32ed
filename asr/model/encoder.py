"""The acoustic encoder: subsampling, recurrent layers and output layer; frames to log-probabilities."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, overload

import torch
import tyro
from torch import Tensor, nn

from asr.errors import check_choice, check_number
from asr.frontend.features import frame_mask
from asr.model.attention_decoder import AttentionDecoderConfig
from asr.model.recurrent.layers import LayerConfig, RecurrentConfig, RecurrentStack
from asr.model.recurrent.unidirectional import State

Size = Literal["small", "medium", "large"]

# One dial sets width, depth and dropout together: (units per direction, layers, dropout).
SIZES: dict[str, tuple[int, int, float]] = {
    "small": (256, 4, 0.3),  # about 6.6 M weights: hours of speech, a laptop
    "medium": (512, 5, 0.3),  # about 30 M: a hundred hours, one GPU
    "large": (768, 6, 0.2),  # about 80 M: a thousand hours, several GPUs
}

# Time strides of the two convolutions for each subsampling factor.
_STRIDES = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 5: (5, 1), 6: (3, 2), 7: (7, 1), 8: (4, 2)}


@dataclass(frozen=True)
class LossConfig:
    """What the acoustic model is trained to minimise."""

    # ctc, or crf: CTC-CRF, normalised over all token sequences, which a language model of tokens weighs
    criterion: Literal["ctc", "crf"] = "ctc"
    denominator_order: Literal[2, 3] = 2  # of that language model: a bigram or a trigram
    ctc_weight: float = 0.1  # of CTC's loss beside the CRF's, which keeps training stable

    def __post_init__(self) -> None:
        check_choice("--model.criterion", self.criterion, ("ctc", "crf"))
        check_number("--model.denominator-order", self.denominator_order, least=2, most=3)
        check_number("--model.ctc-weight", self.ctc_weight, least=0, below=math.inf)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The shape of the acoustic model, and what it is trained to minimise."""

    size: Size = "small"  # sets width, depth and dropout where those are not given
    width: int | None = None  # units a recurrent layer and direction
    depth: int | None = None  # recurrent layers
    dropout: float | None = None  # between recurrent layers
    # on the command line without a prefix of their own: --model.cell
    layers: Annotated[LayerConfig, tyro.conf.arg(name="")] = field(default_factory=LayerConfig)
    front: Literal["conv", "stack"] = "conv"  # two 2-D convolutions, or frames side by side
    subsampling: int = 4  # frames per step, 1..8
    channels: int = 32  # of the convolutions
    loss: Annotated[LossConfig, tyro.conf.arg(name="")] = field(default_factory=LossConfig)
    decoder: Annotated[AttentionDecoderConfig, tyro.conf.arg(name="")] = field(
        default_factory=AttentionDecoderConfig
    )

    def __post_init__(self) -> None:
        check_choice("--model.size", self.size, SIZES)
        check_number("--model.subsampling", self.subsampling, least=min(_STRIDES), most=max(_STRIDES))
        check_choice("--model.front", self.front, ("conv", "stack"))
        check_number("--model.channels", self.channels, least=1)
        self.recurrent()  # checks the rest

    def recurrent(self) -> RecurrentConfig:
        """The recurrent layers' settings, with the dial's values where none are given."""
        width, depth, dropout = SIZES[self.size]
        return self.layers.stack(
            width=width if self.width is None else self.width,
            depth=depth if self.depth is None else self.depth,
            dropout=dropout if self.dropout is None else self.dropout,
        )


@overload
def step_count(frames: int, subsampling: int) -> int: ...
@overload
def step_count(frames: Tensor, subsampling: int) -> Tensor: ...
def step_count(frames: int | Tensor, subsampling: int) -> int | Tensor:
    """Encoder steps for a number of frames: ceil(frames / subsampling)."""
    return (frames + subsampling - 1) // subsampling


class Encoder(nn.Module):
    """Log-mel frames -> log-probabilities over the vocabulary, one step for every `subsampling` frames.

    An utterance gets the same result alone and padded in a batch, up to rounding.

    Args:
        config: the settings.
        n_mels: values per frame.
        vocab_size: tokens, blank included.

    Source: the shape of Deep Speech 2 (Amodei et al. 2016) and EESEN (Miao et al. 2015): convolutions over
        time and frequency, bidirectional LSTM layers, a softmax for CTC.
    """

    def __init__(self, config: EncoderConfig, n_mels: int, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        front = ConvSubsampling if config.front == "conv" else FrameStacking
        self.front = front(config, n_mels)
        recurrent = config.recurrent()
        self.recurrent = RecurrentStack(self.front.output_size, recurrent)
        self.output = nn.Linear(recurrent.output_size, vocab_size)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode a batch.

        Args:
            features: (batch, frames, n_mels), 0 in the padding.
            lengths: (batch,) int64 valid frames.

        Returns:
            (batch, steps, vocab) float32 log-probabilities; (batch,) int64 valid steps; and (batch, steps,
            output size) what the recurrent layers give.
        """
        x = self.front(features, lengths)
        lengths = step_count(lengths, self.config.subsampling)
        x, _ = self.recurrent(x, lengths)
        log_probs: Tensor = self.output(x).float().log_softmax(dim=-1)
        return log_probs, lengths, x

    def chunk(
        self, features: Tensor, states: list[State] | None, *, before: int, steps: int, right_context: int = 0
    ) -> tuple[Tensor, list[State]]:
        """Encode the next chunk of a stream, see `RecurrentStack.chunk`.

        Args:
            features: (batch, frames, n_mels): the frames of steps before the chunk, of the chunk and of its
                right context, with the front's `frames_after` the last of them; the frames of an utterance's
                end may end with it.
            states: of the chunk before; None at the beginning of an utterance.
            before: steps before the chunk that the front needs again: its `steps_before`, or as many as there
                are.
            steps: of the chunk.
            right_context: steps after it.

        Returns:
            (batch, steps, vocab) float32 log-probabilities, and the states after the chunk.
        """
        lengths = torch.full((len(features),), features.shape[1], device=features.device)
        x = self.front(features, lengths)[:, before : before + steps + right_context]
        x, states = self.recurrent.chunk(x, states, right_context)
        return self.output(x).float().log_softmax(dim=-1), states

    def final_states(self, features: Tensor, lengths: Tensor) -> Tensor:
        """One vector for each utterance, for classification: the state of each direction after all its steps.

        Args:
            features: (batch, frames, n_mels), 0 in the padding.
            lengths: (batch,) int64 valid frames.

        Returns:
            (batch, hidden_size of the recurrent settings): the last recurrent layer's hidden states, the
            forward half at the utterance's last step and the backward half at its first; the same alone
            and in a batch. The output layer is not used.
        """
        steps = step_count(lengths, self.config.subsampling)
        return self.recurrent.final_states(self.front(features, lengths), steps)


class ConvSubsampling(nn.Module):
    """Two 2-D convolutions with ReLU; the first strides cover `subsampling` frames and four mel bands.

    Padding is zeroed before each convolution, as are the values after the end of an utterance alone.

    Args:
        config: the encoder's settings.
        n_mels: values per frame.
    """

    def __init__(self, config: EncoderConfig, n_mels: int) -> None:
        super().__init__()
        self.strides = _STRIDES[config.subsampling]
        channels = config.channels
        self.first = _convolution(1, channels, self.strides[0])
        self.second = _convolution(channels, channels, self.strides[1])
        self.output_size = channels * step_count(n_mels, 4)
        reach = self.first.kernel_size[0] // 2 + self.second.kernel_size[0] // 2 * self.strides[0]
        self.steps_before = step_count(reach, config.subsampling)  # whose frames a step needs, too
        self.frames_after = reach  # the first frame of a step that it needs

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, n_mels) -> (batch, steps, output_size)."""
        x = features.unsqueeze(1)
        for convolution, stride in zip((self.first, self.second), self.strides, strict=True):
            x = convolution(x).relu()
            lengths = step_count(lengths, stride)
            x = x * frame_mask(lengths, x.shape[2])[:, None, :, None]
        return x.transpose(1, 2).flatten(2)


class FrameStacking(nn.Module):
    """`subsampling` frames side by side as one step.

    Args:
        config: the encoder's settings.
        n_mels: values per frame.

    Source: Sak et al. 2015, "Fast and accurate recurrent neural network acoustic models for speech
        recognition".
    """

    def __init__(self, config: EncoderConfig, n_mels: int) -> None:
        super().__init__()
        self.subsampling = config.subsampling
        self.output_size = config.subsampling * n_mels
        self.steps_before, self.frames_after = 0, config.subsampling - 1

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, n_mels) -> (batch, steps, subsampling * n_mels)."""
        batch, frames, n_mels = features.shape
        steps = step_count(frames, self.subsampling)
        features = nn.functional.pad(features, (0, 0, 0, steps * self.subsampling - frames))
        return features.reshape(batch, steps, self.subsampling * n_mels)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    """A convolution whose output has ceil(size / stride) frames and half the bands."""
    kernel = max(3, 2 * stride - 1)  # odd, and wide enough that no frame is skipped, at the end either
    return nn.Conv2d(inputs, outputs, (kernel, 3), stride=(stride, 2), padding=(kernel // 2, 1))


def parameter_count(module: nn.Module) -> int:
    """Trainable weights of a module."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)
