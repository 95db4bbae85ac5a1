"""What the console prints and asks. Data on stdout, everything else on stderr; a prompt only on a real terminal.

`Console` is also the seam of the tests: transport, sleep and "is somebody there" are its fields.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ota.console.exits import Exit, Failed

if TYPE_CHECKING:
    import httpx

SCHEMA_VERSION = 1


def _somebody_there() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


@dataclass
class Console:
    """How a command meets the world; tests pass their own through Typer's context object."""

    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    interactive: Callable[[], bool] = _somebody_there

    def confirm(self, line: str, act: str, *, yes: bool) -> None:
        """Let the operator type the line's name.

        Raises:
            Failed: CONFLICT, another name was typed, or nobody is there to ask and ``--yes`` was not given.
        """
        if yes:
            return
        if not self.interactive():
            raise Failed(f"{act} needs a confirmation and there is no terminal: add --yes", Exit.CONFLICT)
        print(f"{act}\nType the line's name ({line}) to go on: ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip() != line:
            raise Failed("that is not the line's name: nothing was changed", Exit.CONFLICT)


@contextmanager
def faults() -> Iterator[None]:
    """One clear line on stderr and the right exit code; anything unexpected keeps its traceback."""
    try:
        yield
    except Failed as failed:
        print(f"edgeloop ota: {failed}", file=sys.stderr)
        raise SystemExit(int(failed.code)) from failed
    except KeyboardInterrupt as interrupt:
        raise SystemExit(int(Exit.INTERRUPTED)) from interrupt


def emit(kind: str, document: dict[str, Any], text: str, *, as_json: bool) -> None:
    """One document on stdout: JSON with its schema version, or text for a person."""
    if as_json:
        text = json.dumps({"schema_version": SCHEMA_VERSION, "kind": kind, **document}, ensure_ascii=False)
    print(text, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns padded to their widest cell; no colour, so NO_COLOR holds anyway."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def moment(microseconds: int | None) -> str:
    """UTC text of a time in microseconds since 1970; a dash for none."""
    if microseconds is None:
        return "-"
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
