"""The exported mixture against torch: scorings, widths, the choice of experts, and the whole life after it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from models.cli import app
from models.nn import config as sizes
from models.nn.adapt import AdaptSettings, adapt
from models.nn.build import build
from models.nn.config import Scoring, tiny
from models.nn.export import export_trunk, lora_groups
from models.nn.export_moe import interleaved, routed
from models.nn.graph import GraphBuilder
from models.nn.lora import quantized_copy
from models.nn.model import DeepSeekEdge
from models.nn.package import build_base
from models.nn.parity import compare, compare_exports
from models.nn.sensitivity import sensitivity
from models.runtime.base import SessionLimits, new_session
from models.runtime.bundle import read_base
from models.runtime.heads import ClassHead, load_head, pack_head
from tests.models.nn.experts_toy import loud, tokens
from tests.models.nn.test_export import feeds, random_lora
from tests.models.nn.toy import CLASSES, NOW, Toy, examples, picture, toy

SCORINGS: tuple[Scoring, ...] = ("sigmoid", "softmax")


def embedding(model: DeepSeekEdge, graph: onnx.ModelProto, given: torch.Tensor) -> np.ndarray:
    session = new_session(graph.SerializeToString(), SessionLimits())
    return session.run(["embedding"], {"tokens": given.numpy()})[0]


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("scoring", SCORINGS)
def test_the_float32_graph_is_the_model(scoring: Scoring) -> None:
    model = loud(scoring)
    given = tokens(model)
    with torch.no_grad():
        expected = model.trunk(given).numpy()
    assert error(embedding(model, export_trunk(model.trunk, model.config, int8=False), given), expected) < 1e-5


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("bits", [4, 8])
def test_the_kernel_multiplies_with_the_weights_adapters_are_trained_on(scoring: Scoring, bits: int) -> None:
    model = loud(scoring, bits)
    given = tokens(model)
    with torch.no_grad():
        expected, exact = quantized_copy(model.trunk)(given).numpy(), model.trunk(given).numpy()
    found = embedding(model, export_trunk(model.trunk, model.config), given)
    assert error(found, expected) < 0.06
    if bits == 4:  # far from the float32 model, near to the stored one
        assert error(found, expected) < 0.5 * error(found, exact)


def test_the_graph_chooses_the_experts_that_torch_chooses() -> None:
    """A mixture alone, on activations that both sides hold exactly: no other layer's rounding can move a choice."""
    model = loud(bits=4)
    module = model.trunk.model.layers[1].mlp
    graph = GraphBuilder("mixture")
    x = graph.input("x", ("batch", 40, model.config.trunk.width))
    graph.output("y", routed(graph, x, "experts", module), ("batch", 40, model.config.trunk.width))
    given = torch.randn(2, 40, model.config.trunk.width)
    session = new_session(graph.model(producer="test").SerializeToString(), SessionLimits())
    found = session.run(["y"], {"x": given.numpy()})[0]
    stored = quantized_copy(model.trunk).model.layers[1].mlp
    flat = given.flatten(0, 1)
    with torch.no_grad():
        chosen, weights = stored.gate(flat)
        expected = stored.experts(flat, chosen, weights).view_as(given).numpy()
        shifted = stored.experts(flat, (chosen + 1) % 8, weights).view_as(given).numpy()
    each = np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert each.max() < 0.05  # every token by itself: one wrong expert would be far beyond
    assert error(shifted, expected) > 0.5


def test_rows_are_interleaved_expert_by_expert() -> None:
    rows = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
    assert np.array_equal(interleaved(rows)[1], rows[1][[0, 2, 1, 3]])


def test_lora_goes_to_attention_and_shared_experts() -> None:
    names = {group.name for group in lora_groups(tiny("1.7b-moe"))}
    assert {"layers.0.mlp.down", "layers.1.shared.gate_up", "layers.2.shared.down", "layers.2.attn.qkv"} <= names
    assert not any("experts" in name or name == "layers.1.mlp.down" for name in names)


def test_another_image_in_the_batch_changes_no_choice() -> None:
    made = _loud_toy()
    given = tokens(made.model, 6).numpy()
    together = made.base.embed(given, {}).embedding
    alone = np.concatenate([made.base.embed(one[None], {}).embedding for one in given])
    assert np.abs(together - alone).max() < 1e-4


def test_an_adapter_is_the_torch_adapter_and_evidence_has_a_row_for_each_patch() -> None:
    made = _loud_toy()
    lora = random_lora(made)
    head = _head(made.model.config.trunk.width)
    found = compare(
        made.base, made.model, head, tokens(made.model, 8).numpy().astype(np.float16), lora=lora, feeds=feeds(lora)
    )
    assert found.embedding < 0.08
    output = made.base.embed(tokens(made.model, 2).numpy(), feeds(lora))
    assert output.evidence.shape == (2, made.model.config.tower.tokens, made.model.config.trunk.width)
    assert np.abs(output.evidence).max() > 0


def _head(width: int) -> ClassHead:
    weight = np.random.default_rng(3).normal(0, 0.1, (2, width)).astype(np.float32)
    spec, blob = pack_head(weight, np.zeros(2, dtype=np.float32), kind="linear", classes=CLASSES, temperature=1.0)
    return load_head(spec, blob, embedding=width)


def _loud_toy() -> Toy:
    model = loud()
    built = build_base(
        model,
        family="toy",
        version=1,
        golden=[picture(1, defect=True)],
        pretrained="none: random weights",
        licence="none",
        created_at=NOW,
    )
    return Toy(model, built, built.open())


def test_parity_tells_the_float32_graph_from_the_int8_one() -> None:
    model = loud(bits=4)
    rows = compare_exports(model, _head(model.config.trunk.width), tokens(model, 6).numpy().astype(np.float16))
    assert rows["float32"].embedding < 1e-4 < rows["int8"].embedding


def test_sensitivity_lists_routed_experts_too() -> None:
    model = loud(bits=4)
    groups = [one.group for one in sensitivity(model, tokens(model, 4).numpy().astype(np.float16))]
    assert {"layers.1.experts", "layers.2.experts", "layers.1.shared.down"} <= set(groups)
    assert groups[0].endswith(".experts")  # 4 bits hurt more than 8
    with torch.no_grad():
        assert torch.equal(model.trunk(tokens(model)), loud(bits=8).trunk(tokens(model)))  # put back as they were


def test_an_hour_of_learning_lowers_the_loss_and_leaves_the_experts_alone() -> None:
    made = toy("1.7b-moe")
    before = made.model.trunk.model.layers[1].mlp.experts.gate_up_proj.clone()
    settings = AdaptSettings(batch_new=8, batch_memory=8, min_steps=25, max_steps=25, rate=3e-3, threads=1)
    new, memory = examples(made, range(24), level=70), examples(made, range(100, 124))
    adapted = adapt(made.model, new=new, memory=memory, classes=2, start=None, settings=settings, seed=1)
    assert np.mean(adapted.losses[-5:]) < np.mean(adapted.losses[:5])
    assert torch.equal(made.model.trunk.model.layers[1].mlp.experts.gate_up_proj, before)
    found = compare(
        made.base, made.model, _head(32), new.tokens[:, 0], lora=adapted.lora, feeds=feeds(adapted.lora)
    )  # fmt: skip
    assert found.agreement == 1.0
    assert found.embedding < 0.05


@pytest.mark.parametrize("bits", [4, 8])
def test_build_makes_a_base_whose_manifest_names_the_experts(
    bits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sizes.PRESETS, "moe-tiny", tiny("1.7b-moe"))
    out = tmp_path / "base"
    made = CliRunner().invoke(
        app, ["build", "--preset", "moe-tiny", "--expert-bits", str(bits), "--out", str(out), "--json"]
    )
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout)["trunk_error"] < 0.1
    manifest, _ = read_base(out)
    assert f"routed experts int{bits}" in manifest.quantization
    shown = CliRunner().invoke(app, ["show", str(out), "--json"])
    assert json.loads(shown.stdout)["base"]["pretrained"] == "none: random weights, seed 0"


def test_a_checkpoint_of_this_preset_is_refused_and_bits_need_experts(tmp_path: Path) -> None:
    refused = CliRunner().invoke(
        app, ["build", "--preset", "1.7b-moe", "--checkpoint", str(tmp_path), "--out", str(tmp_path / "base")]
    )
    assert refused.exit_code == 1
    assert "no checkpoint of preset 1.7b-moe is published" in refused.stderr
    assert not (tmp_path / "base").exists()
    dense = CliRunner().invoke(app, ["build", "--preset", "1.7b", "--expert-bits", "4", "--out", str(tmp_path / "b")])
    assert dense.exit_code == 2
    assert "no routed experts" in dense.stderr


def test_the_same_seed_builds_the_same_base() -> None:
    one, two = (build(tiny("1.7b-moe"), source=None, family="f", version=1, seed=5, now=NOW).base for _ in range(2))
    assert one.files == two.files
