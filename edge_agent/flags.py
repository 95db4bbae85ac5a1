"""An operator's "this one was wrong" at the box: a small JSON file in the inbox folder, written by any HMI or by
``edgeloop agent flag``, taken by the agent within a second. Files, because they outlive both programs' restarts.

Who wants to know what became of it lays ``<name>.answer`` beside ``<name>.json``: the agent writes there what it found.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from models.contracts.base import Malformed, Message, Text, decode
from models.disk import write_atomic

MAX_BYTES = 4096
LOOK_EVERY_S = 0.1
_log = structlog.get_logger("flags")


class FlagRequest(Message):
    """Which part, why, and what the operator says it is."""

    serial: Text
    reason: Text
    claimed: Text | None = None


class FlagAnswer(Message):
    """What the agent did: the sample the part is kept as, or None when it knows no such part or could not keep it."""

    sid: Text | None = None


class FlagInbox:
    """The folder ``flags`` in the agent's state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def post(self, request: FlagRequest) -> None:
        """Leave a request for the agent.

        Raises:
            OSError: it could not be written.
        """
        self._post(secrets.token_hex(8), request)

    def _post(self, name: str, request: FlagRequest) -> None:
        write_atomic(self._folder / f"{name}.json", request.encode())

    def ask(
        self, request: FlagRequest, *, within_s: float, mono: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> FlagAnswer | None:  # fmt: skip
        """Leave a request and wait for what the agent says; None when it says nothing in time, and the request stays.

        Raises:
            OSError: it could not be written.
        """
        name = secrets.token_hex(8)
        slip, deadline = self._folder / f"{name}.answer", mono() + within_s
        try:
            slip.touch()
            self._post(name, request)
            while not (answer := slip.read_bytes()) and mono() < deadline:
                sleep(LOOK_EVERY_S)
        finally:
            slip.unlink(missing_ok=True)
        return decode(FlagAnswer, answer, limit=MAX_BYTES) if answer else None

    def done(self, path: Path, *, sid: str | None) -> None:
        """A waiting request is recorded: forget it, and answer who waits.

        Raises:
            OSError: it could not be removed, or answered.
        """
        path.unlink(missing_ok=True)
        slip = path.with_suffix(".answer")
        if slip.exists():
            write_atomic(slip, FlagAnswer(sid=sid).encode())

    def waiting(self) -> list[tuple[Path, FlagRequest]]:
        """Requests not yet done; one that cannot be read is removed with a log line. `done` when done."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append((path, decode(FlagRequest, path.read_bytes(), limit=MAX_BYTES)))
            except Malformed as fault:
                _log.error("a flag cannot be read and was removed", file=path.name, why=str(fault))
                path.unlink(missing_ok=True)
        return found
