"""Toy mixtures whose routed experts matter: random weights of the usual size would hide a wrong choice in noise."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from models.nn.config import EdgeConfig, Scoring, tiny, with_expert_bits
from models.nn.model import DeepSeekEdge
from models.nn.moe import MixtureOfExperts


def spread(module: MixtureOfExperts) -> None:
    """Clear choices, experts as loud as the shared ones, and a correction that changes who is chosen."""
    with torch.no_grad():
        module.gate.weight.mul_(20)
        module.gate.e_score_correction_bias.normal_(0, 0.3)
        module.experts.gate_up_proj.mul_(10)
        module.experts.down_proj.mul_(10)


def config(scoring: Scoring = "sigmoid", bits: int = 8) -> EdgeConfig:
    """The tiny preset with this scoring."""
    found = with_expert_bits(tiny("1.7b-moe"), bits)
    experts = replace(found.trunk.experts, scoring=scoring)
    return replace(found, trunk=replace(found.trunk, experts=experts))


@cache
def loud(scoring: Scoring = "sigmoid", bits: int = 8) -> DeepSeekEdge:
    """A model of that configuration; both bit widths have the same weights."""
    torch.manual_seed(1)
    model = DeepSeekEdge(config(scoring, bits)).eval()
    for layer in model.trunk.model.layers:
        if isinstance(layer.mlp, MixtureOfExperts):
            spread(layer.mlp)
    return model


def tokens(model: DeepSeekEdge, frames: int = 4) -> Tensor:
    """Random image tokens [frames, N, C]."""
    tower = model.config.tower
    return torch.randn(frames, tower.tokens, tower.width, generator=torch.Generator().manual_seed(2))
