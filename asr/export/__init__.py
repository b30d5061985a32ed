"""Models as ONNX graphs, for other runtimes than torch; needs the extra [onnx]."""
