"""Serving the application with uvicorn on a socket that is bound first, so a port in use is one clear line.

Requests are not logged by uvicorn: sign-in links carry a token in their address.
"""

from __future__ import annotations

import socket
import threading

import structlog
import uvicorn
from fastapi import FastAPI

GRACE_S = 5
log = structlog.get_logger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        OSError: saying what to do.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as fault:
        raise OSError(f"cannot listen on {host}:{port} ({fault.strerror}): choose another --port") from fault


def serve(app: FastAPI, listener: socket.socket, stop: threading.Event) -> None:
    """Serve until `stop`; streams are cut after a few seconds, other requests end."""
    config = uvicorn.Config(
        app, access_log=False, log_config=None, timeout_graceful_shutdown=GRACE_S, server_header=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web", daemon=True)
    thread.start()
    host, port = listener.getsockname()[:2]
    log.info("listening", host=host, port=port, url=f"http://{host}:{port}")
    while not stop.wait(0.2):
        if not thread.is_alive():
            raise OSError("the web server ended by itself; see the log above")
    server.should_exit = True
    thread.join(GRACE_S + 10)
