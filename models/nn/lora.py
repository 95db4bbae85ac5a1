"""LoRA on the trunk through PEFT, and its translation to and from the exported graph's inputs.

PEFT keeps one A and B per linear and scales by ``alpha / r`` at run time. The graph takes one A for linears that share
an input (query, key, value; gate, up) and no scale: `to_feeds` concatenates the A's and folds the scale into B,
`from_feeds` is its inverse, so an adapter that runs on a box can be trained further.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from models.nn.config import EdgeConfig
from models.nn.export import lora_groups
from models.nn.int8 import PLANE, Recipe, block_of, hadamard, recipe_for
from models.nn.model import ALIGNER_LINEARS, TRUNK_LINEARS, Trunk
from models.nn.moe import RoutedExperts

F32 = NDArray[np.float32]
_NAME = "default"


def quantized_copy(trunk: Trunk, device: torch.device | None = None) -> Trunk:
    """A frozen copy whose linears and routed experts hold what the int8 graph multiplies with.

    Adapters trained on it repair quantization too.

    Args:
        device: where the copy goes and is quantized; where the trunk lies when left out.
    """
    frozen = copy.deepcopy(trunk).eval().to(device or trunk.prefix.device)
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    for name, module in frozen.named_modules():
        if isinstance(module, nn.Linear):
            module.weight.copy_(_dequantized(module.weight, recipe_for(trunk.int8, name)))
        elif isinstance(module, RoutedExperts):
            module.dequantize_()
    return frozen


def _dequantized(weight: Tensor, recipe: Recipe) -> Tensor:
    """`models.nn.int8.dequantized` of the transpose, on the weight's own device: [outputs, inputs]."""
    turned = _rotated(weight) if recipe.rotated else weight
    scale = turned.abs().amax(dim=1, keepdim=True) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    stored = (turned / scale).round().clamp(-127, 127) * scale
    if recipe.planes == 2:
        finer = scale / PLANE
        stored = stored + ((turned - stored) / finer).round().clamp(-127, 127) * finer
    return _rotated(stored) if recipe.rotated else stored


def _rotated(weight: Tensor) -> Tensor:
    matrix = torch.from_numpy(hadamard(block_of(weight.shape[1]))).to(weight)
    return (weight.unflatten(1, (-1, len(matrix))) @ matrix).flatten(1)


def with_lora(trunk: Trunk, config: EdgeConfig, *, dropout: float) -> Trunk:
    """Inject LoRA into every linear of aligner and trunk, in place; only its weights require a gradient.

    The weights of routed experts and routers are no linear modules and get none.
    """
    names = "|".join((*ALIGNER_LINEARS, *TRUNK_LINEARS))
    inject_adapter_in_model(
        LoraConfig(
            r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=dropout, target_modules=rf".*\.({names})"
        ),
        trunk,
        adapter_name=_NAME,
    )
    return trunk


def _pair(trunk: Trunk, module: str) -> tuple[nn.Parameter, nn.Parameter]:
    layer = trunk.get_submodule(module)
    return layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight


def lora_parameters(trunk: Trunk, config: EdgeConfig) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """All A's and all B's, in graph order."""
    pairs = [_pair(trunk, module) for group in lora_groups(config) for module in group.modules]
    return [a for a, _ in pairs], [b for _, b in pairs]


def to_feeds(trunk: Trunk, config: EdgeConfig) -> dict[str, F32]:
    """The adapter as the graph's inputs: A [inputs, r n], B [r, outputs] with the scale folded in."""
    scale = config.lora_alpha / config.lora_rank
    feeds: dict[str, F32] = {}
    for group in lora_groups(config):
        pairs = [_pair(trunk, module) for module in group.modules]
        feeds[group.a_name()] = torch.cat([a.detach().T for a, _ in pairs], dim=1).float().cpu().numpy().copy()
        for module, (_, b) in zip(group.modules, pairs, strict=True):
            feeds[group.b_name(module.rsplit(".", 1)[1])] = (b.detach().T * scale).float().cpu().numpy().copy()
    return feeds


def from_feeds(trunk: Trunk, config: EdgeConfig, feeds: dict[str, F32]) -> None:
    """Load graph inputs back into PEFT's parameters, in place.

    Raises:
        KeyError: `feeds` lacks a tensor: it belongs to another base.
    """
    scale, rank = config.lora_alpha / config.lora_rank, config.lora_rank
    with torch.no_grad():
        for group in lora_groups(config):
            stacked = torch.from_numpy(feeds[group.a_name()])
            for i, module in enumerate(group.modules):
                a, b = _pair(trunk, module)
                a.copy_(stacked[:, i * rank : (i + 1) * rank].T)
                b.copy_(torch.from_numpy(feeds[group.b_name(module.rsplit(".", 1)[1])]).T / scale)


def interpolate(new: dict[str, F32], old: dict[str, F32], share: float, config: EdgeConfig) -> dict[str, F32]:
    """``share * B1 A1 + (1 - share) * B0 A0`` per linear, cut back to rank r by a singular value decomposition.

    Averaging A and B separately is not averaging their product; this is the best rank-r approximation of the true
    average (Eckart-Young), computed from the 2 r wide factors without ever forming the full matrix.
    """
    rank = config.lora_rank
    merged: dict[str, F32] = {}
    for group in lora_groups(config):
        downs = []
        for i, module in enumerate(group.modules):
            name, cut = group.b_name(module.rsplit(".", 1)[1]), slice(i * rank, (i + 1) * rank)
            left = np.concatenate([new[group.a_name()][:, cut], old[group.a_name()][:, cut]], axis=1)
            right = np.concatenate([share * new[name], (1 - share) * old[name]])
            (ql, rl), (qr, rr) = np.linalg.qr(left), np.linalg.qr(right.T)
            u, s, vt = np.linalg.svd(rl @ rr.T)
            root = np.sqrt(s[:rank])
            downs.append(ql @ u[:, :rank] * root)
            merged[name] = np.ascontiguousarray((root[:, None] * vt[:rank]) @ qr.T, dtype=np.float32)
        merged[group.a_name()] = np.ascontiguousarray(np.concatenate(downs, axis=1), dtype=np.float32)
    return merged
