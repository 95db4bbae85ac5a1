"""The builder's own promises; what graphs compute is tested with the model in `test_export`."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from models.nn.graph import GraphBuilder, weight_bytes


def broken() -> GraphBuilder:
    """A graph whose only node reads what nothing wrote."""
    graph = GraphBuilder("broken")
    graph.constant("w", np.zeros((4, 8), dtype=np.float32))
    graph.output("y", graph.op("Relu", "nowhere"), (1,))
    return graph


def test_an_invalid_graph_is_not_built() -> None:
    with pytest.raises(onnx.checker.ValidationError, match="nowhere"):
        broken().model(producer="test")


def test_a_graph_too_large_for_protobuf_is_built_without_asking_it_for_its_size() -> None:
    model = broken().model(producer="test", checked_bytes=128)
    assert weight_bytes(model) == 4 * 8 * 4
