"""What the fine recipe promises: the same product, outliers that hurt one block, a finer plane."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from models.nn.config import EdgeConfig, preset, tiny
from models.nn.graph import GraphBuilder
from models.nn.int8 import PLAIN, ROTATED, Recipe, block_of, dequantized, hadamard, quantize_weight, recipe_for, rotated

ROTATION, PLANES = Recipe(rotated=True), Recipe(planes=2)
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(0, 1, (96, 24)).astype(np.float32)


def product(x: np.ndarray, weight: np.ndarray, recipe: Recipe, bias: np.ndarray | None = None) -> np.ndarray:
    """One linear as boxes compute it; x [B, S, inputs]."""
    graph = GraphBuilder("linear")
    given = graph.input("x", ("batch", "rows", weight.shape[0]))
    y = graph.linear(graph.quantize(given, recipe, inputs=weight.shape[0]), "w", weight, bias, recipe)
    graph.output("y", y, ("batch", "rows", weight.shape[1]))
    session = ort.InferenceSession(graph.model(producer="test").SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def off(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("size", [1, 2, 16, 32])
def test_the_rotation_is_its_own_inverse(size: int) -> None:
    assert np.allclose(hadamard(size) @ hadamard(size), np.eye(size), atol=1e-6)


@pytest.mark.parametrize(("inputs", "block"), [(5632, ROTATED), (48, 16), (7, 1)])
def test_blocks_divide_the_inputs(inputs: int, block: int) -> None:
    assert block_of(inputs) == block


def test_a_rotated_weight_turned_back_is_the_weight() -> None:
    assert np.allclose(rotated(rotated(WEIGHT)), WEIGHT, atol=1e-6)


@pytest.mark.parametrize("recipe", [PLAIN, ROTATION, PLANES, Recipe(rotated=True, planes=2)])
def test_the_graph_multiplies_with_the_dequantized_weight(recipe: Recipe) -> None:
    """Activations of whole steps lose nothing to rounding, so what is left is the weight."""
    x = np.eye(96, dtype=np.float32)[None] * 127
    if recipe.rotated:
        x = rotated(x[0])[None]
    found = product(x, WEIGHT, recipe, bias=np.ones(24, dtype=np.float32))
    assert off(found, x @ dequantized(WEIGHT, recipe) + 1) < 1e-5


def test_a_second_plane_leaves_a_hundredth_of_the_weights_error() -> None:
    assert off(dequantized(WEIGHT, PLANES), WEIGHT) < 0.01 * off(dequantized(WEIGHT), WEIGHT)


def test_a_rotation_keeps_a_large_value_from_the_steps_of_all_others() -> None:
    x = RNG.normal(0, 1, (1, 8, 96)).astype(np.float32)
    x[..., 5] = 60.0
    exact = x @ WEIGHT
    quiet = np.delete(np.arange(96), 5)  # the error is judged on what the large value does not carry itself
    scale = np.linalg.norm(x[..., quiet] @ WEIGHT[quiet])
    errors = [np.linalg.norm(product(x, WEIGHT, one) - exact) / scale for one in (PLAIN, ROTATION)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("recipe", [PLAIN, ROTATION, PLANES])
def test_another_row_or_frame_changes_nothing(recipe: Recipe) -> None:
    x = RNG.normal(0, 1, (3, 8, 96)).astype(np.float32)
    x[1] *= 100
    together = product(x, WEIGHT, recipe)
    assert all(np.array_equal(product(x[i : i + 1], WEIGHT, recipe)[0], together[i]) for i in range(3))


def test_a_row_of_zeros_is_zero() -> None:
    assert not product(np.zeros((1, 2, 96), dtype=np.float32), WEIGHT, PLAIN).any()


def test_an_output_without_weights_stays_zero() -> None:
    codes, scale = quantize_weight(np.zeros((4, 2), dtype=np.float32))
    assert not codes.any()
    assert (scale == 1).all()


def test_only_the_two_that_suffer_have_more_and_only_where_the_preset_says_so() -> None:
    assert recipe_for("fine", "model.layers.3.mlp.down_proj") == ROTATION
    assert [recipe_for("fine", f"model.layers.{i}.self_attn.v_proj") for i in range(4)] == [PLANES, PLAIN] * 2
    assert recipe_for("fine", "model.layers.3.self_attn.q_proj") == PLAIN
    assert recipe_for("plain", "model.layers.3.mlp.down_proj") == PLAIN
    assert (preset("1.7b").trunk.int8, preset("nano").trunk.int8) == ("fine", "plain")


@pytest.mark.parametrize("name", ["nano", "1.7b"])
def test_a_checkpoint_of_before_there_was_a_choice_is_plain(name: str) -> None:
    values = tiny(name).to_dict()
    assert ("int8" in values["trunk"]) == (name == "1.7b")
    values["trunk"].pop("int8", None)
    assert EdgeConfig.from_dict(values).trunk.int8 == "plain"
    assert EdgeConfig.from_dict(tiny(name).to_dict()) == tiny(name)
