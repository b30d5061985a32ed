"""How much arithmetic an update is, whoever does it."""

from torch import Tensor, nn

from asr.model.acoustic import AcousticModel
from asr.model.encoder import step_count


def training_flops(model: AcousticModel, frame_lengths: Tensor) -> float:
    """Floating-point operations of forward and backward over one batch, counted from the shapes.

    Forward: 2 for each multiply-add, and at each step every weight of the recurrent and the output layer
    makes one; a weight of a convolution makes one at each frame and band of its output. Backward: twice the
    forward, once for the gradient of the inputs and once for that of the weights; but once for the first
    convolution, whose inputs need no gradient. Only valid frames and steps count, so padding earns nothing;
    nor do gates' nonlinearities, norms, biases, softmax, CTC, clipping and the optimiser. All take time.

    Args:
        model: with the front "conv".
        frame_lengths: (batch,) int64 valid frames.
    """
    encoder = model.encoder
    total, lengths, bands = 0.0, frame_lengths, model.settings.features.n_mels
    convolutions = (encoder.front.first, encoder.front.second)
    for convolution, stride, passes in zip(convolutions, encoder.front.strides, (2, 3), strict=True):
        lengths, bands = step_count(lengths, stride), step_count(bands, 2)
        total += 2 * passes * convolution.weight.numel() * bands * lengths.sum().item()
    layers: list[nn.Module] = [encoder.recurrent, encoder.output]
    weights = sum(weight.numel() for layer in layers for weight in layer.parameters() if weight.dim() == 2)
    return total + 2 * 3 * weights * lengths.sum().item()
