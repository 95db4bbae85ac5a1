"""Builds ONNX graphs node by node: the few shapes DeepSeek-Edge needs, already quantized, with LoRA as inputs.

Why not export and rewrite: the graph is small and known, quantization and LoRA must agree on shared inputs, and
full-size weights can be written one tensor at a time. Parity with torch is a test, not a hope.

Quantization is W8A8 per token and per output channel (`models.nn.int8` says which linears have more):

    am = max |x| over channels;  xq = QuantizeLinear(x, am / 127 per row, zero point 128)
    y  = MatMulIntegerToFloat(xq, Wq, 1, w_scale, 128) * (am / 127)

Activations are uint8 around 128 and weights int8: the pairing with a fast kernel on x86 with VNNI. A row is quantized
by its own maximum, so another image in the batch cannot change the result. ONNX Runtime's own `MatMulIntegerToFloat`
multiplies by the channel's scale while the sums are still in cache: 6 % less time for the tower's first feed-forward
than MatMulInteger, Cast and Mul; minimum and maximum with a scale per row halve the time of rounding (measured).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.nn.int8 import PLAIN, Recipe, block_of, hadamard, planes

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

    def quantize(self, x: str, recipe: Recipe = PLAIN, *, inputs: int = 0) -> Shared:
        """Quantize an activation [B, N, C] once, for every linear that shares it.

        Args:
            recipe: of those linears; a rotation needs the number of `inputs`, C.
        """
        if not self.int8:
            return Shared(x, "", "")
        turned = self._rotated(x, inputs) if recipe.rotated else x
        last = self.integers(-1)
        lowest = self.op("Neg", self.op("ReduceMin", turned, last, keepdims=1))
        largest = self.op("Max", self.op("ReduceMax", turned, last, keepdims=1), lowest, self._float("tiny", 1e-8))
        scale = self.op("Mul", largest, self._float("1over127", 1 / 127))
        rows = self.op("Reshape", scale, last)
        zeros = self.op("Expand", self.constant("u8/128", np.array(128, dtype=np.uint8)), self.op("Shape", rows))
        shape = self.op("Shape", turned)
        flat = self.op("Flatten", turned, axis=2)
        return Shared(x, self.op("Reshape", self.op("QuantizeLinear", flat, rows, zeros, axis=0), shape), scale)

    def _rotated(self, x: str, inputs: int) -> str:
        """Every block of `inputs` channels times the Hadamard matrix."""
        size = block_of(inputs)
        blocks = self.op("Reshape", x, self.integers(0, -1, size))
        turned = self.op("MatMul", blocks, self.constant(f"hadamard/{size}", hadamard(size)))
        return self.op("Reshape", turned, self.integers(0, -1, inputs))

    def _float(self, name: str, value: float) -> str:
        return self.constant(f"f32/{name}", np.array(value, dtype=np.float32))

    def linear(
        self, x: Shared, name: str, weight: NDArray[np.float32], bias: Array | None = None, recipe: Recipe = PLAIN
    ) -> str:
        """``x W + b`` with weight [inputs, outputs]: W8A8 as `recipe` says, or float32 with `int8` off."""
        if self.int8:
            products = [
                self.op(
                    "MatMulIntegerToFloat", x.quantized, self.constant(f"{name}.weight_int8{plane}", codes),
                    self._float("one", 1), self.constant(f"{name}.weight_scale{plane}", scale), "u8/128",
                    domain=MICROSOFT,
                )
                for plane, (codes, scale) in zip(("", "_rest"), planes(weight, recipe), strict=False)
            ]  # fmt: skip
            y = self.op("Mul", products[0] if len(products) == 1 else self.op("Add", *products), x.scale)
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
