"""One bench of a folder that `build` or `train` made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from models.nn.bench.child import in_child
from models.nn.bench.levers import Levers, measure_levers
from models.nn.bench.measure import work
from models.nn.bench.ours import Frozen, measure_base, measure_swaps
from models.nn.bench.peers import PeerRow, measure_peers, slice_of
from models.nn.bench.table import Bench, Machine
from models.nn.checkpoint import BadCheckpoint, check_checkpoint, load_checkpoint
from models.nn.config import EdgeConfig, TrunkConfig
from models.runtime.bundle import CHECKPOINT, read_base
from models.runtime.cpu import read_processor
from models.runtime.golden import read_golden
from models.runtime.preprocess import preprocess

MOST_BYTES = int(1.9e9)
PROGRAMS = ("onnxruntime", "torch", "openvino", "nncf", "onnx_ir")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to measure. Empty `threads`: one, and as many as this process may use."""

    threads: tuple[int, ...]
    batches: tuple[int, ...]
    calls: int
    swaps: int
    layers: int


def run_bench(folder: Path, wish: Wish, *, say: Say = lambda text: None) -> Bench:
    """Every measurement in a process of its own.

    Raises:
        BadBundle, BadCheckpoint: the folder is damaged.
        RuntimeError: a measuring process ended without an answer.
    """
    manifest, files = read_base(folder)
    config, processor = _checked(folder), read_processor()
    threads = wish.threads or tuple(sorted({1, processor.cores}))
    frozen, rows = Frozen(manifest, files), []
    for count in threads:
        for batch in wish.batches:
            say(f"{manifest.preset}, {count} threads, batch {batch}")
            rows.append(in_child(measure_base, frozen, config, count, batch, wish.calls))
    swaps = None
    if wish.swaps:
        say(f"{wish.swaps} swaps under load")
        swaps = in_child(measure_swaps, frozen, 1, wish.swaps)
    layers = min(wish.layers, layers_in_one_file(config.trunk))
    peers, levers = _slice(folder, frozen, layers, threads=max(threads), calls=wish.calls, say=say)
    return Bench(
        machine=machine(),
        preset=manifest.preset, weights=manifest.pretrained, image_tokens=config.tower.tokens, work=work(config),
        rows=rows, swaps=swaps, peers=peers, levers=levers, peer_threads=max(threads), peer_layers=layers,
    )  # fmt: skip


def _checked(folder: Path) -> EdgeConfig:
    """The configuration of a checkpoint that has every tensor: said before minutes of measuring, not after them.

    Raises:
        BadCheckpoint: naming the folder and what to do.
    """
    try:
        return check_checkpoint(folder / CHECKPOINT)
    except (ValueError, OSError) as fault:
        raise BadCheckpoint(
            f"the checkpoint in {folder} is damaged ({fault}): make the folder again with edgeloop models build "
            "or train"
        ) from fault


def layers_in_one_file(trunk: TrunkConfig) -> int:
    """How many of the first layers fit, in float32, into the 2 GB of one ONNX file without external data."""
    count, held = 0, 0
    while count < trunk.depth:
        experts, inner = trunk.experts, trunk.ffn
        if experts is not None and trunk.has_experts(count):
            inner = experts.width * (experts.routed + experts.shared)
        held += 4 * (4 * trunk.width**2 + 3 * trunk.width * inner)
        if held > MOST_BYTES:
            break
        count += 1
    return count


def machine() -> Machine:
    """Where this process runs."""
    processor = read_processor()
    return Machine(processor.name, ", ".join(processor.kernels), processor.cores, _versions())


def _slice(
    folder: Path, frozen: Frozen, layers: int, *, threads: int, calls: int, say: Say
) -> tuple[list[PeerRow], Levers | None]:
    """Peers and levers on the first `layers` of the trunk; nothing without layers."""
    if not layers:
        return [], None
    golden = read_golden(frozen.files[frozen.manifest.file("golden").name].read_bytes())
    tokens = frozen.open(threads).tokens(preprocess(golden[0], frozen.manifest.preprocessing))
    trunk, config = slice_of(load_checkpoint(folder / CHECKPOINT), layers)
    peers = measure_peers(trunk, config, tokens, threads=threads, calls=calls, say=say)
    say(f"levers and LoRA, {threads} threads")
    return peers, measure_levers(trunk, config, tokens, threads=threads, calls=calls)


def _versions() -> dict[str, str]:
    found = {}
    for name in PROGRAMS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
