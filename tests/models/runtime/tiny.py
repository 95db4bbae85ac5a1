"""A toy base and adapter releases on it, made by the same code that makes real ones; built once per test run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import numpy as np
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
    Golden,
    Lineage,
    Preprocessing,
    TensorSpec,
    Thresholds,
)
from models.runtime.adapter import write_adapter
from models.runtime.base import Base
from models.runtime.heads import load_head, pack_head
from models.runtime.preprocess import preprocess

NOW = datetime(2026, 3, 1, tzinfo=UTC)
IMAGE = 32
CLASSES = [ClassSpec(name="good", defect=False), ClassSpec(name="crack", defect=True)]


@dataclass(frozen=True, slots=True)
class TinyBase:
    manifest: BaseManifest
    files: dict[str, bytes]
    frames: np.ndarray

    @property
    def sha(self) -> str:
        return self.manifest.digest()

    def open(self) -> Base:
        return Base(self.manifest, tower=self.bytes_of("tower"), trunk=self.bytes_of("trunk"))

    def bytes_of(self, role: str) -> bytes:
        return self.files[self.manifest.file(role).sha256]


@dataclass(frozen=True, slots=True)
class TinyRelease:
    manifest: AdapterManifest
    blobs: dict[str, bytes]

    @property
    def sha(self) -> str:
        return self.manifest.digest()


def part(seed: int, *, size: int = 48) -> np.ndarray:
    """A grey picture with structure, different for every seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (6, 6), dtype=np.uint8)
    return np.kron(coarse, np.ones((size // 6, size // 6), dtype=np.uint8))


@cache
def tiny_base(seed: int = 0) -> TinyBase:
    import torch

    from models.nn.config import tiny
    from models.nn.export import export_tower, export_trunk, lora_shapes
    from models.nn.model import DeepSeekEdge, parameter_count

    config = tiny("1.7b", image=IMAGE)
    torch.manual_seed(seed)
    model = DeepSeekEdge(config).eval()
    frames = np.stack([part(1000 + i) for i in range(4)])
    contents = {
        "tower": export_tower(model).SerializeToString(),
        "trunk": export_trunk(model.trunk, config).SerializeToString(),
        "golden": save({"frames": frames}),
    }
    files = [
        BaseFile(
            role=role,
            name=f"{role}.bin",
            sha256=sha256_hex(data),
            length=len(data),
            chunks=[Chunk(sha256=sha256_hex(data), length=len(data))],
        )
        for role, data in contents.items()
    ]
    manifest = BaseManifest(
        family="tiny",
        version=seed + 1,
        preset=config.name,
        tower_kind="siglip",
        preprocessing=Preprocessing(width=IMAGE, height=IMAGE, mean=config.pixel_mean, std=config.pixel_std),
        embedding=config.trunk.width,
        grid=(config.tower.grid, config.tower.grid),
        token_width=config.tower.width,
        files=files,
        lora=[TensorSpec(name=name, shape=list(shape)) for name, shape in lora_shapes(config).items()],
        quantization="w8a8",
        opset=23,
        parameters=parameter_count(model),
        pretrained="none",
        licence="Apache-2.0",
        created_at=NOW,
    )
    return TinyBase(manifest, {sha256_hex(data): data for data in contents.values()}, frames)


@cache
def opened(seed: int = 0) -> Base:
    return tiny_base(seed).open()


def lora(base: TinyBase, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {s.name: (0.05 * rng.standard_normal(s.shape)).astype(np.float32) for s in base.manifest.lora}


@cache
def tiny_release(
    number: int = 1,
    *,
    seed: int = 1,
    base_seed: int = 0,
    bias: float = 0.0,
    call_at: float = 0.5,
    unsure: float = 0.0,
    golden_offset: float = 0.0,
    nan: bool = False,
) -> TinyRelease:
    """An adapter release. `bias` is added to the defect logit; `golden_offset` falsifies the golden embeddings."""
    base, session = tiny_base(base_seed), opened(base_seed)
    tensors = lora(base, seed)
    if nan:
        next(iter(tensors.values()))[0, 0] = np.nan
    adapter = write_adapter(tensors, version=number)
    rng = np.random.default_rng(seed + 77)
    weight = rng.standard_normal((len(CLASSES), base.manifest.embedding)).astype(np.float32)
    spec, head_blob = pack_head(
        weight, np.array([0.0, bias], dtype=np.float32), kind="cosine", classes=CLASSES, scale=2.0
    )
    embedding = _embed(session, base, {} if nan else tensors)
    probs = load_head(spec, head_blob, embedding=base.manifest.embedding).probabilities(embedding)
    prototypes = rng.standard_normal((12, base.manifest.embedding)).astype(np.float32)
    refs = save(
        {
            "prototypes": prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True),
            "golden.embedding": embedding + np.float32(golden_offset),
            "golden.probs": probs,
        }
    )
    blobs = {sha256_hex(data): data for data in (adapter, head_blob, refs)}
    manifest = AdapterManifest(
        line="cells",
        release=number,
        model_version=f"tiny-{number}",
        base=base.sha,
        base_family="tiny",
        adapter=AdapterSpec(blob=_blob(adapter), rank=4, dtype="float32"),
        head=spec,
        thresholds=Thresholds(pass_below=call_at - unsure, reject_above=call_at + unsure, call_at=call_at),
        refs=_blob(refs),
        golden=Golden(count=len(base.frames), embedding_tolerance=0.05, prob_tolerance=0.02, min_base_distance=1e-3),
        lineage=Lineage(training_run="test", code_version="0", seed=seed, trained_at=NOW),
        created_at=NOW,
    )
    return TinyRelease(manifest, blobs)


def _blob(data: bytes) -> Blob:
    return Blob(sha256=sha256_hex(data), length=len(data))


def _embed(session: Base, base: TinyBase, tensors: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime as ort

    feeds = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in tensors.items()}
    tokens = [session.tokens(preprocess(frame, base.manifest.preprocessing)) for frame in base.frames]
    return np.concatenate([session.embed(t, feeds).embedding for t in tokens])
