"""Class heads: an embedding to calibrated class probabilities, and which patches spoke for a class.

Three kinds behind one interface, their arrays from a safetensors blob checked against the manifest: right names,
right shapes, all finite. The head is applied outside the graph, so a new class is a new row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.contracts.base import sha256_hex
from models.contracts.model_manifest import Blob, ClassSpec, HeadSpec

F32 = NDArray[np.float32]
_TINY = np.float32(1e-12)


class BadArrays(ValueError):
    """A blob's arrays are not what its manifest says. The text names the array."""


def read_arrays(data: bytes, shapes: dict[str, tuple[int | None, ...]]) -> dict[str, F32]:
    """Named float32 arrays from safetensors bytes, each present, of the shape given (None = any) and finite.

    Raises:
        BadArrays: unreadable, a name missing or unknown, wrong shape or type, NaN or infinity.
    """
    try:
        arrays = load(data)
    except (SafetensorError, ValueError) as fault:
        raise BadArrays(f"not a safetensors file: {fault}") from fault
    if set(arrays) != set(shapes):
        raise BadArrays(f"arrays {sorted(arrays)}, expected {sorted(shapes)}")
    for name, shape in shapes.items():
        array = arrays[name]
        fits = array.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.float32:
            raise BadArrays(f"{name} is {array.dtype} {array.shape}, expected float32 {shape}")
        if not np.isfinite(array).all():
            raise BadArrays(f"{name} has NaN or infinite values")
    return arrays


def _unit(rows: F32) -> F32:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _TINY)


def softmax(logits: F32) -> F32:
    """Row-wise softmax in float32."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def random_projection(seed: int, inputs: int, width: int) -> F32:
    """RanPAC's fixed R [inputs, width], standard normal / sqrt(inputs), the same everywhere for the same seed."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return (generator.standard_normal((inputs, width)) / np.sqrt(inputs)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ClassHead:
    """`weight` [C, D or M], `bias` [C]; immutable."""

    spec: HeadSpec
    weight: F32
    bias: F32
    projection: F32 | None = None

    @property
    def classes(self) -> list[ClassSpec]:
        return self.spec.classes

    @property
    def defect_mask(self) -> NDArray[np.bool_]:
        """[C]: which classes are defects."""
        return np.array([spec.defect for spec in self.classes])

    def logits(self, embedding: F32) -> F32:
        """Embeddings [B, D] to logits [B, C], before temperature."""
        if self.spec.kind == "cosine":
            return np.float32(self.spec.scale) * (_unit(embedding) @ _unit(self.weight).T) + self.bias
        if self.projection is not None:
            embedding = np.maximum(embedding @ self.projection, 0)
        return embedding @ self.weight.T + self.bias

    def probabilities(self, embedding: F32) -> F32:
        """Embeddings [B, D] to calibrated class probabilities [B, C]."""
        return softmax(self.logits(embedding) / np.float32(self.spec.temperature))

    def defect_scores(self, probabilities: F32) -> F32:
        """[B, C] to the total probability of the defect classes [B]."""
        return probabilities[:, self.defect_mask].sum(axis=1)

    def evidence(self, shares: F32, class_index: int) -> F32:
        """What each patch spoke for a class, against the mean of the others, scaled to 0..1 [N].

        Args:
            shares: the trunk's evidence output for one frame, [N, D]; zero where a patch added nothing.
        """
        if self.projection is not None:
            directions = self.projection @ self.weight.T
        else:
            directions = (_unit(self.weight) if self.spec.kind == "cosine" else self.weight).T
        others = np.delete(directions, class_index, axis=1).mean(axis=1)
        spoken = np.maximum(shares @ (directions[:, class_index] - others), 0)
        peak = spoken.max(initial=0)
        return spoken / peak if peak > 0 else spoken


def load_head(spec: HeadSpec, data: bytes, *, embedding: int) -> ClassHead:
    """The head from its blob.

    Args:
        embedding: width D of the base's embedding.

    Raises:
        BadArrays: see `read_arrays`.
    """
    classes = len(spec.classes)
    width = spec.projection_width if spec.kind == "ridge" else embedding
    arrays = read_arrays(data, {"weight": (classes, width), "bias": (classes,)})
    projection = None
    if spec.kind == "ridge" and spec.projection_seed is not None and spec.projection_width is not None:
        projection = random_projection(spec.projection_seed, embedding, spec.projection_width)
    return ClassHead(spec=spec, weight=arrays["weight"], bias=arrays["bias"], projection=projection)


def pack_head(weight: F32, bias: F32, **fields: Any) -> tuple[HeadSpec, bytes]:
    """A head's blob and its spec; `fields` are those of `HeadSpec` but `blob`."""
    data = save({"bias": np.ascontiguousarray(bias), "weight": np.ascontiguousarray(weight)})
    return HeadSpec(blob=Blob(sha256=sha256_hex(data), length=len(data)), **fields), data


def with_temperature(head: ClassHead, temperature: float) -> ClassHead:
    """The same head, recalibrated."""
    return replace(head, spec=head.spec.model_copy(update={"temperature": temperature}))
