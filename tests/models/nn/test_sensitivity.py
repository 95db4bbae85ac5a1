from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from models.nn.export import lora_groups
from models.nn.heads import embed
from models.nn.sensitivity import quantized, sensitivity
from tests.models.nn.toy import examples, toy


def test_every_group_is_judged_and_the_model_is_left_as_it_was() -> None:
    made = toy()
    tokens = examples(made, range(4)).tokens[:, 0]
    before = {name: tensor.clone() for name, tensor in made.model.trunk.state_dict().items()}
    found = sensitivity(made.model, tokens)
    assert {one.group for one in found} == {group.name for group in lora_groups(made.model.config)}
    assert [one.error for one in found] == sorted((one.error for one in found), reverse=True)
    assert all(0 < one.error < 0.05 for one in found)
    assert all(torch.equal(before[name], tensor) for name, tensor in made.model.trunk.state_dict().items())


@pytest.mark.parametrize("kind", ["nano", "1.7b"])
def test_all_groups_together_are_the_int8_graph(kind: str) -> None:
    made = toy(kind)
    tokens = examples(made, range(4)).tokens[:, 0]
    trunk = made.model.trunk
    names = [name for group in lora_groups(made.model.config) for name in group.modules]
    with torch.no_grad(), quantized(trunk, names):
        simulated = embed(trunk, tokens).numpy()
    exported = made.base.embed(tokens.astype(np.float32), {}).embedding
    assert np.linalg.norm(simulated - exported) / np.linalg.norm(exported) < 2e-3


def test_a_group_with_an_outlier_channel_suffers_most() -> None:
    """One weight far beyond the others of its output spends the int8 steps on itself."""
    made = toy()
    model = copy.deepcopy(made.model)
    worst = model.trunk.model.layers[0].self_attn.o_proj
    with torch.no_grad():
        worst.weight[:, 0] = 40.0
    tokens = examples(made, range(4)).tokens[:, 0]
    assert sensitivity(model, tokens)[0].group == "layers.0.attn.o"
