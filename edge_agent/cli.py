"""``edgeloop agent``: run the daemon, look at it, check a box before it goes on the line.

Exit codes: 0 fine, 1 something is wrong, 2 configuration or command cannot be used, 8 the agent does not answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edge_agent.settings import AgentSettings, BadSettings, load
from models.stopping import stop_on_signals

USAGE, UNREACHABLE = 2, 8

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="The edge daemon: inspect, select, upload, update.",
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(no_args_is_help=True, help="Look at the configuration.")
app.add_typer(config_app, name="config")

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The agent's TOML file; EDGELOOP__SECTION__KEY overrides it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DEFAULT_CONFIG = Path("/etc/edgeloop/agent.toml")


def _settings(config: Path) -> AgentSettings:
    try:
        return load(config)
    except BadSettings as fault:
        _fail(str(fault))


def _fail(message: str, code: int = USAGE) -> NoReturn:
    print(f"edgeloop agent: {message}", file=sys.stderr)
    raise typer.Exit(code)


@app.command()
def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the daemon until SIGTERM or SIGINT; both end it in order, with exit code 0."""
    settings = _settings(config)
    from edge_agent import logs
    from edge_agent.app import Agent
    from edge_agent.identity import BadIdentity
    from edge_agent.spool import SpoolBusy
    from edge_agent.spool.index import IndexFault

    logs.configure(edge=settings.agent.edge, line=settings.agent.line)
    stop = stop_on_signals()
    try:
        agent = Agent(settings)
    except (BadSettings, BadIdentity, SpoolBusy) as fault:
        _fail(str(fault))
    except (OSError, IndexFault) as fault:
        _fail(f"{settings.agent.state_dir}: {fault}", code=1)
    agent.run(stop)


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """What the running agent says of itself, from its local status page."""
    settings = _settings(config)
    if settings.status.port == 0:
        _fail("the status page is off; set [status] port in the configuration and restart the agent")
    from urllib.error import URLError
    from urllib.request import urlopen

    from edge_agent.status import flat

    url = f"http://{settings.status.host}:{settings.status.port}/status.json"
    try:
        with urlopen(url, timeout=5) as reply:
            values = json.load(reply)
    except (URLError, TimeoutError, ValueError) as fault:
        _fail(f"no answer at {url}: {fault}; is the agent running?", code=UNREACHABLE)
    if as_json:
        print(json.dumps(values, indent=1))
        return
    rows = flat(values)
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {'-' if value is None else value}")


@app.command()
def flag(
    serial: Annotated[str, typer.Option(help="The part's serial.")],
    reason: Annotated[str, typer.Option(help="What was wrong with the verdict.")],
    claimed: Annotated[str | None, typer.Option(help="What the part really is, by class name.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the agent's answer.")] = 5.0,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Tell the agent that a part was judged wrongly; it is kept if it was among the last ones.

    Exit code 1 when the agent does not know the part. Without an answer the flag waits for the agent.
    """
    settings = _settings(config)
    from pydantic import ValidationError

    from edge_agent.flags import FlagInbox, FlagRequest

    try:
        request = FlagRequest(serial=serial, reason=reason, claimed=claimed)
        answer = FlagInbox(settings.agent.state_dir / "flags").ask(request, within_s=wait)
    except ValidationError as fault:
        first = fault.errors()[0]
        _fail(f"--{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}")
    except OSError as fault:
        _fail(f"{settings.agent.state_dir / 'flags'}: {fault.strerror or fault}", code=1)
    what = f"{reason} (claimed: {claimed})" if claimed else reason
    if answer is None:
        print(f"part {serial} is noted as: {what}; the agent has not answered yet and takes the note when it runs")
    elif answer.sid is None:
        _fail(
            f"part {serial} is unknown: it is not among the last parts inspected here, or could not be kept. The flag "
            "goes to the cloud without an image; check the serial",
            code=1,
        )
    else:
        print(f"part {serial} is flagged: {what}; its image is kept as sample {answer.sid}")


@app.command()
def doctor(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Check this box: identity, trust root, disk, broker, repository, cameras. Exit code 1 if anything fails."""
    settings = _settings(config)
    from edge_agent.doctor import examine

    findings = examine(settings)
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.detail}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@config_app.command("show")
def show(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """The settings in force: the file, overridden by the environment, completed by defaults."""
    print(_settings(config).model_dump_json(indent=1))
