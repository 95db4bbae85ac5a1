"""``edgeloop bench accuracy|loop``: what the loop reaches, as tables; exit status 1 when a target is missed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Measurements of the loop, printed as tables. Exit 1: a target is missed.",
    pretty_exceptions_enable=False,
)
USAGE = 2
PAPER_WIDTH = 150
JsonOption = Annotated[str, typer.Option("--json", help="Write every figure to this file; - is stdout.")]
SeedsOption = Annotated[str, typer.Option(help="Seeds, separated by commas.")]


def _refuse(text: str) -> NoReturn:
    typer.echo(f"edgeloop bench: {text}", err=True)
    raise typer.Exit(USAGE)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0:
        _refuse(f"--seeds {text!r} is no list of whole numbers from 0, as in --seeds 0,1,2")
    if len(set(seeds)) < len(seeds):
        _refuse(f"--seeds {text!r} names a seed twice: the same run again would count as a new one")
    return seeds


def _refuse_unwritable(target: str) -> None:
    """Said before the run and not after it."""
    folder = Path(target).resolve().parent
    if target and target != "-" and not (folder.is_dir() and os.access(folder, os.W_OK)):
        _refuse(f"{target} cannot be written: {folder} is no folder that can be written to; correct --json")


def _refuse_impossible(seeds: list[int], *, hours: int, edges: int) -> None:
    """The demo would refuse these numbers itself, once for every seed."""
    from simulators.demo.scenario import BadScenario, Scenario

    for seed in seeds:
        try:
            Scenario(hours=hours, edges=edges, seed=seed)
        except BadScenario as fault:
            _refuse(str(fault))


def _write(target: str, document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
    elif target:
        try:
            Path(target).write_text(text)
        except OSError as fault:
            _refuse(f"{target} cannot be written: {fault.strerror}")


def _console(json_file: str) -> Any:
    """As wide as the terminal; on paper wide enough that no figure loses its name."""
    from rich.console import Console

    out = sys.stderr if json_file == "-" else sys.stdout
    return Console(file=out, width=None if out.isatty() else PAPER_WIDTH)


@app.command()
def accuracy(
    *,
    seeds: SeedsOption = "0,1,2,3,4",
    lines: Annotated[int, typer.Option(min=1, help="Simulated lines per seed, six hours each.")] = 120,
    processes: Annotated[int, typer.Option(min=0, max=1024, help="Worker processes; 0: one per core.")] = 0,
    json_file: JsonOption = "",
) -> None:
    """Does the accuracy interval cover the truth? Thousands of simulated hours, no servers."""

    from simulators.bench import accuracy as bench
    from simulators.bench.screen import accuracy_table, show, targets_table

    chosen = _seeds(seeds)
    _refuse_unwritable(json_file)
    outcomes = bench.run(chosen, lines=lines, processes=processes or os.cpu_count() or 1)
    summaries = bench.report(outcomes)
    goals = bench.targets(summaries[-1])
    console = _console(json_file)
    show(console, accuracy_table(summaries, title=f"Accuracy interval, seeds {seeds}"), targets_table(goals))
    _write(json_file, bench.document(chosen, summaries, goals))
    raise typer.Exit(0 if all(goal.ok for goal in goals) else 1)


@app.command()
def loop(
    *,
    seeds: SeedsOption = "0,1,2,3,4",
    hours: Annotated[int, typer.Option(min=1, help="Compressed hours of each run.")] = 8,
    edges: Annotated[int, typer.Option(min=1, help="Boxes of each run.")] = 3,
    folder: Annotated[Path, typer.Option(help="Where each run's JSON is kept.")] = Path("var/bench"),
    json_file: JsonOption = "",
) -> None:
    """Run the whole demo once per seed, one after the other, and put the figures side by side."""

    from simulators.bench import loop as bench
    from simulators.bench.screen import loop_table, show

    chosen = _seeds(seeds)
    _refuse_impossible(chosen, hours=hours, edges=edges)
    _refuse_unwritable(json_file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        _refuse(f"--folder {folder} cannot be made: {fault.strerror}")
    runs = bench.run_all(chosen, hours=hours, edges=edges, folder=folder)
    console = _console(json_file)
    show(console, loop_table(runs))
    for run in runs:
        for name in run.failed:
            console.print(f"seed {run.seed}: {name} does not hold", highlight=False)
    found = bench.goals(runs)
    for goal in found:
        console.print(f"{'met   ' if goal.ok else 'missed'} {goal.name}: {goal.measured}", highlight=False)
    _write(json_file, bench.document(runs))
    raise typer.Exit(0 if all(run.ok for run in runs) and all(goal.ok for goal in found) else 1)
