"""Options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

from typing import Annotated

import typer

Url = Annotated[
    str, typer.Option("--url", envvar="EDGELOOP_URL", help="The cloud's address, such as https://cloud.plant:8443.")
]
Token = Annotated[
    str | None, typer.Option("--token", envvar="EDGELOOP_TOKEN", help="Bearer token; better given by the environment.")
]
Line = Annotated[str, typer.Option("--line", "-l", help="The line's name.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, with its schema version.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; for scripts.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit log.")]
Release = Annotated[int | None, typer.Option("--release", "-r", min=1, help="Release number; the newest by default.")]

DEFAULT_URL = "http://127.0.0.1:8080"
