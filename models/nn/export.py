"""DeepSeek-Edge as two ONNX graphs: `tower` (pixels -> image tokens) and `trunk` (tokens, LoRA -> embedding, evidence).

Two graphs because an adapter never touches the tower: gate and trainer compute a frame's tokens once per base and
two adapters can be compared on the same tokens for the price of the trunk. The last trunk layer is computed for
the last token only. Evidence is what each image patch added to that token in the last layer's attention,
``E_j = W_o sum_h a_hj v_hj``: its product with a class direction says which patches spoke for the class.

LoRA inputs, all float32, scale alpha/r folded into B:
    ``<module>.lora_A`` [inputs, r] and ``<module>.lora_B`` [r, outputs]; query, key and value share one A of width 3r
    (``attn.qkv``), gate and up one of width 2r (``mlp.gate_up``), with one B each. In layers with experts the shared
    ones have LoRA (``shared.gate_up``, ``shared.down``), the routed ones do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from models.nn import export_moe
from models.nn.config import EdgeConfig, TrunkConfig
from models.nn.efficientnet import EfficientNetLite, SameConv
from models.nn.graph import GraphBuilder, Shared
from models.nn.int8 import Recipe, recipe_for
from models.nn.model import DeepSeekEdge, SiglipTower, Trunk

PRODUCER = "edgeloop"
F32 = NDArray[np.float32]


def _weight(linear: nn.Linear) -> F32:
    return linear.weight.detach().float().numpy().T.copy()


def _vector(tensor: nn.Parameter | None) -> F32 | None:
    return None if tensor is None else tensor.detach().float().numpy()


@dataclass(frozen=True, slots=True)
class LoraGroup:
    """Linears that read the same activation: one A of width ``len(modules) * rank``, one B per module."""

    name: str
    modules: tuple[str, ...]
    inputs: int
    outputs: tuple[int, ...]

    def a_name(self) -> str:
        return f"{self.name}.lora_A"

    def b_name(self, module: str) -> str:
        return f"{self.name}.{module}.lora_B"


def lora_groups(config: EdgeConfig) -> list[LoraGroup]:
    """Every group of the trunk graph, in graph order. `modules` are names below ``Trunk`` in torch."""
    trunk, tower = config.trunk, config.tower
    groups = [
        LoraGroup("aligner.fc1", ("aligner.fc1",), tower.width, (trunk.width,)),
        LoraGroup("aligner.fc2", ("aligner.fc2",), trunk.width, (trunk.width,)),
    ]
    for i in range(trunk.depth):
        at = f"model.layers.{i}"
        groups += [
            LoraGroup(f"layers.{i}.attn.qkv", tuple(f"{at}.self_attn.{p}_proj" for p in "qkv"), trunk.width,
                      (trunk.width,) * 3),
            LoraGroup(f"layers.{i}.attn.o", (f"{at}.self_attn.o_proj",), trunk.width, (trunk.width,)),
            *_feed_forward_groups(trunk, i),
        ]  # fmt: skip
    return groups


def _feed_forward_groups(trunk: TrunkConfig, i: int) -> list[LoraGroup]:
    """Of the layer's feed-forward, or of its shared experts: routed experts have no LoRA."""
    name, at, inner = f"layers.{i}.mlp", f"model.layers.{i}.mlp", trunk.ffn
    if trunk.experts is not None and trunk.has_experts(i):
        name, at, inner = f"layers.{i}.shared", f"{at}.shared_experts", trunk.experts.shared * trunk.experts.width
    return [
        LoraGroup(f"{name}.gate_up", (f"{at}.gate_proj", f"{at}.up_proj"), trunk.width, (inner,) * 2),
        LoraGroup(f"{name}.down", (f"{at}.down_proj",), inner, (trunk.width,)),
    ]


def lora_shapes(config: EdgeConfig) -> dict[str, tuple[int, int]]:
    """Name and shape of every LoRA input of the trunk graph."""
    rank, shapes = config.lora_rank, {}
    for group in lora_groups(config):
        shapes[group.a_name()] = (group.inputs, rank * len(group.modules))
        for module, outputs in zip(group.modules, group.outputs, strict=True):
            shapes[group.b_name(module.rsplit(".", 1)[1])] = (rank, outputs)
    return shapes


def export_tower(model: DeepSeekEdge, *, int8: bool = True) -> onnx.ModelProto:
    """Pixels [batch, 3, H, W] to standardised image tokens [batch, N, C].

    A convolution tower stays fp32, a transformer tower's linears are W8A8 unless `int8` is off.
    """
    config = model.config.tower
    graph = GraphBuilder("tower", int8=int8)
    pixels = graph.input("pixels", ("batch", 3, config.image, config.image))
    if isinstance(model.tower, EfficientNetLite):
        tokens = _efficientnet(graph, model.tower, pixels, image=config.image)
    else:
        tokens = _siglip(graph, model.tower, pixels)
    mean = graph.constant("standardise.mean", model.standardise.mean.numpy())
    std = graph.constant("standardise.std", model.standardise.std.numpy())
    tokens = graph.op("Div", graph.op("Sub", tokens, mean), std)
    graph.output("tokens", tokens, ("batch", config.tokens, config.width))
    return graph.model(producer=PRODUCER)


def _efficientnet(graph: GraphBuilder, tower: EfficientNetLite, pixels: str, *, image: int) -> str:
    size = image

    def conv(x: str, name: str, module: SameConv, *, activate: bool) -> str:
        nonlocal size
        top, bottom = module.padding_for(size) if module.kernel_size[0] > 1 else (0, 0)
        size = -(-size // module.stride[0])
        y = graph.op(
            "Conv", x, graph.constant(f"{name}.weight", module.weight.detach().numpy()),
            graph.constant(f"{name}.bias", module.bias.detach().numpy()),
            kernel_shape=list(module.kernel_size), strides=list(module.stride), group=module.groups,
            pads=[top, top, bottom, bottom],
        )  # fmt: skip
        if not activate:
            return y
        low, high = (graph.constant(f"f32/{v}", np.array(v, dtype=np.float32)) for v in (0, 6))
        return graph.op("Clip", y, low, high)

    x = conv(pixels, "stem", tower.stem, activate=True)
    for i, block in enumerate(tower.blocks):
        y = x if block.expand is None else conv(x, f"blocks.{i}.expand", block.expand, activate=True)
        y = conv(y, f"blocks.{i}.depthwise", block.depthwise, activate=True)
        y = conv(y, f"blocks.{i}.project", block.project, activate=False)
        x = graph.op("Add", x, y) if block.residual else y
    flat = graph.op("Reshape", x, graph.integers(0, 0, -1))
    return graph.op("Transpose", flat, perm=[0, 2, 1])


def _siglip(graph: GraphBuilder, tower: SiglipTower, pixels: str) -> str:
    """Pre-norm ViT with learned positions, biases everywhere and tanh-GELU or erf-GELU as the checkpoint says."""
    vision = tower.model
    heads = vision.config.num_attention_heads
    patch = vision.embeddings.patch_embedding
    x = graph.op(
        "Conv", pixels, graph.constant("patch.weight", patch.weight.detach().numpy()),
        graph.constant("patch.bias", patch.bias.detach().numpy()),
        kernel_shape=list(patch.kernel_size), strides=list(patch.stride),
    )  # fmt: skip
    x = graph.op("Transpose", graph.op("Reshape", x, graph.integers(0, 0, -1)), perm=[0, 2, 1])
    position = vision.embeddings.position_embedding.weight.detach().numpy()[None]
    x = graph.op("Add", x, graph.constant("position", position))
    gelu = "tanh" if "tanh" in vision.config.hidden_act else "none"

    def norm(y: str, name: str, module: nn.LayerNorm) -> str:
        weight = graph.constant(f"{name}.weight", _vector(module.weight))
        bias = graph.constant(f"{name}.bias", _vector(module.bias))
        return graph.op("LayerNormalization", y, weight, bias, axis=-1, epsilon=module.eps)

    def linear(y: Shared, name: str, module: nn.Linear) -> str:
        return graph.linear(y, name, _weight(module), _vector(module.bias))

    for i, layer in enumerate(vision.encoder.layers):
        at = f"layers.{i}"
        shared = graph.quantize(norm(x, f"{at}.norm1", layer.layer_norm1))
        q, k, v = (linear(shared, f"{at}.{p}", getattr(layer.self_attn, f"{p}_proj")) for p in "qkv")
        attended = graph.op("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads)
        x = graph.op("Add", x, linear(graph.quantize(attended), f"{at}.o", layer.self_attn.out_proj))
        hidden = linear(graph.quantize(norm(x, f"{at}.norm2", layer.layer_norm2)), f"{at}.fc1", layer.mlp.fc1)
        hidden = graph.op("Gelu", hidden, approximate=gelu)
        x = graph.op("Add", x, linear(graph.quantize(hidden), f"{at}.fc2", layer.mlp.fc2))
    return _pooled(graph, norm(x, "post_norm", vision.post_layernorm), tower)


def _pooled(graph: GraphBuilder, patches: str, tower: SiglipTower) -> str:
    """The average over squares of patches, as `SiglipTower.forward` takes it."""
    if tower.pool == 1:
        return patches
    grid, pool, width = tower.grid, tower.pool, tower.width
    squares = graph.op("Reshape", patches, graph.integers(0, grid, pool, grid, pool, width))
    means = graph.op("ReduceMean", squares, graph.integers(2, 4), keepdims=0)
    return graph.op("Reshape", means, graph.integers(0, -1, width))


class TrunkGraph:
    """Builds the trunk: holds the builder, the LoRA groups by name and the position ids.

    The small methods in the middle are where `models.nn.bench.levers` leaves a step out. `first` is the first token
    that is computed.
    """

    first = 0

    def __init__(self, trunk: Trunk, config: EdgeConfig, *, int8: bool, lora: bool) -> None:
        self.trunk, self.config, self.lora = trunk, config, lora
        self.graph = GraphBuilder("trunk", int8=int8)
        self.groups = {group.name: group for group in lora_groups(config)}
        self.length = config.prefix + config.tower.tokens + config.suffix
        self._lora_a: dict[str, str] = {}

    def build(self) -> onnx.ModelProto:
        graph, config = self.graph, self.config
        tokens = graph.input("tokens", ("batch", config.tower.tokens, config.tower.width))
        self.batch = graph.op("Shape", tokens, start=0, end=1)
        x = self._sequence(tokens)
        self._rotary_tables()
        for i in range(config.trunk.depth - 1):
            x = self._layer(x, i)
        last, contributions = self._last_layer(x, config.trunk.depth - 1)
        self._read_out(last, contributions)
        return graph.model(producer=PRODUCER)

    def _sequence(self, tokens: str) -> str:
        graph, aligner = self.graph, self.trunk.aligner
        (hidden,) = self._linears(graph.quantize(tokens), "aligner.fc1", (aligner.fc1,))
        hidden = graph.op("Gelu", hidden, approximate="none")
        (image,) = self._linears(graph.quantize(hidden), "aligner.fc2", (aligner.fc2,))
        return graph.op("Concat", self._prompt("prefix"), image, self._prompt("suffix"), axis=1)

    def _prompt(self, name: str) -> str:
        """The folded embeddings before or behind the image [B, P, D]."""
        value = getattr(self.trunk, name).detach().float().numpy()
        shape = self.graph.op("Concat", self.batch, self.graph.integers(*value.shape), axis=0)
        return self.graph.op("Expand", self.graph.constant(name, value[None]), shape)

    def _linears(self, x: Shared, group_name: str, modules: tuple[nn.Linear, ...]) -> list[str]:
        """All linears of one group on one quantized activation, each plus its LoRA branch."""
        graph, group, rank = self.graph, self.groups[group_name], self.config.lora_rank
        if not self.lora:
            names = zip(group.modules, modules, strict=True)
            return [
                graph.linear(x, name, _weight(module), _vector(module.bias), self._recipe(name))
                for name, module in names
            ]
        if group_name not in self._lora_a:
            self._lora_a[group_name] = graph.overridable(group.a_name(), (group.inputs, rank * len(modules)))
            for module, outputs in zip(group.modules, group.outputs, strict=True):
                graph.overridable(group.b_name(module.rsplit(".", 1)[1]), (rank, outputs))
        down = graph.op("MatMul", x.name, self._lora_a[group_name])
        downs = graph.split(down, len(modules), axis=-1) if len(modules) > 1 else [down]
        results = []
        for name, module, part in zip(group.modules, modules, downs, strict=True):
            y = graph.linear(x, name, _weight(module), _vector(module.bias), self._recipe(name))
            delta = graph.op("MatMul", part, group.b_name(name.rsplit(".", 1)[1]))
            results.append(graph.op("Add", y, delta))
        return results

    def _recipe(self, module: str) -> Recipe:
        return recipe_for(self.config.trunk.int8, module)

    def _rotary_tables(self) -> None:
        trunk = self.config.trunk
        half = trunk.width // trunk.heads // 2
        frequency = trunk.rope_theta ** (-np.arange(half, dtype=np.float64) / half)
        angle = np.arange(self.length)[:, None] * frequency
        self.cos = self.graph.constant("rope.cos", np.cos(angle).astype(np.float32))
        self.sin = self.graph.constant("rope.sin", np.sin(angle).astype(np.float32))

    def _rotate(self, x: str, positions: range) -> str:
        graph = self.graph
        ids = graph.constant(
            f"positions/{positions.start}-{positions.stop}", np.array([list(positions)], dtype=np.int64)
        )
        shape = graph.op("Concat", self.batch, graph.integers(len(positions)), axis=0)
        return graph.op(
            "RotaryEmbedding", x, self.cos, self.sin, graph.op("Expand", ids, shape),
            num_heads=self.config.trunk.heads,
        )  # fmt: skip

    def _norm(self, x: str, name: str, module: nn.Module) -> str:
        weight = self.graph.constant(f"{name}.weight", _vector(module.weight))
        return self.graph.op("RMSNormalization", x, weight, axis=-1, epsilon=self.config.trunk.norm_eps)

    def _qkv(self, x: Shared, i: int) -> list[str]:
        attention = self.trunk.model.layers[i].self_attn
        return self._linears(x, f"layers.{i}.attn.qkv", (attention.q_proj, attention.k_proj, attention.v_proj))

    def _mlp(self, x: str, i: int) -> str:
        graph, layer = self.graph, self.trunk.model.layers[i]
        shared = graph.quantize(self._norm(x, f"layers.{i}.norm2", layer.post_attention_layernorm))
        if not self.config.trunk.has_experts(i):
            return graph.op("Add", x, self._swiglu(shared, f"layers.{i}.mlp", layer.mlp))
        chosen = export_moe.routed(graph, shared.name, f"layers.{i}.experts", layer.mlp)
        everywhere = self._swiglu(shared, f"layers.{i}.shared", layer.mlp.shared_experts)
        return graph.op("Add", x, graph.op("Add", chosen, everywhere))

    def _swiglu(self, x: Shared, name: str, module: nn.Module) -> str:
        graph = self.graph
        gate, up = self._linears(x, f"{name}.gate_up", (module.gate_proj, module.up_proj))
        hidden = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
        shared = graph.quantize(hidden, self._recipe("down_proj"), inputs=module.down_proj.in_features)
        (down,) = self._linears(shared, f"{name}.down", (module.down_proj,))
        return down

    def _layer(self, x: str, i: int) -> str:
        graph, layer = self.graph, self.trunk.model.layers[i]
        shared = graph.quantize(self._norm(x, f"layers.{i}.norm1", layer.input_layernorm))
        q, k, v = self._qkv(shared, i)
        tokens = range(self.first, self.length)
        attended = self._attend(self._rotate(q, tokens), *self._keys(self._rotate(k, tokens), v, i))
        (out,) = self._linears(graph.quantize(attended), f"layers.{i}.attn.o", (layer.self_attn.o_proj,))
        return self._mlp(graph.op("Add", x, out), i)

    def _keys(self, keys: str, values: str, _i: int) -> tuple[str, str]:
        """Of every token that the layer attends to, from those of the tokens that are computed."""
        return keys, values

    def _attend(self, q: str, k: str, v: str) -> str:
        heads = self.config.trunk.heads
        return self.graph.op("Attention", q, k, v, q_num_heads=heads, kv_num_heads=heads, is_causal=1)

    def _row(self, x: str, first: int, stop: int) -> str:
        graph = self.graph
        return graph.op("Slice", x, graph.integers(first), graph.integers(stop), graph.integers(1))

    def _last_layer(self, x: str, i: int) -> tuple[str, str]:
        """The last token after the last layer [B, 1, D], and each image patch's share of its attention [B, N, D]."""
        graph, layer, trunk = self.graph, self.trunk.model.layers[i], self.config.trunk
        heads, size, end = trunk.heads, trunk.width // trunk.heads, self.length
        shared = graph.quantize(self._norm(x, f"layers.{i}.norm1", layer.input_layernorm))
        q, k, v = self._qkv(shared, i)
        row = (end - 1 - self.first, end - self.first)
        q = self._rotate(self._row(q, *row), range(end - 1, end))
        k, v = self._keys(self._rotate(k, range(self.first, end)), v, i)

        def by_head(y: str, perm: list[int]) -> str:
            return graph.op("Transpose", graph.op("Reshape", y, graph.integers(0, 0, heads, size)), perm=perm)

        scale = graph.constant("attention.scale", np.array(size**-0.5, dtype=np.float32))
        scores = graph.op("Mul", graph.op("MatMul", by_head(q, [0, 2, 1, 3]), by_head(k, [0, 2, 3, 1])), scale)
        weights = graph.op("Softmax", scores, axis=-1)  # [B, heads, 1, S]
        spoken = graph.op("Mul", by_head(v, [0, 2, 1, 3]), graph.op("Transpose", weights, perm=[0, 1, 3, 2]))
        merged = graph.op(
            "Reshape", graph.op("Transpose", spoken, perm=[0, 2, 1, 3]), graph.integers(0, 0, trunk.width)
        )  # [B, S, D]: token j's value as the last token reads it
        context = graph.op("ReduceSum", merged, graph.integers(1), keepdims=1)
        name, module = f"layers.{i}.attn.o", (layer.self_attn.o_proj,)
        (out,) = self._linears(graph.quantize(context), name, module)
        start = self.config.prefix
        patches = self._row(merged, start, start + self.config.tower.tokens)
        (shares,) = self._linears(graph.quantize(patches), name, module)
        return self._mlp(graph.op("Add", self._row(x, *row), out), i), shares

    def _read_out(self, last: str, shares: str) -> None:
        """Final norm on the last token; the shares are scaled by the same norm, so they live in embedding space."""
        graph, width = self.graph, self.config.trunk.width
        embedding = self._norm(last, "norm", self.trunk.model.norm)
        graph.output("embedding", graph.op("Squeeze", embedding, graph.integers(1)), ("batch", width))
        square = graph.op("ReduceMean", graph.op("Mul", last, last), graph.integers(-1), keepdims=1)
        epsilon = graph.constant("norm.epsilon", np.array(self.config.trunk.norm_eps, dtype=np.float32))
        inverse = graph.op("Reciprocal", graph.op("Sqrt", graph.op("Add", square, epsilon)))
        evidence = graph.op("Mul", graph.op("Mul", shares, inverse), "norm.weight")
        graph.output("evidence", evidence, ("batch", self.config.tower.tokens, width))


def export_trunk(trunk: Trunk, config: EdgeConfig, *, int8: bool = True, lora: bool = True) -> onnx.ModelProto:
    """Tokens [batch, N, C] and LoRA to embedding [batch, D] and evidence [batch, N, D], linears W8A8.

    Args:
        int8, lora: off for the plain float32 graph that other runtimes and quantizers are measured on.
    """
    return TrunkGraph(trunk, config, int8=int8, lora=lora).build()
