"""``edgeloop demo``: the whole loop on this machine, on real solar cells.

Exit codes: 0 every required check holds; 1 a check fails or a server cannot run; 2 usage; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from simulators.demo.run import Options, Outcome
    from simulators.demo.scenario import Scenario

FAILED, USAGE, INTERRUPTED = 1, 2, 130
PAPER_WIDTH = 150
"""Columns of a table that goes to a file or a pipe."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _fail(text: str, code: int = FAILED) -> NoReturn:
    print(f"edgeloop demo: {text}", file=sys.stderr)
    raise typer.Exit(code)


@app.command()
def demo(
    *,
    hours: Annotated[int, typer.Option(help="Compressed hours.")] = 8,
    hour_s: Annotated[int, typer.Option(help="Seconds of a compressed hour.")] = 40,
    edges: Annotated[int, typer.Option(help="Boxes, one camera each.")] = 3,
    change_after: Annotated[int, typer.Option(help="Hours of mono cells before the poly cells come.")] = 2,
    parts: Annotated[int, typer.Option(help="Parts an hour, all boxes together.")] = 120,
    seed: Annotated[int, typer.Option(help="Of sets, schedules, reviewer, boxes and training.")] = 7,
    label_by_hand: Annotated[bool, typer.Option("--label-by-hand", help="You label, at the dashboard.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train the starting model again.")] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Exit after the table, with a terminal too.")] = False,
    json_file: Annotated[
        str | None,
        typer.Option("--json", help="Write every figure to this file; - is stdout."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port of the dashboard; a free one by default.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder of runs and cached models.")] = Path("var"),
) -> None:
    """Run the whole loop on this machine: servers, three boxes, a product change, labels, training, signed updates."""
    from simulators.demo.scenario import BadScenario, Scenario

    try:
        scenario = Scenario(
            hours=hours,
            hour_s=hour_s,
            edges=edges,
            change_after=change_after,
            parts_per_hour=parts,
            seed=seed,
            label_by_hand=label_by_hand,
        )
    except BadScenario as fault:
        _fail(str(fault), USAGE)
    if json_file:
        _refuse_unwritable(json_file)
    _interrupt_on_sigterm()
    try:
        code = _run(scenario, _options(work, port, fresh=fresh), stay=not leave, json_file=json_file)
    except KeyboardInterrupt:
        _fail("interrupted; every process it started is stopped", INTERRUPTED)
    raise typer.Exit(code)


def _interrupt_on_sigterm() -> None:
    """SIGTERM ends the run as Ctrl-C does: through every clean-up on the way."""

    def interrupt(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _options(work: Path, port: int | None, *, fresh: bool) -> Options:
    import os
    from datetime import UTC, datetime

    from simulators.demo.run import Options

    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    folder = work.resolve() / "demo" / name
    try:
        folder.mkdir(parents=True)
    except OSError as fault:
        _fail(f"cannot write to {work}: {fault.strerror}; choose another folder with --work")
    return Options(work=folder, cache=work.resolve() / "cache", port=port, fresh=fresh)


def _run(scenario: Scenario, options: Options, *, stay: bool, json_file: str | None) -> int:
    from rich.console import Console

    from models.runtime.bundle import BadBundle
    from ota.errors import OtaError
    from simulators.cells import NoCells
    from simulators.demo.run import Demo
    from simulators.demo.screen import Screen
    from simulators.servers.children import Servers
    from simulators.servers.errors import DiskFull, ServerError

    to_stdout = json_file == "-"
    progress = Console(stderr=True)
    out = sys.stderr if to_stdout else sys.stdout
    screen = Screen(progress=progress, results=Console(file=out, width=None if out.isatty() else PAPER_WIDTH))
    try:
        with Servers(options.work / "logs") as servers:
            outcome = Demo(scenario, options, servers=servers, screen=screen).run()
            screen.results(outcome.figures, outcome.checks)
            if json_file is not None:
                _write_json(outcome, json_file)
            if stay and sys.stdin.isatty() and screen.is_terminal:
                _stay(servers, screen, outcome)
    except (ServerError, NoCells, BadBundle, OtaError) as fault:
        _fail(f"{fault} (logs: {options.work / 'logs'})")
    except OSError as fault:
        if fault.errno == 28:  # ENOSPC
            _fail(str(DiskFull(f"the disk of {options.work} is full: make room or choose another folder with --work")))
        raise
    return 0 if outcome.ok else FAILED


def _stay(servers: Any, screen: Any, outcome: Outcome) -> None:
    """Until Ctrl-C, which here is the regular end."""
    import time

    screen.say(f"still running: {outcome.sign_in} (Ctrl-C stops everything)")
    try:
        while True:
            servers.check()
            time.sleep(1)
    except KeyboardInterrupt:
        screen.say("stopping")


def _write_json(outcome: Outcome, target: str) -> None:
    from dataclasses import asdict

    document = outcome.figures.document()
    document["checks"] = [asdict(check) for check in outcome.checks]
    document["ok"] = outcome.ok
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text)
    except OSError as fault:
        print(f"edgeloop demo: {target}: {fault.strerror}; the figures follow on stdout", file=sys.stderr)
        sys.stdout.write(text)


def _refuse_unwritable(target: str) -> None:
    """Said before the run and not after it."""
    folder = Path(target).resolve().parent
    if target and target != "-" and not (folder.is_dir() and os.access(folder, os.W_OK)):
        print(f"edgeloop demo: --json {target}: {folder} is no folder that can be written to", file=sys.stderr)
        raise typer.Exit(2)
