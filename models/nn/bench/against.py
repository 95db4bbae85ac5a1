"""One base against another in the same process, call by call in turn: on a machine that is not ours alone only ratios
of neighbours mean something.

The tower is the same work on both sides, so it bounds what a cheaper trunk can do for a frame (Amdahl, 1967): a frame
whose trunk cost nothing would still take its tower's time.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from models.nn.bench.energy import PackageEnergy, Spent, spend
from models.nn.bench.ours import Frozen


@dataclass(frozen=True, slots=True)
class Side:
    """A base's medians over all calls; `load_s` in seconds, `size` in bytes on disk."""

    preset: str
    weights: str
    quantization: str
    parameters: int
    size: int
    load_s: float
    tower: Spent
    trunk: Spent

    @property
    def frame(self) -> Spent:
        """Tower and trunk together."""
        a, b = self.tower, self.trunk
        return Spent(a.ms + b.ms, a.cpu_s + b.cpu_s, a.joules + b.joules)


@dataclass(frozen=True, slots=True)
class Against:
    """Both sides under one number of threads."""

    threads: int
    calls: int
    image_tokens: int
    ours: Side
    other: Side

    @property
    def bound(self) -> float:
        """How many times faster than the other's a frame would be if its trunk cost nothing."""
        return self.other.frame.ms / self.other.tower.ms

    def document(self) -> dict[str, Any]:
        """Plain values under stable names; joules are NaN where nothing counts them."""
        found = {**asdict(self), "bound": self.bound, "ratios": {}}
        for part in ("tower", "trunk", "frame"):
            one, other = getattr(self.ours, part), getattr(self.other, part)
            found["ratios"][part] = {
                "time": other.ms / one.ms, "cpu": other.cpu_s / one.cpu_s, "joules": other.joules / one.joules
            }  # fmt: skip
        return found


def measure_against(ours: Frozen, other: Frozen, threads: int, calls: int) -> Against:
    """Both bases under one number of threads, in this process, on the same pixels.

    Raises:
        ValueError: they take other pixels or give other numbers of image tokens.
    """
    check_alike(ours, other)
    bases, loads = [], []
    for frozen in (ours, other):
        before = time.perf_counter()
        bases.append(frozen.open(threads))
        loads.append(time.perf_counter() - before)
    spec = ours.manifest.preprocessing
    pixels = np.random.default_rng(0).normal(0, 1, (1, 3, spec.height, spec.width)).astype(np.float32)
    tokens = [base.tokens(pixels) for base in bases]
    for base, given in zip(bases, tokens, strict=True):
        base.embed(given, {})
    energy = PackageEnergy()
    spent: list[dict[str, list[Spent]]] = [{"tower": [], "trunk": []} for _ in bases]
    for _ in range(calls):
        for base, given, kept in zip(bases, tokens, spent, strict=True):
            kept["tower"].append(spend(lambda base=base: base.tokens(pixels), energy))
            kept["trunk"].append(spend(lambda base=base, given=given: base.embed(given, {}), energy))
    sides = [_side(*one) for one in zip((ours, other), loads, spent, strict=True)]
    return Against(threads, calls, int(np.prod(ours.manifest.grid)), *sides)


def check_alike(ours: Frozen, other: Frozen) -> None:
    """Whether a comparison means anything.

    Raises:
        ValueError: naming what differs.
    """
    one, two = ours.manifest, other.manifest
    if one.grid != two.grid:
        raise ValueError(
            f"{one.preset} has {int(np.prod(one.grid))} image tokens and {two.preset} {int(np.prod(two.grid))}: build "
            "both with the same --image-tokens"
        )
    if (one.preprocessing.width, one.preprocessing.height) != (two.preprocessing.width, two.preprocessing.height):
        raise ValueError(f"{one.preset} and {two.preset} take images of different sizes")


def _side(frozen: Frozen, load_s: float, spent: dict[str, list[Spent]]) -> Side:
    manifest = frozen.manifest
    return Side(
        preset=manifest.preset, weights=manifest.pretrained, quantization=manifest.quantization,
        parameters=manifest.parameters, size=sum(file.length for file in manifest.files), load_s=load_s,
        tower=_median(spent["tower"]), trunk=_median(spent["trunk"]),
    )  # fmt: skip


def _median(calls: list[Spent]) -> Spent:
    return Spent(*(statistics.median(getattr(one, name) for one in calls) for name in ("ms", "cpu_s", "joules")))


def text(found: Against) -> str:
    """Markdown, so that it can be kept as it is printed."""
    ours, other = found.ours, found.other
    counted = not math.isnan(ours.frame.joules)
    lines = [
        f"{ours.preset} against {other.preset}, {found.image_tokens} image tokens, {found.threads} threads, "
        f"{found.calls} calls each in turn",
        *(
            f"- {one.preset}: {one.parameters / 1e9:.3f} B parameters, {one.size / 1e9:.2f} GB, loaded in "
            f"{one.load_s:.1f} s; weights: {one.weights}; {one.quantization}"
            for one in (ours, other)
        ),
        "",
        f"| part | {ours.preset} ms | {other.preset} ms | x faster | {ours.preset} CPU s | {other.preset} CPU s "
        f"| CPU time saved |{' J | J | energy saved |' if counted else ''}",
        f"|---|---|---|---|---|---|---|{'---|---|---|' if counted else ''}",
        *(_row(part, getattr(ours, part), getattr(other, part)) for part in ("tower", "trunk", "frame")),
        "",
        f"The tower bounds the frame (Amdahl): with a trunk that costs nothing it would be {found.bound:.2f} x faster; "
        f"it is {other.frame.ms / ours.frame.ms:.2f} x.",
    ]
    if not counted:
        lines.append("Energy: RAPL cannot be read here; CPU seconds stand for it.")
    return "\n".join(lines)


def _row(part: str, ours: Spent, other: Spent) -> str:
    cells = [
        part, f"{ours.ms:.1f}", f"{other.ms:.1f}", f"{other.ms / ours.ms:.2f}", f"{ours.cpu_s:.3f}",
        f"{other.cpu_s:.3f}", f"{100 * (1 - ours.cpu_s / other.cpu_s):.0f} %",
    ]  # fmt: skip
    if not math.isnan(ours.joules):
        cells += [f"{ours.joules:.1f}", f"{other.joules:.1f}", f"{100 * (1 - ours.joules / other.joules):.0f} %"]
    return f"| {' | '.join(cells)} |"
