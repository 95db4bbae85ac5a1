from __future__ import annotations

import numpy as np
import pytest

from models.contracts.base import sha256_hex
from models.contracts.model_manifest import TensorSpec
from models.runtime.adapter import BadAdapter, read_adapter, write_adapter
from tests.models.runtime.tiny import lora, tiny_base, tiny_release

SPECS = [TensorSpec(name="a", shape=[2, 3]), TensorSpec(name="b", shape=[3, 1])]
TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.ones((3, 1), dtype=np.float32),
}


def test_what_is_written_is_read() -> None:
    arrays = read_adapter(write_adapter(TENSORS, version=3), SPECS)
    assert {name: array.tolist() for name, array in arrays.items()} == {n: t.tolist() for n, t in TENSORS.items()}


def test_half_precision_is_widened() -> None:
    half = {name: tensor.astype(np.float16) for name, tensor in TENSORS.items()}
    assert read_adapter(write_adapter(half, version=1), SPECS)["a"].dtype == np.float32


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": TENSORS["a"]}, "lacks b"),
        (TENSORS | {"c": TENSORS["b"]}, "no input c"),
        (TENSORS | {"a": TENSORS["a"].T}, "shape"),
        (TENSORS | {"a": np.full((2, 3), np.nan, dtype=np.float32)}, "NaN"),
        (TENSORS | {"b": np.full((3, 1), -np.inf, dtype=np.float32)}, "infinite"),
        (TENSORS | {"a": TENSORS["a"].astype(np.float64)}, "float64"),
    ],
)
def test_a_wrong_tensor_is_named(tensors: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BadAdapter, match=message):
        read_adapter(write_adapter(tensors, version=1), SPECS)


@pytest.mark.parametrize("data", [b"", b"ORTA", bytes(200)])
def test_garbage_is_no_adapter(data: bytes) -> None:
    with pytest.raises(BadAdapter):
        read_adapter(data, SPECS)


def test_the_arrays_do_not_depend_on_the_file() -> None:
    data = bytearray(write_adapter(TENSORS, version=1))
    arrays = read_adapter(bytes(data), SPECS)
    data[:] = bytes(len(data))
    assert arrays["a"].tolist() == TENSORS["a"].tolist()


def test_a_flipped_bit_is_caught_by_the_digest_even_where_the_reader_takes_it() -> None:
    """ONNX Runtime loads most flipped files; what keeps them out is that only verified digests reach the reader."""
    base, data = tiny_base(), write_adapter(lora(tiny_base(), 5), version=1)
    loaded = refused = 0
    for place in np.random.default_rng(0).integers(0, len(data), 40):
        flipped = bytearray(data)
        flipped[place] ^= 1
        assert sha256_hex(flipped) != sha256_hex(data)
        try:
            read_adapter(bytes(flipped), base.manifest.lora)
            loaded += 1
        except BadAdapter:
            refused += 1
    assert loaded + refused == 40
    assert loaded > 20


def test_an_adapter_of_another_base_is_named_as_such() -> None:
    blob = tiny_release().blobs[tiny_release().manifest.adapter.blob.sha256]
    with pytest.raises(BadAdapter, match="another base"):
        read_adapter(blob, SPECS)
