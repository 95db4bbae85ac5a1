"""Clocks and counters: latency of a call, resident memory, processor time, and what the int8 kernels can do at most."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto

from models.nn.config import EdgeConfig, TrunkConfig
from models.nn.graph import GraphBuilder
from models.runtime.base import SessionLimits, new_session

STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one call over `calls`, and the processor seconds it took on all threads together."""

    p50: float
    p95: float
    cpu_s: float
    calls: int


def latency(call: Callable[[], object], *, calls: int, warm: int = 1) -> Latency:
    """Time `call` after `warm` calls that do not count."""
    for _ in range(warm):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF)
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Latency(float(np.median(times)), float(np.percentile(times, 95)), used / calls, calls)


def resident_mb() -> float:
    """Resident memory of this process in MB (10^6 bytes); NaN where the system does not say."""
    try:
        pages = int(STATM.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return float("nan")
    return pages * resource.getpagesize() / 1e6


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-adds of one frame times two, in GFLOP."""

    tower: float
    trunk: float

    @property
    def frame(self) -> float:
        return self.tower + self.trunk


def work(config: EdgeConfig) -> Work:
    """Of the exported graphs: linears and attention; norms, activations and convolution towers are left out.

    The trunk's last layer is computed for one token behind its attention (`models.nn.export`).
    """
    tower, trunk = config.tower, config.trunk
    patches = tower.tokens * tower.pool**2
    vision = 0.0
    if tower.kind == "siglip":
        linears = 4 * tower.width**2 + 2 * tower.width * tower.ffn
        vision = patches * 3 * tower.patch**2 * tower.width
        vision += tower.depth * patches * (linears + 2 * patches * tower.width)
    length = config.prefix + tower.tokens + config.suffix
    attention = 4 * trunk.width**2
    feed = [_feed_forward(trunk, layer) for layer in range(trunk.depth)]
    layers = length * (sum(feed[:-1]) + (trunk.depth - 1) * (attention + 2 * length * trunk.width))
    last = length * 3 * trunk.width**2 + (tower.tokens + 1) * trunk.width**2 + feed[-1] + 2 * length * trunk.width
    aligner = tower.tokens * (tower.width * trunk.width + trunk.width**2)
    return Work(2e-9 * vision, 2e-9 * (aligner + layers + last))


def _feed_forward(trunk: TrunkConfig, layer: int) -> int:
    """Multiply-adds of one token: of a mixture, the experts it meets and the router."""
    experts = trunk.experts
    if experts is None or not trunk.has_experts(layer):
        return 3 * trunk.width * trunk.ffn
    return trunk.width * (3 * experts.width * (experts.active + experts.shared) + experts.routed)


def gemm_ceiling(config: EdgeConfig, *, threads: int, calls: int = 20) -> float:
    """GFLOP/s of one int8 matrix product in the shape of the trunk's widest linear: what no whole graph can exceed."""
    rows = config.prefix + config.tower.tokens + config.suffix
    inner, columns = config.trunk.width, config.trunk.ffn
    graph = GraphBuilder("gemm")
    x = graph.input("x", (1, rows, inner), TensorProto.UINT8)
    zero = graph.constant("u8/128", np.array(128, dtype=np.uint8))
    weight = np.random.default_rng(0).integers(-127, 128, (inner, columns)).astype(np.int8)
    product = graph.op("MatMulInteger", x, graph.constant("w", weight), zero)
    graph.output("y", graph.op("Cast", product, to=TensorProto.FLOAT), (1, rows, columns))
    session = new_session(graph.model(producer="edgeloop").SerializeToString(), SessionLimits(threads=threads))
    feed = {"x": ort.OrtValue.ortvalue_from_numpy(np.full((1, rows, inner), 130, dtype=np.uint8))}
    found = latency(lambda: session.run_with_ort_values(["y"], feed), calls=calls, warm=3)
    return 2e-6 * rows * inner * columns / found.p50
