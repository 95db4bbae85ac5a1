"""The same slice of the trunk under every runtime and quantizer that this machine has, one after the other.

A slice is the aligner and the first layers of the trunk, without LoRA: small enough that the float32 graph fits the
2 GB of one ONNX file, and made of the layers the whole is made of. The same weights go to every variant, in the same
run, because only ratios mean something on a machine that is not ours alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from models.nn.bench.child import NotHere, in_child
from models.nn.bench.levers import Untrimmed
from models.nn.bench.measure import Latency
from models.nn.bench.variants import OURS, PLAIN, REFERENCE, TOKENS, VARIANTS, WEIGHTS, WHOLE, Task, measure_peer
from models.nn.config import EdgeConfig
from models.nn.export import export_trunk
from models.nn.external import serialise
from models.nn.model import DeepSeekEdge, Trunk

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PeerRow:
    """One variant on the slice. `ratio` is its time over ours, call by call in turn; `error` is ``|y - y32| / |y32|``
    against float32; `note` says why it has no figures.
    """

    variant: str
    latency: Latency | None = None
    ratio: float = float("nan")
    load_s: float = float("nan")
    resident_mb: float = float("nan")
    error: float = float("nan")
    note: str = ""


def slice_of(model: DeepSeekEdge, layers: int) -> tuple[Trunk, EdgeConfig]:
    """The first `layers` of the trunk as a trunk of its own, and its configuration."""
    config = replace(model.config, trunk=replace(model.config.trunk, depth=layers, vocabulary=8))
    trunk = Trunk(config).eval()
    kept = {name: tensor for name, tensor in model.trunk.state_dict().items() if name in trunk.state_dict()}
    kept["model.embed_tokens.weight"] = trunk.state_dict()["model.embed_tokens.weight"]
    trunk.load_state_dict(kept)
    return trunk, config


def write_slice(trunk: Trunk, config: EdgeConfig, tokens: F32, folder: Path) -> None:
    """The slice in float32 (trimmed and whole) and as our int8 graph, the torch weights, and the tokens."""
    graphs = {
        PLAIN: lambda: export_trunk(trunk, config, int8=False, lora=False),
        OURS: lambda: export_trunk(trunk, config, lora=False),
        WHOLE: lambda: Untrimmed(trunk, config, int8=False, lora=False).build(),
    }
    for name, make in graphs.items():
        graph = serialise(make(), data_name=f"{name}.data")
        (folder / name).write_bytes(graph.onnx)
        if graph.data is not None:
            (folder / f"{name}.data").write_bytes(graph.data)
    save_file({name: tensor.contiguous() for name, tensor in trunk.state_dict().items()}, folder / WEIGHTS)
    np.save(folder / TOKENS, tokens)


def measure_peers(
    trunk: Trunk, config: EdgeConfig, tokens: F32, *, threads: int, calls: int,
    variants: Sequence[str] = tuple(VARIANTS), say: Callable[[str], None] = lambda text: None,
) -> list[PeerRow]:  # fmt: skip
    """Every variant on the same slice and tokens [B, N, C]; one that cannot run says why."""
    rows: list[PeerRow] = []
    results: dict[str, F32] = {}
    with tempfile.TemporaryDirectory(prefix="edgeloop-bench-") as folder:
        write_slice(trunk, config, tokens, Path(folder))
        for variant in variants:
            say(f"{variant}, {threads} threads")
            try:
                found = in_child(measure_peer, Task(variant, Path(folder), threads), config, calls)
                row = PeerRow(variant, found.latency, found.ratio, found.load_s, found.resident_mb)
                results[variant] = found.embedding
            except (NotHere, RuntimeError) as reason:
                row = PeerRow(variant, note=str(reason)[:200])
            rows.append(row)
    return [_with_error(row, results) for row in rows]


def _with_error(row: PeerRow, results: Mapping[str, F32]) -> PeerRow:
    exact = results.get(REFERENCE)
    if exact is None or row.variant not in results:
        return row
    return replace(row, error=float(np.linalg.norm(results[row.variant] - exact) / np.linalg.norm(exact)))
