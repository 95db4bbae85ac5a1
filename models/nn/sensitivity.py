"""Which linear suffers most from int8: one group at a time is quantized as the graph does it, all else is float32.

The error of a group is ``|f - f32| / |f32|`` over the embeddings of some frames, so it says what a decision would feel,
not what the product itself loses. Errors of single groups do not add up to the whole model's; their order counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.nn.export import lora_groups
from models.nn.graph import dequantized
from models.nn.heads import embed
from models.nn.model import DeepSeekEdge
from models.nn.moe import RoutedExperts


@dataclass(frozen=True, slots=True)
class GroupError:
    """A group of linears that read one activation, or a layer's routed experts, and what quantizing it alone does."""

    group: str
    error: float


@torch.no_grad()
def sensitivity(model: DeepSeekEdge, tokens: NDArray[np.float16]) -> list[GroupError]:
    """Every group of the trunk and every layer's routed experts, worst first.

    Args:
        tokens: [N, T, C] image tokens of real frames.
    """
    exact = embed(model.trunk, tokens)

    def error(within: AbstractContextManager[None]) -> float:
        with within:
            moved = embed(model.trunk, tokens)
        return float(torch.linalg.norm(moved - exact) / torch.linalg.norm(exact))

    trunk = model.trunk
    found = [
        GroupError(group.name, error(quantized([trunk.get_submodule(name) for name in group.modules])))
        for group in lora_groups(model.config)
    ]
    found += [
        GroupError(f"layers.{i}.experts", error(stored(layer.mlp.experts)))
        for i, layer in enumerate(trunk.model.layers)
        if model.config.trunk.has_experts(i)
    ]
    return sorted(found, key=lambda one: -one.error)


@contextmanager
def stored(experts: RoutedExperts) -> Iterator[None]:
    """Within it these experts have the weights they are stored with; how the kernel rounds activations is left out."""
    kept = [weight.data for weight in experts.parameters()]
    try:
        for weight in experts.parameters():
            weight.data = weight.data.clone()
        experts.dequantize_()
        yield
    finally:
        for weight, before in zip(experts.parameters(), kept, strict=True):
            weight.data = before


@contextmanager
def quantized(linears: list[nn.Module]) -> Iterator[None]:
    """Within it these linears compute what the int8 graph computes, in float32."""
    kept = [linear.weight.data for linear in linears]
    hooks = [linear.register_forward_pre_hook(_per_token) for linear in linears]
    try:
        for linear in linears:
            linear.weight.data = torch.from_numpy(dequantized(linear.weight.numpy().T.copy()).T.copy())
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for linear, weight in zip(linears, kept, strict=True):
            linear.weight.data = weight


def _per_token(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The activation as `GraphBuilder.quantize` rounds it."""
    (x,) = inputs
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-8) / 127
    return (torch.round(x / scale).clamp(-128, 127) * scale,)
