"""The whole demo over several seeds, each in a process of its own, and one table of what it measured.

Knows the demo only by its command line and its JSON: ``edgeloop demo --exit --hours H --edges E --seed N --json FILE``.
A figure is found by its path in that JSON; one that a run lacks is shown as missing, never as 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
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
class Goal:
    """A target over all seeds. `measured` is for a person."""

    name: str
    ok: bool
    measured: str


MIN_RECOVERED = 0.85
MAX_MONO_LOSS = 0.02
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""97.5 % quantiles of Student's t for that many seeds (one degree of freedom less)."""


def goals(runs: Sequence[Run]) -> list[Goal]:
    """What is asked of the loop over several seeds. A run that lacks a figure counts as missed."""
    found = [_recovered(runs, metric) for metric in ("balanced_accuracy", "auroc")]
    found += [_beats(runs, rival) for rival in ("always_pass", "threshold_retuned_only")]
    losses = _values(runs, "test.forgetting_mono_balanced_accuracy.value")
    text = "missing" if losses is None else f"{100 * mean(losses):+.1f} points on average"
    found.append(Goal("mean loss on mono", losses is not None and mean(losses) >= -MAX_MONO_LOSS, text))
    return found


def _values(runs: Sequence[Run], name: str) -> list[float] | None:
    values = [run.figures.get(name) for run in runs]
    return None if not values or None in values else [value for value in values if value is not None]


def _recovered(runs: Sequence[Run], metric: str) -> Goal:
    """Mean gain over mean gap: a seed whose gap is nearly nothing weighs nearly nothing."""
    columns = [_values(runs, f"test.poly.{model}.{metric}") for model in ("collapsed", "loop", "joint_reference")]
    name = f"recovered {metric.replace('_', ' ')}"
    if any(column is None for column in columns):
        return Goal(name, ok=False, measured="missing")
    low, loop, joint = (mean(column) for column in columns if column is not None)
    if joint <= low:
        return Goal(name, ok=False, measured=f"no gap: {low:.3f} collapsed, {joint:.3f} joint")
    share = (loop - low) / (joint - low)
    return Goal(name, share >= MIN_RECOVERED, f"{share:.0%} of the gap ({low:.3f} -> {loop:.3f}, joint {joint:.3f})")


def _beats(runs: Sequence[Run], rival: str) -> Goal:
    """Paired over seeds: the 95 % interval of the mean gain lies above 0."""
    name = f"beats {rival.replace('_', ' ')}"
    gains = _values(runs, f"test.gain_balanced_accuracy_over.{rival}.value")
    if gains is None or len(gains) not in T95:
        return Goal(name, ok=False, measured="missing" if gains is None else f"{len(gains)} seeds give no interval")
    half = T95[len(gains)] * stdev(gains) / len(gains) ** 0.5
    low, high = mean(gains) - half, mean(gains) + half
    return Goal(name, low > 0, f"{100 * mean(gains):+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})")


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
        "goals": [asdict(goal) for goal in goals(runs)],
        "ok": all(run.ok for run in runs) and all(goal.ok for goal in goals(runs)),
    }
