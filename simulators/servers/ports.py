"""Ports on loopback: free ones, taken ones, and waiting until one answers.

A free port is only known to be free at the moment of asking. All ports of a run are asked for at once, so they differ,
and a server that still loses the race ends with "address in use", which `Servers` turns into one clear line.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from random import Random

from simulators.servers.errors import PortInUse, ServerError

LOOPBACK = "127.0.0.1"
LOWEST, HIGHEST = 20_000, 32_700
"""Below Linux's ephemeral range (32,768 and up), so no outgoing connection takes a port between asking and use."""
HIGHEST_PORT = 65_535
MAX_TRIES = 2_000


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def require_free(port: int, what: str) -> int:
    """`port` itself.

    Raises:
        PortInUse: something listens there.
    """
    if not is_free(port):
        raise PortInUse(f"port {port} for the {what} is in use: stop what listens there, or choose another port")
    return port


def free_ports(count: int, *, rng: Random | None = None, above: int = 0) -> list[int]:
    """`count` different free ports.

    Args:
        above: each port plus this offset must be free too (0: no such wish).

    Raises:
        ServerError: none found after `MAX_TRIES` tries.
    """
    rng = rng or Random()
    found: list[int] = []
    with ExitStack() as held:
        for _ in range(MAX_TRIES):
            if len(found) == count:
                return found
            port = rng.randint(LOWEST, HIGHEST)
            if port + above > HIGHEST_PORT:
                continue
            probes = [held.enter_context(socket.socket()) for _ in range(2 if above else 1)]
            try:
                for probe, offset in zip(probes, (0, above), strict=False):
                    probe.bind((LOOPBACK, port + offset))
            except OSError:
                continue
            found.append(port)
    raise ServerError(f"no {count} free ports on {LOOPBACK} between {LOWEST} and {HIGHEST}")


def answers(port: int, *, host: str = LOOPBACK, timeout: float = 0.3) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return True
    except OSError:
        return False
