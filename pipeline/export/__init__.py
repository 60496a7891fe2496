"""ONNX graph and model card."""
