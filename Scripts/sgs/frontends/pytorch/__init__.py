"""Networks of PyTorch → ONNX in memory."""
