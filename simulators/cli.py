"""``edgeloop simulate``: stand-ins for what a plant has and a desk has not: cameras and a reviewer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from models.stopping import stop_on_signals

app = typer.Typer(
    no_args_is_help=True,
    help="Stand-ins for what a plant has and a desk has not: cameras, a reviewer.",
    pretty_exceptions_enable=False,
)
USAGE = 2


def _fail(text: str, code: int = 1) -> typer.Exit:
    typer.echo(f"edgeloop simulate: {text}", err=True)
    return typer.Exit(code)


@app.command()
def reviewer(
    *,
    line: Annotated[str, typer.Option(help="The line whose queue is worked through.")],
    truth: Annotated[Path, typer.Option(help='JSON lines with "serial" and "label" of every part.')],
    classes: Annotated[str, typer.Option(help="Every class name of the line, separated by commas.")],
    url: Annotated[str, typer.Option(envvar="EDGELOOP_URL", help="The cloud.")] = "http://127.0.0.1:8080",
    token: Annotated[str, typer.Option(envvar="EDGELOOP_TOKEN", help="A token with the role labeller.")] = "",
    mistakes: Annotated[float, typer.Option(min=0, max=0.5, help="Probability of a wrong name.")] = 0.02,
    delay_s: Annotated[float, typer.Option(min=0, help="Seconds a sample waits.")] = 60.0,
    per_hour: Annotated[int, typer.Option(min=0, help="Labels an hour.")] = 300,
    hour_s: Annotated[float, typer.Option(min=1, help="Seconds of an hour.")] = 3600.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides which parts are judged wrongly.")] = 0,
) -> None:
    """Label what waits in the review queue, with delay, a limit and mistakes, until stopped."""
    import sys

    import structlog

    from simulators.demo.schedule import read_truth
    from simulators.reviewer import HttpReview, Reviewer, ReviewLoop, ReviewRefused

    if not token:
        raise _fail("no token: pass --token or set EDGELOOP_TOKEN (edgeloop cloud token create makes one)", USAGE)
    names = [name.strip() for name in classes.split(",") if name.strip()]
    if len(names) < 2:
        raise _fail("--classes needs at least two names, as in --classes good,defective", USAGE)
    try:
        labels = read_truth(truth)
    except (OSError, ValueError) as fault:
        raise _fail(str(fault), USAGE) from fault
    structlog.configure(
        processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer()],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    one = Reviewer(labels, names, mistakes=mistakes, delay_s=delay_s, per_hour=per_hour, hour_s=hour_s, seed=seed)
    api = HttpReview(url, token=token)
    loop = ReviewLoop(api, one, line)
    try:
        loop.run(stop_on_signals())
    except ReviewRefused as fault:
        raise _fail(str(fault)) from fault
    finally:
        api.close()
        typer.echo(f"{loop.labels} labels given", err=True)


@app.command()
def camera(
    *,
    images: Annotated[Path, typer.Option(help="Folder of images to show, in order of their names.")],
    into: Annotated[Path, typer.Option(help="Folder of a folder camera; made if missing.")],
    every_s: Annotated[float, typer.Option(min=0.01, help="Seconds between two parts.")] = 1.0,
    count: Annotated[int, typer.Option(min=0, help="Parts to show; 0 goes on until stopped.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Decides pose, gain and blur.")] = 0,
) -> None:
    """Show images as a line camera would: one part at a time, each a little moved, lit and blurred."""
    from simulators.belt import NoImages, run_belt

    try:
        shown = run_belt(images, into, every_s=every_s, count=count, seed=seed, stop=stop_on_signals())
    except NoImages as fault:
        raise _fail(str(fault), USAGE) from fault
    typer.echo(f"{shown} parts shown", err=True)
