"""Tables of the benches for a person. Adds nothing to a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.table import Table

from simulators.bench.accuracy import Summary, Target
from simulators.bench.loop import Run, combine


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.2f}"


def _factor(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


ROWS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("hours simulated", lambda one: str(one.hours)),
    ("hours with an interval", lambda one: str(one.estimated)),
    ("not enough labels", lambda one: _share(one.not_enough_labels)),
    ("labels per interval", lambda one: f"{one.mean_labels:.0f}"),
    ("true accuracy", lambda one: _share(one.truth)),
    ("truth covered by 95 % interval", lambda one: _share(one.coverage)),
    ("  truth below it / above it", lambda one: f"{_share(one.above)} / {_share(one.below)}"),
    ("half-width, points", lambda one: f"{100 * one.half_width:.2f}"),
    ("  x simple random sampling", lambda one: _factor(one.width_to_srs)),
    ("  x the same without mistakes", lambda one: _factor(one.width_to_srs_clean)),
    ("simple random sampling covers", lambda one: _share(one.srs_coverage)),
    ("truth covered without gold items", lambda one: _share(one.coverage_unmeasured)),
    ("  half-width, x simple random sampling", lambda one: _factor(one.width_unmeasured)),
    ("bias of ours, points", lambda one: _points(one.bias)),
    ("bias of uploads alone, points", lambda one: _points(one.bias_naive)),
    ("RMSE of ours, points", lambda one: f"{100 * one.rmse:.2f}"),
    ("RMSE of Hajek, points", lambda one: f"{100 * one.rmse_hajek:.2f}"),
    ("RMSE of uploads alone, points", lambda one: f"{100 * one.rmse_naive:.2f}"),
    ("Hajek covers", lambda one: _share(one.hajek_coverage)),
    ("escape covered", lambda one: _share(one.escape_coverage)),
    ("overkill covered", lambda one: _share(one.overkill_coverage)),
)


def accuracy_table(summaries: Sequence[Summary], *, title: str) -> Table:
    """One column per regime and one for all."""
    table = Table(title=title)
    table.add_column("")
    for one in summaries:
        table.add_column(one.regime, justify="right")
    for name, cell in ROWS:
        table.add_row(name, *(cell(one) for one in summaries))
    return table


def targets_table(goals: Sequence[Target]) -> Table:
    """Each target with its figure; a missed one says so in words."""
    table = Table(title="Targets, over all hours")
    for column in ("target", "holds", "measured"):
        table.add_column(column)
    for goal in goals:
        table.add_row(goal.name, "yes" if goal.ok else "MISSED", goal.detail)
    return table


def loop_table(runs: Sequence[Run]) -> Table:
    """One column per seed and the mean."""
    table = Table(title="edgeloop demo")
    table.add_column("")
    for run in runs:
        table.add_column(f"seed {run.seed}", justify="right")
    table.add_column("mean", justify="right")
    table.add_row("exit code", *(str(run.code) for run in runs), "")
    for row in combine(runs):
        cells = ("missing" if value is None else f"{value:.4g}" for value in row.values)
        table.add_row(row.name, *cells, "" if row.mean is None else f"{row.mean:.4g}")
    return table


def show(console: Console, *parts: Table) -> None:
    """Print tables one below the other."""
    console.print(Group(*parts))
