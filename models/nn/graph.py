"""Builds ONNX graphs node by node: the few shapes DeepSeek-Edge needs, already quantized, with LoRA as inputs.

Why not export and rewrite: the graph is small and known, quantization and LoRA must agree on shared inputs, and
full-size weights can be written one tensor at a time. Parity with torch is a test, not a hope.

Quantization is W8A8 per token and per output channel, from standard operators only:

    am = max |x| over channels;  xq = QuantizeLinear(x * 127 / am, 1, zero point 128)
    y  = float(MatMulInteger(xq, Wq, 128)) * (am / 127) * w_scale

Activations are uint8 around 128 and weights int8: the pairing with a fast kernel on x86 with VNNI. A row is quantized
by its own maximum, so another image in the batch cannot change the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 23
IR_VERSION = 11
CHECKED_BYTES = 2**31 - (64 << 20)
"""Protobuf ends at 2 GiB; the rest is room for nodes and names."""
MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Shared:
    """An activation and, once somebody asked for it, its quantized form: (uint8 tensor, per-row scale)."""

    name: str
    quantized: str
    scale: str


def quantize_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 per output channel.

    Args:
        weight: [inputs, outputs].

    Returns:
        int8 [inputs, outputs] and float32 [outputs], with ``weight ~ int8 * scale``.
    """
    scale = np.abs(weight).max(axis=0) / np.float32(127)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def dequantized(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a quantized linear multiplies with: adapters are trained against this, so they repair it too."""
    quantized, scale = quantize_weight(weight)
    return quantized.astype(np.float32) * scale


@dataclass
class GraphBuilder:
    """Collects nodes and initializers; every method returns the name of its result.

    With `int8` off, linears stay float32: the reference that parity and benchmarks compare with.
    """

    name: str
    int8: bool = True
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    lora_inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _counter: int = 0

    def input(self, name: str, shape: Sequence[int | str], dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, name: str, source: str, shape: Sequence[int | str]) -> None:
        """Declare `source` as graph output `name`."""
        self.nodes.append(helper.make_node("Identity", [source], [name], name=f"{name}/output"))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def constant(self, name: str, value: Array) -> str:
        """An initializer, stored once per name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        """A one-dimensional int64 constant."""
        return self.constant("i64/" + ",".join(map(str, values)), np.array(values, dtype=np.int64))

    def overridable(self, name: str, shape: Sequence[int]) -> str:
        """A LoRA tensor: a graph input whose default is zeros, so it cannot be folded away."""
        self.constant(name, np.zeros(shape, dtype=np.float32))
        self.lora_inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        """Append one node with one output; of the default domain unless `domain` names another."""
        self._counter += 1
        out = out or f"{kind.lower()}_{self._counter}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=f"{kind}_{self._counter}", **attributes))
        return out

    def split(self, source: str, parts: int, axis: int) -> list[str]:
        """Equal parts along `axis`."""
        self._counter += 1
        names = [f"split_{self._counter}_{i}" for i in range(parts)]
        self.nodes.append(
            helper.make_node("Split", [source], names, name=f"Split_{self._counter}", axis=axis, num_outputs=parts)
        )
        return names

    def top(self, source: str, count: int) -> str:
        """The `count` largest values along the last axis, largest first."""
        self._counter += 1
        names = [f"top_{self._counter}", f"top_{self._counter}_at"]
        self.nodes.append(helper.make_node("TopK", [source, self.integers(count)], names, name=f"TopK_{self._counter}"))
        return names[0]

    def quantize(self, x: str) -> Shared:
        """Quantize an activation [B, N, C] once, for every linear that shares it."""
        if not self.int8:
            return Shared(x, "", "")
        largest = self.op("ReduceMax", self.op("Abs", x), self.integers(-1), keepdims=1)
        floor = self.constant("f32/tiny", np.array(1e-8, dtype=np.float32))
        scale = self.op(
            "Mul", self.op("Max", largest, floor), self.constant("f32/1over127", np.array(1 / 127, dtype=np.float32))
        )
        one = self.constant("f32/one", np.array(1, dtype=np.float32))
        zero = self.constant("u8/128", np.array(128, dtype=np.uint8))
        return Shared(x, self.op("QuantizeLinear", self.op("Div", x, scale), one, zero), scale)

    def linear(self, x: Shared, name: str, weight: NDArray[np.float32], bias: Array | None = None) -> str:
        """``x W + b`` with weight [inputs, outputs]: W8A8, or float32 with `int8` off."""
        if self.int8:
            quantized, scale = quantize_weight(weight)
            product = self.op("MatMulInteger", x.quantized, self.constant(f"{name}.weight_int8", quantized), "u8/128")
            floats = self.op("Cast", product, to=TensorProto.FLOAT)
            y = self.op("Mul", self.op("Mul", floats, x.scale), self.constant(f"{name}.weight_scale", scale))
        else:
            y = self.op("MatMul", x.name, self.constant(f"{name}.weight", weight))
        return y if bias is None else self.op("Add", y, self.constant(f"{name}.bias", bias))

    def model(self, *, producer: str, checked_bytes: int = CHECKED_BYTES) -> onnx.ModelProto:
        """The finished model. LoRA inputs come after the real inputs. One with more weights is too large to check.

        Raises:
            onnx.checker.ValidationError: the graph is not valid ONNX.
        """
        graph = helper.make_graph(
            self.nodes, self.name, [*self.inputs, *self.lora_inputs], self.outputs, list(self.initializers.values())
        )
        domains = [helper.make_opsetid("", OPSET)]
        domains += [helper.make_opsetid(MICROSOFT, 1)] * any(node.domain == MICROSOFT for node in self.nodes)
        model = helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION, producer_name=producer)
        if weight_bytes(model) < checked_bytes:
            onnx.checker.check_model(model)
        return model


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all weights inside; protobuf cannot say how large a message is once it is beyond 2 GiB."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)
