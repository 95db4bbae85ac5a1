"""Checkpoints come back as they were, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from models.nn.checkpoint import BadCheckpoint, imagenet_tower, load_checkpoint, save_checkpoint
from models.nn.config import LARGE, NANO
from models.nn.model import DeepSeekEdge, parameter_count
from tests.models.nn.toy import toy


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(data)
    return path


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    model = toy("nano").model
    back = load_checkpoint(written(tmp_path, save_checkpoint(model)))
    assert back.config == model.config
    assert not back.training
    for (name, a), (_, b) in zip(model.state_dict().items(), back.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("cut", [10, 1000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(BadCheckpoint):
        load_checkpoint(written(tmp_path, save_checkpoint(toy("nano").model)[:cut]))


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    data = save_checkpoint(toy("nano").model)
    tensors = load(data)
    del tensors["trunk.prefix"]
    import json

    header = {"format": "edgeloop-checkpoint-1", "config": json.dumps(toy("nano").model.config.to_dict())}
    with pytest.raises(BadCheckpoint, match=r"trunk\.prefix"):
        load_checkpoint(written(tmp_path, save(tensors, metadata=header)))


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="edgeloop-checkpoint-1"):
        load_checkpoint(written(tmp_path, save({"x": torch.zeros(1)})))


def test_the_imagenet_tower_fits_the_nano_preset() -> None:
    model = DeepSeekEdge(NANO)
    model.tower.load_state_dict(imagenet_tower(NANO.tower.depth))
    assert 5e6 < parameter_count(model) < 12e6


def test_the_large_preset_has_deepseek_vls_geometry() -> None:
    with torch.device("meta"):
        model = DeepSeekEdge(LARGE)
    sizes = [parameter_count(part) for part in (model.tower, model.trunk.aligner, model.trunk.model)]
    assert [round(size / 1e6, 1) for size in sizes] == [303.7, 6.3, 1442.9]
    assert round(parameter_count(model) / 1e9, 3) == 1.753
