"""Devices by name, and what training must not change with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.nn.config import tiny
from models.nn.device import NoDevice, choose_device
from models.nn.examples import Examples
from models.nn.heads import Batches
from models.nn.int8 import dequantized, recipe_for
from models.nn.lora import quantized_copy
from models.nn.model import DeepSeekEdge


def test_the_processor_is_always_there() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["", "gpu", "meta", "cuda:x", "cpu,cuda", "cpu:7"])
def test_an_unknown_word_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(NoDevice, match="auto, cpu, cuda"):
        choose_device(name)


def test_a_device_that_is_not_here_is_refused_with_what_torch_sees() -> None:
    with pytest.raises(NoDevice, match=rf"sees {torch.cuda.device_count()} CUDA devices"):
        choose_device("cuda:99")


def test_a_quantized_copy_holds_what_the_int8_graph_multiplies_with() -> None:
    torch.manual_seed(3)
    trunk = DeepSeekEdge(tiny("1.7b")).trunk
    with torch.no_grad():
        trunk.aligner.fc1.weight[0].zero_()
    frozen = quantized_copy(trunk)
    for name in ("aligner.fc1", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.down_proj"):
        weight = trunk.get_submodule(name).weight.detach().numpy()
        stored = dequantized(weight.T.copy(), recipe_for("fine", name)).T
        assert np.abs(frozen.get_submodule(name).weight.numpy() - stored).max() < 1e-6
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_draws_are_seeded_and_keep_tokens_with_their_labels() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(6, 2, 3, 4)).astype(np.float16)
    labels = np.arange(6) % 2
    tokens[:, :, 0, 0] = labels[:, None]
    examples = Examples(tokens, labels, np.ones(6, dtype=np.float32))
    drawn = [Batches(examples, 2, torch.Generator().manual_seed(5)).draw(16) for _ in range(2)]
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert drawn[0][0].dtype == torch.float32
    assert torch.equal(drawn[0][0][:, 0, 0].long(), drawn[0][1])
