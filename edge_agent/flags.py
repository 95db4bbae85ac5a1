"""An operator's "this one was wrong" at the box: a small JSON file in the inbox folder, written by any HMI or by
``edgeloop agent flag``, taken by the agent within a second. Files, because they outlive both programs' restarts.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import structlog

from models.contracts.base import Malformed, Message, Text, decode
from models.disk import write_atomic

MAX_BYTES = 4096
_log = structlog.get_logger("flags")


class FlagRequest(Message):
    """Which part, why, and what the operator says it is."""

    serial: Text
    reason: Text
    claimed: Text | None = None


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
        write_atomic(self._folder / f"{secrets.token_hex(8)}.json", request.encode())

    def waiting(self) -> list[tuple[Path, FlagRequest]]:
        """Requests not yet done; one that cannot be read is removed with a log line. `path.unlink` when done."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append((path, decode(FlagRequest, path.read_bytes(), limit=MAX_BYTES)))
            except Malformed as fault:
                _log.error("a flag cannot be read and was removed", file=path.name, why=str(fault))
                path.unlink(missing_ok=True)
        return found
