"""Large weights beside their graph: one ``.data`` file per graph, mapped by ONNX Runtime instead of parsed.

A base travels in chunks named by digest (`models.contracts.model_manifest.BaseFile`), and chunk borders lie on tensor
borders: a layer that did not change costs nothing to update. A graph below `INLINE_BYTES` keeps its weights inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import TensorProto

from models.nn.graph import weight_bytes

INLINE_BYTES = 64 << 20
ALIGN = 4096
"""A page: what a file's mapping can begin at."""
SMALL_TENSOR = 1024
"""Scalars and shapes stay in the graph, where ONNX Runtime reads them while it optimises."""
LEAST_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Graph:
    """A serialised graph, its data file if it has one, and where that may be cut."""

    onnx: bytes
    data: bytes | bytearray | None = None
    borders: tuple[int, ...] = ()


def serialise(model: onnx.ModelProto, *, data_name: str, inline_bytes: int = INLINE_BYTES) -> Graph:
    """The graph's bytes. `model` loses the weights that move out.

    Args:
        data_name: the data file's name, which the graph refers to.
    """
    if weight_bytes(model) <= inline_bytes:
        return Graph(model.SerializeToString())
    inputs = {one.name for one in model.graph.input}
    blob, borders = bytearray(), [0]
    for tensor in model.graph.initializer:
        if tensor.name in inputs or len(tensor.raw_data) < SMALL_TENSOR:
            continue  # an overridable default must be whole before the session can replace it
        offset = len(blob)
        blob += tensor.raw_data
        _point(tensor, data_name, offset=offset, length=len(tensor.raw_data))
        blob += b"\0" * (-len(blob) % ALIGN)
        borders.append(len(blob))
    return Graph(model.SerializeToString(), blob, tuple(borders))


def _point(tensor: TensorProto, location: str, *, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def cuts(borders: tuple[int, ...], *, least: int = LEAST_CHUNK) -> list[int]:
    """The borders at which to cut: tensors are gathered until a chunk has `least` bytes."""
    kept = [0]
    for border in borders:
        if border - kept[-1] >= least:
            kept.append(border)
    if borders and kept[-1] != borders[-1]:
        kept.append(borders[-1])
    return kept
