"""A cloud in a folder for tests: real SQLite, object store in memory, a clock that is set, and toy models.

The toy base averages colours: a frame's embedding is its mean (red, green, blue) after preprocessing, plus the LoRA
branch. So a test can write down by hand what a head or an adapter gets right and wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from cloud.clock import from_us
from cloud.db.session import open_engine, reads, transactions
from cloud.db.tables import Edge, Table
from cloud.jobs.service import JobService
from cloud.lines.schemas import LineSpec, NewClass
from cloud.lines.service import LineService
from cloud.objects.blobs import BlobCache
from cloud.registry.service import RegistryService
from models.contracts.base import canonical, sha256_hex
from models.contracts.model_manifest import (
    AdapterManifest,
    AdapterSpec,
    BaseFile,
    BaseManifest,
    Blob,
    Chunk,
    ClassSpec,
    Golden,
    Lineage,
    Preprocessing,
    TensorSpec,
    Thresholds,
)
from models.contracts.tuf_layout import adapter_manifest_path
from models.runtime.adapter import write_adapter
from models.runtime.heads import pack_head
from simulators.objects import MemoryObjects

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
START = 1_767_225_600_000_000
SIDE = 8
GAIN = 12.0
LINE = "cells"


@dataclass
class Clock:
    """Microseconds since 1970, moved by the test."""

    us: int = START

    def __call__(self) -> int:
        return self.us

    def now(self) -> datetime:
        return from_us(self.us)

    def forward(self, seconds: float) -> None:
        self.us += round(seconds * 1e6)


@dataclass
class World:
    """Everything below the services under test."""

    folder: Path
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.engine = open_engine(f"sqlite:///{self.folder / 'cloud.db'}")
        Table.metadata.create_all(self.engine)
        self.begin, self.reads = transactions(self.engine), reads(self.engine)
        self.objects = MemoryObjects()
        self.blobs = BlobCache(self.folder / "blobs", self.objects)
        shared: dict[str, Any] = {"begin": self.begin, "reads": self.reads, "now": self.clock}
        self.lines = LineService(blobs=self.blobs, **shared)
        self.jobs = JobService(**shared)
        self.registry = RegistryService(blobs=self.blobs, **shared)

    def add_line(self, name: str = LINE, **fields: Any) -> None:
        classes = fields.pop("classes", [NewClass(name="good", defect=False), NewClass(name="scratch", defect=True)])
        self.lines.create(LineSpec(name=name, title=name.title(), classes=classes, **fields))

    def add_box(self, name: str, *, line: str = LINE, online: bool = True, certificate: str | None = None) -> None:
        with self.begin() as session:
            session.add(
                Edge(
                    name=name, line=line, certificate=certificate, enrolled_at=self.clock(), online=online,
                    seen_at=self.clock() if online else None,
                )
            )  # fmt: skip

    def set_box(self, name: str, **fields: Any) -> None:
        with self.begin() as session:
            edge = session.get(Edge, name)
            assert edge is not None
            for key, value in fields.items():
                setattr(edge, key, value)


def _bytes(nodes: list[Any], name: str, inputs: list[Any], outputs: list[Any], constants: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _value(name: str, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def tower_bytes() -> bytes:
    """Pixels [B, 3, 8, 8] to tokens [B, 4, 3]: mean colour of each quarter."""
    half = SIDE // 2
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["pooled"], kernel_shape=[half, half], strides=[half, half]),
        helper.make_node("Reshape", ["pooled", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
    ]
    shape = numpy_helper.from_array(np.array([0, 3, 4], dtype=np.int64), "shape")
    return _bytes(nodes, "tower", [_value("pixels", ["b", 3, SIDE, SIDE])], [_value("tokens", ["b", 4, 3])], [shape])


def trunk_bytes() -> bytes:
    """Tokens and LoRA to embedding [B, 3] = m + m A B of the mean token m, and the tokens as evidence."""
    nodes = [
        helper.make_node("ReduceMean", ["tokens", "axis"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "fc.lora_A"], ["down"]),
        helper.make_node("MatMul", ["down", "fc.lora_B"], ["delta"]),
        helper.make_node("Add", ["mean", "delta"], ["embedding"]),
        helper.make_node("Identity", ["tokens"], ["evidence"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
        numpy_helper.from_array(np.zeros((3, 1), dtype=np.float32), "fc.lora_A"),
        numpy_helper.from_array(np.zeros((1, 3), dtype=np.float32), "fc.lora_B"),
    ]
    inputs = [_value("tokens", ["b", 4, 3]), _value("fc.lora_A", [3, 1]), _value("fc.lora_B", [1, 3])]
    return _bytes(nodes, "trunk", inputs, [_value("embedding", ["b", 3]), _value("evidence", ["b", 4, 3])], constants)


def _file(role: Any, name: str, data: bytes) -> BaseFile:
    sha = sha256_hex(data)
    return BaseFile(
        role=role, name=name, sha256=sha, length=len(data), chunks=[Chunk(sha256=sha, length=len(data))]
    )  # fmt: skip


def toy_base(folder: Path, *, version: int = 1) -> tuple[BaseManifest, dict[str, Path]]:
    """The toy base's manifest and its files."""
    contents = {"tower.onnx": tower_bytes(), "trunk.onnx": trunk_bytes()}
    paths = {name: folder / name for name in contents}
    for name, data in contents.items():
        paths[name].write_bytes(data)
    manifest = BaseManifest(
        family="toy", version=version, preset="toy", tower_kind="efficientnet_lite",
        preprocessing=Preprocessing(width=SIDE, height=SIDE, mean=(128, 128, 128), std=(64, 64, 64)),
        embedding=3, grid=(2, 2), token_width=3,
        files=[_file(name.split(".")[0], name, data) for name, data in contents.items()],
        lora=[TensorSpec(name="fc.lora_A", shape=[3, 1]), TensorSpec(name="fc.lora_B", shape=[1, 3])],
        quantization="none", opset=18, parameters=6, pretrained="none", licence="Apache-2.0", created_at=WHEN,
    )  # fmt: skip
    return manifest, paths


def image(colour: tuple[int, int, int], seed: int) -> bytes:
    """A PNG of one colour (red, green, blue) with noise enough to count as a frame."""
    noise = np.random.Generator(np.random.PCG64(seed)).integers(-12, 13, (SIDE, SIDE, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    return cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


@dataclass(frozen=True)
class Toy:
    """An adapter release to make. `rows` are the head's class weights on (red, green, blue), one per class.

    `push` adds ``push[0]`` to the embedding times its product with ``push[1]`` through LoRA.
    """

    release: int
    rows: dict[str, tuple[float, float, float]]
    defects: frozenset[str] = frozenset({"scratch"})
    push: tuple[tuple[float, float, float], tuple[float, float, float]] | None = ((0.0, 0.0, 0.1), (0.1, 0.1, 0.1))
    bias: tuple[float, ...] = ()
    nan: bool = False

    def make(self, base_sha: str, line: str = LINE) -> tuple[AdapterManifest, dict[str, bytes]]:
        names = list(self.rows)
        weight = np.array([self.rows[name] for name in names], dtype=np.float32) * np.float32(GAIN)
        bias = np.array(self.bias or [0.0] * len(names), dtype=np.float32)
        classes = [ClassSpec(name=name, defect=name in self.defects) for name in names]
        head, head_blob = pack_head(weight, bias, kind="linear", classes=classes)
        refs = save(
            {
                "prototypes": np.eye(3, dtype=np.float32),
                "golden.embedding": np.zeros((1, 3), dtype=np.float32),
                "golden.probs": np.full((1, len(names)), 1 / len(names), dtype=np.float32),
            }
        )
        blobs = {head.blob.sha256: head_blob, sha256_hex(refs): refs}
        spec = None
        if self.push is not None:
            along = np.array(self.push[1], dtype=np.float32)[:, None]
            if self.nan:
                along[0] = np.nan
            tensors = {"fc.lora_A": along, "fc.lora_B": np.array(self.push[0], dtype=np.float32)[None]}
            data = write_adapter(tensors, version=self.release)
            blobs[sha256_hex(data)] = data
            spec = AdapterSpec(blob=Blob(sha256=sha256_hex(data), length=len(data)), rank=1, dtype="float32")
        manifest = AdapterManifest(
            line=line, release=self.release, model_version=f"{line}-r{self.release}", base=base_sha,
            base_family="toy", adapter=spec, head=head,
            thresholds=Thresholds(pass_below=0.3, call_at=0.5, reject_above=0.7),
            refs=Blob(sha256=sha256_hex(refs), length=len(refs)),
            golden=Golden(count=1, embedding_tolerance=1.0, prob_tolerance=1.0),
            lineage=Lineage(training_run="test", code_version="0", seed=0, trained_at=WHEN), created_at=WHEN,
        )  # fmt: skip
        return manifest, blobs


def proposal(line: str, manifests: dict[int, str]) -> bytes:
    """Targets metadata that lists these manifests, without signatures: enough for the gate's own check."""
    targets = {adapter_manifest_path(line, n): {"length": 1, "hashes": {"sha256": sha}} for n, sha in manifests.items()}
    return canonical({"signed": {"targets": targets}, "signatures": []})
