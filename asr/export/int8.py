"""Weights of 8 bits for an ONNX graph."""

import logging
import tempfile
from pathlib import Path

import onnx

__all__ = ["to_int8"]


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Round the weights of matrix products and LSTMs to 8 bits, with a scale for each output.

    Their inputs are rounded when they are computed, by the range that they have then. Convolutions, GRU and
    RNN stay float32.

    Args:
        model: as `asr.export.model` makes it.

    Source: onnxruntime's dynamic quantisation.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It logs to the root, which gets a handler by that, and then shows every line of asr a second time.
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addFilter(_is_not_advice)
    root.addHandler(handler)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_dynamic(
                model,
                path,
                op_types_to_quantize=["MatMul", "LSTM"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"EnableSubgraph": True},  # the steps of a Scan, too
            )
            return onnx.load(path)
    finally:
        root.removeFilter(_is_not_advice)
        root.removeHandler(handler)


def _is_not_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()
