"""Which linear suffers most from int8: one group at a time is quantized as the graph does it, all else is float32.

The error of a group is ``|f - f32| / |f32|`` over the embeddings of some frames, so it says what a decision would feel,
not what the product itself loses. Errors of single groups do not add up to the whole model's; their order counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.nn.export import lora_groups
from models.nn.graph import dequantized
from models.nn.heads import embed
from models.nn.model import DeepSeekEdge


@dataclass(frozen=True, slots=True)
class GroupError:
    """A group of linears that read one activation, and what quantizing it alone does to the embedding."""

    group: str
    error: float


@torch.no_grad()
def sensitivity(model: DeepSeekEdge, tokens: NDArray[np.float16]) -> list[GroupError]:
    """Every group of the trunk, worst first.

    Args:
        tokens: [N, T, C] image tokens of real frames.
    """
    exact = embed(model.trunk, tokens)
    found = []
    for group in lora_groups(model.config):
        with quantized([model.trunk.get_submodule(name) for name in group.modules]):
            moved = embed(model.trunk, tokens)
        found.append(GroupError(group.name, float(torch.linalg.norm(moved - exact) / torch.linalg.norm(exact))))
    return sorted(found, key=lambda one: -one.error)


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
