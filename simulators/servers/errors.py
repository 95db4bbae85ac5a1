"""What can go wrong when a server starts or runs, one line each, cut by what a person does next."""

from __future__ import annotations


class ServerError(RuntimeError):
    """A server is not there. The text is one line that says what to do next."""


class PortInUse(ServerError):
    """Choose another port, or stop what listens there."""


class ProgramMissing(ServerError):
    """Install what the text names."""


class DiskFull(ServerError):
    """Make room, or choose another folder."""


class ServerDied(ServerError):
    """A child process ended on its own; the text quotes its last line and names its log."""


class NotReady(ServerError):
    """A child process runs but does not answer in time."""
