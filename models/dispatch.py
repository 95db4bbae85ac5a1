"""The `edgeloop` command: finds the roles that are installed and loads only the one that is asked for.

A role registers a Typer application in the entry-point group ``edgeloop.commands``. A role whose extra is not
installed is listed too, and calling it says which extra to install.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version

GROUP = "edgeloop.commands"
SUMMARIES = {
    "agent": "the edge daemon: cameras, inspection, uplink, updates",
    "bench": "measurements of the loop, printed as tables",
    "cloud": "the cloud service: ingest, labels, training jobs, dashboard",
    "demo": "the whole loop on this machine, on real solar cells",
    "models": "build, train, check and measure models",
    "ota": "sign, release, watch and roll back",
    "simulate": "stand-ins: cameras, reviewer, plant",
}
EXTRAS = {"agent": "edge", "cloud": "cloud", "ota": "ota", "models": "trainer"}
ROOMS = frozenset({"cloud", "edge_agent", "models", "ota", "simulators"})
USAGE_ERROR = 2


def _usage(commands: dict[str, EntryPoint]) -> str:
    width = max(map(len, commands), default=0)
    rows = [f"  {name:<{width}}  {SUMMARIES.get(name, '')}".rstrip() for name in sorted(commands)]
    return "\n".join(
        ["Usage: edgeloop [--version] COMMAND ...", "", "Commands:", *rows, "", "edgeloop COMMAND --help says more."]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``edgeloop COMMAND ...``; returns the exit code (2 for a usage error)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {point.name: point for point in entry_points(group=GROUP)}
    if arguments[:1] == ["--version"]:
        print(f"edgeloop {version('edgeloop')}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage(commands))
        return 0
    name, *rest = arguments
    if name not in commands:
        print(f"edgeloop: no command {name!r}\n\n{_usage(commands)}", file=sys.stderr)
        return USAGE_ERROR
    return run(name, rest, point=commands[name])


def run(name: str, arguments: Sequence[str], *, point: EntryPoint | None = None) -> int:
    """Load one role and run it with `arguments`.

    A role imports its code inside its sub-commands, so a missing extra shows at either moment.
    """
    point = point or next(iter(entry_points(group=GROUP, name=name)))
    try:
        application = point.load()
        application(args=list(arguments), prog_name=f"edgeloop {name}")
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in ROOMS:
            raise  # a file of ours is missing: no extra brings it
        print(
            f"edgeloop {name}: the Python package {missing.name!r} is not installed.\n"
            f"Install this role with: pip install 'edgeloop[{EXTRAS.get(name, 'demo')}]'",
            file=sys.stderr,
        )
        return 1
    except SystemExit as finished:
        return finished.code if isinstance(finished.code, int) else int(finished.code is not None)
    return 0


def ota() -> int:
    """The script ``ota``: the same command as ``edgeloop ota``."""
    return run("ota", sys.argv[1:])


def agent() -> int:
    """The script ``edge-agent``: the same command as ``edgeloop agent``."""
    return run("agent", sys.argv[1:])
