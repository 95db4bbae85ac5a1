"""The gate's scores on an exported DeepSeek-Edge of toy size: batches and single frames agree, adapters matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from cloud.gate.evaluate import TokenCache, call, latency_ms, score
from cloud.lines.schemas import ReferenceImage
from models.contracts.base import sha256_hex
from models.contracts.model_manifest import BaseFile, BaseManifest, Blob, Chunk, Preprocessing, TensorSpec
from models.runtime.adapter import write_adapter
from models.runtime.base import Base
from models.runtime.image import decode_image
from models.runtime.inspector import LineModel, inspect, load_model
from tests.cloud.registry.world import WHEN, Toy, image

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model() -> LineModel:
    from models.nn.config import tiny
    from models.nn.export import export_tower, export_trunk, lora_shapes
    from models.nn.model import DeepSeekEdge

    torch.manual_seed(0)
    config = tiny("1.7b")
    net = DeepSeekEdge(config).eval()
    graphs = {
        "tower": export_tower(net).SerializeToString(),
        "trunk": export_trunk(net.trunk, config).SerializeToString(),
    }
    shapes, width = lora_shapes(config), config.trunk.width
    manifest = BaseManifest(
        family="tiny", version=1, preset=config.name, tower_kind="siglip",
        preprocessing=Preprocessing(
            width=config.tower.image, height=config.tower.image, mean=config.pixel_mean, std=config.pixel_std
        ),
        embedding=width, grid=(config.tower.grid, config.tower.grid), token_width=config.tower.width,
        files=[
            BaseFile(role=role, name=f"{role}.onnx", sha256=sha256_hex(data), length=len(data),
                     chunks=[Chunk(sha256=sha256_hex(data), length=len(data))])
            for role, data in graphs.items()
        ],
        lora=[TensorSpec(name=name, shape=list(shape)) for name, shape in shapes.items()],
        quantization="w8a8", opset=23, parameters=1, pretrained="none", licence="Apache-2.0", created_at=WHEN,
    )  # fmt: skip
    base = Base(manifest, **graphs)
    generator = np.random.Generator(np.random.PCG64(1))
    tensors = {name: generator.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    data = write_adapter(tensors, version=1)
    refs = save(
        {
            "prototypes": np.ones((1, width), np.float32),
            "golden.embedding": np.zeros((1, width), np.float32),
            "golden.probs": np.zeros((1, 2), np.float32),
        }
    )
    weight = generator.normal(0, 1, (2, width)).astype(np.float32)
    adapter, blobs = Toy(1, {"good": tuple(weight[0]), "scratch": tuple(weight[1])}).make(manifest.digest())
    lora = Blob(sha256=sha256_hex(data), length=len(data))
    assert adapter.adapter is not None
    adapter = adapter.model_copy(
        update={
            "adapter": adapter.adapter.model_copy(update={"blob": lora}),
            "refs": Blob(sha256=sha256_hex(refs), length=len(refs)),
        }
    )
    blobs |= {lora.sha256: data, sha256_hex(refs): refs}
    return load_model(base, adapter, base_sha=manifest.digest(), blobs=blobs, release=1)


def test_the_gate_scores_what_a_box_would(model: LineModel) -> None:
    data = [image((40 * i, 90, 200 - 30 * i), i) for i in range(6)]
    store = {sha256_hex(one): one for one in data}
    images = [ReferenceImage(sha, "good", None, None, False) for sha in store]
    reads: list[str] = []

    def read(sha: str) -> bytes:
        reads.append(sha)
        return store[sha]

    cache = TokenCache()
    scores = score(model, images, read, cache)
    for i, one in enumerate(images):
        alone = inspect(model, decode_image(store[one.sha256]))
        assert alone.probabilities is not None
        np.testing.assert_allclose(scores.probabilities[i], alone.probabilities, atol=2e-5)
    assert (scores.shift > 1e-3).all()
    score(model, images, read, cache)
    assert len(reads) == len(images), "tokens are computed once per base"
    calls = call(scores, model.head, model.thresholds, ["good", "scratch"])
    assert set(calls.predicted.tolist()) <= {0, 1}
    assert len(latency_ms(model, images, read)) == 5


def test_images_that_cannot_be_judged_go_to_a_person(model: LineModel) -> None:
    black = image((0, 0, 0), 3)
    store = {"bad": b"not an image", "black": black, "fine": image((90, 90, 90), 1)}
    images = [ReferenceImage(name, "good", None, None, False) for name in store]
    strict = model.manifest.model_copy(
        update={"exposure": model.manifest.exposure.model_copy(update={"min_mean": 20.0})}
    )
    scores = score(replace(model, manifest=strict), images, store.__getitem__, TokenCache())
    assert scores.judged.tolist() == [False, False, True]
    calls = call(scores, model.head, model.thresholds, ["good", "scratch"])
    assert not (calls.passed | calls.rejected)[:2].any()
    assert calls.predicted[:2].tolist() == [-1, -1]


def test_a_full_cache_forgets_the_oldest(model: LineModel) -> None:
    store = {str(i): image((30 * i, 90, 90), i) for i in range(4)}
    one = model.base.manifest.grid[0] ** 2 * model.base.manifest.token_width * 4
    cache, reads = TokenCache(max_bytes=2 * one), []

    def read(sha: str) -> bytes:
        reads.append(sha)
        return store[sha]

    for sha in ("0", "1", "0", "2", "0", "1"):
        cache.frame(model.base, None, sha, read)
    assert reads == ["0", "1", "2", "1"]
