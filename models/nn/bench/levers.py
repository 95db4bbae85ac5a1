"""What each of our own steps saves on a slice of the trunk: the graph with everything, and the same with one step left
out, called in turns in one process, because only neighbours compare on a machine that is not ours alone.

- last-layer trim: the last layer behind its attention for the last token only.
- shared quantization: query, key and value, and gate and up, read one rounding of their input.
- fused attention: one `Attention` node and not products, scale, mask and softmax.
- folded prompt: its embeddings are constants. The variant looks them up in a table of a few rows, which takes as long
  as in the whole one; what folding saves is the whole table's memory.
- prefix cache: keys and values of the tokens before the image come as inputs, filled at every swap. The product does
  not have it; its row says what it would save.

LoRA is measured likewise, by rank: the time that its inputs add.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from models.nn.bench.child import in_child
from models.nn.config import EdgeConfig
from models.nn.export import TrunkGraph, lora_shapes
from models.nn.external import serialise
from models.nn.graph import Shared
from models.nn.model import Trunk
from models.runtime.base import SessionLimits, new_session

F32 = NDArray[np.float32]
Feed = dict[str, F32]
Times = dict[str, list[tuple[float, float]]]
"""Of every call of each variant: milliseconds by the clock and of processor time."""
ALL, CACHE = "everything", "prefix cache (not in the product)"
RANKS = (8, 16)
TABLE = 64


def rank_name(rank: int) -> str:
    """Of the variant with LoRA inputs of that rank."""
    return f"no LoRA of rank {rank}"


class _Unshared(TrunkGraph):
    def _linears(self, x: Shared, group_name: str, modules: tuple[nn.Linear, ...]) -> list[str]:
        if len(modules) == 1:
            return super()._linears(x, group_name, modules)
        graph, names = self.graph, self.groups[group_name].modules
        return [
            graph.linear(graph.quantize(x.name), name, one.weight.detach().float().numpy().T, None, self._recipe(name))
            for name, one in zip(names, modules, strict=True)
        ]


class Untrimmed(TrunkGraph):
    """The last layer for every token, as any exporter would give it; evidence is its hidden state."""

    def _last_layer(self, x: str, i: int) -> tuple[str, str]:
        whole, start = self._layer(x, i), self.config.prefix
        return self._row(whole, self.length - 1, self.length), self._row(whole, start, start + self.config.tower.tokens)


class _Unfused(TrunkGraph):
    def _attend(self, q: str, k: str, v: str) -> str:
        graph, trunk = self.graph, self.config.trunk
        heads, size = trunk.heads, trunk.width // trunk.heads

        def by_head(y: str, perm: list[int]) -> str:
            return graph.op("Transpose", graph.op("Reshape", y, graph.integers(0, 0, heads, size)), perm=perm)

        scale = graph.constant("attention.scale", np.array(size**-0.5, dtype=np.float32))
        scores = graph.op("Mul", graph.op("MatMul", by_head(q, [0, 2, 1, 3]), by_head(k, [0, 2, 3, 1])), scale)
        later = graph.constant("attention.later", _later(self.length, self.length))
        weights = graph.op("Softmax", graph.op("Add", scores, later), axis=-1)
        spoken = graph.op("Transpose", graph.op("MatMul", weights, by_head(v, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
        return graph.op("Reshape", spoken, graph.integers(0, 0, trunk.width))


class _Unfolded(TrunkGraph):
    def _prompt(self, name: str) -> str:
        graph, value = self.graph, getattr(self.trunk, name).detach().float().numpy()
        table = np.zeros((TABLE, value.shape[1]), dtype=np.float32)
        table[: len(value)] = value
        shape = graph.op("Concat", self.batch, graph.integers(len(value)), axis=0)
        ids = graph.op("Expand", graph.constant(f"{name}.ids", np.arange(len(value), dtype=np.int64)[None]), shape)
        return graph.op("Gather", graph.constant(f"{name}.table", table), ids)


class _Filling(TrunkGraph):
    """The whole graph; the prefix's rotated keys and its values of every layer are outputs beside the others."""

    def _keys(self, keys: str, values: str, i: int) -> tuple[str, str]:
        shape = ("batch", self.config.prefix, self.config.trunk.width)
        for kind, found in (("keys", keys), ("values", values)):
            self.graph.output(f"prefix.{i}.{kind}", self._row(found, 0, self.config.prefix), shape)
        return keys, values


class _Cached(TrunkGraph):
    """Image and suffix only; what `_Filling` gives is an input."""

    def build(self) -> onnx.ModelProto:
        self.first = self.config.prefix
        return super().build()

    def _prompt(self, name: str) -> str:
        whole = super()._prompt(name)
        return whole if name == "suffix" else self._row(whole, 0, 0)

    def _keys(self, keys: str, values: str, i: int) -> tuple[str, str]:
        shape = ("batch", self.config.prefix, self.config.trunk.width)
        found = []
        for kind, later in (("keys", keys), ("values", values)):
            found.append(self.graph.op("Concat", self.graph.input(f"prefix.{i}.{kind}", shape), later, axis=1))
        return found[0], found[1]

    def _attend(self, q: str, k: str, v: str) -> str:
        heads, rows = self.config.trunk.heads, self.length - self.first
        later = self.graph.constant("attention.later", _later(rows, self.length))
        return self.graph.op("Attention", q, k, v, later, q_num_heads=heads, kv_num_heads=heads)


def _later(rows: int, columns: int) -> F32:
    """What is added to the scores of the last `rows` of `columns` tokens: a token does not read those behind it."""
    return np.triu(np.full((rows, columns), -1e9, dtype=np.float32), columns - rows + 1)


LEFT_OUT: dict[str, type[TrunkGraph]] = {
    "last-layer trim": Untrimmed, "shared quantization": _Unshared, "fused attention": _Unfused,
    "folded prompt": _Unfolded,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lever:
    """Saved of a slice's call: `ms` by the clock and `cpu_ms` on all threads together, medians over calls in turn, and
    their shares of the call with everything. Where others use the machine, only processor time means much.
    """

    name: str
    ms: float
    share: float
    cpu_ms: float
    cpu_share: float


@dataclass(frozen=True, slots=True)
class Levers:
    """Of one slice: what each step saves, and what LoRA of each rank saves, which is below zero."""

    layers: int
    threads: int
    whole_ms: float
    whole_cpu_ms: float
    levers: list[Lever]


def write_levers(trunk: Trunk, config: EdgeConfig, folder: Path) -> None:
    """Every variant's graph in `folder`, with its data beside it."""
    kinds = {ALL: TrunkGraph, **LEFT_OUT, CACHE: _Cached, "filling": _Filling}
    for name, kind in kinds.items():
        _write(kind(trunk, config, int8=True, lora=False).build(), folder, name)
    for rank in RANKS:
        ranked = replace(config, lora_rank=rank)
        _write(TrunkGraph(trunk, ranked, int8=True, lora=True).build(), folder, rank_name(rank))


def _write(model: onnx.ModelProto, folder: Path, name: str) -> None:
    graph = serialise(model, data_name=f"{name}.data", inline_bytes=1 << 20)
    (folder / f"{name}.onnx").write_bytes(graph.onnx)
    if graph.data is not None:
        (folder / f"{name}.data").write_bytes(graph.data)


def time_levers(folder: Path, tokens: F32, lora: dict[int, Feed], threads: int, calls: int) -> Times:
    """Every call, by variant, in turns; in this process.

    Raises:
        ValueError: the cached prefix gives other embeddings than the whole sequence.
    """
    limits = SessionLimits(threads=threads)
    feeds: dict[str, Feed] = {name: {"tokens": tokens} for name in (ALL, *LEFT_OUT)}
    filling = new_session(str(folder / "filling.onnx"), limits)
    filled = dict(zip((one.name for one in filling.get_outputs()), filling.run(None, {"tokens": tokens}), strict=True))
    feeds[CACHE] = {"tokens": tokens, **{name: one for name, one in filled.items() if name.startswith("prefix.")}}
    feeds |= {rank_name(rank): {"tokens": tokens, **arrays} for rank, arrays in lora.items()}
    del filling
    sessions = {name: new_session(str(folder / f"{name}.onnx"), limits) for name in feeds}
    found = {name: session.run(["embedding"], feeds[name])[0] for name, session in sessions.items()}
    if np.abs(found[CACHE] - found[ALL]).max() > 1e-3 * np.abs(found[ALL]).max():
        raise ValueError("the cached prefix gives other embeddings than the whole sequence")
    times: Times = {name: [] for name in sessions}
    for _ in range(calls):
        for name, session in sessions.items():
            used, start = time.process_time(), time.perf_counter()
            session.run(["embedding"], feeds[name])
            times[name].append(((time.perf_counter() - start) * 1e3, (time.process_time() - used) * 1e3))
    return times


def measure_levers(trunk: Trunk, config: EdgeConfig, tokens: F32, *, threads: int, calls: int) -> Levers:
    """All levers and LoRA on a slice with tokens [1, N, C], in a process of their own.

    Raises:
        RuntimeError: the measuring process failed or ended without an answer.
    """
    rng = np.random.default_rng(0)
    lora = {
        rank: {
            name: rng.normal(0, 0.02, shape).astype(np.float32)
            for name, shape in lora_shapes(replace(config, lora_rank=rank)).items()
        }
        for rank in RANKS
    }
    with tempfile.TemporaryDirectory(prefix="edgeloop-levers-") as folder:
        write_levers(trunk, config, Path(folder))
        times = in_child(time_levers, Path(folder), tokens, lora, threads, calls)
    return levers_of(times, config, threads)


def levers_of(times: Times, config: EdgeConfig, threads: int) -> Levers:
    """Medians over turns of the differences to the call with everything in the same turn."""
    whole = [statistics.median(call[i] for call in times[ALL]) for i in (0, 1)]

    def lever(name: str) -> Lever:
        sign = 1 if name in LEFT_OUT else -1  # the others are what was added
        ms, cpu = (
            sign * statistics.median(one[i] - base[i] for one, base in zip(times[name], times[ALL], strict=True))
            for i in (0, 1)
        )
        return Lever(name, ms, ms / whole[0], cpu, cpu / whole[1])

    return Levers(config.trunk.depth, threads, *whole, [lever(name) for name in times if name != ALL])
