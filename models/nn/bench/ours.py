"""A base under load: how long it takes to load, what it holds, how fast it is, what an adapter costs, how it swaps."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.contracts.model_manifest import BaseManifest
from models.nn.bench.measure import Latency, gemm_ceiling, latency, resident_mb
from models.nn.config import EdgeConfig
from models.runtime.adapter import read_adapter, write_adapter
from models.runtime.base import Base, Feeds, SessionLimits
from models.runtime.bundle import open_base

F32 = NDArray[np.float32]
LORA_SCALE = 0.02


@dataclass(frozen=True, slots=True)
class BaseRow:
    """One base under one setting. Memory in MB after the first frame, load in seconds, latencies of one call."""

    threads: int
    batch: int
    load_s: float
    resident_mb: float
    tower: Latency
    trunk: Latency
    adapted: Latency
    ceiling_gflops: float


@dataclass(frozen=True, slots=True)
class Swaps:
    """Adapters exchanged while `threads` loops judged frames.

    `wrong` are results that belong to neither adapter, `dropped` are frames that were begun and have no result.
    `longest_ms` is the longest assignment by the clock, `cpu_ms` the processor time of the longest, and `idle_ms` the
    longest that the same thread needed, just before, to do nothing at all: what the system's scheduler adds. Frames
    take no lock, so no frame waits for any of them.
    """

    swaps: int
    threads: int
    frames: int
    wrong: int
    dropped: int
    longest_ms: float
    cpu_ms: float
    idle_ms: float


@dataclass(frozen=True, slots=True)
class Frozen:
    """A base on disk."""

    manifest: BaseManifest
    files: Mapping[str, Path]

    def open(self, threads: int) -> Base:
        """Its sessions."""
        return open_base(self.manifest, self.files, limits=SessionLimits(threads=threads))


def measure_base(frozen: Frozen, config: EdgeConfig, threads: int, batch: int, calls: int) -> BaseRow:
    """A base under one setting, in this process."""
    before = time.perf_counter()
    base = frozen.open(threads)
    load_s = time.perf_counter() - before
    spec = frozen.manifest.preprocessing
    pixels = np.random.default_rng(0).normal(0, 1, (batch, 3, spec.height, spec.width)).astype(np.float32)
    tokens = base.tokens(pixels)
    base.embed(tokens, {})
    resident = resident_mb()
    feeds = _feeds(random_adapter(frozen.manifest, seed=1), frozen.manifest)
    return BaseRow(
        threads=threads, batch=batch, load_s=load_s, resident_mb=resident,
        tower=latency(lambda: base.tokens(pixels), calls=calls),
        trunk=latency(lambda: base.embed(tokens, {}), calls=calls),
        adapted=latency(lambda: base.embed(tokens, feeds), calls=calls),
        ceiling_gflops=gemm_ceiling(config, threads=threads),
    )  # fmt: skip


def random_adapter(manifest: BaseManifest, *, seed: int) -> bytes:
    """An adapter file with seeded values in every LoRA input."""
    rng = np.random.default_rng(seed)
    arrays = {one.name: (rng.normal(0, LORA_SCALE, one.shape)).astype(np.float16) for one in manifest.lora}
    return write_adapter(arrays, version=seed)


def _feeds(adapter: bytes, manifest: BaseManifest) -> Feeds:
    read = read_adapter(adapter, manifest.lora)
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in read.items()}


class _Judges:
    """Loops that judge one frame under whatever adapter is current, and check every result."""

    def __init__(self, base: Base, tokens: F32, first: Feeds, right: list[F32], workers: int) -> None:
        self.base, self.tokens, self.right = base, tokens, right
        self.current = first
        self.begun, self.done, self.wrong = [0] * workers, [0] * workers, [0] * workers
        self._stop = threading.Event()
        self._loops = [threading.Thread(target=self._judge, args=(number,), daemon=True) for number in range(workers)]

    def __enter__(self) -> _Judges:
        for loop in self._loops:
            loop.start()
        return self

    def __exit__(self, *fault: object) -> None:
        while min(self.done) == 0 and all(loop.is_alive() for loop in self._loops):
            time.sleep(0.01)
        self._stop.set()
        for loop in self._loops:
            loop.join()

    def _judge(self, number: int) -> None:
        while not self._stop.is_set():
            self.begun[number] += 1
            found = self.base.embed(self.tokens, self.current).embedding
            self.done[number] += 1
            self.wrong[number] += not any(np.array_equal(found, one) for one in self.right)


def measure_swaps(frozen: Frozen, threads: int, swaps: int, workers: int = 3) -> Swaps:
    """Exchange two adapters `swaps` times under load as a box does: read and check, then assign one reference.

    What was current stays referenced until after the assignment, as the inspector keeps the previous model: giving its
    memory back takes longer than the exchange.
    """
    base = frozen.open(threads)
    spec = frozen.manifest.preprocessing
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, spec.height, spec.width)).astype(np.float32)
    tokens = base.tokens(pixels)
    files = [random_adapter(frozen.manifest, seed=seed) for seed in (1, 2)]
    right = [base.embed(tokens, _feeds(file, frozen.manifest)).embedding for file in files]
    longest = cpu = idle = 0.0
    with _Judges(base, tokens, _feeds(files[0], frozen.manifest), right, workers) as judges:
        for number in range(swaps):
            ready = _feeds(files[(number + 1) % 2], frozen.manifest)
            start = time.perf_counter()
            idle = max(idle, time.perf_counter() - start)
            used, start = time.thread_time(), time.perf_counter()
            previous, judges.current = judges.current, ready
            longest = max(longest, time.perf_counter() - start)
            cpu = max(cpu, time.thread_time() - used)
            del previous
    done = sum(judges.done)
    return Swaps(
        swaps, workers, done, sum(judges.wrong), sum(judges.begun) - done, longest * 1e3, cpu * 1e3, idle * 1e3
    )
