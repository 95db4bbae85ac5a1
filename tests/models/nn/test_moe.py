"""The torch mixture against transformers' own DeepSeek blocks, its gradients, and its configuration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import DeepseekV2Config, DeepseekV3Config
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

from models.nn.blockwise import dequantized_blocks
from models.nn.config import EdgeConfig, ExpertsConfig, preset, tiny, with_expert_bits
from models.nn.lora import quantized_copy, with_lora
from models.nn.model import DeepSeekEdge, parameter_count
from models.nn.moe import MixtureOfExperts
from tests.models.nn.experts_toy import loud, spread, tokens

WIDTH = 32
SIZES = {"hidden_size": WIDTH, "moe_intermediate_size": 24, "num_experts_per_tok": 3, "n_shared_experts": 2,
         "routed_scaling_factor": 2.5, "n_group": 1, "topk_group": 1}  # fmt: skip


def mixture(scoring: str) -> MixtureOfExperts:
    torch.manual_seed(0)
    made = MixtureOfExperts(
        ExpertsConfig(routed=12, active=3, shared=2, width=24, scoring=scoring, scale=2.5), WIDTH
    )  # fmt: skip
    spread(made)
    return made


def test_softmax_scoring_is_deepseek_v2s() -> None:
    ours = mixture("softmax")
    theirs = DeepseekV2Moe(DeepseekV2Config(n_routed_experts=12, topk_method="greedy", **SIZES))
    state = {name: tensor for name, tensor in ours.state_dict().items() if "correction" not in name}
    theirs.load_state_dict(state)
    x = torch.randn(2, 7, WIDTH)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_sigmoid_scoring_is_deepseek_v3s_correction_included() -> None:
    ours = mixture("sigmoid")
    theirs = DeepseekV3MoE(DeepseekV3Config(n_routed_experts=12, norm_topk_prob=True, **SIZES))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 7, WIDTH)
    expected = theirs(x)
    assert torch.allclose(ours(x), expected, atol=1e-5)
    ours.gate.e_score_correction_bias.zero_()
    assert not torch.allclose(ours(x), expected, atol=1e-2)  # the correction chose other experts


def test_gradients_reach_the_input_the_router_and_only_the_chosen_experts() -> None:
    made = mixture("sigmoid")
    x = torch.randn(1, 2, WIDTH, requires_grad=True)
    chosen, _ = made.gate(x.detach()[0])
    made(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert made.gate.weight.grad.abs().sum() > 0
    touched = made.experts.gate_up_proj.grad.abs().sum(dim=(1, 2)) > 0
    assert set(touched.nonzero().flatten().tolist()) == set(chosen.flatten().tolist())


def test_the_router_stays_float32_where_the_rest_does_not() -> None:
    made = mixture("sigmoid")
    x = torch.randn(64, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        chosen, weights = made.gate(x)
    assert weights.dtype == torch.float32
    assert torch.equal(chosen, made.gate(x)[0])


def test_more_active_than_routed_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="no more active experts than routed"):
        MixtureOfExperts(ExpertsConfig(routed=2, active=3, shared=1, width=8), WIDTH)


def test_the_preset_has_as_many_parameters_as_the_dense_one() -> None:
    with torch.device("meta"):
        sizes = {name: parameter_count(DeepSeekEdge(preset(name))) for name in ("1.7b", "1.7b-moe")}
    assert sizes["1.7b-moe"] == 1_666_895_872
    assert sizes["1.7b-moe"] / sizes["1.7b"] == pytest.approx(1, abs=0.06)


def test_the_configuration_survives_a_checkpoint_and_old_ones_are_read() -> None:
    for name in ("nano", "1.7b", "1.7b-moe"):
        assert EdgeConfig.from_dict(tiny(name).to_dict()) == tiny(name)
    dense = preset("1.7b").to_dict()
    assert "experts" not in dense["trunk"]  # as it was before there were experts
    with pytest.raises(TypeError):
        EdgeConfig.from_dict({**dense, "trunk": {**dense["trunk"], "experts": {"routed": 8}}})


def test_bits_are_chosen_among_those_with_a_kernel() -> None:
    assert with_expert_bits(preset("1.7b-moe"), 4).trunk.experts.bits == 4
    with pytest.raises(ValueError, match="4 or 8 bits, not 2"):
        with_expert_bits(preset("1.7b-moe"), 2)
    with pytest.raises(ValueError, match=r"1\.7b has no routed experts"):
        with_expert_bits(preset("1.7b"), 4)


def test_adapters_are_trained_on_the_stored_experts_and_change_none_of_them() -> None:
    model = loud(bits=4)
    trunk = with_lora(quantized_copy(model.trunk), model.config, dropout=0.0)
    held, original = trunk.model.layers[1].mlp.experts, model.trunk.model.layers[1].mlp.experts
    stored = dequantized_blocks(original.down_proj.detach().numpy(), bits=4, block=16)
    assert np.array_equal(held.down_proj.detach().numpy(), stored)
    learning = {name for name, parameter in trunk.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in learning)
    assert any("shared_experts.gate_proj" in name for name in learning)
    assert not any(".experts." in name or "mlp.gate." in name for name in learning)
    trunk(tokens(model)).sum().backward()
    assert all(p.grad is not None for p in trunk.parameters() if p.requires_grad)


def test_only_layers_after_the_dense_ones_have_experts() -> None:
    trunk = replace(tiny("1.7b-moe").trunk, experts=replace(tiny("1.7b-moe").trunk.experts, dense=2))
    model = DeepSeekEdge(replace(tiny("1.7b-moe"), trunk=trunk))
    kinds = [isinstance(layer.mlp, MixtureOfExperts) for layer in model.trunk.model.layers]
    assert kinds == [False, False, True]
