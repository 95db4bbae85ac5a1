"""What work cost: processor seconds of this process, and joules of the processor package where the kernel counts them.

Joules come from RAPL (Linux powercap, ``energy_uj`` of every package): all that ran on the machine meanwhile is in
them. Virtual machines have none, and most systems show them to root only; then the figure is NaN and processor seconds
stand for it.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
PACKAGES = "intel-rapl:[0-9]*"


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one call: wall clock in milliseconds, processor seconds on all threads together, joules (NaN: not counted)."""

    ms: float
    cpu_s: float
    joules: float


class PackageEnergy:
    """Counters of all packages of this machine; AMD's have the same name. They wrap at a range the kernel states."""

    def __init__(self, root: Path = POWERCAP) -> None:
        found = [zone for zone in sorted(root.glob(PACKAGES)) if zone.name.count(":") == 1]
        try:
            self._zones = [(zone / "energy_uj", _number(zone / "max_energy_range_uj")) for zone in found]
            self.read()
        except (OSError, ValueError):
            self._zones = []

    @property
    def counts(self) -> bool:
        """Whether this machine lets us read them."""
        return bool(self._zones)

    def read(self) -> list[int]:
        """Microjoules of each package since some moment in the past."""
        return [_number(path) for path, _ in self._zones]

    def between(self, before: list[int], after: list[int]) -> float:
        """Joules between two readings at most one wrap apart; NaN where nothing is counted."""
        if not self._zones:
            return math.nan
        ranges = [wrap for _, wrap in self._zones]
        return sum((b - a) % (wrap + 1) for a, b, wrap in zip(before, after, ranges, strict=True)) / 1e6


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def spend(call: Callable[[], object], energy: PackageEnergy) -> Spent:
    """Run `call` once."""
    joules, cpu, start = energy.read(), _cpu_s(), time.perf_counter()
    call()
    ms, cpu = (time.perf_counter() - start) * 1e3, _cpu_s() - cpu
    return Spent(ms, cpu, energy.between(joules, energy.read()))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
