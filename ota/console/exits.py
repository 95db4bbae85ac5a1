"""Exit codes of every `edgeloop ota` command, and the fault that carries one. They are for ever: scripts read them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the calling script should do next."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    GATE_REFUSED = 5
    ROLLED_BACK = 6
    AUTH = 7
    UNREACHABLE = 8
    INTERRUPTED = 130


class Failed(Exception):
    """Ends a command with one line on stderr and an exit code."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code
