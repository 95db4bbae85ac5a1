"""The bottom layer: what a model is, and every word two programs share.

`contracts` holds formats without I/O, `link` the MQTT client both ends use, `runtime` inference on
numpy and ONNX Runtime, `nn` the torch side. Importing this package imports none of them.
"""
