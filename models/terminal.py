"""What the commands of `edgeloop models` share: how they speak and how they end."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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


def numbers(text: str, option: str, *, empty: bool = False) -> tuple[int, ...]:
    """Whole numbers from 1 on between commas, none only for the empty text and where `empty` allows it; ends the
    command on anything else."""
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = (0,)
    lacking = not found and not (empty and not text)
    if lacking or any(not 1 <= number <= 1024 for number in found):
        fail(f"{option} {text!r}: write whole numbers from 1 on, separated by commas", 2)
    return found


def check_out(out: Path) -> None:
    """Ends the command where no folder of that name can be made, before hours of work are lost to it."""
    if os.path.lexists(out):
        fail(f"{out} exists already: choose another --out", 2)
    above = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        fail(f"--out {out}: {above} is no folder: choose another --out", 2)
    if not os.access(above, os.W_OK | os.X_OK):
        fail(f"--out {out}: {above} cannot be written to: choose another --out", 2)


@contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block ends; after a failure nothing is left of it.

    Everybody may read the result: `mkdtemp` and safetensors make things for their owner alone.
    """
    made = [folder for folder in out.absolute().parents if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield part
        for path in part.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        part.chmod(0o755)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part)
        for folder in made:
            with suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise


def read_prompt(path: Path | None, default: str) -> str:
    """The text of `--prompt`; ends the command, naming the file, where it cannot be read."""
    if path is None:
        return default
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        fail(f"--prompt {path} is not UTF-8: {fault.reason} at byte {fault.start}; save it as UTF-8", 2)
    except OSError as fault:
        fail(f"--prompt {path} cannot be read: {fault.strerror or fault}", 2)
