"""Which linear suffers most from int8: one group at a time is quantized as the graph does it, all else is float32.

The error of a group is ``|f - f32| / |f32|`` over the embeddings of some frames, so it says what a decision would feel,
not what the product itself loses. Errors of single groups do not add up to the whole model's; their order counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.nn.export import lora_groups
from models.nn.heads import embed
from models.nn.int8 import block_of, dequantized, hadamard, recipe_for
from models.nn.model import DeepSeekEdge, Trunk
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
    found = [GroupError(group.name, error(quantized(trunk, group.modules))) for group in lora_groups(model.config)]
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
def quantized(trunk: Trunk, names: Iterable[str]) -> Iterator[None]:
    """Within it the linears of these names compute what the int8 graph computes, in float32."""
    linears = {name: trunk.get_submodule(name) for name in names}
    kept = {name: linear.weight.data for name, linear in linears.items()}
    hooks = []
    try:
        for name, linear in linears.items():
            recipe = recipe_for(trunk.int8, name)
            hooks.append(linear.register_forward_pre_hook(_rotated_per_token if recipe.rotated else _per_token))
            linear.weight.data = torch.from_numpy(dequantized(linear.weight.numpy().T.copy(), recipe).T.copy())
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, linear in linears.items():
            linear.weight.data = kept[name]


def _per_token(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The activation as `GraphBuilder.quantize` rounds it."""
    (x,) = inputs
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-8) / 127
    return (torch.round(x / scale).clamp(-128, 127) * scale,)


def _rotated_per_token(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same on a rotated activation, turned back: the weight outside the graph is not rotated."""
    (x,) = inputs
    matrix = torch.from_numpy(hadamard(block_of(x.shape[-1]))).to(x)
    (rounded,) = _per_token(module, ((x.unflatten(-1, (-1, len(matrix))) @ matrix).flatten(-2),))
    return ((rounded.unflatten(-1, (-1, len(matrix))) @ matrix).flatten(-2),)
