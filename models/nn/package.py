"""From trained weights to what travels: base files with their manifest, and adapter releases with their blobs.

Everything a manifest claims about outputs (golden embeddings and probabilities, distance from the bare base) is
computed here with the exported bytes by `models.runtime`, the code that will check it on the box.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from safetensors.numpy import save

from models.contracts.base import sha256_hex
from models.contracts.model_manifest import (
    AdapterManifest,
    AdapterSpec,
    BaseFile,
    BaseManifest,
    Blob,
    Chunk,
    ClassSpec,
    ExposureLimits,
    Golden,
    Lineage,
    Preprocessing,
    TensorSpec,
    Thresholds,
)
from models.nn.config import EdgeConfig
from models.nn.export import export_tower, export_trunk, lora_shapes
from models.nn.external import INLINE_BYTES, cuts, serialise
from models.nn.graph import OPSET
from models.nn.int8 import block_of
from models.nn.model import DeepSeekEdge, parameter_count
from models.runtime.adapter import read_adapter, write_adapter
from models.runtime.base import Base, SessionLimits
from models.runtime.calibrate import Calibration
from models.runtime.golden import pack_golden
from models.runtime.heads import load_head, pack_head
from models.runtime.image import Pixels
from models.runtime.preprocess import Roi, preprocess_batch

F32 = NDArray[np.float32]
CHUNK_BYTES = 32 << 20
EMBEDDING_TOLERANCE = 0.15
PROB_TOLERANCE = 0.03
"""Room for another CPU's kernels: int8 sums are exact everywhere, float32 sums differ in order, and a value that lies
on a rounding border of the activation quantizer may fall to the other side."""


@dataclass(frozen=True, slots=True)
class BuiltBase:
    """A base's manifest and its files by name."""

    manifest: BaseManifest
    files: dict[str, bytes]

    def write(self, folder: Path) -> dict[str, Path]:
        """All files, and where they are now."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: folder / name for name in self.files}
        for name, path in paths.items():
            path.write_bytes(self.files[name])
        return paths

    def open(self, *, limits: SessionLimits | None = None) -> Base:
        """The base as ONNX Runtime sessions, which keep a data file mapped after its folder is gone."""
        tower, trunk = (self.manifest.file(role).name for role in ("tower", "trunk"))
        if not any(file.role == "data" for file in self.manifest.files):
            return Base(self.manifest, tower=self.files[tower], trunk=self.files[trunk], limits=limits)
        with tempfile.TemporaryDirectory(prefix="edgeloop-base-") as folder:
            paths = self.write(Path(folder))
            return Base(self.manifest, tower=str(paths[tower]), trunk=str(paths[trunk]), limits=limits)


def _base_file(role: str, name: str, data: bytes, borders: tuple[int, ...] = ()) -> BaseFile:
    at = cuts(borders) if borders else [*range(0, len(data), CHUNK_BYTES), len(data)]
    parts = [memoryview(data)[start:end] for start, end in itertools.pairwise(at)]
    chunks = [Chunk(sha256=sha256_hex(part), length=len(part)) for part in parts]
    return BaseFile(role=role, name=name, sha256=sha256_hex(data), length=len(data), chunks=chunks)


def _files(model: DeepSeekEdge, golden: Sequence[Pixels], inline_bytes: int) -> dict[str, tuple[BaseFile, bytes]]:
    """Every file of the base with its description."""
    found: dict[str, tuple[BaseFile, bytes]] = {}

    def add(role: str, name: str, data: bytes, borders: tuple[int, ...] = ()) -> None:
        found[name] = (_base_file(role, name, data, borders), data)

    for role, made in (("tower", export_tower(model)), ("trunk", export_trunk(model.trunk, model.config))):
        graph = serialise(made, data_name=f"{role}.data", inline_bytes=inline_bytes)
        add(role, f"{role}.onnx", graph.onnx)
        if graph.data is not None:
            add("data", f"{role}.data", graph.data, graph.borders)
    add("golden", "golden.safetensors", pack_golden(list(golden)))
    return found


def _quantization(config: EdgeConfig) -> str:
    tower = "float32" if config.tower.kind == "efficientnet_lite" else "W8A8"
    text = f"linears W8A8, int8 weights per channel, uint8 activations per token; tower: {tower}; the rest float32"
    if config.trunk.int8 == "fine":
        text += f"; down_proj on inputs rotated in blocks of {block_of(config.trunk.ffn)}, "
        text += "every second layer's v_proj in two int8 planes"
    experts = config.trunk.experts
    if experts is None:
        return text
    return f"{text}; routed experts int{experts.bits}, a scale per {experts.block} inputs, activations int8 likewise"


def preprocessing_of(config: EdgeConfig) -> Preprocessing:
    """What the tower of this preset takes."""
    size = config.tower.image
    return Preprocessing(width=size, height=size, mean=config.pixel_mean, std=config.pixel_std)


def build_base(
    model: DeepSeekEdge,
    *,
    family: str,
    version: int,
    golden: Sequence[Pixels],
    pretrained: str,
    licence: str,
    created_at: datetime,
    training: dict[str, float | str] | None = None,
    inline_bytes: int = INLINE_BYTES,
) -> BuiltBase:
    """Export, quantize and describe a base.

    Args:
        golden: frames of one size that every box runs before it activates a release.
        inline_bytes: a graph above it keeps its weights in a data file beside it.
    """
    config = model.config
    files = _files(model, golden, inline_bytes)
    manifest = BaseManifest(
        family=family,
        version=version,
        preset=config.name,
        tower_kind=config.tower.kind,
        preprocessing=preprocessing_of(config),
        embedding=config.trunk.width,
        grid=(config.tower.grid, config.tower.grid),
        token_width=config.tower.width,
        files=[described for described, _ in files.values()],
        lora=[TensorSpec(name=name, shape=list(shape)) for name, shape in lora_shapes(config).items()],
        quantization=_quantization(config),
        opset=OPSET,
        parameters=parameter_count(model),
        pretrained=pretrained,
        licence=licence,
        built_with={name: installed(name) for name in ("torch", "transformers", "onnx", "onnxruntime")},
        training=training or {},
        created_at=created_at,
    )
    return BuiltBase(manifest, {name: data for name, (_, data) in files.items()})


@dataclass(frozen=True, slots=True)
class Parts:
    """What a release is made of, before it is packed. `weight` [C, D] and `bias` [C] of a linear head."""

    classes: list[ClassSpec]
    lora: dict[str, F32] | None
    weight: F32
    bias: F32
    calibration: Calibration
    thresholds: Thresholds
    prototypes: F32
    exposure: ExposureLimits


@dataclass(frozen=True, slots=True)
class Packed:
    """A release ready to be registered: manifest, and blobs by SHA-256."""

    manifest: AdapterManifest
    blobs: dict[str, bytes]

    @property
    def size(self) -> int:
        """Bytes that travel."""
        return len(self.manifest.encode()) + sum(map(len, self.blobs.values()))


def feeds_of(base: BaseManifest, adapter: bytes | None) -> dict[str, ort.OrtValue]:
    """An adapter file as the trunk's inputs, read as a box reads it."""
    if adapter is None:
        return {}
    return {n: ort.OrtValue.ortvalue_from_numpy(a) for n, a in read_adapter(adapter, base.lora).items()}


def adapter_bytes(lora: dict[str, F32] | None, *, release: int) -> bytes | None:
    """The adapter file: half precision, which the box widens again."""
    if lora is None:
        return None
    return write_adapter({name: array.astype(np.float16) for name, array in lora.items()}, version=release)


def pack_release(
    base: Base,
    parts: Parts,
    *,
    base_sha: str,
    line: str,
    release: int,
    model_version: str,
    golden: Sequence[Pixels],
    lineage: Lineage,
    rank: int,
    created_at: datetime,
    roi: Roi | None = None,
) -> Packed:
    """Pack an adapter release and compute its golden outputs with the packed bytes."""
    data = adapter_bytes(parts.lora, release=release)
    feeds = feeds_of(base.manifest, data)
    spec, head_blob = pack_head(
        parts.weight,
        parts.bias + parts.calibration.shift,
        kind="linear",
        classes=parts.classes,
        temperature=parts.calibration.temperature,
    )
    tokens = base.tokens(preprocess_batch(golden, base.manifest.preprocessing, roi=roi))
    embedding = base.embed(tokens, feeds).embedding
    moved = float(np.linalg.norm(embedding - base.embed(tokens, {}).embedding, axis=1).mean())
    head = load_head(spec, head_blob, embedding=base.manifest.embedding)
    refs = save(
        {
            "prototypes": parts.prototypes,
            "golden.embedding": embedding,
            "golden.probs": head.probabilities(embedding),
        }
    )
    blobs = {sha256_hex(blob): blob for blob in (*([data] if data else []), head_blob, refs)}
    manifest = AdapterManifest(
        line=line,
        release=release,
        model_version=model_version,
        base=base_sha,
        base_family=base.manifest.family,
        adapter=None
        if data is None
        else AdapterSpec(blob=Blob(sha256=sha256_hex(data), length=len(data)), rank=rank, dtype="float16"),
        head=spec,
        thresholds=parts.thresholds,
        exposure=parts.exposure,
        refs=Blob(sha256=sha256_hex(refs), length=len(refs)),
        golden=Golden(
            count=len(golden),
            embedding_tolerance=EMBEDDING_TOLERANCE,
            prob_tolerance=PROB_TOLERANCE,
            min_base_distance=moved / 2,
        ),
        roi=roi,
        lineage=lineage,
        created_at=created_at,
    )
    return Packed(manifest, blobs)
