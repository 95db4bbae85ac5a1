"""The whole demo over several seeds, each in a process of its own, and one table of what it measured.

Knows the demo only by its command line and its JSON: ``edgeloop demo --exit --hours H --edges E --seed N --json FILE``.
A figure is found by its path in that JSON; one that a run lacks is shown as missing, never as 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

SEEDS = (0, 1, 2, 3, 4)
RUN_LIMIT_S = 1800.0
Runner = Callable[[Sequence[str]], int]
"""Runs a command and returns its exit code."""


@dataclass(frozen=True, slots=True)
class Run:
    """One demo. `figures` is its JSON, flattened to ``a.b.c`` -> number; empty when it wrote none."""

    seed: int
    code: int
    figures: dict[str, float]
    failed: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.code == 0


def command(*, seed: int, hours: int, edges: int, out: Path, extra: Sequence[str] = ()) -> list[str]:
    """The demo's command line. The dispatcher is called by module, so PATH does not matter."""
    start = [sys.executable, "-c", "import sys; from models.dispatch import main; sys.exit(main())", "demo", "--exit"]
    return [*start, "--hours", str(hours), "--edges", str(edges), "--seed", str(seed), "--json", str(out), *extra]


def spawn(arguments: Sequence[str]) -> int:
    """Run to the end; 124 past `RUN_LIMIT_S`. The demo stops its own servers on SIGTERM."""
    process = subprocess.Popen(list(arguments))
    try:
        return process.wait(RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(60)
        return 124


def flatten(document: Any, prefix: str = "") -> dict[str, float]:
    """Every number (and True / False as 1 / 0) under its dotted path; lists are left out."""
    if isinstance(document, dict):
        found: dict[str, float] = {}
        for key, value in document.items():
            found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(document, bool | int | float):
        return {prefix: float(document)}
    return {}


def failed_checks(document: Any) -> tuple[str, ...]:
    """Names of the checks that did not hold."""
    checks = document.get("checks", []) if isinstance(document, dict) else []
    if isinstance(checks, dict):
        checks = [value | {"name": name} for name, value in checks.items() if isinstance(value, dict)]
    return tuple(str(one["name"]) for one in checks if isinstance(one, dict) and not one.get("ok", True))


def read_run(seed: int, code: int, out: Path) -> Run:
    """A finished demo from its file; one that wrote none has no figures and does not count as passed."""
    try:
        document = json.loads(out.read_text())
    except (OSError, ValueError) as fault:
        return Run(seed, code or 1, {}, (f"no figures: {fault}",))
    return Run(seed, code, flatten(document), failed_checks(document))


def run_all(
    seeds: Sequence[int],
    *,
    hours: int,
    edges: int,
    folder: Path,
    extra: Sequence[str] = (),
    runner: Runner = spawn,
) -> list[Run]:
    """One demo after the other: two at once would share the cores and measure each other."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in seeds:
        out = folder / f"demo-seed-{seed}.json"
        out.unlink(missing_ok=True)
        code = runner(command(seed=seed, hours=hours, edges=edges, out=out, extra=extra))
        runs.append(read_run(seed, code, out))
    return runs


@dataclass(frozen=True, slots=True)
class Row:
    """One figure over the seeds; None where a run lacks it."""

    name: str
    values: tuple[float | None, ...]

    @property
    def known(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float | None:
        return mean(self.known) if self.known else None


def combine(runs: Sequence[Run]) -> list[Row]:
    """Every figure that any run has, in the order of first appearance."""
    names = list(dict.fromkeys(name for run in runs for name in run.figures))
    return [Row(name, tuple(run.figures.get(name) for run in runs)) for name in names]


def document(runs: Sequence[Run]) -> dict[str, Any]:
    """The JSON answer, under stable names."""
    return {
        "schema_version": 1,
        "seeds": [run.seed for run in runs],
        "exit_codes": [run.code for run in runs],
        "failed": {str(run.seed): list(run.failed) for run in runs},
        "figures": {row.name: {"values": list(row.values), "mean": row.mean} for row in combine(runs)},
        "ok": all(run.ok for run in runs),
    }
