"""What the line does with a verdict: the port to the reject gate, and the journal.

A reject output must answer in time; the pipeline counts its failures and goes on. A plant's PLC
adapter is one more class with `signal`; UNSURE is signalled like any verdict and the plant decides where it goes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any, Protocol

import structlog

from models.contracts.sample import Verdict

_log = structlog.get_logger("line")


class RejectOutput(Protocol):
    """Where verdicts go, in time to act on the part."""

    def signal(self, serial: str, verdict: Verdict) -> None:
        """Tell the line. Raises `OSError` when it cannot be reached."""
        ...


class LoggedOutput:
    """No actuator: every verdict but PASS is a log line, and the newest verdict can be asked for."""

    def __init__(self) -> None:
        self.last: tuple[str, Verdict] | None = None

    def signal(self, serial: str, verdict: Verdict) -> None:
        self.last = (serial, verdict)
        if verdict is not Verdict.PASS:
            _log.info("part", serial=serial, verdict=verdict.value)


class Journal(Protocol):
    """A record of every part."""

    def write(self, row: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class NoJournal:
    """Keeps nothing."""

    def write(self, row: dict[str, Any]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class FileJournal:
    """JSON lines, one part each, handed to the system line by line. After a crash it continues on a new line."""

    def __init__(self, path: Path) -> None:
        """Raises: OSError: the file cannot be opened for appending."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a", encoding="utf-8", buffering=1)
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()
