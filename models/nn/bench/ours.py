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
    """Adapters exchanged while `threads` loops judged frames. `wrong` are results that belong to neither adapter."""

    swaps: int
    threads: int
    frames: int
    wrong: int
    longest_ms: float


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


def measure_swaps(frozen: Frozen, threads: int, swaps: int, workers: int = 3) -> Swaps:
    """Exchange two adapters `swaps` times under load: read, check, and assign one reference, as a box does."""
    base = frozen.open(threads)
    spec = frozen.manifest.preprocessing
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, spec.height, spec.width)).astype(np.float32)
    tokens = base.tokens(pixels)
    files = [random_adapter(frozen.manifest, seed=seed) for seed in (1, 2)]
    right = [base.embed(tokens, _feeds(file, frozen.manifest)).embedding for file in files]
    current, stop = [_feeds(files[0], frozen.manifest)], threading.Event()
    frames, wrong = [0] * workers, [0] * workers

    def judge(number: int) -> None:
        while not stop.is_set():
            found = base.embed(tokens, current[0]).embedding
            frames[number] += 1
            wrong[number] += not any(np.array_equal(found, one) for one in right)

    loops = [threading.Thread(target=judge, args=(number,), daemon=True) for number in range(workers)]
    for loop in loops:
        loop.start()
    longest = 0.0
    for number in range(swaps):
        ready = _feeds(files[(number + 1) % 2], frozen.manifest)
        start = time.perf_counter()
        current[0] = ready
        longest = max(longest, time.perf_counter() - start)
    while min(frames) == 0:
        time.sleep(0.01)
    stop.set()
    for loop in loops:
        loop.join()
    return Swaps(swaps, workers, sum(frames), sum(wrong), longest * 1e3)
