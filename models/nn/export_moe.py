"""A mixture of experts as nodes of the trunk graph: the router in standard operators, the experts in one kernel.

int8 graphs use ONNX Runtime's `com.microsoft.QMoE`, whose CPU contract was read from its source and is tested:

- fc1 [E, 2 F, D] interleaves gate and up rows (`swiglu_fusion=1`); alpha 1, beta 0 and no limit make its SwiGLU
  ``silu(gate) * up``. Codes and scales are those of `models.nn.blockwise`.
- Without `router_weights` the kernel weighs by a softmax over the chosen experts only. With it, `router_probs` only
  choose, and the weights are gathered from `router_weights`, divided by their sum if `normalize_routing_weights` is
  set: both of DeepSeek's rules.
- 8-bit experts always multiply with activations rounded to int8, per block of inputs. 4-bit experts would multiply in
  float32, three times slower; `accuracy_level=4` lets them round as the 8-bit ones do. Both ways are in ONNX Runtime
  from 1.32 on: before it, a graph with 4-bit experts does not load and 8-bit ones are many times slower.

The float32 graph, which parity and benchmarks compare with, uses `com.microsoft.MoE`, which knows only the softmax over
the chosen: it is given ``log p`` for the chosen experts and a very small number for the others, and its result is
multiplied by the sum of the chosen p where they are not to add up to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from models.nn.blockwise import quantize_blocks
from models.nn.config import ExpertsConfig
from models.nn.graph import MICROSOFT, GraphBuilder
from models.nn.moe import MixtureOfExperts

F32 = NDArray[np.float32]
NEVER = -1e4
"""A logit that no expert with a score has: ``exp`` of it is 0 in float32."""


@dataclass(frozen=True, slots=True)
class _Scores:
    """What chooses and what weighs, both [tokens, experts]."""

    choice: str
    weight: str


def routed(graph: GraphBuilder, x: str, name: str, module: MixtureOfExperts) -> str:
    """What the routed experts add to a normalised activation [B, S, D]."""
    scores = _scores(graph, x, name, module)
    y = (_quantized if graph.int8 else _plain)(graph, x, name, scores, module)
    scale = module.config.scale
    return y if scale == 1 else graph.op("Mul", y, graph.constant(f"{name}.scale", np.array(scale, dtype=np.float32)))


def _scores(graph: GraphBuilder, x: str, name: str, module: MixtureOfExperts) -> _Scores:
    router, config = module.gate, module.config
    weight = graph.constant(f"{name}.router", router.weight.detach().float().numpy().T.copy())
    logits = graph.op("Reshape", graph.op("MatMul", x, weight), graph.integers(-1, config.routed))
    if config.scoring == "softmax":
        scores = graph.op("Softmax", logits, axis=-1)
        return _Scores(scores, scores)
    scores = graph.op("Sigmoid", logits)
    bias = graph.constant(f"{name}.correction", router.e_score_correction_bias.detach().float().numpy())
    return _Scores(graph.op("Add", scores, bias), scores)


def interleaved(gate_up: F32) -> F32:
    """Rows [E, 2 F, D] of gate above up as gate 0, up 0, gate 1, up 1, ..."""
    experts, rows, inputs = gate_up.shape
    return gate_up.reshape(experts, 2, rows // 2, inputs).swapaxes(1, 2).reshape(experts, rows, inputs)


def _swiglu(config: ExpertsConfig) -> dict[str, object]:
    return {
        "domain": MICROSOFT, "k": config.active, "activation_type": "swiglu", "swiglu_fusion": 1,
        "activation_alpha": 1.0, "activation_beta": 0.0,
    }  # fmt: skip


def _quantized(graph: GraphBuilder, x: str, name: str, scores: _Scores, module: MixtureOfExperts) -> str:
    config, experts, inputs = module.config, module.experts, []
    for part, weight in (("fc1", interleaved(_array(experts.gate_up_proj))), ("fc2", _array(experts.down_proj))):
        blocks = quantize_blocks(weight, bits=config.bits, block=config.block)
        inputs += [
            graph.constant(f"{name}.{part}_int{config.bits}", blocks.codes),
            graph.constant(f"{name}.{part}_scale", blocks.scales),
            "",
        ]
    unused = [""] * 6  # fc3 and the zero points, which are the middle of the range
    return graph.op(
        "QMoE", x, scores.choice, *inputs, *unused, scores.weight, **_swiglu(config),
        normalize_routing_weights=int(config.scoring == "sigmoid"), expert_weight_bits=config.bits,
        block_size=config.block, **({"accuracy_level": 4} if config.bits == 4 else {}),
    )  # fmt: skip


def _plain(graph: GraphBuilder, x: str, name: str, scores: _Scores, module: MixtureOfExperts) -> str:
    config, experts = module.config, module.experts
    best = graph.top(scores.choice, config.active)
    least = graph.op("ReduceMin", best, graph.integers(-1), keepdims=1)
    chosen = graph.op("GreaterOrEqual", scores.choice, least)
    never = graph.constant("f32/never", np.array(NEVER, dtype=np.float32))
    y = graph.op(
        "MoE", x, graph.op("Where", chosen, graph.op("Log", scores.weight), never),
        graph.constant(f"{name}.fc1", interleaved(_array(experts.gate_up_proj))), "",
        graph.constant(f"{name}.fc2", _array(experts.down_proj)), **_swiglu(config),
    )  # fmt: skip
    if config.scoring == "sigmoid":
        return y
    zero = graph.constant("f32/zero", np.array(0, dtype=np.float32))
    total = graph.op("ReduceSum", graph.op("Where", chosen, scores.weight, zero), graph.integers(-1), keepdims=1)
    flat = graph.op("Mul", graph.op("Reshape", y, graph.integers(-1, experts.down_proj.shape[1])), total)
    return graph.op("Reshape", flat, graph.op("Shape", y))


def _array(weight: nn.Parameter) -> F32:
    return weight.detach().float().cpu().numpy()
