"""An ONNX graph under construction: each operation is a method call that names its result."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

__all__ = ["FLOAT", "INT32", "INT64", "GraphBuilder"]

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64

_OPSET = 17  # the first with LayerNormalization
_IR_VERSION = 9  # what onnxruntime of 2023 reads, too


class GraphBuilder:
    """Collects nodes, weights, inputs and outputs.

    Args:
        prefix: of all names that are made; a graph within another needs one of its own.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, shape: Sequence[int | str] | None) -> str:
        """An input of the graph.

        Args:
            name: of the input.
            kind: FLOAT or INT64.
            shape: numbers, and names of dimensions of any size; None where it follows from elsewhere.
        """
        self._inputs.append(helper.make_tensor_value_info(self._prefix + name, kind, shape))
        return self._prefix + name

    def output(self, name: str, value: str, kind: int, shape: Sequence[int | str] | None) -> None:
        """An output of the graph: `value` under another name."""
        self._nodes.append(helper.make_node("Identity", [value], [self._prefix + name]))
        self._outputs.append(helper.make_tensor_value_info(self._prefix + name, kind, shape))

    def constant(self, value: Tensor | ArrayLike, kind: Any = None) -> str:
        """A weight or a number: float32 for a tensor, else int64 or what is asked for."""
        array = value.detach().float().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = np.ascontiguousarray(array, kind or (np.float32 if isinstance(value, Tensor) else np.int64))
        name = f"{self._prefix}weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array.reshape(np.shape(value)), name))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """An operation: the name of its result, or a list of names where `outputs` is not 1."""
        names = [f"{self._prefix}{kind}{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def size(self, value: str, axis: int) -> str:
        """(1,) int64: the size of a dimension."""
        return str(self.op("Shape", value, start=axis, end=axis + 1))

    def graph(self, name: str) -> onnx.GraphProto:
        """The graph, for instance as the body of a Scan."""
        return helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._weights)

    def model(self, name: str, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The whole model, checked.

        Args:
            name: of the graph.
            metadata: texts by name, stored with it.
        """
        model = helper.make_model(
            self.graph(name),
            producer_name="asr",
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET)],
        )
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model
