"""Recurrent layers as ONNX: LSTM, GRU and RNN are its own operations, all others a Scan over their step.

Everything is time-major, (steps, batch, values), as ONNX's recurrent operations are.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from asr.export.graph import FLOAT, INT32, GraphBuilder
from asr.model.recurrent.cells import Elman, Gru, LiGru, Lstm
from asr.model.recurrent.layers import RecurrentLayer, RecurrentStack
from asr.model.recurrent.unidirectional import UnidirectionalLayer

__all__ = ["add_layer_norm", "add_linear", "add_stack", "state_sizes"]

States = list[str]  # (batch, size) hidden, and cell for the LSTMs


def state_sizes(direction: UnidirectionalLayer) -> list[int]:
    """Values of each state of a direction: the hidden state, and the cell's for the LSTMs."""
    return [direction.output_size, *([direction.width] if isinstance(direction, Lstm) else [])]


def add_stack(
    graph: GraphBuilder, stack: RecurrentStack, x: str, lengths: str, states: Sequence[States] | None = None
) -> tuple[str, list[States]]:
    """All layers of a stack.

    Args:
        graph: gets the operations.
        stack: in evaluation mode.
        x: (steps, batch, input_size).
        lengths: (batch,) int64 valid steps, at least 1; not used where there are states.
        states: of each layer, to continue from; None begins with zeros.

    Returns:
        (steps, batch, output_size), and the states of each layer at the end, where there were any.
    """
    after: list[States] = []
    parts: Any = zip(stack.norms, stack.layers, stack.bottlenecks, strict=True)
    for index, (norm, layer, bottleneck) in enumerate(parts):
        inputs, sizes = x, (layer.forwards.input_size, stack.config.output_size)
        x = add_layer_norm(graph, norm, x) if isinstance(norm, nn.LayerNorm) else x
        x, last = _add_layer(graph, layer, x, lengths, states[index] if states else None)
        after.append(last)
        x = add_linear(graph, bottleneck, x) if isinstance(bottleneck, nn.Linear) else x
        if stack.config.residual and sizes[0] == sizes[1]:
            x = graph.op("Add", x, inputs)
    return x, after


def add_linear(graph: GraphBuilder, linear: nn.Linear, x: str) -> str:
    """A linear layer over the last dimension."""
    product = graph.op("MatMul", x, graph.constant(linear.weight.t()))
    return str(graph.op("Add", product, graph.constant(linear.bias)))


def add_layer_norm(graph: GraphBuilder, norm: nn.LayerNorm, x: str) -> str:
    """Layer normalisation over the last dimension."""
    weight, bias = graph.constant(norm.weight), graph.constant(norm.bias)
    return str(graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps))


def _add_layer(
    graph: GraphBuilder, layer: RecurrentLayer, x: str, lengths: str, states: States | None
) -> tuple[str, States]:
    """A layer in its directions; the last states only where it continues from some."""
    directions = [layer.forwards, *([layer.backwards] if layer.backwards is not None else [])]
    if _operation(layer.forwards):
        return _add_operation(graph, directions, x, "" if states else lengths, states)
    y, last = _add_scan(graph, layer.forwards, x, states)
    if layer.backwards is not None:
        # Each utterance reversed by its own length, so that the padding comes last here, too.
        reversed_x = graph.op("ReverseSequence", x, lengths, time_axis=0, batch_axis=1)
        backwards, _ = _add_scan(graph, layer.backwards, reversed_x, None)
        backwards = graph.op("ReverseSequence", backwards, lengths, time_axis=0, batch_axis=1)
        y = graph.op("Concat", y, backwards, axis=-1)
    return y, last


# ------------------------------------------------------------------------------------------ ONNX's operations


def _operation(direction: UnidirectionalLayer) -> str:
    """The operation of ONNX that is this cell; "" for none."""
    if isinstance(direction, Lstm):
        return "LSTM" if direction.weight_hr_l0 is None else ""
    return {Gru: "GRU", Elman: "RNN"}.get(type(direction), "")


def _add_operation(
    graph: GraphBuilder,
    directions: Sequence[UnidirectionalLayer],
    x: str,
    lengths: str,
    states: States | None,
) -> tuple[str, States]:
    """One or two directions as one operation, which reverses each utterance by its own length."""
    first = directions[0]
    kind, width = _operation(first), first.width
    # Blocks of torch's weights in ONNX's order: input, output, forget, cell; update, reset, new.
    order = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}[kind]

    def reordered(name: str) -> Tensor:
        rows = [getattr(one, name).chunk(len(order)) for one in directions]
        return torch.stack([torch.cat([blocks[block] for block in order]) for blocks in rows])

    biases = torch.cat([reordered("bias_ih_l0"), reordered("bias_hh_l0")], dim=1)
    inputs = [x, *map(graph.constant, (reordered("weight_ih_l0"), reordered("weight_hh_l0"), biases))]
    inputs.append(graph.op("Cast", lengths, to=INT32) if lengths else "")
    inputs += [graph.op("Unsqueeze", state, graph.constant([0])) for state in states or ()]
    if isinstance(first, Lstm) and first.peepholes is not None:
        inputs += [""] * (7 - len(inputs))
        # input, forget, output here; input, output, forget there
        peepholes = [one.peepholes[[0, 2, 1]].flatten() for one in directions if isinstance(one, Lstm)]  # type: ignore[index]
        inputs.append(graph.constant(torch.stack(peepholes)))
    options: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}
    if isinstance(first, Elman):
        options["activations"] = ["Relu" if first.relu else "Tanh"] * len(directions)
    direction = "bidirectional" if len(directions) == 2 else "forward"
    count = 3 if kind == "LSTM" else 2
    # y is (steps, directions, batch, width)
    y, *last = graph.op(kind, *inputs, outputs=count, hidden_size=width, direction=direction, **options)
    y = graph.op("Transpose", y, perm=[0, 2, 1, 3])
    y = graph.op("Reshape", y, graph.constant([0, 0, len(directions) * width]))
    return y, [graph.op("Squeeze", one, graph.constant([0])) for one in last] if states else []


# ------------------------------------------------------------------------------------------------------- Scan


def _add_scan(
    graph: GraphBuilder, direction: UnidirectionalLayer, x: str, states: States | None
) -> tuple[str, States]:
    """A direction as a Scan: the products with the input of all steps at once, then step by step."""
    gates = graph.op("MatMul", x, graph.constant(direction.weight_ih_l0.t()))
    if isinstance(direction, LiGru):
        gates = add_layer_norm(graph, direction.norm, gates)
    elif isinstance(direction, Lstm):
        gates = graph.op("Add", gates, graph.constant(direction.bias_ih_l0 + direction.bias_hh_l0))
    begin = states or [_zeros(graph, x, size) for size in state_sizes(direction)]
    # Scan's body sees the weights of the graph around it.
    weights = [graph.constant(direction.weight_hh_l0.t())]
    if isinstance(direction, Lstm) and direction.weight_hr_l0 is not None:
        weights.append(graph.constant(direction.weight_hr_l0.t()))
    if isinstance(direction, Lstm) and direction.peepholes is not None:
        weights += [graph.constant(row) for row in direction.peepholes]
    body = _step_body(direction, weights)
    *last, y = graph.op("Scan", *begin, gates, outputs=len(begin) + 1, num_scan_inputs=1, body=body)
    return y, last if states else []


def _zeros(graph: GraphBuilder, x: str, size: int) -> str:
    """(batch, size) zeros for a batch (steps, batch, values)."""
    shape = graph.op("Concat", graph.size(x, 1), graph.constant([size]), axis=0)
    return str(graph.op("Expand", graph.constant(torch.zeros(1, 1)), shape))


def _step_body(direction: UnidirectionalLayer, weights: Sequence[str]) -> object:
    """One step of a light GRU, or of an LSTM with a projection: `UnidirectionalLayer.step`."""
    body = GraphBuilder(f"{weights[0]}_")  # unique, as the weights are
    sizes = state_sizes(direction)
    states = [body.input(f"state{n}", FLOAT, ["batch", size]) for n, size in enumerate(sizes)]
    row = body.input("gates", FLOAT, ["batch", direction.gate_count * direction.width])
    row = body.op("Add", row, body.op("MatMul", states[0], weights[0]))
    parts = body.op("Split", row, outputs=direction.gate_count, axis=1)
    if isinstance(direction, LiGru):
        a, z = body.op("Relu", parts[0]), body.op("Sigmoid", parts[1])
        # a + z (h - a)
        difference = body.op("Sub", states[0], a)
        after = [body.op("Add", a, body.op("Mul", z, difference))]
    else:
        after = _lstm_step(body, parts, states, weights[1], weights[2:])
    for number, (state, size) in enumerate(zip(after, sizes, strict=True)):
        body.output(f"after{number}", state, FLOAT, ["batch", size])
    body.output("hidden", after[0], FLOAT, ["batch", sizes[0]])
    return body.graph("step")


def _lstm_step(
    body: GraphBuilder, gates: Sequence[str], states: States, projection: str, peepholes: Sequence[str]
) -> States:
    i, f, g, o = gates
    c = states[1]
    if peepholes:
        i = body.op("Add", i, body.op("Mul", peepholes[0], c))
        f = body.op("Add", f, body.op("Mul", peepholes[1], c))
    kept = body.op("Mul", body.op("Sigmoid", f), c)
    c = body.op("Add", kept, body.op("Mul", body.op("Sigmoid", i), body.op("Tanh", g)))
    if peepholes:
        o = body.op("Add", o, body.op("Mul", peepholes[2], c))
    h = body.op("Mul", body.op("Sigmoid", o), body.op("Tanh", c))
    return [body.op("MatMul", h, projection), c]
