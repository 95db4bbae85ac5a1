"""What the commands of `edgeloop models` share: how they speak and how they end."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
NAME = r"[a-z0-9](?:[a-z0-9-]{0,50}[a-z0-9])?"
"""Names of lines and of base families."""


def fail(message: str, code: int = 1) -> NoReturn:
    """One line on stderr, and the exit code."""
    print(f"edgeloop models: {message}", file=sys.stderr)
    raise typer.Exit(code)


def say(text: str) -> None:
    """Progress, for a person: stderr."""
    print(text, file=sys.stderr, flush=True)


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers from 1 on between commas; ends the command on anything else."""
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = (0,)
    if any(not 1 <= number <= 1024 for number in found):
        fail(f"{option} {text!r}: write whole numbers from 1 on, separated by commas", 2)
    return found
