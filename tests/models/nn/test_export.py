"""The exported graphs against torch, for both tower kinds; and what the graph promises about batches and adapters."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch

from models.nn.export import lora_shapes
from models.nn.lora import to_feeds, with_lora
from models.nn.parity import torch_embedding
from models.runtime.preprocess import preprocess
from tests.models.nn.toy import Toy, examples, picture, toy

KINDS = ("nano", "1.7b", "1.7b-moe")


def pixels(made: Toy, seed: int = 3) -> np.ndarray:
    return preprocess(picture(seed, defect=True), made.built.manifest.preprocessing)


def random_lora(made: Toy, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = lora_shapes(made.model.config)
    return {name: (rng.standard_normal(shape) * 0.15).astype(np.float32) for name, shape in shapes.items()}


def feeds(lora: dict[str, np.ndarray]) -> dict[str, ort.OrtValue]:
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in lora.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_tower_gives_torchs_tokens(kind: str) -> None:
    made = toy(kind)
    image = pixels(made)
    with torch.no_grad():
        expected = made.model.tokens(torch.from_numpy(image)).numpy()
    found = made.base.tokens(image)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < (1e-4 if kind == "nano" else 0.05)  # a transformer tower is W8A8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapted", [False, True])
def test_the_int8_trunk_gives_torchs_embedding(kind: str, adapted: bool) -> None:
    made = toy(kind)
    tokens = examples(made, range(8)).tokens[:, 0]
    lora = random_lora(made) if adapted else None
    expected = torch_embedding(made.model, tokens, lora)
    found = made.base.embed(tokens.astype(np.float32), feeds(lora) if lora else {}).embedding
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.03


def test_an_adapter_changes_the_embedding_and_zeros_do_not() -> None:
    made = toy()
    tokens = examples(made, range(4)).tokens[:, 0].astype(np.float32)
    bare = made.base.embed(tokens, {}).embedding
    zeros = {name: np.zeros(shape, dtype=np.float32) for name, shape in lora_shapes(made.model.config).items()}
    assert np.array_equal(made.base.embed(tokens, feeds(zeros)).embedding, bare)
    assert np.abs(made.base.embed(tokens, feeds(random_lora(made))).embedding - bare).max() > 0.01


def test_another_image_in_the_batch_changes_nothing() -> None:
    made = toy()
    tokens = examples(made, range(6)).tokens[:, 0].astype(np.float32)
    together = made.base.embed(tokens, {}).embedding
    alone = np.concatenate([made.base.embed(t[None], {}).embedding for t in tokens])
    assert np.abs(together - alone).max() < 1e-5


def test_lora_goes_into_the_graph_and_back() -> None:
    made = toy()
    config = made.model.config
    lora = random_lora(made)
    from models.nn.lora import from_feeds, quantized_copy

    trunk = with_lora(quantized_copy(made.model.trunk), config, dropout=0.0)
    from_feeds(trunk, config, lora)
    back = to_feeds(trunk, config)
    assert back.keys() == lora.keys()
    for name, array in lora.items():
        assert np.allclose(back[name], array, atol=1e-6), name


def test_evidence_has_one_row_for_each_patch_and_sums_into_the_embedding() -> None:
    made = toy()
    tokens = examples(made, range(2)).tokens[:, 0].astype(np.float32)
    output = made.base.embed(tokens, {})
    assert output.evidence.shape == (2, made.model.config.tower.tokens, made.model.config.trunk.width)
    assert np.abs(output.evidence).max() > 0
