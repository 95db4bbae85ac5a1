"""Inference on numpy and ONNX Runtime: one implementation for edge, gate, trainer and bench. No torch."""
