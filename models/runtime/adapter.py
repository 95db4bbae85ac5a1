"""Reading an ``.onnx_adapter`` file without trusting it.

ONNX Runtime's own route (``add_active_adapter``) fails silently in many ways: it does not keep the adapter alive,
ignores missing and doubled names, and maps the file, so that overwriting it changes live outputs. Here the file is
read once from verified bytes, checked name by name, copied, and fed as ordinary inputs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.contracts.model_manifest import TensorSpec

F32 = NDArray[np.float32]
MODEL_VERSION = 1


class BadAdapter(ValueError):
    """The adapter does not fit the base or is damaged. The text names the tensor."""


def write_adapter(tensors: dict[str, NDArray[np.floating]], *, version: int) -> bytes:
    """Tensors to the bytes of an ``.onnx_adapter`` file.

    Args:
        version: the adapter release's number, stored in the file.
    """
    form = ort.AdapterFormat()
    form.set_adapter_version(version)
    form.set_model_version(MODEL_VERSION)
    form.set_parameters(
        {name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(t)) for name, t in tensors.items()}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.onnx_adapter"
        form.export_adapter(str(path))
        return path.read_bytes()


def read_adapter(data: bytes, specs: list[TensorSpec]) -> dict[str, F32]:
    """The LoRA tensors as float32 copies, one for every input of the trunk.

    Args:
        data: bytes whose digest was verified. They are parsed from a private copy nobody can overwrite.
        specs: what the base's trunk takes.

    Raises:
        BadAdapter: unreadable, or a tensor is missing, unknown, misshapen, of another type, NaN or infinite.
    """
    arrays = _parse(data)
    want = {spec.name: tuple(spec.shape) for spec in specs}
    if missing := sorted(want.keys() - arrays.keys()):
        raise BadAdapter(f"the adapter lacks {missing[0]} ({len(missing)} missing): it was made for another base")
    if unknown := sorted(arrays.keys() - want.keys()):
        raise BadAdapter(f"the base has no input {unknown[0]} ({len(unknown)} unknown): it was made for another base")
    for name, array in arrays.items():
        if array.shape != want[name]:
            raise BadAdapter(f"{name} has shape {array.shape}, the base takes {want[name]}")
        if not np.isfinite(array).all():
            raise BadAdapter(f"{name} has NaN or infinite values")
    return arrays


def _parse(data: bytes) -> dict[str, F32]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.onnx_adapter"
        path.write_bytes(data)
        try:
            parameters = ort.AdapterFormat.read_adapter(str(path)).get_parameters()
        except Exception as fault:
            raise BadAdapter(f"not an adapter file: {fault}") from fault
        arrays: dict[str, F32] = {}
        for name, value in parameters.items():
            array = value.numpy()
            if array.dtype not in (np.float32, np.float16):
                raise BadAdapter(f"{name} is {array.dtype}, expected float16 or float32")
            arrays[name] = np.array(array, dtype=np.float32, copy=True)  # before the mapped file goes away
        return arrays
