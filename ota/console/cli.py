"""Commands that ask the cloud: release, rollout, rollback, device, history.

The cloud decides and audits; here are the question, the confirmation, the output and the exit code. A dry run reads
what the real one would act on, prints it and stops at the point where the real one would send its request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ota.console.options import DEFAULT_URL, DryRun, Json, Line, Reason, Release, Token, Url, Yes

if TYPE_CHECKING:
    from ota.console.api import CloudApi
    from ota.console.terminal import Console

release_app = typer.Typer(no_args_is_help=True, help="Choose which approved model a line runs.")
rollout_app = typer.Typer(no_args_is_help=True, help="Watch and steer how a release spreads.")
device_app = typer.Typer(no_args_is_help=True, help="The boxes.")


@release_app.command("list")
def list_releases(
    ctx: typer.Context,
    *,
    line: Line,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: Json = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
) -> None:
    """The line's releases, newest first."""
    from ota.console import views
    from ota.console.terminal import emit

    with _asking(ctx, url, token) as (api, _):
        found = api.get("lines", line, "releases", limit=limit)
        emit("release_list", {"line": line, "releases": found}, views.releases(found), as_json=as_json)


@release_app.command("show")
def show_release(
    ctx: typer.Context, number: int, *, line: Line, url: Url = DEFAULT_URL, token: Token = None, as_json: Json = False
) -> None:
    """One release with every box of the line."""
    from ota.console import views
    from ota.console.terminal import emit

    with _asking(ctx, url, token) as (api, _):
        found = api.get("lines", line, "releases", number)
        emit("release", {"release": found}, views.release(found), as_json=as_json)


@release_app.command("create")
def create_release(
    ctx: typer.Context,
    *,
    line: Line,
    adapter: Annotated[int, typer.Option("--adapter", "-a", min=1, help="Adapter release to send out.")],
    reason: Reason,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: Json = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Send an accepted adapter release to a line. It spreads in waves: watch it with `rollout watch`."""
    from ota.console.exits import Exit, Failed

    with _asking(ctx, url, token) as (api, console):
        candidate = api.get("lines", line, "candidates", adapter)
        if candidate["state"] == "refused":
            raise Failed(f"the gate refused adapter release {adapter} of line {line}", Exit.GATE_REFUSED)
        plan = _plan(api, line, {"act": "release", "adapter_release": adapter, "bytes_per_box": candidate["size"]})
        text = f"Line {line}: send adapter release {adapter} ({candidate['size']} bytes) to {_names(plan)}."
        if _dry(plan, text, dry_run=dry_run, as_json=as_json):
            return
        console.confirm(line, text, yes=yes)
        made = api.post("lines", line, "releases", body={"adapter_release": adapter, "reason": reason})
        _made(made, as_json=as_json)


def rollback(
    ctx: typer.Context,
    *,
    line: Line,
    to: Annotated[int, typer.Option("--to", min=1, help="Adapter release to go back to.")],
    reason: Reason,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: Json = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Send a line back to an adapter release it ran before. Boxes that still have it download nothing."""
    with _asking(ctx, url, token) as (api, console):
        api.get("lines", line, "candidates", to)
        plan = _plan(api, line, {"act": "rollback", "adapter_release": to})
        text = f"Line {line}: back to adapter release {to} on {_names(plan)}."
        if _dry(plan, text, dry_run=dry_run, as_json=as_json):
            return
        console.confirm(line, text, yes=yes)
        made = api.post("lines", line, "rollback", body={"to": to, "reason": reason})
        _made(made, as_json=as_json)


@rollout_app.command("status")
def rollout_status(
    ctx: typer.Context,
    *,
    line: Line,
    release: Release = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Where every box is with a release. Exit code 6 when boxes failed or the release was stopped."""
    from ota.console import views
    from ota.console.exits import Exit
    from ota.console.terminal import emit

    with _asking(ctx, url, token) as (api, _):
        found = api.get("lines", line, "releases", _number(api, line, release))
        emit("rollout", {"release": found}, views.release(found), as_json=as_json)
        _exit(views.outcome(found) or Exit.OK)


@rollout_app.command("watch")
def rollout_watch(
    ctx: typer.Context,
    *,
    line: Line,
    release: Release = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: Json = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between looks.")] = 2.0,
    timeout: Annotated[float, typer.Option(min=0, help="Give up after so many seconds with exit code 8.")] = 3600.0,
) -> None:
    """Follow a release until it ends. With --json one document a line, whenever something changed."""
    from ota.console import views
    from ota.console.exits import Exit, Failed
    from ota.console.terminal import emit

    with _asking(ctx, url, token) as (api, console):
        number, deadline, last = _number(api, line, release), console.monotonic() + timeout, None
        while True:
            found = api.get("lines", line, "releases", number)
            if found != last:
                text = (
                    f"release {number}: {views.state(found)}, {views.totals(found['totals'])}; {found['waiting_for']}"
                )
                emit("rollout", {"release": found}, text, as_json=as_json)
            last, ended = found, views.outcome(found)
            if ended is not None:
                _exit(ended)
                return
            if console.monotonic() >= deadline:
                raise Failed(f"release {number} is still {views.state(found)} after {timeout:g} s", Exit.UNREACHABLE)
            console.sleep(interval)


def _act(name: Literal["pause", "resume", "abort"], *, asks: bool) -> None:
    @rollout_app.command(name, help=_ACTS[name])
    def act(
        ctx: typer.Context,
        *,
        line: Line,
        reason: Reason,
        release: Release = None,
        url: Url = DEFAULT_URL,
        token: Token = None,
        as_json: Json = False,
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> None:
        with _asking(ctx, url, token) as (api, console):
            number = _number(api, line, release)
            plan = _plan(api, line, {"act": name, "release": number})
            text = f"Line {line}: {name} release {number}."
            if _dry(plan, text, dry_run=dry_run, as_json=as_json):
                return
            console.confirm(line, text, yes=yes or not asks)
            _made(api.post("lines", line, "releases", number, name, body={"reason": reason}), as_json=as_json)


_ACTS = {
    "pause": "Hold a release: no further box takes it. Asks nothing, since holding harms nothing.",
    "resume": "Let a held release go on.",
    "abort": "Stop a release for good; boxes that took it are sent back.",
}
_act("pause", asks=False)
_act("resume", asks=False)
_act("abort", asks=True)


@device_app.command("list")
def list_devices(
    ctx: typer.Context,
    line: Annotated[str | None, typer.Option("--line", "-l", help="Only this line's boxes.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Every box with its newest word."""
    from ota.console import views
    from ota.console.terminal import emit

    with _asking(ctx, url, token) as (api, _):
        found = api.get("fleet", line=line)
        document = {"as_of": found["as_of"], "devices": found["edges"]}
        emit("device_list", document, views.fleet(found), as_json=as_json)


def history(
    ctx: typer.Context,
    *,
    line: Line,
    at: Annotated[datetime | None, typer.Option("--at", help="Only the release in force at that UTC time.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """What ran when on a line."""
    from datetime import UTC

    from ota.console import views
    from ota.console.exits import Exit, Failed
    from ota.console.terminal import emit

    with _asking(ctx, url, token) as (api, _):
        found = api.get("lines", line, "releases", limit=1000)
        if at is not None:
            chosen = views.in_force(found, at if at.tzinfo else at.replace(tzinfo=UTC))
            if chosen is None:
                raise Failed(f"line {line} had no release at {at}", Exit.NOT_FOUND)
            found = [chosen]
        emit("history", {"line": line, "releases": found}, views.releases(found), as_json=as_json)


@contextmanager
def _asking(ctx: typer.Context, url: str, token: str | None) -> Iterator[tuple[CloudApi, Console]]:
    from ota.console.api import CloudApi
    from ota.console.terminal import Console, faults

    console = ctx.obj if isinstance(ctx.obj, Console) else Console()
    with faults(), CloudApi(url, token, transport=console.transport) as api:
        yield api, console


def _number(api: CloudApi, line: str, release: int | None) -> int:
    from ota.console.exits import Exit, Failed

    if release is not None:
        return release
    found = api.get("lines", line, "releases", limit=1)
    if not found:
        raise Failed(f"line {line} has no release yet", Exit.NOT_FOUND)
    return int(found[0]["number"])


def _plan(api: CloudApi, line: str, act: dict[str, Any]) -> dict[str, Any]:
    """What an act is about to touch: the boxes by name, and what runs now."""
    newest = api.get("lines", line, "releases", limit=1)
    edges = sorted(edge["name"] for edge in api.get("fleet", line=line)["edges"])
    return {"line": line, **act, "devices": edges, "replaces": newest[0]["number"] if newest else None}


def _names(plan: dict[str, Any]) -> str:
    devices = plan["devices"]
    shown = ", ".join(devices[:5]) + (f" and {len(devices) - 5} more" if len(devices) > 5 else "")
    return f"{len(devices)} boxes ({shown})" if devices else "no box yet"


def _dry(plan: dict[str, Any], text: str, *, dry_run: bool, as_json: bool) -> bool:
    from ota.console.terminal import emit

    if dry_run:
        emit("dry_run", {"plan": plan}, f"dry run, nothing changed\n{text}", as_json=as_json)
    return dry_run


def _made(made: dict[str, Any], *, as_json: bool) -> None:
    from ota.console import views
    from ota.console.terminal import emit

    emit("release", {"release": made}, views.release(made), as_json=as_json)


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(int(code))
