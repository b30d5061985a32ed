"""An acoustic model as an ONNX graph: whole utterances, or blocks of a stream with states in and out.

    export_model(model)       features (batch, frames, n_mels), lengths (batch,)
                              -> log_probs (batch, steps, vocab), step_lengths (batch,)
    export_streaming(model)   features (batch, frames of a block, n_mels), valid_frames (1,), states
                              -> log_probs of the steps that are complete, the states for the next block

Features are the log-mel energies of `asr.frontend.features.log_mel`; normalisation is part of the graph. All
sizes but n_mels and vocab are free. The metadata hold the settings of the model as its own file does, under
"asr-acoustic-model".
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx
from torch import nn

from asr.errors import SettingsError
from asr.export.graph import FLOAT, INT64, GraphBuilder
from asr.export.recurrent import add_linear, add_stack, state_sizes
from asr.frontend.features import RUNNING_FRAMES, FeatureNormalizer
from asr.model.acoustic import AcousticModel
from asr.model.encoder import ConvSubsampling, Encoder, FrameStacking, step_count
from asr.model.recurrent.layers import RecurrentLayer
from asr.model.saved import FORMAT_VERSION, settings_record

__all__ = ["SETTINGS_KEY", "STATES_KEY", "export_model", "export_streaming"]

# Of the metadata.
SETTINGS_KEY = "asr-acoustic-model"
STATES_KEY = "asr-states"


def export_model(model: AcousticModel) -> onnx.ModelProto:
    """The model over whole utterances, padded in a batch; each gets the result that it gets alone.

    Args:
        model: on any device.
    """
    graph, encoder = GraphBuilder(), model.encoder
    x = graph.input("features", FLOAT, ["batch", "frames", model.settings.features.n_mels])
    lengths = graph.input("lengths", INT64, ["batch"])
    x = _add_normalizer(graph, model.normalize, x, lengths)
    if isinstance(encoder.front, ConvSubsampling):
        x = graph.op("Unsqueeze", x, graph.constant([1]))
        valid = lengths
        for convolution, stride in _convolutions(encoder.front):
            x = _add_convolution(graph, convolution, x, padding=convolution.padding[0])
            valid = _steps(graph, valid, stride)
            mask = _frame_mask(graph, valid, graph.size(x, 2))
            x = graph.op("Mul", x, graph.op("Unsqueeze", mask, graph.constant([1, 3])))
        x = _join_channels(graph, encoder.front, x)
    else:
        x = _add_stacking(graph, encoder.front, x)
    steps = _steps(graph, lengths, encoder.config.subsampling)
    x, _ = add_stack(graph, encoder.recurrent, graph.op("Transpose", x, perm=[1, 0, 2]), steps)
    _add_output(graph, encoder, x)
    graph.output("step_lengths", steps, INT64, ["batch"])
    return graph.model("asr", _metadata(model, {}))


def export_streaming(model: AcousticModel) -> onnx.ModelProto:
    """The model over one block after another, with the results of the whole utterance.

    After the last frame come zeros, at least `flush_frames` of `engine.OnnxStream`; `valid_frames` counts the
    frames of a block that are not such zeros. Models that normalise by utterance, or by running statistics,
    take normalised frames.

    Args:
        model: unidirectional, on any device.

    Raises:
        SettingsError: the model is bidirectional.
    """
    encoder, features = model.encoder, model.settings.features
    if encoder.recurrent.config.bidirectional:
        raise SettingsError(
            "--streaming: a bidirectional model reads each utterance from its end. Expected a model that was "
            "trained with --model.no-bidirectional."
        )
    graph = GraphBuilder()
    streams = _Streams(graph)
    x = graph.input("features", FLOAT, ["batch", "frames", features.n_mels])
    valid = graph.input("valid_frames", INT64, [1])
    if features.normalize == "global":
        mask = _frame_mask(graph, valid, graph.size(x, 1))
        x = _add_statistics(graph, model.normalize, x)
        x = graph.op("Mul", x, graph.op("Unsqueeze", mask, graph.constant([2])))
    if isinstance(encoder.front, ConvSubsampling):
        x = _add_streaming_convolutions(graph, encoder.front, x, valid, streams, features.n_mels)
    else:
        x = _add_stacking(graph, encoder.front, x)
    states = [
        [
            streams.take(f"layer{number}_{part}", ["batch", size])
            for part, size in enumerate(state_sizes(layer.forwards))
        ]
        for number, layer in enumerate(cast(Iterable[RecurrentLayer], encoder.recurrent.layers))
    ]
    x, after = add_stack(graph, encoder.recurrent, graph.op("Transpose", x, perm=[1, 0, 2]), "", states)
    for layer_states in after:
        for state in layer_states:
            streams.give(state)
    _add_output(graph, encoder, x)
    streams.add_outputs()
    return graph.model("asr-streaming", _metadata(model, streams.shapes))


class _Streams:
    """The states of a streaming graph, in the order in which they are made: inputs, and outputs of the same.

    Args:
        graph: gets them.
    """

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph
        self.shapes: dict[str, list[int | str]] = {}  # of each state's zeros at first, by its name
        self._after: list[str] = []

    def take(self, name: str, shape: list[int | str], kind: int = FLOAT) -> str:
        """A state before the block; a convolution's has another number of frames later."""
        self.shapes[name] = shape
        free = ["batch", shape[1], f"{name}_frames", shape[3]] if len(shape) == 4 else shape
        return self._graph.input(name, kind, free)

    def give(self, value: str) -> None:
        """The next state after the block."""
        self._after.append(value)

    def add_outputs(self) -> None:
        """Name the states after the block."""
        for (name, shape), value in zip(self.shapes.items(), self._after, strict=True):
            kind = INT64 if shape == [1] else FLOAT
            free = ["batch", shape[1], f"next_{name}_frames", shape[3]] if len(shape) == 4 else shape
            self._graph.output(f"next_{name}", value, kind, free)


# ------------------------------------------------------------------------------------------------- front


def _add_normalizer(graph: GraphBuilder, normalizer: FeatureNormalizer, x: str, lengths: str) -> str:
    """`FeatureNormalizer.forward`."""
    mask = graph.op("Unsqueeze", _frame_mask(graph, lengths, graph.size(x, 1)), graph.constant([2]))
    if normalizer.kind == "utterance":
        return _normalize_utterance(graph, normalizer, x, mask, lengths)
    if normalizer.kind == "running":
        x = _normalize_running(graph, normalizer, x)
    elif normalizer.kind == "global":
        x = _add_statistics(graph, normalizer, x)
    return str(graph.op("Mul", x, mask))


def _normalize_utterance(
    graph: GraphBuilder, normalizer: FeatureNormalizer, x: str, mask: str, lengths: str
) -> str:
    """`normalize_utterance`, and `normalize_with_prior`."""
    prior, axes = normalizer.prior, graph.constant([1, 2])

    def total(value: str) -> str:
        return str(graph.op("ReduceSum", value, graph.constant([1]), keepdims=1))

    if not prior:
        frames = graph.op("Cast", graph.op("Max", lengths, graph.constant([1])), to=FLOAT)
        count = graph.op("Unsqueeze", frames, axes)
        mean = graph.op("Div", total(graph.op("Mul", x, mask)), count)
        centred = graph.op("Mul", graph.op("Sub", x, mean), mask)
        variance = graph.op("Div", total(graph.op("Mul", centred, centred)), count)
        return _over_deviation(graph, centred, variance)
    frames = graph.op("Add", graph.op("Cast", lengths, to=FLOAT), graph.constant(prior, np.float32))
    centred = graph.op("Mul", graph.op("Sub", x, graph.constant(normalizer.mean)), mask)
    sums, squares = total(centred), total(graph.op("Mul", centred, centred))
    shift, variance = _with_prior(graph, normalizer, sums, squares, graph.op("Unsqueeze", frames, axes))
    return _over_deviation(graph, graph.op("Mul", graph.op("Sub", centred, shift), mask), variance)


def _normalize_running(graph: GraphBuilder, normalizer: FeatureNormalizer, x: str) -> str:
    """`normalize_running` of a whole utterance."""
    frames = graph.size(x, 1)
    centred = graph.op("Sub", x, graph.constant(normalizer.mean))

    def window(value: str) -> str:
        """The sum of the last frames at each one."""
        width = 1
        while width < RUNNING_FRAMES:
            shifted = graph.op("Pad", value, graph.constant([0, width, 0, 0, 0, 0]))
            first = graph.op("Slice", shifted, graph.constant([0]), frames, graph.constant([1]))
            value = graph.op("Add", value, first)
            width *= 2
        return value

    end = graph.op("Add", graph.op("Squeeze", frames, graph.constant([0])), graph.constant(1))
    numbers = graph.op("Range", graph.constant(1), end, graph.constant(1))
    count = graph.op("Cast", graph.op("Min", numbers, graph.constant([RUNNING_FRAMES])), to=FLOAT)
    total = graph.op("Add", count, graph.constant(normalizer.prior, np.float32))
    sums, squares = window(centred), window(graph.op("Mul", centred, centred))
    total = graph.op("Unsqueeze", total, graph.constant([1]))
    shift, variance = _with_prior(graph, normalizer, sums, squares, total)
    return _over_deviation(graph, graph.op("Sub", centred, shift), variance)


def _with_prior(
    graph: GraphBuilder, normalizer: FeatureNormalizer, sums: str, squares: str, total: str
) -> tuple[str, str]:
    """Mean and variance with the training set's among them, from sums of centred frames and their squares."""
    shift = graph.op("Div", sums, total)
    more = graph.op("Add", squares, graph.constant(normalizer.prior * normalizer.deviation.square()))
    variance = graph.op("Sub", graph.op("Div", more, total), graph.op("Mul", shift, shift))
    return shift, graph.op("Max", variance, graph.constant(0.0, np.float32))


def _over_deviation(graph: GraphBuilder, centred: str, variance: str) -> str:
    floor = graph.constant(1e-5, np.float32)
    return str(graph.op("Div", centred, graph.op("Sqrt", graph.op("Add", variance, floor))))


def _add_statistics(graph: GraphBuilder, normalizer: FeatureNormalizer, x: str) -> str:
    """Mean and deviation of the training set."""
    centred = graph.op("Sub", x, graph.constant(normalizer.mean))
    return str(graph.op("Div", centred, graph.constant(normalizer.deviation)))


def _convolutions(front: ConvSubsampling) -> list[tuple[nn.Conv2d, int]]:
    """Each convolution with its stride over frames."""
    return list(zip((front.first, front.second), front.strides, strict=True))


def _add_convolution(graph: GraphBuilder, convolution: nn.Conv2d, x: str, padding: int | str) -> str:
    """A convolution with ReLU over (batch, channels, frames, bands), with frames of zeros at both ends."""
    weights = graph.constant(convolution.weight), graph.constant(convolution.bias)  # type: ignore[arg-type]
    pads = [padding, convolution.padding[1]] * 2
    return str(graph.op("Relu", graph.op("Conv", x, *weights, strides=convolution.stride, pads=pads)))


def _add_streaming_convolutions(
    graph: GraphBuilder, front: ConvSubsampling, x: str, valid: str, streams: _Streams, bands: int
) -> str:
    """Convolutions over the frames of this block and those that earlier blocks have left."""
    x = graph.op("Unsqueeze", x, graph.constant([1]))
    frames = graph.op("Add", streams.take("frames_seen", [1], INT64), valid)
    streams.give(frames)
    for number, (convolution, stride) in enumerate(_convolutions(front)):
        # Zeros before the first frame are the padding; they are there once.
        shape: list[int | str] = ["batch", convolution.in_channels, int(convolution.padding[0]), bands]
        x = graph.op("Concat", streams.take(f"convolution{number}", shape), x, axis=2)
        y = _add_convolution(graph, convolution, x, padding=0)
        used = graph.op("Mul", graph.size(y, 2), graph.constant([stride]))
        end = graph.constant([np.iinfo(np.int64).max])
        streams.give(graph.op("Slice", x, used, end, graph.constant([2])))
        x, bands = y, step_count(bands, 2)
        if number == 0:  # what is computed after the last frame is padding of the second one
            seen = streams.take("steps_seen", [1], INT64)
            after = graph.op("Add", seen, graph.size(y, 2))
            streams.give(after)
            left = graph.op("Sub", _steps(graph, frames, stride), seen)
            mask = _frame_mask(graph, left, graph.size(y, 2))
            x = graph.op("Mul", x, graph.op("Unsqueeze", mask, graph.constant([1, 3])))
    return _join_channels(graph, front, x)


def _join_channels(graph: GraphBuilder, front: ConvSubsampling, x: str) -> str:
    """(batch, channels, steps, bands) -> (batch, steps, channels * bands)."""
    x = graph.op("Transpose", x, perm=[0, 2, 1, 3])
    return str(graph.op("Reshape", x, graph.constant([0, 0, front.output_size])))


def _add_stacking(graph: GraphBuilder, front: FrameStacking, x: str) -> str:
    """`FrameStacking.forward`: (batch, frames, n_mels) -> (batch, steps, subsampling * n_mels)."""
    frames = graph.size(x, 1)
    padded = graph.op("Mul", _steps(graph, frames, front.subsampling), graph.constant([front.subsampling]))
    nothing = graph.constant([0])
    pads = graph.op("Concat", *[nothing] * 4, graph.op("Sub", padded, frames), nothing, axis=0)
    return str(graph.op("Reshape", graph.op("Pad", x, pads), graph.constant([0, -1, front.output_size])))


def _steps(graph: GraphBuilder, frames: str, subsampling: int) -> str:
    """`step_count`."""
    more = graph.op("Add", frames, graph.constant([subsampling - 1]))
    return str(graph.op("Div", more, graph.constant([subsampling])))


def _frame_mask(graph: GraphBuilder, lengths: str, size: str) -> str:
    """`frame_mask` of (batch,) lengths, as float32: (batch, size)."""
    scalar = graph.op("Squeeze", size, graph.constant([0]))
    frames = graph.op("Range", graph.constant(0), scalar, graph.constant(1))
    valid = graph.op("Less", frames, graph.op("Unsqueeze", lengths, graph.constant([1])))
    return str(graph.op("Cast", valid, to=FLOAT))


# ------------------------------------------------------------------------------------------------- output


def _add_output(graph: GraphBuilder, encoder: Encoder, x: str) -> None:
    """The output layer: (steps, batch, values) -> the output log_probs (batch, steps, vocab)."""
    x = graph.op("Transpose", add_linear(graph, encoder.output, x), perm=[1, 0, 2])
    x = graph.op("LogSoftmax", x, axis=-1)
    graph.output("log_probs", x, FLOAT, ["batch", "steps", encoder.output.out_features])


def _metadata(model: AcousticModel, states: Mapping[str, Sequence[int | str]]) -> dict[str, str]:
    """The model's settings and, for a streaming graph, the shape of each state's zeros at first."""
    record: dict[str, Any] = {"format_version": FORMAT_VERSION, **settings_record(model.settings)}
    return {SETTINGS_KEY: json.dumps(record), STATES_KEY: json.dumps(states)}
