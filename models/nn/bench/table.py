"""What a bench found, as a table for a person and as a document for a program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from models.nn.bench.levers import Levers
from models.nn.bench.measure import Work
from models.nn.bench.ours import BaseRow, Swaps
from models.nn.bench.peers import PeerRow


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured."""

    processor: str
    kernels: str
    cores: int
    versions: dict[str, str]

    def text(self) -> str:
        """One line."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{self.processor}, {self.cores} cores, {self.kernels}; {versions}"


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything of one run. `weights` is the manifest's word on where they came from."""

    machine: Machine
    preset: str
    weights: str
    image_tokens: int
    work: Work
    rows: Sequence[BaseRow]
    swaps: Swaps | None
    peers: Sequence[PeerRow]
    levers: Levers | None
    peer_threads: int
    peer_layers: int

    def document(self) -> dict[str, Any]:
        """Plain values under stable names; a figure that was not measured is null."""
        found: dict[str, Any] = known(asdict(self))
        return {"schema": 1, **found}


def known(value: Any) -> Any:
    """The same with null in the place of every figure that is not finite."""
    if isinstance(value, dict):
        return {key: known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(bench: Bench) -> str:
    """Markdown, so that it can be kept as it is printed."""
    lines = [
        f"{bench.preset}, {bench.image_tokens} image tokens, weights: {bench.weights}",
        bench.machine.text(),
        f"work: {bench.work.frame:.0f} GFLOP a frame (tower {bench.work.tower:.0f}, trunk {bench.work.trunk:.0f})",
        "",
        "| threads | batch | load s | RSS MB | tower ms | trunk ms | frame ms | frames/s | adapter | of the ceiling |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_base_line(bench, row) for row in bench.rows),
    ]
    if bench.swaps is not None:
        one = bench.swaps
        lines += [
            "",
            f"{one.swaps} swaps under {one.threads} threads: {one.frames} frames, {one.wrong} wrong, {one.dropped} "
            f"dropped; longest exchange {one.longest_ms:.3f} ms ({one.cpu_ms:.3f} ms of processor time), longest pause "
            f"of the same thread doing nothing {one.idle_ms:.3f} ms.",
        ]
    if bench.peers:
        lines += [
            "",
            f"The trunk's first {bench.peer_layers} layers, one frame, {bench.peer_threads} threads:",
            "",
            "| variant | ms | x ours | p95 ms | CPU s | ready s | RSS MB | error |",
            "|---|---|---|---|---|---|---|---|",
            *map(_peer_line, bench.peers),
        ]
    if bench.levers is not None:
        lines += ["", *_lever_lines(bench.levers)]
    return "\n".join(lines)


def _base_line(bench: Bench, row: BaseRow) -> str:
    frame = row.tower.p50 + row.trunk.p50
    rate = bench.work.frame * row.batch / frame * 1e3
    cells = (
        str(row.threads), str(row.batch), f"{row.load_s:.1f}", f"{row.resident_mb:.0f}", f"{row.tower.p50:.0f}",
        f"{row.trunk.p50:.0f}", f"{frame:.0f}", f"{1e3 * row.batch / frame:.2f}",
        f"{100 * (row.adapted.p50 / row.trunk.p50 - 1):+.1f} %",
        f"{rate:.0f} of {row.ceiling_gflops:.0f} GFLOP/s, {100 * rate / row.ceiling_gflops:.0f} %",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _peer_line(row: PeerRow) -> str:
    if row.latency is None:
        return f"| {row.variant} | {row.note} | | | | | | |"
    cells = (
        row.variant, f"{row.latency.p50:.1f}", f"{row.ratio:.2f}", f"{row.latency.p95:.1f}", f"{row.latency.cpu_s:.2f}",
        f"{row.load_s:.1f}", f"{row.resident_mb:.0f}", f"{100 * row.error:.2f} %",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _lever_lines(found: Levers) -> list[str]:
    lines = [
        f"Levers on the same slice ({found.layers} layers, {found.threads} threads, {found.whole_ms:.1f} ms, "
        f"{found.whole_cpu_ms:.1f} ms of processor time), in turn with the graph that has all of them. One of these "
        "layers is the last; the whole trunk has one last layer too.",
        "",
        "| lever | ms saved | share | processor ms saved | share |",
        "|---|---|---|---|---|",
    ]
    for one in found.levers:
        shares = f"{one.ms:.1f} | {100 * one.share:.1f} % | {one.cpu_ms:.1f} | {100 * one.cpu_share:.1f} %"
        lines.append(f"| {one.name} | {shares} |")
    return lines
