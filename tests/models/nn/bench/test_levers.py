"""Every lever's variant computes what the product computes; what it saves is a difference of neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.nn.bench.levers import (
    ALL,
    CACHE,
    LEFT_OUT,
    RANKS,
    levers_of,
    measure_levers,
    rank_name,
    time_levers,
    write_levers,
)  # fmt: skip
from models.nn.config import tiny
from models.nn.model import DeepSeekEdge
from models.runtime.base import SessionLimits, new_session

CONFIG = tiny("1.7b")
TOKENS = np.random.default_rng(0).normal(0, 1, (1, CONFIG.tower.tokens, CONFIG.tower.width)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("levers")
    write_levers(DeepSeekEdge(CONFIG).eval().trunk, CONFIG, made)
    return made


def embedding(folder: Path, name: str, **more: np.ndarray) -> np.ndarray:
    session = new_session(str(folder / f"{name}.onnx"), SessionLimits())
    return session.run(["embedding"], {"tokens": TOKENS, **more})[0]


@pytest.mark.parametrize("name", [*LEFT_OUT, *(rank_name(rank) for rank in RANKS)])
def test_a_variant_computes_what_the_product_computes(folder: Path, name: str) -> None:
    whole = embedding(folder, ALL)
    assert np.linalg.norm(embedding(folder, name) - whole) / np.linalg.norm(whole) < 5e-3


def test_a_cached_prefix_gives_the_same_and_another_prefix_does_not(folder: Path) -> None:
    filling = new_session(str(folder / "filling.onnx"), SessionLimits())
    names = [one.name for one in filling.get_outputs()]
    filled = dict(zip(names, filling.run(None, {"tokens": TOKENS}), strict=True))
    cache = {name: array for name, array in filled.items() if name.startswith("prefix.")}
    whole = embedding(folder, ALL)
    assert len(cache) == 2 * CONFIG.trunk.depth
    assert np.linalg.norm(embedding(folder, CACHE, **cache) - whole) / np.linalg.norm(whole) < 5e-3
    other = {name: array + 1 for name, array in cache.items()}
    assert np.linalg.norm(embedding(folder, CACHE, **other) - whole) / np.linalg.norm(whole) > 0.05


def test_what_a_lever_saves_is_the_median_of_neighbours() -> None:
    calls = [(10.0, 1.0), (20.0, 2.0), (30.0, 4.0)]
    times = dict.fromkeys((ALL, *LEFT_OUT, CACHE, *(rank_name(rank) for rank in RANKS)), calls)
    times["last-layer trim"] = [(11.0, 1.5), (22.0, 2.5), (90.0, 4.5)]
    times[CACHE] = [(9.0, 1.0), (17.0, 1.5), (25.0, 1.0)]
    times[rank_name(8)] = [(10.0, 1.0), (21.0, 3.0), (31.0, 5.0)]
    found = levers_of(times, CONFIG, 1)
    saved = {one.name: (one.ms, one.cpu_ms) for one in found.levers}
    assert (found.whole_ms, found.whole_cpu_ms) == (20, 2)
    assert saved["last-layer trim"] == (2, 0.5)
    assert saved[CACHE] == (3, 0.5)
    assert saved[rank_name(8)] == (-1, -1)
    assert saved["fused attention"] == (0, 0)
    assert {one.share for one in found.levers if one.name == "last-layer trim"} == {0.1}


def test_levers_are_measured_in_turns(folder: Path) -> None:
    lora: dict[int, dict[str, np.ndarray]] = {rank: {} for rank in RANKS}
    times = time_levers(folder, TOKENS, lora, 1, 3)
    assert {len(one) for one in times.values()} == {3}


def test_a_slice_is_measured_whole() -> None:
    torch.manual_seed(0)
    found = measure_levers(DeepSeekEdge(CONFIG).eval().trunk, CONFIG, TOKENS, threads=1, calls=2)
    assert {one.name for one in found.levers} == {*LEFT_OUT, CACHE, *(rank_name(rank) for rank in RANKS)}
    assert found.whole_ms > 0
