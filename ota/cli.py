"""``edgeloop ota``: keys, the release server, releases and rollouts.

Commands that work on local folders are here; those that ask the cloud are in `ota.console.cli`. Code is imported
inside the commands, so that help stays fast. Exit codes are `ota.console.exits.Exit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ota.console import cli as console_cli
from ota.console.options import Json

if TYPE_CHECKING:
    from ota.keys import KeyFolder

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    help="Sign, release, watch and roll back.",
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(no_args_is_help=True, help="Signing keys.")
app.add_typer(keys_app, name="keys")
app.add_typer(console_cli.release_app, name="release")
app.add_typer(console_cli.rollout_app, name="rollout")
app.add_typer(console_cli.device_app, name="device")
app.command("rollback")(console_cli.rollback)
app.command("history")(console_cli.history)

PASSPHRASE_ENV = "EDGELOOP_OTA_PASSPHRASE"  # noqa: S105 - the variable's name
Folder = Annotated[Path, typer.Option("--folder", "-f", help="The key folder.")]
Repository = Annotated[Path, typer.Option("--repository", "-r", help="The folder with metadata/ and targets/.")]
DUE_SHARE = 0.25


@app.command()
def serve(
    repository: Repository,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8090,
) -> None:
    """Serve a repository's files until SIGTERM. Needs no key."""
    from ota.console.exits import Exit, Failed
    from ota.console.terminal import faults
    from ota.server import serve as run

    with faults():
        if not (repository / "metadata" / "timestamp.json").is_file():
            raise Failed(f"{repository} is no release repository: it has no metadata/timestamp.json", Exit.USAGE)
        run(repository, host=host, port=port)


@keys_app.command("ceremony")
def keys_ceremony(
    ctx: typer.Context,
    *,
    folder: Folder,
    line: Annotated[list[str], typer.Option("--line", "-l", help="A line to serve; may be given several times.")],
    repository: Annotated[
        Path | None, typer.Option("--repository", "-r", help="Also make the signed, empty repository here.")
    ] = None,
    as_json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made and make nothing.")] = False,
) -> None:
    """Make every key of a new plant. Then move offline/ to sticks in a safe: no service needs it."""
    from ota.console.terminal import emit, faults
    from ota.keys import OFFLINE_ROLES, ONLINE_ROLES, ceremony, inventory

    with faults(), _expected():
        lines = _lines(line)
        if dry_run:
            plan = {"folder": str(folder), "lines": lines, "offline": OFFLINE_ROLES, "online": ONLINE_ROLES}
            text = f"dry run, nothing made: keys for {', '.join(OFFLINE_ROLES + ONLINE_ROLES)} in {folder}"
            emit("dry_run", {"plan": plan}, text, as_json=as_json)
            return
        keys = ceremony(folder, lines=lines, passphrase=_passphrase(ctx))
        if repository is not None:
            _create_repository(repository, keys, lines)
        text = f"keys made in {folder}; move {folder / 'offline'} to a safe place now"
        emit("keys", {"keys": inventory(folder)}, text, as_json=as_json)


@keys_app.command("status")
def keys_status(folder: Folder, as_json: Json = False) -> None:
    """Which keys exist, by role, and whether their files are here and private. Needs no passphrase."""
    from ota.console.exits import Exit, Failed
    from ota.console.terminal import emit, faults, table
    from ota.keys import INVENTORY, inventory

    with faults(), _expected():
        if not (folder / INVENTORY).is_file():
            raise Failed(
                f"no keys in {folder}: it has no {INVENTORY}; correct --folder or run edgeloop ota keys ceremony",
                Exit.NOT_FOUND,
            )
        rows = [
            {"role": role, "keyid": key["keyid"], "file": key["file"], "state": _key_state(folder / key["file"])}
            for role, keys in inventory(folder)["roles"].items()
            for key in keys
        ]
        text = table(
            ("role", "key", "file", "state"), [(r["role"], r["keyid"][:12], r["file"], r["state"]) for r in rows]
        )
        emit("keys_status", {"keys": rows}, text, as_json=as_json)
        if any(row["state"] == "readable by others" for row in rows):
            raise typer.Exit(1)


@app.command()
def doctor(ctx: typer.Context, repository: Repository, as_json: Json = False) -> None:
    """Days until each role's metadata expires. Exit code 1 when one has expired: boxes no longer update then."""
    from ota.console.terminal import Console, emit, faults, table
    from ota.repository import ReleaseRepository

    console = ctx.obj if isinstance(ctx.obj, Console) else Console()
    with faults(), _expected():
        expiries = ReleaseRepository(repository, now=console.now).expiries()
        rows = [_expiry_row(role, expires, console.now()) for role, expires in sorted(expiries.items())]
        text = table(
            ("role", "expires", "days", "state"), [(r["role"], r["expires"], r["days"], r["state"]) for r in rows]
        )
        emit("doctor", {"roles": rows}, text, as_json=as_json)
        if any(row["state"] == "expired" for row in rows):
            raise typer.Exit(1)


def _expiry_row(role: str, expires: datetime, now: datetime) -> dict[str, Any]:
    from ota.publish.roles import policy_of

    left = expires - now
    days = round(left.total_seconds() / 86400, 2)
    state = "expired" if left.total_seconds() <= 0 else "ok"
    if state == "ok" and left < policy_of(role).lifetime * DUE_SHARE:
        state = "due"
    return {
        "role": role,
        "expires": expires.isoformat(),
        "days": days,
        "state": state,
    }


@contextmanager
def _expected() -> Iterator[None]:
    """Faults of signing as one line with the exit code of a conflict or of something missing."""
    from ota.console.exits import Exit, Failed
    from ota.errors import NotPublished, OtaError

    try:
        yield
    except NotPublished as fault:
        raise Failed(str(fault), Exit.NOT_FOUND) from fault
    except OtaError as fault:
        raise Failed(str(fault), Exit.CONFLICT) from fault
    except OSError as fault:
        why = fault.strerror or str(fault) or type(fault).__name__
        raise Failed(why if fault.filename is None else f"{fault.filename}: {why}", Exit.ERROR) from fault


def _lines(names: list[str]) -> list[str]:
    from pydantic import TypeAdapter, ValidationError

    from models.contracts.base import Identifier
    from ota.console.exits import Exit, Failed

    try:
        return list(dict.fromkeys(TypeAdapter(list[Identifier]).validate_python(names)))
    except ValidationError as fault:
        raise Failed(f"a line's name has lower-case letters, digits and dashes: {names}", Exit.USAGE) from fault


def _passphrase(ctx: typer.Context) -> str:
    import os
    import sys
    from getpass import getpass

    from ota.console.exits import Exit, Failed
    from ota.console.terminal import Console

    console = ctx.obj if isinstance(ctx.obj, Console) else Console()
    given = os.environ.get(PASSPHRASE_ENV)
    if given:
        return given
    if not console.interactive():
        raise Failed(f"no passphrase and no terminal to ask: set {PASSPHRASE_ENV}", Exit.CONFLICT)
    first = getpass("Passphrase for the offline keys: ", stream=sys.stderr)
    if first != getpass("Once more: ", stream=sys.stderr):
        raise Failed("the two passphrases differ: nothing was made", Exit.CONFLICT)
    return first


def _create_repository(repository: Path, keys: KeyFolder, lines: list[str]) -> None:
    from ota.repository import ReleaseRepository

    ReleaseRepository(repository, now=lambda: datetime.now(UTC)).create(keys, lines)


def _key_state(path: Path) -> str:
    if not path.exists():
        return "elsewhere"
    return "readable by others" if path.stat().st_mode & 0o077 else "here"
