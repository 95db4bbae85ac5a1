"""The signing, verifying and releasing half that needs no torch, numpy or ONNX Runtime."""
